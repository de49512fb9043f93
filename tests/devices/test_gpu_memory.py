"""Limits of a GPU's memory, and what is said when it is not enough: by errors made like CuPy's, without a GPU."""

from pathlib import Path

import pytest
from strict_cupy import OutOfMemoryError

from gpucnn.devices.gpu_memory import MemoryLimit, exhausted, gib, memory_explained, memory_limit
from gpucnn.errors import DeviceError, UsageError
from gpucnn.runs.config import Config


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("", MemoryLimit()),
        ("12", MemoryLimit(bytes=12 << 30)),
        ("0.5", MemoryLimit(bytes=1 << 29)),
        ("12 GiB", MemoryLimit(bytes=12 << 30)),
        ("80%", MemoryLimit(fraction=0.8)),
        ("100%", MemoryLimit(fraction=1.0)),
    ],
)
def test_a_limit_is_gib_or_a_share(text: str, limit: MemoryLimit) -> None:
    assert memory_limit(text) == limit
    assert Config().updated({"run": {"memory_limit": text}}).run.memory_limit == text


@pytest.mark.parametrize("text", ["0", "0%", "101%", "-3", "much", "12MB", "nan", "1e3"])
def test_any_other_limit_is_refused_with_the_remedy(text: str) -> None:
    with pytest.raises(UsageError, match=r"run\.memory_limit = .*80%"):
        Config().updated({"run": {"memory_limit": text}})


def test_what_cupy_and_cuda_raise_is_recognised() -> None:
    assert exhausted(OutOfMemoryError(3 << 29, 70 << 30)) == (
        "the GPU is out of memory: 1.50 GiB wanted beside 70.00 GiB in use"
    )
    assert exhausted(OutOfMemoryError(2048, 1 << 20, 1 << 20)) == (
        "the GPU is out of memory: 0.00 MiB wanted beside 1.00 MiB in use under a limit of 1.00 MiB"
    )
    for text in ("cudaErrorMemoryAllocation: out of memory", "CUDA_ERROR_OUT_OF_MEMORY", "CUBLAS_STATUS_ALLOC_FAILED"):
        assert exhausted(RuntimeError(text)) == f"the GPU is out of memory ({text})"
    wrapped = DeviceError("the step cannot be recorded")
    wrapped.__cause__ = OutOfMemoryError(1 << 30, 1 << 30)
    assert "1.00 GiB wanted beside 1.00 GiB in use" in exhausted(wrapped)
    for other in (MemoryError(), RuntimeError("cudaErrorIllegalAddress"), ValueError("memory")):
        assert exhausted(other) == ""
    assert gib(1 << 30) == "1.00 GiB"


def test_the_real_class_is_the_one_that_is_recognised() -> None:
    memory = pytest.importorskip("cupy.cuda.memory", reason="CuPy is not installed")
    assert "1.00 GiB wanted beside 3.00 MiB in use" in exhausted(memory.OutOfMemoryError(1 << 30, 3 << 20))
    assert "under a limit of 8.00 GiB" in exhausted(memory.OutOfMemoryError(1 << 30, 7 << 30, 8 << 30))


@pytest.mark.parametrize(("batch", "hint"), [(512, "use --batch-size 256 or less"), (1, "this GPU is too small")])
def test_the_message_names_the_batch_and_the_checkpoint(tmp_path: Path, batch: int, hint: str) -> None:
    checkpoint = tmp_path / "last.h5"
    for there in (False, True):
        with pytest.raises(DeviceError, match=hint) as caught, memory_explained(batch, checkpoint):
            raise OutOfMemoryError(1 << 30, 1 << 33)
        assert caught.value.exit_code == 6
        assert f"at batch size {batch}" in str(caught.value)
        assert (str(checkpoint) in str(caught.value)) == there
        assert isinstance(caught.value.__cause__, OutOfMemoryError)
        checkpoint.touch()


def test_other_errors_go_through(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), memory_explained(1, tmp_path / "last.h5"):
        raise ZeroDivisionError
