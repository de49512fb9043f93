"""Batch norm, with ReLU or ReLU6 behind it or without: two passes over the image forward, two back.

Forward:   sums of x and x^2 per channel, then y = a (x - mean) + shift with inv = 1 / sqrt(var + eps), a = scale inv.
Backward:  sums of dz and dz xhat with xhat = inv (x - mean), then dx = a (dz - mean(dz) - (x - mean) pull) with
           pull = inv mean(dz xhat); dz is dy, masked where y was not above 0.

Every pass is cut into a fixed number of shards whose sums are added in order, so threads change no bit.  The sums are
of x minus the channel's origin, in float32 over 64 rows and in float64 beyond: no digits lost over 10^5 rows.  The
origin is the one in the middle of the channel's first, last and middle value.  Where it is far from all others, or a
square leaves float32's range, a second pass sums in float64 around the mean that the first one found.

The mean is taken off each x, not off a sum: what cancels in a x + b is |mean| / std times as large as what is left.
Mean and variance are float64: in float32 that of values beyond 1e19 is infinite.  What float32 does not hold of the
mean is taken off the shift, and in xhat = inv (x - mean) + rest it is the rest.
"""

from typing import Any

import numpy as np

from gpucnn.kernels.arguments import per_channel, same_shape, statistics
from gpucnn.kernels.cpu.arguments import float32_arrays, float32_where
from gpucnn.kernels.cpu.engine.allocator import empty, streams
from gpucnn.kernels.cpu.engine.compile import jit
from gpucnn.kernels.cpu.engine.simd import LANES, above_zero, at_least, fill, load, no_larger, positive, put
from gpucnn.kernels.cpu.engine.threads import SHARDS, parallel, partial
from gpucnn.types import Array

ROWS = 64  # summed in the origin's dtype before they go into a float64 total
PLAIN, RELU, RELU6 = 0, 1, 2  # what comes behind
SIX = np.float32(6)
FAR = 16.0  # the second pass follows where squares around the origin are so many times those around the mean


@jit
def _middle(x, origin):
    """Of the first, the middle and the last row of x (M,C), each channel's value in the middle -> origin (C,)."""
    m, c = x.shape
    for k in range(c):
        a, b, last = x[0, k], x[m // 2, k], x[m - 1, k]
        low, high = min(a, b), max(a, b)
        origin[k] = max(low, min(high, last))


@jit
def _moments(first, last, x, origin, total, squares):
    """Sums of x - origin and (x - origin)^2 over each shard of x (M,C) -> total and squares (SHARDS,C)."""
    m, c = x.shape
    some, more = np.empty(c, origin.dtype), np.empty(c, origin.dtype)
    for shard in range(first, last):
        total[shard] = 0.0
        squares[shard] = 0.0
        stop = m * (shard + 1) // SHARDS
        for block in range(m * shard // SHARDS, stop, ROWS):
            some[:] = 0
            more[:] = 0
            end = min(block + ROWS, stop)
            fours = block + (end - block) // 4 * 4
            for row in range(block, fours, 4):
                for k in range(c):
                    d0, d1 = x[row, k] - origin[k], x[row + 1, k] - origin[k]
                    d2, d3 = x[row + 2, k] - origin[k], x[row + 3, k] - origin[k]
                    some[k] += (d0 + d1) + (d2 + d3)
                    more[k] += (d0 * d0 + d1 * d1) + (d2 * d2 + d3 * d3)
            for row in range(fours, end):
                for k in range(c):
                    d = x[row, k] - origin[k]
                    some[k] += d
                    more[k] += d * d
            for k in range(c):
                total[shard, k] += some[k]
                squares[shard, k] += more[k]


@jit
def _apply(first, last, x, mean, a, shift, relu, past, y):
    """y = a (x - mean) + shift over shards of rows, cut as ``relu`` says, written past the caches where ``past``."""
    m, c = x.shape
    start, stop = m * first // SHARDS, m * last // SHARDS
    if c % LANES:
        for row in range(start, stop):
            for k in range(c):
                z = a[k] * (x[row, k] - mean[k]) + shift[k]
                z = np.float32(0) if relu and z < 0 else z
                y[row, k] = SIX if relu == RELU6 and z > SIX else z
        return
    source, target = x.ctypes.data, y.ctypes.data
    mean_at, a_at, shift_at = mean.ctypes.data, a.ctypes.data, shift.ctypes.data
    for at in range(start * c, stop * c, c):
        for k in range(0, c, LANES):
            z = load(a_at, k) * (load(source, at + k) - load(mean_at, k)) + load(shift_at, k)
            if relu:
                z = positive(z)
            if relu == RELU6:
                z = no_larger(z, fill(SIX))
            put(target, at + k, z, past)


@jit
def _grad_sums(first, last, dy, x, mean, inv, a, shift, rest, relu, total, products):
    """Sums of dz and dz xhat over each shard -> total and products (SHARDS,C)."""
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
                if relu == RELU6:
                    for k in range(c):
                        apart = x[row, k] - mean[k]
                        z = a[k] * apart + shift[k]
                        d = dy[row, k] if (z > 0) & (z < SIX) else np.float32(0)
                        some[k] += d
                        more[k] += d * (apart * inv[k] + rest[k])
                elif relu:
                    for k in range(c):
                        apart = x[row, k] - mean[k]
                        d = dy[row, k] if a[k] * apart + shift[k] > 0 else np.float32(0)
                        some[k] += d
                        more[k] += d * (apart * inv[k] + rest[k])
                else:
                    for k in range(c):
                        d = dy[row, k]
                        some[k] += d
                        more[k] += d * ((x[row, k] - mean[k]) * inv[k] + rest[k])
            for k in range(c):
                total[shard, k] += some[k]
                products[shard, k] += more[k]


@jit
def _grad_apply(first, last, dy, x, mean, a, shift, relu, mean_dz, pull, past, dx):
    """dx = a (dz - mean_dz - (x - mean) pull) over shards of rows."""
    m, c = x.shape
    start, stop = m * first // SHARDS, m * last // SHARDS
    if c % LANES:
        for row in range(start, stop):
            for k in range(c):
                apart = x[row, k] - mean[k]
                z = a[k] * apart + shift[k]
                dz = dy[row, k] if not relu or (z > 0 and (relu == RELU or z < SIX)) else np.float32(0)
                dx[row, k] = a[k] * (dz - (pull[k] * apart + mean_dz[k]))
        return
    source, grad, target = x.ctypes.data, dy.ctypes.data, dx.ctypes.data
    mean_at, a_at, shift_at = mean.ctypes.data, a.ctypes.data, shift.ctypes.data
    mean_dz_at, pull_at = mean_dz.ctypes.data, pull.ctypes.data
    for at in range(start * c, stop * c, c):
        for k in range(0, c, LANES):
            apart, d, slope = load(source, at + k) - load(mean_at, k), load(grad, at + k), load(a_at, k)
            if relu:
                z = slope * apart + load(shift_at, k)
                d = above_zero(z, d)
                if relu == RELU6:
                    d = at_least(z, fill(SIX), fill(np.float32(0)), d)
            put(target, at + k, slope * (d - (load(pull_at, k) * apart + load(mean_dz_at, k))), past)


@jit
def _finish_moments(total, squares, origin, m, mean, var):
    """Sums of x - origin and of its square, (SHARDS,C) each, over m rows -> mean and biased variance (C,), float64.

    Returns whether the origin was near enough.
    """
    near = True
    for k in range(mean.size):
        offset = square = 0.0
        for shard in range(total.shape[0]):
            offset += total[shard, k]
            square += squares[shard, k]
        offset /= m
        mean[k] = origin[k] + offset
        square /= m
        spread = square - offset * offset
        var[k] = 0.0 if spread < 0 else spread
        near &= (square <= FAR * spread) & (spread < np.inf)  # not so for NaN
    return near


@jit
def fill_line(scale, shift, mean, var, eps, size, made):
    """Each channel's mean, inv = 1 / sqrt(var + eps), a = scale inv, shift and rest -> made (5,C).

    ``size`` channels share a mean and a variance.
    """
    for k in range(scale.size):
        g = k // size
        inv = 1.0 / np.sqrt(np.float64(var[g]) + eps)
        made[0, k] = mean[g]
        low = np.float64(mean[g]) - made[0, k]
        if low != low:  # of an infinite mean
            low = 0.0
        made[1, k] = inv
        made[2, k] = scale[k] * inv
        taken = scale[k] * inv * low
        made[3, k] = shift[k] - taken if np.isfinite(taken) else shift[k]
        made[4, k] = -inv * low


@jit
def _fill_back_line(inv, rest, total, products, m, made):
    """Sums of dz and dz xhat, (SHARDS,C) each, over m rows -> made (4,C): mean_dz, pull, dscale, dshift."""
    for k in range(inv.size):
        dshift = dscale = 0.0
        for shard in range(total.shape[0]):
            dshift += total[shard, k]
            dscale += products[shard, k]
        made[0, k] = dshift / m
        if np.isfinite(dscale):
            made[0, k] = dshift / m + rest[k] * (dscale / m)
        made[1, k] = inv[k] * (dscale / m)
        made[2, k] = dscale
        made[3, k] = dshift


def line(scale: Array, shift: Array, mean: Array, var: Array, eps: float) -> Array:
    """Batch norm as y = a (x - mean) + shift: each channel's mean, 1 / sqrt(var + eps), a, shift and rest, (5,C)."""
    made = np.empty((5, scale.size), np.float32)
    fill_line(scale, shift, mean, var, float(eps), 1, made)
    return made


def back_line(inv: Array, rest: Array, total: Array, products: Array, m: int) -> Array:
    """Sums of dz and dz xhat over m rows, (SHARDS,C) each -> mean_dz, pull, dscale, dshift, (4,C).

    mean_dz and pull are those of dx = a (dz - mean_dz - (x - mean) pull).
    """
    made = np.empty((4, inv.size), np.float32)
    _fill_back_line(inv, rest, total, products, m, made)
    return made


def _sums(rows: Array, origin: Array) -> tuple[Array, Array, bool]:
    """Mean and biased variance of rows (M,C) from sums around an origin (C,); whether it was near enough for them."""
    m, c = rows.shape
    total, squares, mean, var = partial(c), partial(c), np.empty(c), np.empty(c)
    parallel(_moments, rows, origin, total, squares, work=rows.size)
    return mean, var, _finish_moments(total, squares, origin, m, mean, var)


def moments(x: Array) -> tuple[Array, Array]:
    """x (..., C), contiguous -> mean (C,) and biased variance (C,), in float64."""
    rows = x.reshape(-1, x.shape[-1])
    origin = np.empty(rows.shape[1], np.float32)
    _middle(rows, origin)
    mean, var, near = _sums(rows, origin)
    if not near:
        if not np.isfinite(mean).all():  # more than float32 holds, if not NaN itself
            mean, _, _ = _sums(rows, np.zeros(len(mean)))
        nearer, var, _ = _sums(rows, mean)
        mean = np.where(np.isfinite(mean), nearer, mean)
    return mean, var


def _train(x: Array, scale: Array, shift: Array, eps: float, relu: int) -> tuple[Array, Array, Array]:
    x = np.ascontiguousarray(x)
    mean, var = moments(x)
    return _evaluate(x, scale, shift, mean, var, eps, relu), mean, var


def _evaluate(x: Array, scale: Array, shift: Array, mean: Array, var: Array, eps: float, relu: int) -> Array:
    x = np.ascontiguousarray(x)
    y = empty(x.shape)
    c = x.shape[-1]
    mean, _, a, shift, _ = line(scale, shift, mean, var, eps)
    parallel(_apply, x.reshape(-1, c), mean, a, shift, relu, streams(y), y.reshape(-1, c), work=x.size)
    return y


def _grad(
    dy: Array, x: Array, scale: Array, shift: Array, mean: Array, var: Array, eps: float, relu: int
) -> tuple[Array, Array, Array]:
    dy, x = np.ascontiguousarray(dy), np.ascontiguousarray(x)
    c = x.shape[-1]
    rows, drows = x.reshape(-1, c), dy.reshape(-1, c)
    mean, inv, a, shift, rest = line(scale, shift, mean, var, eps)
    total, products = partial(c), partial(c)
    parallel(_grad_sums, drows, rows, mean, inv, a, shift, rest, relu, total, products, work=2 * x.size)
    mean_dz, pull, dscale, dshift = back_line(inv, rest, total, products, len(rows))
    dx = empty(x.shape)
    how = (mean, a, shift, relu, mean_dz, pull, streams(dx))
    parallel(_grad_apply, drows, rows, *how, dx.reshape(-1, c), work=2 * x.size)
    return dx, dscale, dshift


accepts_train = float32_where(per_channel)


def accepts_eval(x: Array, scale: Array, shift: Array, mean: Array, var: Array, *rest: Any) -> bool:
    """x (..., C), float32 per channel, and statistics."""
    return accepts_train(x, scale, shift) and statistics(x, mean, var)


def accepts_grad(dy: Array, x: Array, *rest: Any) -> bool:
    """dy and x (..., C), float32 per channel, statistics, and eps."""
    *values, mean, var, _ = rest
    return float32_arrays(dy, x, *values) and same_shape(dy, x) and per_channel(x, *values) and statistics(x, mean, var)


def batchnorm(x: Array, scale: Array, shift: Array, eps: float) -> tuple[Array, Array, Array]:
    """x (..., C) -> y, mean, variance."""
    return _train(x, scale, shift, eps, relu=PLAIN)


def batchnorm_relu(x: Array, scale: Array, shift: Array, eps: float) -> tuple[Array, Array, Array]:
    """The same and ReLU, in the same two passes."""
    return _train(x, scale, shift, eps, relu=RELU)


def batchnorm_eval(x: Array, scale: Array, shift: Array, mean: Array, var: Array, eps: float) -> Array:
    """x (..., C) -> y with given statistics."""
    return _evaluate(x, scale, shift, mean, var, eps, relu=PLAIN)


def batchnorm_relu_eval(x: Array, scale: Array, shift: Array, mean: Array, var: Array, eps: float) -> Array:
    """The same and ReLU."""
    return _evaluate(x, scale, shift, mean, var, eps, relu=RELU)


def batchnorm_grad(
    dy: Array, x: Array, scale: Array, mean: Array, var: Array, eps: float
) -> tuple[Array, Array, Array]:
    """dy, x (..., C) -> dx, dscale, dshift."""
    return _grad(dy, x, scale, np.zeros_like(scale), mean, var, eps, relu=PLAIN)


def batchnorm_relu_grad(
    dy: Array, x: Array, scale: Array, shift: Array, mean: Array, var: Array, eps: float
) -> tuple[Array, Array, Array]:
    """The same through ReLU, whose mask is made again from x."""
    return _grad(dy, x, scale, shift, mean, var, eps, relu=RELU)


def batchnorm_relu6(x: Array, scale: Array, shift: Array, eps: float) -> tuple[Array, Array, Array]:
    """The same and ReLU6, in the same two passes."""
    return _train(x, scale, shift, eps, relu=RELU6)


def batchnorm_relu6_eval(x: Array, scale: Array, shift: Array, mean: Array, var: Array, eps: float) -> Array:
    """The same and ReLU6."""
    return _evaluate(x, scale, shift, mean, var, eps, relu=RELU6)


def batchnorm_relu6_grad(
    dy: Array, x: Array, scale: Array, shift: Array, mean: Array, var: Array, eps: float
) -> tuple[Array, Array, Array]:
    """The same through ReLU6."""
    return _grad(dy, x, scale, shift, mean, var, eps, relu=RELU6)
