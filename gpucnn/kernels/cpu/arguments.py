"""What the CPU's kernels ask of their arguments: they read by address and must not be given anything else.

What they do not accept (float64 above all, empty arrays, shapes that an op broadcasts or refuses) runs on the
reference implementation.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from gpucnn.types import Array, Shape


def float32_arrays(*args: Any) -> bool:
    """Arrays among the arguments are float32 and not empty."""
    return all(arg.size and arg.dtype == np.float32 for arg in args if isinstance(arg, np.ndarray))


def float32_where(fit: Callable[..., bool]) -> Callable[..., bool]:
    """The rule for arguments whose arrays are float32, not empty, and fit together as ``fit(*arrays)`` says."""

    def accepts(*args: Any) -> bool:
        arrays = [arg for arg in args if isinstance(arg, np.ndarray)]
        return fit(*arrays) and float32_arrays(*arrays)

    return accepts


def weights_fit(x: Array, w: Array, *b: Array) -> bool:
    """Weights (F, ..., C) and perhaps a bias (F,) for x (N, ..., C)."""
    return x.ndim == w.ndim and x.shape[-1] == w.shape[-1] and all(bias.shape == w.shape[:1] for bias in b)


def filters_fit(dy: Array, w: Array) -> bool:
    """A gradient (..., F) of what weights w (F, ...) gave."""
    return bool(dy.shape[-1] == w.shape[0])


def examples_fit(dy: Array, x: Array) -> bool:
    """A gradient (N, ...) of as many examples as x (N, ...) has."""
    return bool(dy.shape[0] == x.shape[0])


def windows_fit(dy: Array, x: Array) -> bool:
    """The gradient (N,H',W',C) of windows of x (N,H,W,C)."""
    return bool(dy.ndim == x.ndim and dy.shape[::3] == x.shape[::3])


def within(numbers: Array, shape: Shape, bound: int) -> bool:
    """Integers of this shape, at least one of them, and all in 0 .. bound - 1."""
    counts = numbers.dtype.kind in "iu" and numbers.shape == shape and numbers.size > 0
    return bool(counts and numbers.min() >= 0 and numbers.max() < bound)
