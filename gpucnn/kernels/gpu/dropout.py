"""Dropout: Philox in registers, the same integers as ``gpucnn.random``."""

from typing import Any

import numpy as np

from gpucnn.kernels.gpu.compile import TYPES, Module
from gpucnn.kernels.gpu.launch import aligned, ceil_div, contiguous, empty, launch, line_of, number
from gpucnn.types import Array

MODULE = Module("dropout.cu", [f"dropout<{storage}, {wide}>" for storage in TYPES.values() for wide in (4, 1)])
MASK = 0xFFFFFFFF
PER_BLOCK = 4  # words of a Philox block, one an element


def dropout(x: Array, rate: float, seed: int, stream: int, step: Any) -> Array:
    """X keep / (1 - rate); ``step`` is a number or a 0-d int64 array on the device."""
    x = contiguous(x)
    y = empty(x.shape, x.dtype)
    wide = PER_BLOCK if aligned(PER_BLOCK * x.itemsize, x, y) else 1
    share = (np.float32(rate), np.float32(1.0 / (1.0 - rate)))
    key = (np.uint32(seed & MASK), np.uint32(seed >> 32 & MASK), np.uint32(stream & MASK))
    grid = line_of(ceil_div(x.size, PER_BLOCK))
    name = f"dropout<{TYPES[x.dtype.name]}, {wide}>"
    launch(MODULE, name, grid, x, np.int64(x.size), *share, *key, *number(step, np.int64), y)
    return y
