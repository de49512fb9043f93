"""Initial values of weights: pure functions of (shape, seed, stream), computed on the host in float64.

A weight is (F, C) or (F, KH, KW, C).  fan_in = KH KW C is how many inputs one output sums; fan_out = KH KW F.
"""

from math import prod, sqrt

import numpy as np

from gpucnn import random
from gpucnn.types import Array, Shape


def fans(shape: Shape) -> tuple[int, int]:
    """(fan_in, fan_out) of a weight (F, ..., C)."""
    return prod(shape[1:]), shape[0] * prod(shape[1:-1])


def he_normal(shape: Shape, seed: int, stream: int) -> Array:
    """N(0, 2 / fan_in): keeps the variance through ReLU (He et al., arXiv 1502.01852)."""
    return random.normal(shape, seed=seed, stream=stream) * sqrt(2.0 / fans(shape)[0])


def he_uniform(shape: Shape, seed: int, stream: int) -> Array:
    """U(-a, a) with a = sqrt(6 / fan_in): the variance of ``he_normal``."""
    return _symmetric(shape, seed, stream, sqrt(6.0 / fans(shape)[0]))


def xavier_normal(shape: Shape, seed: int, stream: int) -> Array:
    """N(0, 2 / (fan_in + fan_out)) (Glorot and Bengio, AISTATS 2010)."""
    return random.normal(shape, seed=seed, stream=stream) * sqrt(2.0 / sum(fans(shape)))


def xavier_uniform(shape: Shape, seed: int, stream: int) -> Array:
    """U(-a, a) with a = sqrt(6 / (fan_in + fan_out)): the variance of ``xavier_normal``."""
    return _symmetric(shape, seed, stream, sqrt(6.0 / sum(fans(shape))))


def lecun_normal(shape: Shape, seed: int, stream: int) -> Array:
    """N(0, 1 / fan_in) (LeCun et al., "Efficient BackProp", 1998)."""
    return random.normal(shape, seed=seed, stream=stream) * sqrt(1.0 / fans(shape)[0])


def lecun_uniform(shape: Shape, seed: int, stream: int) -> Array:
    """U(-a, a) with a = sqrt(3 / fan_in): the variance of ``lecun_normal``."""
    return _symmetric(shape, seed, stream, sqrt(3.0 / fans(shape)[0]))


def fan_in_uniform(shape: Shape, seed: int, stream: int) -> Array:
    """U(-a, a) with a = 1 / sqrt(fan_in): a third of the variance of ``lecun_uniform``."""
    return _symmetric(shape, seed, stream, sqrt(1.0 / fans(shape)[0]))


def unit_uniform(shape: Shape, seed: int, stream: int) -> Array:
    """U(-a, a) with a = sqrt(3): standard deviation 1, for a layer whose output is divided by its fan_in."""
    return _symmetric(shape, seed, stream, sqrt(3.0))


def dirac(shape: Shape, seed: int, stream: int) -> Array:
    """The identity as a convolution: filter f copies channel f.

    Filters beyond the number of input channels are those of ``fan_in_uniform``.
    """
    f, kh, kw, c = shape
    w = fan_in_uniform(shape, seed, stream)
    same = min(f, c)
    w[:same] = 0.0
    w[np.arange(same), (kh - 1) // 2, (kw - 1) // 2, np.arange(same)] = 1.0
    return w


def zeros(shape: Shape, seed: int, stream: int) -> Array:
    return np.zeros(shape)


def ones(shape: Shape, seed: int, stream: int) -> Array:
    return np.ones(shape)


def _symmetric(shape: Shape, seed: int, stream: int, bound: float) -> Array:
    """U(-bound, bound)."""
    return (2.0 * random.uniform(shape, seed=seed, stream=stream).astype(np.float64) - 1.0) * bound
