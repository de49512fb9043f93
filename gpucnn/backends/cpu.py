"""The CPU: NumPy, and the table of what runs faster than its plain array code."""

import numpy as np
from threadpoolctl import threadpool_limits

from gpucnn.backend import Backend


def cpu_backend() -> Backend:
    """NumPy."""
    return Backend("cpu", np)


def set_threads(threads: int) -> None:
    """How many threads the CPU's ops may use in this process."""
    threadpool_limits(threads)
