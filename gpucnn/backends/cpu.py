"""The CPU: NumPy, and the table of what runs faster than its plain array code."""

import numpy as np

from gpucnn.backend import Backend


def cpu_backend() -> Backend:
    """NumPy."""
    return Backend("cpu", np)
