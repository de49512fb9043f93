"""Batch norm, ReLU and 2x2 max pooling in the passes that batch norm makes anyway.

Forward writes only what pooling leaves.  Backward finds the maxima again and so passes over the image twice where batch
norm and pooling by themselves would pass over it five times: pooling's gradient is never laid out.
"""

import numpy as np

from gpucnn.kernels.arguments import per_channel
from gpucnn.kernels.cpu import batchnorm, pooling
from gpucnn.kernels.cpu.arguments import float32_where, windows_fit
from gpucnn.kernels.cpu.batchnorm import back_line, line, moments
from gpucnn.kernels.cpu.engine.allocator import empty, streams
from gpucnn.kernels.cpu.engine.compile import jit
from gpucnn.kernels.cpu.engine.simd import LANES, above_zero, at_least, fill, larger, load, positive, put, store
from gpucnn.kernels.cpu.engine.threads import SHARDS, parallel, partial
from gpucnn.types import Array, Padding, Pair


@jit
def _pool(first, last, x, a, b, past, y):
    """y = the maximum of each window of max(a x + b, 0)."""
    n, down, across, c = y.shape
    a_at, b_at = a.ctypes.data, b.ctypes.data
    for row in range(n * down * first // SHARDS, n * down * last // SHARDS):
        one, i = row // down, row % down
        upper, lower, out = x[one, 2 * i].ctypes.data, x[one, 2 * i + 1].ctypes.data, y[one, i].ctypes.data
        for j in range(across):
            for k in range(0, c, LANES):
                at = 2 * j * c + k
                factor, offset = load(a_at, k), load(b_at, k)
                high = larger(factor * load(upper, at) + offset, factor * load(upper, at + c) + offset)
                low = larger(factor * load(lower, at) + offset, factor * load(lower, at + c) + offset)
                put(out, j * c + k, positive(larger(high, low)), past)


@jit
def _pool_sums(first, last, dy, x, mean, a, b, some, total, products):
    """Sums of dz and dz (x - mean) over each shard of window lines -> total and products (SHARDS,C)."""
    n, down, across, c = dy.shape
    sums = some[first]
    sums_at, a_at, b_at, mean_at = sums.ctypes.data, a.ctypes.data, b.ctypes.data, mean.ctypes.data
    for shard in range(first, last):
        total[shard] = 0.0
        products[shard] = 0.0
        for row in range(n * down * shard // SHARDS, n * down * (shard + 1) // SHARDS):
            one, i = row // down, row % down
            upper, lower, grad = x[one, 2 * i].ctypes.data, x[one, 2 * i + 1].ctypes.data, dy[one, i].ctypes.data
            for k in range(0, c, LANES):
                factor, offset, middle = load(a_at, k), load(b_at, k), load(mean_at, k)
                plain = weighted = fill(np.float32(0))
                for j in range(across):
                    at = 2 * j * c + k
                    x0, x1 = load(upper, at), load(upper, at + c)
                    x2, x3 = load(lower, at), load(lower, at + c)
                    z0, z1 = factor * x0 + offset, factor * x1 + offset
                    z2, z3 = factor * x2 + offset, factor * x3 + offset
                    high, low = at_least(z0, z1, z0, z1), at_least(z2, z3, z2, z3)
                    there = at_least(high, low, at_least(z0, z1, x0, x1), at_least(z2, z3, x2, x3))
                    g = above_zero(at_least(high, low, high, low), load(grad, j * c + k))
                    plain = plain + g
                    weighted = weighted + g * (there - middle)
                store(sums_at, k, plain)
                store(sums_at, c + k, weighted)
            for k in range(c):
                total[shard, k] += sums[k]
                products[shard, k] += sums[c + k]


@jit
def _pool_grad(first, last, dy, x, a, b, k1, k2, k3, past, dx):
    """dx = k1 dz + k2 x + k3 over shards of images; dz is dy at a window's first maximum, where that is above 0."""
    n, down, across, c = dy.shape
    _, h, w, _ = x.shape
    a_at, b_at, k1_at, k2_at, k3_at = a.ctypes.data, b.ctypes.data, k1.ctypes.data, k2.ctypes.data, k3.ctypes.data
    none = fill(np.float32(0))
    for one in range(n * first // SHARDS, n * last // SHARDS):
        for i in range(down):
            upper, lower, grad = x[one, 2 * i].ctypes.data, x[one, 2 * i + 1].ctypes.data, dy[one, i].ctypes.data
            above, below = dx[one, 2 * i].ctypes.data, dx[one, 2 * i + 1].ctypes.data
            for j in range(across):
                for k in range(0, c, LANES):
                    at = 2 * j * c + k
                    factor, offset = load(a_at, k), load(b_at, k)
                    x0, x1 = load(upper, at), load(upper, at + c)
                    x2, x3 = load(lower, at), load(lower, at + c)
                    z0, z1 = factor * x0 + offset, factor * x1 + offset
                    z2, z3 = factor * x2 + offset, factor * x3 + offset
                    high, low = at_least(z0, z1, z0, z1), at_least(z2, z3, z2, z3)
                    most = at_least(high, low, high, low)
                    g = above_zero(most, load(k1_at, k) * load(grad, j * c + k))
                    g_high, g_low = at_least(high, low, g, none), at_least(high, low, none, g)
                    slope, base = load(k2_at, k), load(k3_at, k)
                    put(above, at, at_least(z0, z1, g_high, none) + (slope * x0 + base), past)
                    put(above, at + c, at_least(z0, z1, none, g_high) + (slope * x1 + base), past)
                    put(below, at, at_least(z2, z3, g_low, none) + (slope * x2 + base), past)
                    put(below, at + c, at_least(z2, z3, none, g_low) + (slope * x3 + base), past)
        # pixels in no window
        for i in range(h):
            for j in range(2 * across if i < 2 * down else 0, w):
                for k in range(c):
                    dx[one, i, j, k] = k2[k] * x[one, i, j, k] + k3[k]


def _in_one_pass(x: Array, kernel: Pair, stride: Pair, padding: Padding) -> bool:
    """Windows of 2x2 that tile the image, and whole vectors of channels."""
    return pooling.tiled(x, kernel, stride, padding) and x.shape[3] % LANES == 0


def _pooled(x: Array, a: Array, b: Array) -> Array:
    n, h, w, c = x.shape
    y = empty((n, h // 2, w // 2, c))
    parallel(_pool, x, a, b, streams(y), y, work=x.size)
    return y


accepts_forward = float32_where(per_channel)
accepts_grad = float32_where(lambda dy, x, *values: windows_fit(dy, x) and per_channel(x, *values))


def batchnorm_relu_max_pool2d(
    x: Array, scale: Array, shift: Array, eps: float, kernel: Pair, stride: Pair, padding: Padding
) -> tuple[Array, Array, Array]:
    """x (N,H,W,C) -> y (N,H',W',C), mean, variance."""
    if not _in_one_pass(x, kernel, stride, padding):
        y, mean, var = batchnorm.batchnorm_relu(x, scale, shift, eps)
        return pooling.max_pool2d(y, kernel, stride, padding), mean, var
    x = np.ascontiguousarray(x)
    mean, var = moments(x)
    return _pooled(x, *line(scale, shift, mean, var, eps)), mean, var


def batchnorm_relu_max_pool2d_eval(
    x: Array, scale: Array, shift: Array, mean: Array, var: Array, eps: float,
    kernel: Pair, stride: Pair, padding: Padding,
) -> Array:  # fmt: skip
    """x (N,H,W,C) -> y (N,H',W',C) with given statistics."""
    if not _in_one_pass(x, kernel, stride, padding):
        y = batchnorm.batchnorm_relu_eval(x, scale, shift, mean, var, eps)
        return pooling.max_pool2d(y, kernel, stride, padding)
    return _pooled(np.ascontiguousarray(x), *line(scale, shift, mean, var, eps))


def batchnorm_relu_max_pool2d_grad(
    dy: Array, x: Array, scale: Array, shift: Array, mean: Array, var: Array, eps: float,
    kernel: Pair, stride: Pair, padding: Padding,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """dy (N,H',W',C), x (N,H,W,C) -> dx, dscale, dshift."""
    if not _in_one_pass(x, kernel, stride, padding):
        y = batchnorm.batchnorm_relu_eval(x, scale, shift, mean, var, eps)
        dz = pooling.max_pool2d_grad(dy, y, kernel, stride, padding)
        return batchnorm.batchnorm_relu_grad(dz, x, scale, shift, mean, var, eps)
    dy, x = np.ascontiguousarray(dy), np.ascontiguousarray(x)
    c = x.shape[3]
    a, b = line(scale, shift, mean, var, eps)
    total, products = partial(c), partial(c)
    parallel(_pool_sums, dy, x, mean, a, b, empty((SHARDS, 2 * c)), total, products, work=x.size)
    k2, k3, dscale, dshift = back_line(a, mean, var, eps, total, products, x.size // c)
    dx = empty(x.shape)
    parallel(_pool_grad, dy, x, a, b, a, k2, k3, streams(dx), dx, work=x.size)
    return dx, dscale, dshift
