"""Dropout: Philox in registers, four elements at a time, the same integers as ``gpucnn.random``."""

import numpy as np

from gpucnn.kernels.cpu.arguments import float32_arrays
from gpucnn.kernels.cpu.engine.allocator import empty
from gpucnn.kernels.cpu.engine.compile import jit
from gpucnn.kernels.cpu.engine.threads import SHARDS, parallel
from gpucnn.kernels.cpu.philox import key_of, philox
from gpucnn.types import Array


@jit
def _dropout(first, last, x, rate, scale, key0, key1, stream, low, high, y):
    blocks = (x.size + 3) // 4
    for block in range(blocks * first // SHARDS, blocks * last // SHARDS):
        i = 4 * block
        for word in philox(np.uint64(block), stream, low, high, key0, key1):
            if i < x.size:
                u = np.float32(word >> np.uint64(8)) * np.float32(2.0**-24)
                y[i] = x[i] * scale if u >= rate else np.float32(0)
            i += 1


accepts = float32_arrays


def dropout(x: Array, rate: float, seed: int, stream: int, step: int) -> Array:
    """x keep / (1 - rate)."""
    y = empty(x.shape)
    words = (*key_of(seed), np.uint64(stream), *key_of(step))
    scale = np.float32(1.0 / (1.0 - rate))
    parallel(_dropout, np.ravel(x), np.float32(rate), scale, *words, y.reshape(-1), work=20 * x.size)
    return y
