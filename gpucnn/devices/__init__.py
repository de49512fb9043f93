"""Backends by name: ``get_backend("auto" | "cpu" | "gpu" | "gpu:1" | "reference")``."""

from gpucnn.backend import REFERENCE, Backend
from gpucnn.devices.cores import thread_count
from gpucnn.errors import DeviceError, UsageError

NAMES = ("auto", "cpu", "gpu", "gpu:N", "reference")


def get_backend(name: str = "auto", *, threads: int | None = None) -> Backend:
    """The backend of this name; ``auto`` is the first GPU where one is usable, else the CPU.

    Args:
        threads: on how many threads, eight at most, the CPU's kernels run in this process, which changes no result;
            0 for all cores that it may use.  Where it was never given those are used.

    Raises:
        UsageError: no such name, or no such number of threads.
        DeviceError: a GPU was asked for and cannot be used; the message says why and what to do.
    """
    if threads is not None:
        from gpucnn.devices import cpu

        cpu.set_threads(thread_count(threads, "threads ="))
    kind, _, number = str(name).partition(":")
    if name == "reference":
        return REFERENCE
    if name == "cpu":
        from gpucnn.devices.cpu import cpu_backend

        return cpu_backend()
    if name == "auto":
        return get_backend("gpu" if gpu_problem() is None else "cpu")
    if kind == "gpu" and (not number or number.isdecimal()) and name != "gpu:":
        index = int(number or 0)
        if problem := gpu_problem(index):
            raise DeviceError(problem)
        from gpucnn.devices.gpu import gpu_backend

        return gpu_backend(index)
    raise UsageError(f"device {name!r}: give one of {', '.join(NAMES)}")


def gpu_problem(index: int = 0) -> str | None:
    """Why GPU number ``index`` cannot be used, with the remedy, in one line; None where it can."""
    from gpucnn.devices import gpu

    return gpu.problem(index)
