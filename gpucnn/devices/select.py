"""From what a user asks for, --device, --threads and --memory-limit, to a backend."""

import sys

from gpucnn.backend import Backend
from gpucnn.devices import get_backend, gpu_problem
from gpucnn.devices.cores import usable_cores
from gpucnn.devices.gpu_memory import MemoryLimit, memory_limit
from gpucnn.errors import DeviceError, UsageError, shown

MOST_THREADS = 1024


def choose_backend(device: str, strict: bool = False, threads: int = 0, limit: str = "") -> tuple[Backend, str]:
    """The backend asked for -> (backend, why it is another one, or "").

    Where no GPU can be used it is replaced by the CPU with one loud line, unless ``strict``.

    Args:
        limit: how much of a GPU's memory may be taken, as ``memory_limit`` reads it.

    Raises:
        DeviceError: there are GPUs, but not the one asked for; or there is none and that is an error.
    """
    bound = memory_limit(limit)
    set_threads(threads)
    reason = ""
    if device == "auto":
        reason = gpu_problem() or ""
        device = "cpu" if reason else "gpu"
    try:
        backend = get_backend(device)
    except DeviceError as error:
        if strict or gpu_problem() is None:  # a wrong number among GPUs that are there is a slip
            raise
        reason = str(error)
        line = f"gpucnn: WARNING: --device {device} was asked for, but {reason}; RUNNING ON THE CPU INSTEAD"
        print(line, file=sys.stderr)
        backend = get_backend("cpu")
    if bound != MemoryLimit() and not backend.synchronous:
        from gpucnn.devices import gpu

        gpu.limit_memory(bound)
    return backend, reason


def check_threads(threads: int) -> None:
    """Raises UsageError for a number of threads that no machine has."""
    if not 0 <= threads <= MOST_THREADS:
        asked = f"--threads {shown(threads)}: give at least 1, or 0 for all cores it may use"
        raise UsageError(f"{asked}, and at most {MOST_THREADS}")


def set_threads(threads: int) -> None:
    """Bound the CPU engine's threads; 0 means the cores that this process may use."""
    check_threads(threads)
    from gpucnn.devices import cpu

    cpu.set_threads(threads or usable_cores())
