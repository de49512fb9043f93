"""Batch norm, with and without ReLU: two passes over the image forward, two back.

Forward:   sums of x and x^2 per channel, then y = a x + b with a = scale / sqrt(var + eps), b = shift - a mean.
Backward:  sums of dz and dz (x - mean), then dx = k1 dz + k2 x + k3; dz is dy, masked where y was not above 0.

Every pass is cut into a fixed number of shards whose sums are added in order, so threads change no bit.  The sums are
of x minus the channel's first value, in float32 over 64 rows and in float64 beyond: no cancellation where
|mean| >> std, and no digits lost over 10^5 rows.
"""

import numpy as np

from gpucnn.kernels.arguments import per_channel, same_shape
from gpucnn.kernels.cpu.arguments import float32_where
from gpucnn.kernels.cpu.engine.allocator import empty, streams
from gpucnn.kernels.cpu.engine.compile import jit
from gpucnn.kernels.cpu.engine.simd import LANES, above_zero, load, positive, put
from gpucnn.kernels.cpu.engine.threads import SHARDS, parallel, partial
from gpucnn.types import Array

ROWS = 64  # summed in float32 before they go into a float64 total


@jit
def _moments(first, last, x, origin, total, squares):
    """Sums of x - origin and (x - origin)^2 over each shard of x (M,C) -> total and squares (SHARDS,C)."""
    m, c = x.shape
    some, more = np.empty(c, np.float32), np.empty(c, np.float32)
    for shard in range(first, last):
        total[shard] = 0.0
        squares[shard] = 0.0
        stop = m * (shard + 1) // SHARDS
        for block in range(m * shard // SHARDS, stop, ROWS):
            some[:] = 0
            more[:] = 0
            for row in range(block, min(block + ROWS, stop)):
                for k in range(c):
                    d = x[row, k] - origin[k]
                    some[k] += d
                    more[k] += d * d
            for k in range(c):
                total[shard, k] += some[k]
                squares[shard, k] += more[k]


@jit
def _apply(first, last, x, a, b, relu, past, y):
    """y = a x + b over shards of rows, cut at 0 where relu, written past the caches where ``past``."""
    m, c = x.shape
    start, stop = m * first // SHARDS, m * last // SHARDS
    if c % LANES:
        for row in range(start, stop):
            for k in range(c):
                z = a[k] * x[row, k] + b[k]
                y[row, k] = np.float32(0) if relu and z < 0 else z
        return
    source, target, a_at, b_at = x.ctypes.data, y.ctypes.data, a.ctypes.data, b.ctypes.data
    for at in range(start * c, stop * c, c):
        for k in range(0, c, LANES):
            z = load(a_at, k) * load(source, at + k) + load(b_at, k)
            if relu:
                z = positive(z)
            put(target, at + k, z, past)


@jit
def _grad_sums(first, last, dy, x, mean, a, b, relu, total, products):
    """Sums of dz and dz (x - mean) over each shard -> total and products (SHARDS,C)."""
    m, c = x.shape
    some, more = np.empty(c, np.float32), np.empty(c, np.float32)
    for shard in range(first, last):
        total[shard] = 0.0
        products[shard] = 0.0
        stop = m * (shard + 1) // SHARDS
        for block in range(m * shard // SHARDS, stop, ROWS):
            some[:] = 0
            more[:] = 0
            for row in range(block, min(block + ROWS, stop)):
                if relu:
                    for k in range(c):
                        d = dy[row, k] if a[k] * x[row, k] + b[k] > 0 else np.float32(0)
                        some[k] += d
                        more[k] += d * (x[row, k] - mean[k])
                else:
                    for k in range(c):
                        d = dy[row, k]
                        some[k] += d
                        more[k] += d * (x[row, k] - mean[k])
            for k in range(c):
                total[shard, k] += some[k]
                products[shard, k] += more[k]


@jit
def _grad_apply(first, last, dy, x, a, b, relu, k1, k2, k3, past, dx):
    """dx = k1 dz + k2 x + k3 over shards of rows."""
    m, c = x.shape
    start, stop = m * first // SHARDS, m * last // SHARDS
    if c % LANES:
        for row in range(start, stop):
            for k in range(c):
                dz = dy[row, k] if not relu or a[k] * x[row, k] + b[k] > 0 else np.float32(0)
                dx[row, k] = k1[k] * dz + k2[k] * x[row, k] + k3[k]
        return
    source, grad, target = x.ctypes.data, dy.ctypes.data, dx.ctypes.data
    a_at, b_at, k1_at, k2_at, k3_at = (
        a.ctypes.data,
        b.ctypes.data,
        k1.ctypes.data,
        k2.ctypes.data,
        k3.ctypes.data,
    )
    for at in range(start * c, stop * c, c):
        for k in range(0, c, LANES):
            z, d = load(source, at + k), load(grad, at + k)
            if relu:
                d = above_zero(load(a_at, k) * z + load(b_at, k), d)
            d = load(k1_at, k) * d + (load(k2_at, k) * z + load(k3_at, k))
            put(target, at + k, d, past)


@jit
def _finish_moments(total, squares, origin, m, mean, var):
    """Sums of x - origin and of its square, (SHARDS,C) each, over m rows -> mean and biased variance (C,)."""
    for k in range(mean.size):
        offset = square = 0.0
        for shard in range(total.shape[0]):
            offset += total[shard, k]
            square += squares[shard, k]
        offset /= m
        mean[k] = origin[k] + offset
        var[k] = max(square / m - offset * offset, 0.0)


@jit
def _fill_line(scale, shift, mean, var, eps, ab):
    """Batch norm as one line per channel: y = a x + b, as ab (2,C)."""
    for k in range(mean.size):
        a = scale[k] / np.sqrt(np.float64(var[k]) + eps)
        ab[0, k] = a
        ab[1, k] = shift[k] - a * mean[k]


@jit
def _fill_back_line(a, mean, var, eps, total, products, m, made):
    """Sums of dz and dz (x - mean), (SHARDS,C) each, over m rows -> made (4,C): k2, k3, dscale, dshift."""
    for k in range(mean.size):
        dshift = product = 0.0
        for shard in range(total.shape[0]):
            dshift += total[shard, k]
            product += products[shard, k]
        inv = 1.0 / np.sqrt(np.float64(var[k]) + eps)
        dscale = product * inv
        k2 = -a[k] * inv * dscale / m
        made[0, k] = k2
        made[1, k] = -a[k] * dshift / m - k2 * mean[k]
        made[2, k] = dscale
        made[3, k] = dshift


def line(scale: Array, shift: Array, mean: Array, var: Array, eps: float) -> Array:
    """Batch norm as one line per channel, y = a x + b: a and b, (2,C)."""
    ab = np.empty((2, mean.size), np.float32)
    _fill_line(scale, shift, mean, var, float(eps), ab)
    return ab


def back_line(a: Array, mean: Array, var: Array, eps: float, total: Array, products: Array, m: int) -> Array:
    """Sums of dz and dz (x - mean) over m rows, (SHARDS,C) each -> (4,C): k2, k3, dscale, dshift.

    k2 and k3 are those of dx = a dz + k2 x + k3.
    """
    made = np.empty((4, mean.size), np.float32)
    _fill_back_line(a, mean, var, float(eps), total, products, m, made)
    return made


def moments(x: Array) -> tuple[Array, Array]:
    """x (..., C), contiguous -> mean (C,), biased variance (C,)."""
    rows = x.reshape(-1, x.shape[-1])
    m, c = rows.shape
    total, squares = partial(c), partial(c)
    parallel(_moments, rows, rows[0], total, squares, work=x.size)
    mean, var = np.empty(c, np.float32), np.empty(c, np.float32)
    _finish_moments(total, squares, rows[0], m, mean, var)
    return mean, var


def _train(x: Array, scale: Array, shift: Array, eps: float, relu: bool) -> tuple[Array, Array, Array]:
    x = np.ascontiguousarray(x)
    mean, var = moments(x)
    return _evaluate(x, scale, shift, mean, var, eps, relu), mean, var


def _evaluate(x: Array, scale: Array, shift: Array, mean: Array, var: Array, eps: float, relu: bool) -> Array:
    x = np.ascontiguousarray(x)
    y = empty(x.shape)
    c = x.shape[-1]
    parallel(
        _apply, x.reshape(-1, c), *line(scale, shift, mean, var, eps), relu, streams(y), y.reshape(-1, c), work=x.size
    )
    return y


def _grad(
    dy: Array, x: Array, scale: Array, shift: Array, mean: Array, var: Array, eps: float, relu: bool
) -> tuple[Array, Array, Array]:
    dy, x = np.ascontiguousarray(dy), np.ascontiguousarray(x)
    c = x.shape[-1]
    rows, drows = x.reshape(-1, c), dy.reshape(-1, c)
    a, b = line(scale, shift, mean, var, eps)
    total, products = partial(c), partial(c)
    parallel(_grad_sums, drows, rows, mean, a, b, relu, total, products, work=2 * x.size)
    k2, k3, dscale, dshift = back_line(a, mean, var, eps, total, products, len(rows))
    dx = empty(x.shape)
    parallel(_grad_apply, drows, rows, a, b, relu, a, k2, k3, streams(dx), dx.reshape(-1, c), work=2 * x.size)
    return dx, dscale, dshift


accepts_forward = float32_where(per_channel)
accepts_grad = float32_where(lambda dy, x, *values: same_shape(dy, x) and per_channel(x, *values))


def batchnorm(x: Array, scale: Array, shift: Array, eps: float) -> tuple[Array, Array, Array]:
    """x (..., C) -> y, mean, variance."""
    return _train(x, scale, shift, eps, relu=False)


def batchnorm_relu(x: Array, scale: Array, shift: Array, eps: float) -> tuple[Array, Array, Array]:
    """The same and ReLU, in the same two passes."""
    return _train(x, scale, shift, eps, relu=True)


def batchnorm_eval(x: Array, scale: Array, shift: Array, mean: Array, var: Array, eps: float) -> Array:
    """x (..., C) -> y with given statistics."""
    return _evaluate(x, scale, shift, mean, var, eps, relu=False)


def batchnorm_relu_eval(x: Array, scale: Array, shift: Array, mean: Array, var: Array, eps: float) -> Array:
    """The same and ReLU."""
    return _evaluate(x, scale, shift, mean, var, eps, relu=True)


def batchnorm_grad(
    dy: Array, x: Array, scale: Array, mean: Array, var: Array, eps: float
) -> tuple[Array, Array, Array]:
    """dy, x (..., C) -> dx, dscale, dshift."""
    return _grad(dy, x, scale, np.zeros_like(scale), mean, var, eps, relu=False)


def batchnorm_relu_grad(
    dy: Array, x: Array, scale: Array, shift: Array, mean: Array, var: Array, eps: float
) -> tuple[Array, Array, Array]:
    """The same through ReLU, whose mask is made again from x."""
    return _grad(dy, x, scale, shift, mean, var, eps, relu=True)
