"""GPUs by number, limits and full memory, as commands meet them: on a double of CuPy that has two GPUs."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import strict_cupy
from strict_cupy import OutOfMemoryError

from gpucnn.backend import Backend
from gpucnn.cli.main import main
from gpucnn.devices import get_backend, gpu
from gpucnn.devices.select import choose_backend
from gpucnn.errors import DeviceError
from gpucnn.kernels.gpu import device
from gpucnn.kernels.gpu.cudnn import library
from gpucnn.runs.environment import environment, stable_part
from gpucnn.training.trainer import Trainer


class Cupy:
    """What is asked of the module ``cupy`` before anything is computed: two GPUs, a driver, a memory pool."""

    __name__, __version__ = "cupy", "14"
    asnumpy = staticmethod(np.asarray)

    def __init__(self, count: int = 2) -> None:
        self.current, self.limits = 0, []
        properties = {
            "name": b"Double 1",
            "major": 9,
            "minor": 0,
            "multiProcessorCount": 132,
            "totalGlobalMem": 3 << 30,
        }
        runtime = SimpleNamespace(
            getDeviceCount=lambda: count,
            getDevice=lambda: self.current,
            getDeviceProperties=lambda index: properties,
            driverGetVersion=lambda: 13000,
            runtimeGetVersion=lambda: 12090,
        )
        self.cuda = SimpleNamespace(runtime=runtime, Device=lambda index: SimpleNamespace(use=lambda: self.use(index)))

    def use(self, index: int) -> None:
        self.current = index

    def get_default_memory_pool(self) -> SimpleNamespace:
        return SimpleNamespace(set_limit=lambda **limit: self.limits.append((self.current, limit)))


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Cupy:
    double = Cupy()
    monkeypatch.setitem(sys.modules, "cupy", double)
    monkeypatch.setattr(library, "_opened", dict.fromkeys((0, 1), "this test has no cuDNN"))
    return double


def test_each_gpu_is_taken_by_its_number(cupy: Cupy) -> None:
    for name, index in (("gpu", 0), ("gpu:1", 1), ("gpu:0", 0), ("auto", 0)):
        assert get_backend(name).name == f"gpu:{index}"
        assert cupy.current == index


def test_a_number_too_large_is_an_error_that_says_how_many_there_are(cupy: Cupy, capsys) -> None:
    assert main(["train", "--device", "gpu:2"]) == 6  # strict or not: there are GPUs, so the number is a slip
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "gpucnn: error: there is no GPU number 2: this machine has 2, counted from 0"


def test_without_any_gpu_a_number_falls_back_loudly(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "cupy", Cupy(count=0))
    backend, reason = choose_backend("gpu:1", limit="80%")
    assert backend.name == "cpu"
    assert "this machine has 0" in reason
    assert "RUNNING ON THE CPU" in capsys.readouterr().err
    with pytest.raises(DeviceError, match="this machine has 0"):
        choose_backend("gpu:1", strict=True)


@pytest.mark.parametrize(
    ("limit", "given"), [("2", {"size": 2 << 30}), ("25%", {"fraction": 0.25}), ("0.5 GiB", {"size": 1 << 29})]
)
def test_a_limit_is_set_on_the_gpu_that_is_used(cupy: Cupy, limit: str, given: dict) -> None:
    choose_backend("gpu:1", limit=limit)
    assert cupy.limits == [(1, given)]


def test_no_limit_leaves_the_pool_alone(cupy: Cupy) -> None:
    choose_backend("gpu")
    choose_backend("cpu", limit="2")
    assert cupy.limits == []


def test_the_limit_is_a_flag_and_a_setting(cupy: Cupy, capsys) -> None:
    for words in (["--memory-limit", "lots"], ["--set", "run.memory_limit=lots"]):
        assert main(["train", *words]) == 2
        assert "run.memory_limit = 'lots': give GiB" in capsys.readouterr().err


def test_the_record_names_gpu_driver_and_libraries(cupy: Cupy, monkeypatch, tmp_path: Path) -> None:
    version = tmp_path / "version"
    monkeypatch.setattr(device, "DRIVER", version)
    assert environment("gpu", "gpu:1")["gpu"]["driver"] is None
    for line in ("Kernel Module  580.65.06  Sun", "Open Kernel Module for x86_64  580.65.06  Release Build"):
        version.write_text(f"NVRM version: NVIDIA UNIX x86_64 {line}\nGCC version:  gcc version 12.2.0\n")
        about = environment("gpu", "gpu:1")
        assert about["gpu"] == {
            "name": "Double 1",
            "compute_capability": "9.0",
            "multiprocessors": 132,
            "memory_gib": 3.0,
            "driver": "580.65.06",
            "cuda_of_driver": "13.0",
            "cuda_runtime": "12.9",
            "cudnn": None,
            "cudnn_frontend": None,
            "convolutions": "im2col + cublas: this test has no cuDNN; few channels forward by stem.cu",
        }
    assert json.loads(json.dumps(about)) == about
    assert stable_part(about)["gpu"] == about["gpu"]
    assert "gpu" not in environment("gpu", "cpu")


def test_cudnn_is_in_the_record(cupy: Cupy, monkeypatch) -> None:
    from gpucnn.kernels.gpu.cudnn.plan_cache import Environment, PlanCache
    from gpucnn.kernels.gpu.cudnn.plans import Context

    cupy.cuda.alloc = None
    context = Context(None, 0, cupy.cuda, 0, PlanCache(Environment("Double 1", 91900, "1.23.0")))
    monkeypatch.setattr(library, "_opened", {0: context})
    found = gpu.about(0)
    assert (found["cudnn"], found["cudnn_frontend"]) == ("9.19.0", "1.23.0")
    assert "tf32=0 deterministic=1" in found["convolutions"]
    assert "tf32=1 deterministic=1" in gpu.about(0, tf32=True)["convolutions"]


def test_doctor_shows_the_gpu_and_its_libraries(cupy: Cupy, capsys) -> None:
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["auto"] == "gpu:0"
    assert found["device"]["name"] == "Double 1"
    assert main(["doctor"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "Double 1, compute capability 9.0, 132 multiprocessors, 3.0 GiB" in text
    assert "runtime 12.9; the driver can run 13.0" in text
    assert "im2col + cublas: this test has no cuDNN" in text


# -- full memory --------------------------------------------------------------------------------------


WORDS = ["train", "--device", "gpu", "--epochs", "3", "--set", "train.drop_last=true"]


@pytest.fixture
def small_gpu(cupy: Cupy, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A GPU that computes on the strict double, and has no memory left at the step that is put into the list."""
    backend = Backend("gpu:0", strict_cupy, {}, copy_to_host=strict_cupy.asnumpy, synchronous=False)
    monkeypatch.setattr(gpu, "gpu_backend", lambda index: backend)
    full: list[int] = []
    whole = Trainer.train_step

    def step(trainer: Trainer, x, labels) -> None:
        if trainer.clock.step in full:
            raise OutOfMemoryError(3 << 29, 70 << 30)
        whole(trainer, x, labels)

    monkeypatch.setattr(Trainer, "train_step", step)
    return full


def test_full_memory_is_one_line_and_loses_nothing(small_gpu: list[int], capsys, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    small = ["--model", "mlp", "--batch-size", "500"]  # two steps an epoch
    assert main([*WORDS, *small, "--output", str(whole)]) == 0
    capsys.readouterr()
    small_gpu.append(3)  # in the middle of the second epoch
    assert main([*WORDS, *small, "--output", str(cut)]) == 6
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        "gpucnn: error: the GPU is out of memory: 1.50 GiB wanted beside 70.00 GiB in use, at batch size 500: "
        f"use --batch-size 250 or less; the last checkpoint is safe: {cut / 'last.h5'}"
    )
    small_gpu.clear()
    assert main(["train", "--resume", str(cut)]) == 0
    assert (cut / "last.h5").read_bytes() == (whole / "last.h5").read_bytes()
    assert json.loads((cut / "env.json").read_text())["gpu"]["name"] == "Double 1"


def test_debug_shows_where_memory_ran_out(small_gpu: list[int], tmp_path: Path) -> None:
    small_gpu.append(0)
    with pytest.raises(DeviceError) as caught:
        main([*WORDS, "--model", "mlp", "--debug", "--output", str(tmp_path / "run")])
    assert isinstance(caught.value.__cause__, OutOfMemoryError)
    assert "safe" not in str(caught.value)


def test_other_commands_say_it_too(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    from gpucnn.cli import parity

    def full(args) -> int:
        raise OutOfMemoryError(1 << 30, 1 << 30)

    monkeypatch.setattr(parity, "run", full)
    assert main(["parity"]) == 6
    assert "1.00 GiB wanted beside 1.00 GiB in use" in capsys.readouterr().err

    def host(args) -> int:
        raise MemoryError

    monkeypatch.setattr(parity, "run", host)
    assert main(["parity"]) == 1
    assert "error: out of memory" in capsys.readouterr().err
