"""Maps over all elements: one pass, no temporaries, into memory that was used before.

Kernels and gradients that are bound by memory; tanh, sigmoid, GELU and SiLU stay with NumPy, whose exponentials are
vectorised.
"""

import numpy as np

from gpucnn.kernels.cpu.compile import jit
from gpucnn.kernels.cpu.pool import empty
from gpucnn.kernels.cpu.threads import SHARDS, parallel
from gpucnn.typing import Array


@jit
def _relu(first, last, x, slope, y):
    for i in range(x.size * first // SHARDS, x.size * last // SHARDS):
        y[i] = x[i] if x[i] > 0 else slope * x[i]


@jit
def _relu_grad(first, last, dy, x, slope, dx):
    for i in range(x.size * first // SHARDS, x.size * last // SHARDS):
        dx[i] = dy[i] if x[i] > 0 else slope * dy[i]


@jit
def _add(first, last, a, b, y):
    for i in range(a.size * first // SHARDS, a.size * last // SHARDS):
        y[i] = a[i] + b[i]


def leaky_relu(x: Array, slope: float) -> Array:
    """X where x > 0, else slope x."""
    y = empty(x.shape)
    parallel(_relu, np.ravel(x), np.float32(slope), y.reshape(-1), work=x.size)
    return y


def leaky_relu_grad(dy: Array, x: Array, slope: float) -> Array:
    """Dy where x > 0, else slope dy."""
    dx = empty(x.shape)
    parallel(_relu_grad, np.ravel(dy), np.ravel(x), np.float32(slope), dx.reshape(-1), work=x.size)
    return dx


def relu(x: Array) -> Array:
    """Max(x, 0)."""
    return leaky_relu(x, 0.0)


def relu_grad(dy: Array, x: Array) -> Array:
    """Dy where x > 0, else 0."""
    return leaky_relu_grad(dy, x, 0.0)


def add(a: Array, b: Array) -> Array:
    """The sum of two arrays of one shape."""
    y = empty(a.shape)
    parallel(_add, np.ravel(a), np.ravel(b), y.reshape(-1), work=a.size)
    return y
