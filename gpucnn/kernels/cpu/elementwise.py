"""Maps over all elements: one pass, no temporaries, into memory that was used before.

Kernels and gradients that are bound by memory; tanh, sigmoid and SiLU stay with NumPy, whose exponentials are
vectorised; GELU has a file of its own (``gelu.py``).
"""

import numpy as np

from gpucnn.kernels.arguments import same_shape
from gpucnn.kernels.cpu.arguments import float32_arrays, float32_where
from gpucnn.kernels.cpu.engine.allocator import empty, streams
from gpucnn.kernels.cpu.engine.compile import jit
from gpucnn.kernels.cpu.engine.simd import LANES, above_zero, fill, load, positive, put
from gpucnn.kernels.cpu.engine.threads import SHARDS, parallel
from gpucnn.types import Array


@jit
def _bounds(size, first, last):
    """Elements of shards first .. last-1, cut at multiples of a vector."""
    vectors = size // LANES
    start, stop = LANES * (vectors * first // SHARDS), LANES * (vectors * last // SHARDS)
    return start, stop if last < SHARDS else size


@jit
def _relu(first, last, x, slope, past, y):
    start, stop = _bounds(x.size, first, last)
    source, target, factor = x.ctypes.data, y.ctypes.data, fill(slope)
    for i in range(start, stop - LANES + 1, LANES):
        v = load(source, i)
        v = positive(v) if slope == 0 else above_zero(v, v - factor * v) + factor * v
        put(target, i, v, past)
    for i in range(stop - (stop - start) % LANES, stop):
        below = slope * x[i] if slope else np.float32(0)
        y[i] = below if x[i] < 0 else x[i]


@jit
def _relu_grad(first, last, dy, x, slope, past, dx):
    start, stop = _bounds(x.size, first, last)
    source, grad, target, factor = x.ctypes.data, dy.ctypes.data, dx.ctypes.data, fill(slope)
    for i in range(start, stop - LANES + 1, LANES):
        d = load(grad, i)
        d = above_zero(load(source, i), d - factor * d) + factor * d
        put(target, i, d, past)
    for i in range(stop - (stop - start) % LANES, stop):
        dx[i] = dy[i] if x[i] > 0 else slope * dy[i]


@jit
def _add(first, last, a, b, relu, past, y):
    start, stop = _bounds(a.size, first, last)
    one, two, target = a.ctypes.data, b.ctypes.data, y.ctypes.data
    for i in range(start, stop - LANES + 1, LANES):
        v = load(one, i) + load(two, i)
        if relu:
            v = positive(v)
        put(target, i, v, past)
    for i in range(stop - (stop - start) % LANES, stop):
        v = a[i] + b[i]
        y[i] = np.float32(0) if relu and v < 0 else v


accepts_one = float32_arrays
accepts_two = float32_where(same_shape)


def leaky_relu(x: Array, slope: float) -> Array:
    """x where x > 0, else slope x."""
    y = empty(x.shape)
    parallel(_relu, np.ravel(x), np.float32(slope), streams(y), y.reshape(-1), work=x.size)
    return y


def leaky_relu_grad(dy: Array, x: Array, slope: float) -> Array:
    """dy where x > 0, else slope dy."""
    dx = empty(x.shape)
    arrays = (np.ravel(dy), np.ravel(x), np.float32(slope))
    parallel(_relu_grad, *arrays, streams(dx), dx.reshape(-1), work=x.size)
    return dx


def relu(x: Array) -> Array:
    """max(x, 0)."""
    return leaky_relu(x, 0.0)


def relu_grad(dy: Array, x: Array) -> Array:
    """dy where x > 0, else 0."""
    return leaky_relu_grad(dy, x, 0.0)


def _sum(a: Array, b: Array, relu: bool) -> Array:
    y = empty(a.shape)
    parallel(_add, np.ravel(a), np.ravel(b), relu, streams(y), y.reshape(-1), work=a.size)
    return y


def add(a: Array, b: Array) -> Array:
    """The sum of two arrays of one shape."""
    return _sum(a, b, False)


def add_relu(a: Array, b: Array) -> Array:
    """The sum of two arrays of one shape, cut at 0."""
    return _sum(a, b, True)
