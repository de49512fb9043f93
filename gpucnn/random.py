"""Counter-based random numbers: every number is a pure function of (seed, stream, step, element).

Randomness is stateless: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011)
encrypts a counter with a key.  So a checkpoint needs only the seed and the step to resume bit for bit, and every
backend draws the same integers.

    key     = (seed mod 2**32, seed div 2**32)
    counter = (element div 4, stream, step mod 2**32, step div 2**32)  ->  4 words, for elements 4k .. 4k+3
"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from types import ModuleType
from typing import Any

import numpy as np

from gpucnn.types import Array, Shape

ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)  # golden ratio and sqrt(3) - 1, in units of 2**-32
MASK = 0xFFFFFFFF


def stream_id(name: str) -> int:
    """The 32-bit number of a named stream, as ``stream_id("shuffle")``."""
    return zlib.crc32(name.encode())


def philox(counter: tuple[Array, Array, Array, Array], key: tuple[int, int]) -> tuple[Array, ...]:
    """Ten rounds of Philox4x32.  Words are uint64 arrays of values below 2**32; shapes broadcast."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        p0 = c0 * MULTIPLIERS[0]  # 32 x 32 bits fit into the 64 of the array
        p1 = c2 * MULTIPLIERS[1]
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & MASK, (p0 >> 32) ^ c3 ^ k1, p0 & MASK
        k0, k1 = (k0 + WEYL[0]) & MASK, (k1 + WEYL[1]) & MASK
    return c0, c1, c2, c3


def bits(shape: Shape, *, seed: int, stream: int, step: int = 0, xp: ModuleType = np) -> Array:
    """Uniform 32-bit integers: uint64 array of ``shape`` with values below 2**32."""
    member = xp.full(1, (step >> 32) & MASK, dtype=xp.uint64)
    return bits_each(member, prod(shape), seed=seed, stream=stream, step=step, xp=xp).reshape(shape)


def bits_each(members: Array, size: int, *, seed: int, stream: int, step: int = 0, xp: ModuleType = np) -> Array:
    """Random words for members 0 .. 2**32 - 1 of a set, whichever others are in the batch: uint64 (B, size).

    Member m gets ``bits((size,), step=step + 2**32 m)``; ``step`` is below 2**32.
    """
    block = xp.arange((size + 3) // 4, dtype=xp.uint64)  # (size / 4,)
    member = members.astype(xp.uint64, copy=False)[:, None]  # (B, 1)
    stream_word, low = xp.full_like(member, stream), xp.full_like(member, step & MASK)
    words = philox((block, stream_word, low, member), (seed & MASK, (seed >> 32) & MASK))  # 4 of (B, size / 4)
    return xp.stack(words, axis=2).reshape(len(members), -1)[:, :size]


def uniform(shape: Shape, *, seed: int, stream: int, step: int = 0, xp: ModuleType = np) -> Array:
    """Uniform float32 in [0, 1): the upper 24 bits, so that every value is exact."""
    words = bits(shape, seed=seed, stream=stream, step=step, xp=xp)
    return (words >> 8).astype(xp.float32) * 2.0**-24


def normal(shape: Shape, *, seed: int, stream: int, step: int = 0, xp: ModuleType = np) -> Array:
    """Standard normal float64 by Box and Muller: sqrt(-2 ln u1) cos(2 pi u2), with u1 in (0, 1]."""
    words = bits((2, *shape), seed=seed, stream=stream, step=step, xp=xp).astype(xp.float64) * 2.0**-32
    return xp.sqrt(-2.0 * xp.log(1.0 - words[0])) * xp.cos(2.0 * xp.pi * words[1])


def symmetric_beta(alpha: Array, u: Array, v: Array) -> Array:
    """Beta(alpha, alpha) in [0, 1] from two uniform numbers of [0, 1) each, float64, on the host; alpha > 0.

    Student's t with 2 alpha degrees of freedom, in Bailey's polar form (Math. Comp. 62, 1994), becomes the variable
    by  (1 + t / sqrt(2 alpha + t^2)) / 2  (Devroye, "Random variate generation in one line of code", 1996):

        w = (1 - u)^(1/alpha),  c = cos(2 pi v)  ->  (1 + c sqrt((1 - w) / (w + (1 - w) c^2))) / 2
    """
    logarithm = np.log1p(-u) / alpha
    w, rest = np.exp(logarithm), -np.expm1(logarithm)
    c = np.cos(2.0 * np.pi * v)  # never exactly 0 in float64, so the denominator is positive
    t = c * np.sqrt(rest / (w + rest * c * c))
    return 0.5 + 0.5 * np.clip(t, -1.0, 1.0)  # rounding may reach beyond


def integers(shape: Shape, bound: int, *, seed: int, stream: int, step: int = 0, xp: ModuleType = np) -> Array:
    """Uniform int32 in [0, bound), by multiplication: (word * bound) div 2**32."""
    words = bits(shape, seed=seed, stream=stream, step=step, xp=xp)
    return ((words * bound) >> 32).astype(xp.int32)


def permutation(n: int, *, seed: int, stream: int, step: int = 0, xp: ModuleType = np) -> Array:
    """A permutation of 0 .. n-1 as int64: the order of n random 64-bit keys."""
    high, low = bits((2, n), seed=seed, stream=stream, step=step, xp=xp)
    return xp.argsort((high << 32) | low)


@dataclass
class Clock:
    """The seed, and the training step that random numbers are drawn for.

    A trainer owns it and advances the step; the model's layers read it.

    Attributes:
        now: the step as random ops take it: a number, or int64 () on a device, which a CUDA graph reads at every
            replay.
    """

    seed: int = 0
    step: int = 0
    on_device: Array | None = None

    @property
    def now(self) -> Any:
        return self.step if self.on_device is None else self.on_device

    def tell_device(self, xp: ModuleType) -> Array:
        """Copy the step to the device, into the same array at every call; ``now`` is that array from then on."""
        if self.on_device is None:
            self.on_device = xp.zeros((), dtype=xp.int64)
        self.on_device[...] = self.step
        return self.on_device

    def state_dict(self) -> dict[str, int]:
        """The step, for a checkpoint."""
        return {"step": self.step}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Continue from a ``state_dict``."""
        self.step = state["step"]
