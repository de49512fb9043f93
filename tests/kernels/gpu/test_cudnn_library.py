"""Opening cuDNN where parts of it are missing: one line with the reason and the remedy, and the op runs."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from fake_cudnn import Cudnn, aligned, install

from gpucnn.errors import DeviceError
from gpucnn.kernels.gpu.cudnn.geometry import FPROP, Geometry
from gpucnn.kernels.gpu.cudnn.library import Library, executions
from gpucnn.kernels.gpu.cudnn.options import Options


@pytest.fixture
def doubles(monkeypatch, tmp_path):
    return install(monkeypatch, tmp_path)


def no_library(monkeypatch) -> str:
    """cublasLt is missing: cuDNN would end the process at the first graph."""

    def load(name: str) -> None:
        if name == "cublasLt":
            raise RuntimeError("Failure finding libcublasLt.so: a page of text")

    monkeypatch.setitem(sys.modules, "cuda", SimpleNamespace(pathfinder=SimpleNamespace(load_nvidia_dynamic_lib=load)))
    return "CUDA's libcublasLt is not found: pip install"


def no_pathfinder(monkeypatch) -> str:
    monkeypatch.setitem(sys.modules, "cuda", None)
    return "cuda-pathfinder cannot be imported"


def no_frontend(monkeypatch) -> str:
    monkeypatch.setitem(sys.modules, "cudnn", None)
    return "the cuDNN frontend cannot be imported"


def no_handle(monkeypatch) -> str:
    def fail(self) -> int:
        raise RuntimeError("Unable to find symbol cudnnCreate\nmore")

    monkeypatch.setattr(Cudnn, "create_handle", fail)
    return "cuDNN gives no handle (Unable to find symbol cudnnCreate): pip install"


@pytest.mark.parametrize("harm", [no_library, no_pathfinder, no_frontend, no_handle])
def test_what_is_missing_is_said_once_with_its_remedy(doubles, monkeypatch, capsys, harm) -> None:
    reason = harm(monkeypatch)
    for _ in range(2):
        found = Library(Options()).current()
        assert isinstance(found, str)
        assert found.startswith(reason)
        assert "pip install 'gpucnn[cuda13]' or 'gpucnn[cuda12]'" in found
        assert "\n" not in found
    assert (
        capsys.readouterr().err == f"gpucnn: convolutions run on the reference implementation, without cuDNN: {found}\n"
    )
    with pytest.raises(DeviceError, match="pip install"):
        Library(Options()).plans()


def test_cuda_is_loaded_before_cudnn_looks_for_it(doubles, monkeypatch) -> None:
    loaded = []
    monkeypatch.setattr(sys.modules["cuda"].pathfinder, "load_nvidia_dynamic_lib", loaded.append)
    library = Library(Options())
    assert library.plans().handle == 77
    assert loaded == ["cudart", "cublasLt"]
    assert library.plans() is library.plans()
    assert loaded == ["cudart", "cublasLt"]


def test_each_gpu_has_plans_of_its_own(doubles, monkeypatch) -> None:
    _, cupy = doubles
    library = Library(Options())
    first = library.plans()
    monkeypatch.setattr(cupy.cuda.runtime, "getDevice", lambda: 1)
    second = library.plans()
    assert second is not first
    assert (first.device, second.device) == (0, 1)
    assert first.cache.environment.gpu == "Double 1"
    assert first.context is not second.context


def test_options_are_a_librarys_own_and_equal_ones_share_their_plans(doubles) -> None:
    plain, rounding, same = (Library(options) for options in (Options(), Options(tf32=True), Options()))
    assert plain.plans() is same.plans()
    assert rounding.plans() is not plain.plans()
    assert rounding.plans().context is plain.plans().context
    assert (plain.plans().options.tf32, rounding.plans().options.tf32) == (False, True)


def test_executions_are_counted_whoever_starts_them(doubles) -> None:
    array = aligned(np.ones((1, 1, 8, 8), np.float32))
    geometry = Geometry(FPROP, array.shape, (8, 1, 1, 8), (1, 1), ((0, 0), (0, 0)), array.dtype)
    before = executions()
    for options in (Options(), Options(tf32=True), Options()):
        Library(options).compute(geometry, (array, array.reshape(8, 1, 1, 8)))
    assert executions() - before == 3
