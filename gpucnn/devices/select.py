"""From what a user asks for, --device, --threads and --memory-limit, to a backend."""

from gpucnn.backend import Backend
from gpucnn.devices import get_backend, gpu_problem
from gpucnn.devices.cores import thread_count
from gpucnn.devices.gpu_memory import MemoryLimit, memory_limit
from gpucnn.errors import DeviceError
from gpucnn.terminal import tell


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
        tell(f"WARNING: --device {device} was asked for, but {reason}; RUNNING ON THE CPU INSTEAD")
        backend = get_backend("cpu")
    if bound != MemoryLimit() and not backend.synchronous:
        from gpucnn.devices import gpu

        gpu.limit_memory(bound)
    return backend, reason


def set_threads(threads: int) -> None:
    """Bound the CPU engine's threads; 0 means the cores that this process may use."""
    count = thread_count(threads)
    from gpucnn.devices import cpu

    cpu.set_threads(count)
