"""Maps over all elements: one pass, no temporaries, into memory that was used before.

Kernels and gradients that are bound by memory; tanh, sigmoid and SiLU stay with NumPy, whose exponentials are
vectorised; GELU has a file of its own (``gelu.py``).
"""

import numpy as np

from gpucnn.kernels.arguments import same_shape
from gpucnn.kernels.cpu.arguments import float32_arrays, float32_where
from gpucnn.kernels.cpu.engine.allocator import empty, streams
from gpucnn.kernels.cpu.engine.compile import jit
from gpucnn.kernels.cpu.engine.simd import LANES, above_zero, at_least, by_sign, fill, load, no_larger, positive, put
from gpucnn.kernels.cpu.engine.threads import SHARDS, parallel
from gpucnn.types import Array


@jit
def _bounds(size, first, last):
    """Elements of shards first .. last-1, cut at multiples of a vector."""
    vectors = size // LANES
    start, stop = LANES * (vectors * first // SHARDS), LANES * (vectors * last // SHARDS)
    return start, stop if last < SHARDS else size


@jit
def _relu(first, last, x, leaky, slope, past, y):
    start, stop = _bounds(x.size, first, last)
    source, target, factor = x.ctypes.data, y.ctypes.data, fill(slope)
    for i in range(start, stop - LANES + 1, LANES):
        v = load(source, i)
        put(target, i, by_sign(v, v, factor * v) if leaky else positive(v), past)
    for i in range(stop - (stop - start) % LANES, stop):
        below = slope * x[i] if leaky else np.float32(0)
        y[i] = below if x[i] < 0 else x[i]


@jit
def _relu_grad(first, last, dy, x, leaky, slope, past, dx):
    start, stop = _bounds(x.size, first, last)
    source, grad, target, factor = x.ctypes.data, dy.ctypes.data, dx.ctypes.data, fill(slope)
    for i in range(start, stop - LANES + 1, LANES):
        d, v = load(grad, i), load(source, i)
        put(target, i, by_sign(v, d, factor * d) if leaky else above_zero(v, d), past)
    for i in range(stop - (stop - start) % LANES, stop):
        below = slope * dy[i] if leaky else np.float32(0)
        dx[i] = dy[i] if x[i] > 0 else below


@jit
def _hardswish(first, last, x, y):
    start, stop = _bounds(x.size, first, last)
    sixth = np.float32(1 / 6)
    for i in range(start, stop):
        v = x[i]
        t = v + np.float32(3)
        t = np.float32(0) if t < 0 else t
        t = np.float32(6) if t > 6 else t
        y[i] = v * (t * sixth)


@jit
def _hardswish_grad(first, last, dy, x, dx):
    start, stop = _bounds(x.size, first, last)
    third, half = np.float32(1 / 3), np.float32(0.5)
    for i in range(start, stop):
        d, v = dy[i], x[i]
        inside = d * (v * third + half)
        dx[i] = d if v >= 3 else np.float32(0) if v <= -3 else inside


@jit
def _relu6(first, last, x, past, y):
    start, stop = _bounds(x.size, first, last)
    source, target, six = x.ctypes.data, y.ctypes.data, fill(np.float32(6))
    for i in range(start, stop - LANES + 1, LANES):
        put(target, i, no_larger(positive(load(source, i)), six), past)
    for i in range(stop - (stop - start) % LANES, stop):
        v = np.float32(0) if x[i] < 0 else x[i]
        y[i] = np.float32(6) if v > 6 else v


@jit
def _relu6_grad(first, last, dy, x, past, dx):
    start, stop = _bounds(x.size, first, last)
    source, grad, target = x.ctypes.data, dy.ctypes.data, dx.ctypes.data
    six, none = fill(np.float32(6)), fill(np.float32(0))
    for i in range(start, stop - LANES + 1, LANES):
        v = load(source, i)
        put(target, i, at_least(v, six, none, above_zero(v, load(grad, i))), past)
    for i in range(stop - (stop - start) % LANES, stop):
        dx[i] = dy[i] if (x[i] > 0) & (x[i] < 6) else np.float32(0)


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


def _forward(x: Array, slope: float | None) -> Array:
    y = empty(x.shape)
    how = (slope is not None, np.float32(slope or 0), streams(y))
    parallel(_relu, np.ravel(x), *how, y.reshape(-1), work=x.size)
    return y


def _backward(dy: Array, x: Array, slope: float | None) -> Array:
    dx = empty(x.shape)
    how = (slope is not None, np.float32(slope or 0), streams(dx))
    parallel(_relu_grad, np.ravel(dy), np.ravel(x), *how, dx.reshape(-1), work=x.size)
    return dx


def relu(x: Array) -> Array:
    """max(x, 0)."""
    return _forward(x, None)


def relu_grad(dy: Array, x: Array) -> Array:
    """dy where x > 0, else 0."""
    return _backward(dy, x, None)


def relu6(x: Array) -> Array:
    """min(max(x, 0), 6)."""
    y = empty(x.shape)
    parallel(_relu6, np.ravel(x), streams(y), y.reshape(-1), work=x.size)
    return y


def relu6_grad(dy: Array, x: Array) -> Array:
    """dy where 0 < x < 6, else 0."""
    dx = empty(x.shape)
    parallel(_relu6_grad, np.ravel(dy), np.ravel(x), streams(dx), dx.reshape(-1), work=x.size)
    return dx


def leaky_relu(x: Array, slope: float) -> Array:
    """x where x > 0, else slope x."""
    return _forward(x, slope)


def leaky_relu_grad(dy: Array, x: Array, slope: float) -> Array:
    """dy where x > 0, else slope dy."""
    return _backward(dy, x, slope)


def hardswish(x: Array) -> Array:
    """x min(max(x + 3, 0), 6) / 6."""
    y = empty(x.shape)
    parallel(_hardswish, np.ravel(x), y.reshape(-1), work=x.size)
    return y


def hardswish_grad(dy: Array, x: Array) -> Array:
    """0 where x <= -3, dy where x >= 3, else dy (2 x + 3) / 6."""
    dx = empty(x.shape)
    parallel(_hardswish_grad, np.ravel(dy), np.ravel(x), dx.reshape(-1), work=x.size)
    return dx


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
