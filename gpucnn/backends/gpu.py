"""The GPU: CuPy, and the table of what runs faster than its plain array code."""

from collections.abc import Callable, Mapping
from typing import Any

from gpucnn.backend import Backend

KERNELS: Mapping[Callable[..., Any], Callable[..., Any]] = {}
"""op -> kernel.  Empty: every op runs on CuPy as it is written."""


def gpu_backend(index: int = 0) -> Backend:
    """CuPy on GPU number ``index``, which becomes the current one of this thread."""
    import cupy

    cupy.cuda.Device(index).use()
    return Backend(f"gpu:{index}", cupy, KERNELS, copy_to_host=cupy.asnumpy, synchronous=False)


def problem(index: int = 0) -> str | None:
    """Why this GPU cannot be used, and what to do; None where it can."""
    try:
        import cupy
    except Exception as error:  # a broken install may raise anything
        return f"CuPy cannot be imported ({first_line(error)}): pip install 'gpucnn[cuda13]' or 'gpucnn[cuda12]'"
    try:
        count = int(cupy.cuda.runtime.getDeviceCount())
    except Exception as error:  # CuPy raises its own classes, which exist only where it does
        return f"no usable CUDA driver or GPU ({first_line(error)}): see nvidia-smi"
    if index >= count:
        return f"there is no GPU number {index}: this machine has {count}, counted from 0"
    return None


def first_line(error: Exception) -> str:
    """Why, in one line: CuPy wraps what went wrong into a page of advice."""
    cause = error.__cause__ or error
    return (str(cause).strip().splitlines() or [type(cause).__name__])[0]
