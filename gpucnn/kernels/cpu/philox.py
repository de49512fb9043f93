"""Philox4x32-10 in registers: the words of ``gpucnn.random``."""

import numpy as np

from gpucnn.kernels.cpu.engine.compile import jit

MASK = 0xFFFFFFFF


def key_of(seed: int) -> tuple[np.uint64, np.uint64]:
    """The two words of a seed, the lower one first; of a step likewise."""
    return np.uint64(seed & MASK), np.uint64((seed >> 32) & MASK)


@jit
def philox(c0, c1, c2, c3, k0, k1):
    """The four words of a counter, all uint64 with values below 2**32."""
    mask = np.uint64(0xFFFFFFFF)
    half = np.uint64(32)
    for _ in range(10):
        p0 = c0 * np.uint64(0xD2511F53)
        p1 = c2 * np.uint64(0xCD9E8D57)
        c0, c1, c2, c3 = (p1 >> half) ^ c1 ^ k0, p1 & mask, (p0 >> half) ^ c3 ^ k1, p0 & mask
        k0 = (k0 + np.uint64(0x9E3779B9)) & mask
        k1 = (k1 + np.uint64(0xBB67AE85)) & mask
    return c0, c1, c2, c3
