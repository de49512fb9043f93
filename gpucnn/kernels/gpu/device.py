"""The GPU as a device: what it is, which libraries drive it, and how much of its memory CuPy may take."""

import re
from pathlib import Path
from typing import Any

from gpucnn.kernels.gpu.cudnn.conv2d import Convolutions
from gpucnn.kernels.gpu.cudnn.library import Library
from gpucnn.kernels.gpu.cudnn.options import Options

DRIVER = Path("/proc/driver/nvidia/version")


def about(index: int, options: Options) -> dict[str, Any]:
    """What a record of a run says about GPU number ``index``, the current one: names and versions, for JSON.

    ``convolutions`` is what computes them under these options, or why it is not cuDNN.
    """
    import cupy

    runtime = cupy.cuda.runtime
    properties = runtime.getDeviceProperties(index)
    library = Library(options)
    plans = library.current()
    libraries = None if isinstance(plans, str) else plans.cache.environment
    return {
        "name": properties["name"].decode(),
        "compute_capability": f"{properties['major']}.{properties['minor']}",
        "multiprocessors": int(properties["multiProcessorCount"]),
        "memory_gib": round(properties["totalGlobalMem"] / 2**30, 1),
        "driver": driver(),
        "cuda_of_driver": cuda_version(runtime.driverGetVersion()),
        "cuda_runtime": cuda_version(runtime.runtimeGetVersion()),
        "cudnn": cudnn_version(libraries.cudnn) if libraries else None,
        "cudnn_frontend": libraries.frontend if libraries else None,
        "convolutions": Convolutions(library).engine(),
    }


def limit_memory(size: int, fraction: float) -> None:
    """Let CuPy's pool take at most so many bytes of the current GPU, or this fraction of it; 0 and 0 lift the limit."""
    import cupy

    pool = cupy.get_default_memory_pool()
    if fraction:
        pool.set_limit(fraction=fraction)
    else:
        pool.set_limit(size=size)


def driver() -> str | None:
    """The driver's version as its kernel module tells it; None where it does not."""
    try:
        text = DRIVER.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    match = re.search(r"\b\d{3}\.\d+(?:\.\d+)?\b", text)
    return match[0] if match else None


def cuda_version(number: int) -> str:
    """12090 -> 12.9."""
    return f"{number // 1000}.{number % 1000 // 10}"


def cudnn_version(number: int) -> str:
    """91900 -> 9.19.0."""
    return f"{number // 10000}.{number // 100 % 100}.{number % 100}"
