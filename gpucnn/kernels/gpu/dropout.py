"""Dropout: Philox in registers, the same integers as ``gpucnn.random``."""

from typing import Any

import numpy as np

from gpucnn.kernels.gpu.arguments import on_host, scalar, storage
from gpucnn.kernels.gpu.compile import TYPES, Module
from gpucnn.kernels.gpu.launch import aligned, ceil_div, contiguous, empty, launch, line_of, number
from gpucnn.types import Array

MODULE = Module("dropout.cu", [f"dropout<{storage}, {wide}>" for storage in TYPES.values() for wide in (4, 1)])
MASK = 0xFFFFFFFF
ELEMENTS = 2**34
PER_BLOCK = 4  # words of a Philox block, one an element


def accepts(x: Array, rate: Any, seed: Any, stream: Any, step: Any) -> bool:
    """Fewer elements than the counters of a step reach; the step may lie on the device."""
    return storage(x) and on_host(rate, seed, stream) and scalar(step, np.int64) and x.size < ELEMENTS


def dropout(x: Array, rate: float, seed: int, stream: int, step: Any) -> Array:
    """x keep / (1 - rate); ``step`` is a number or a 0-d int64 array on the device."""
    x = contiguous(x)
    y = empty(x.shape, x.dtype)
    wide = PER_BLOCK if aligned(PER_BLOCK * x.itemsize, x, y) else 1
    scale = (np.float32(rate), np.float32(1.0 / (1.0 - rate)))
    key = (np.uint32(seed & MASK), np.uint32(seed >> 32 & MASK), np.uint32(stream & MASK))
    grid = line_of(ceil_div(x.size, PER_BLOCK))
    name = f"dropout<{TYPES[x.dtype.name]}, {wide}>"
    launch(MODULE, name, grid, x, np.int64(x.size), *scale, *key, *number(step, np.int64), y)
    return y
