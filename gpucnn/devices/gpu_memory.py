"""Memory of a GPU: how much of it a run may take, and what is said where that is not enough."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gpucnn.errors import DeviceError, UsageError, shown

GIB = 2**30
LIMIT = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*(%|GiB)?")

EXHAUSTED = ("cudaErrorMemoryAllocation", "CUDA_ERROR_OUT_OF_MEMORY", "_STATUS_ALLOC_FAILED")
"""What CUDA and its libraries call it; CuPy's own class is OutOfMemoryError."""


@dataclass(frozen=True)
class MemoryLimit:
    """What CuPy's memory pool may take of a GPU: so many bytes, or a fraction of all it has; both 0: everything."""

    bytes: int = 0
    fraction: float = 0.0


def memory_limit(text: str, name: str = "run.memory_limit", whose: str = "GPU's memory") -> MemoryLimit:
    """What a setting says: "12" and "12 GiB" are bytes, "80%" is a fraction, "" is no limit.

    Raises:
        UsageError: anything else.
    """
    if not text:
        return MemoryLimit()
    match = LIMIT.fullmatch(text.strip())
    number = float(match[1]) if match else 0.0
    percent = match is not None and match[2] == "%"
    if not 0.0 < number <= (100.0 if percent else float("inf")):
        raise UsageError(f"{name} = {shown(text)}: give GiB as in 12, or a fraction of the {whose} as in 80%")
    return MemoryLimit(fraction=number / 100.0) if percent else MemoryLimit(bytes=int(number * GIB))


def images_limit(text: str, free: int) -> int:
    """Bytes that a set of images may take where so many are free, by ``run.data_memory``; half of them if it is ""."""
    limit = memory_limit(text, "run.data_memory", "memory")
    return limit.bytes or int(free * (limit.fraction or 0.5))


def exhausted(error: BaseException) -> str:
    """What was too much for the GPU, with sizes where CuPy tells them; "" where this error is about something else."""
    if type(error.__cause__).__name__ == "OutOfMemoryError":
        error = error.__cause__ or error
    name, text = type(error).__name__, " ".join(str(error).split())
    if name != "OutOfMemoryError" and not any(word in text for word in EXHAUSTED):
        return ""
    sizes = vars(error)
    if not {"_size", "_total"} <= sizes.keys():
        return f"the GPU is out of memory ({text or name})"
    limit = sizes.get("_limit")
    bound = f" under a limit of {gib(limit)}" if limit else ""
    return f"the GPU is out of memory: {gib(sizes['_size'])} wanted beside {gib(sizes['_total'])} in use{bound}"


def gib(size: int) -> str:
    """Bytes, human-readable."""
    return f"{size / GIB:.2f} GiB" if size >= GIB // 100 else f"{size / 2**20:.2f} MiB"


@contextmanager
def memory_explained(batch_size: int, checkpoint: Path) -> Iterator[None]:
    """Let what is raised inside say, where it is about the GPU's memory, which batch size and which file to go on with.

    Args:
        checkpoint: the run's last one, if there is one by then.

    Raises:
        DeviceError: in place of what the GPU, CuPy or cuDNN raised.
    """
    try:
        yield
    except Exception as error:
        what = exhausted(error)
        if not what:
            raise
        smaller = f"use --batch-size {batch_size // 2} or less" if batch_size > 1 else "this GPU is too small for it"
        safe = f"; the last checkpoint is safe: {checkpoint}" if checkpoint.exists() else ""
        raise DeviceError(f"{what}, at batch size {batch_size}: {smaller}{safe}") from error
