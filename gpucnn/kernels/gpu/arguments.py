"""What the GPU's kernels ask of their arguments: they read by address and must not be given anything else.

Arrays that fit together are float32 or float16, of any strides.  What is not accepted (float64 above all, mixtures,
shapes that an op broadcasts or refuses) runs on the reference implementation, on CuPy.
"""

from math import prod
from typing import Any

import numpy as np

from gpucnn.kernels.arguments import per_channel, same_shape
from gpucnn.types import Array, Shape

PLACES = 2**31
"""Elements of an example, at most: a place within one is a 32-bit number, of examples and rows a 64-bit one."""


def is_array(value: Any) -> bool:
    """CuPy's ndarray, or NumPy's where tests run the kernels on the CPU."""
    return type(value).__name__ == "ndarray"


def on_host(*values: Any) -> bool:
    """Numbers that Python knows: reading one that lies on the device would wait for it."""
    return not any(map(is_array, values))


def scalar(value: Any, dtype: type[np.generic]) -> bool:
    """A number, or a 0-d array of this dtype on the device, which the kernel itself reads."""
    return not is_array(value) or (value.shape == () and value.dtype == dtype)


def storage(*arrays: Array) -> bool:
    """All float32 or all float16, not empty, and no example of more elements than ``PLACES``."""
    dtype = arrays[0].dtype
    return dtype in (np.float32, np.float16) and all(
        a.dtype == dtype and a.ndim and a.size and prod(a.shape[1:]) < PLACES for a in arrays
    )


def alike(first: Array, *others: Array) -> bool:
    """``storage`` of one shape."""
    return storage(first, *others) and same_shape(first, *others)


def channel_values(x: Array, *values: Array) -> bool:
    """Float32 values, one per channel of x, whatever x is stored in: statistics and parameters."""
    return per_channel(x, *values) and all(value.dtype == np.float32 for value in values)


def float32_shaped(*arrays: tuple[Array, Shape]) -> bool:
    """Float32 arrays of these shapes."""
    return all(array.dtype == np.float32 and array.shape == shape for array, shape in arrays)


def flat(w: Array, *others: Array) -> bool:
    """Float32 arrays of one shape; all but the second, the gradient, are contiguous, since they change in place."""
    in_place = all(a.flags.c_contiguous for a in (w, *others[1:]))
    return bool(alike(w, *others) and w.dtype == np.float32 and in_place)


def pixels(images: Array) -> bool:
    """uint8 (N,H,W,C), not empty."""
    return bool(images.dtype == np.uint8 and images.ndim == 4 and images.size and prod(images.shape[1:]) < PLACES)


def indices(index: Array) -> bool:
    """Integers (B,), at least one."""
    return bool(index.dtype.kind in "iu" and index.ndim == 1 and index.size)
