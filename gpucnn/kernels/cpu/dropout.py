"""Dropout: Philox in registers, four elements at a time, the same integers as ``gpucnn.random``."""

import numpy as np

from gpucnn.kernels.cpu.compile import jit
from gpucnn.kernels.cpu.pool import empty
from gpucnn.kernels.cpu.threads import SHARDS, parallel
from gpucnn.typing import Array

MASK = 0xFFFFFFFF


@jit
def _dropout(first, last, x, rate, scale, key0, key1, stream, low, high, y):
    mask = np.uint64(0xFFFFFFFF)
    half = np.uint64(32)
    blocks = (x.size + 3) // 4
    for block in range(blocks * first // SHARDS, blocks * last // SHARDS):
        c0, c1, c2, c3 = np.uint64(block), stream, low, high
        k0, k1 = key0, key1
        for _ in range(10):
            p0 = c0 * np.uint64(0xD2511F53)
            p1 = c2 * np.uint64(0xCD9E8D57)
            c0, c1, c2, c3 = (p1 >> half) ^ c1 ^ k0, p1 & mask, (p0 >> half) ^ c3 ^ k1, p0 & mask
            k0 = (k0 + np.uint64(0x9E3779B9)) & mask
            k1 = (k1 + np.uint64(0xBB67AE85)) & mask
        i = 4 * block
        for word in (c0, c1, c2, c3):
            if i < x.size:
                u = np.float32(word >> np.uint64(8)) * np.float32(2.0**-24)
                y[i] = x[i] * scale if u >= rate else np.float32(0)
            i += 1


def dropout(x: Array, rate: float, seed: int, stream: int, step: int) -> Array:
    """X keep / (1 - rate)."""
    y = empty(x.shape)
    words = (np.uint64(v & MASK) for v in (seed, seed >> 32, stream, step, step >> 32))
    scale = np.float32(1.0 / (1.0 - rate))
    parallel(_dropout, np.ravel(x), np.float32(rate), scale, *words, y.reshape(-1), work=20 * x.size)
    return y
