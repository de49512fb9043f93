"""Batch norm, ReLU and 2x2 max pooling in the passes that batch norm makes anyway.

Forward writes only what pooling leaves.  Backward finds the maxima again and so passes over the image twice where batch
norm and pooling by themselves would pass over it five times: pooling's gradient is never laid out.
"""

from typing import Any

import numpy as np

from gpucnn.kernels.arguments import per_channel, statistics
from gpucnn.kernels.cpu import batchnorm, pooling
from gpucnn.kernels.cpu.arguments import float32_arrays, windows_fit
from gpucnn.kernels.cpu.batchnorm import back_line, line, moments
from gpucnn.kernels.cpu.engine.allocator import empty, streams
from gpucnn.kernels.cpu.engine.compile import jit
from gpucnn.kernels.cpu.engine.simd import LANES, above_zero, fill, first_of, larger, load, positive, put, store
from gpucnn.kernels.cpu.engine.threads import SHARDS, parallel, partial
from gpucnn.types import Array, Padding, Pair


@jit
def _pool(first, last, x, mean, a, shift, past, y):
    """y = the maximum of each window of max(a (x - mean) + shift, 0)."""
    n, down, across, c = y.shape
    mean_at, a_at, shift_at = mean.ctypes.data, a.ctypes.data, shift.ctypes.data
    for row in range(n * down * first // SHARDS, n * down * last // SHARDS):
        one, i = row // down, row % down
        upper, lower, out = x[one, 2 * i].ctypes.data, x[one, 2 * i + 1].ctypes.data, y[one, i].ctypes.data
        for j in range(across):
            for k in range(0, c, LANES):
                at = 2 * j * c + k
                middle, factor, offset = load(mean_at, k), load(a_at, k), load(shift_at, k)
                x0, x1 = load(upper, at) - middle, load(upper, at + c) - middle
                x2, x3 = load(lower, at) - middle, load(lower, at + c) - middle
                high = larger(factor * x0 + offset, factor * x1 + offset)
                low = larger(factor * x2 + offset, factor * x3 + offset)
                put(out, j * c + k, positive(larger(high, low)), past)


@jit
def _pool_sums(first, last, dy, x, mean, inv, a, shift, rest, some, total, products):
    """Sums of dz and dz xhat over each shard of window lines -> total and products (SHARDS,C).

    Pixels that pooling drops have dz = 0 and count as 0 xhat, so that one of them that is not finite shows, as it does
    where the passes are taken one by one.
    """
    n, down, across, c = dy.shape
    _, h, w, _ = x.shape
    sums = some[first]
    sums_at, mean_at, inv_at, rest_at = sums.ctypes.data, mean.ctypes.data, inv.ctypes.data, rest.ctypes.data
    a_at, shift_at, none = a.ctypes.data, shift.ctypes.data, fill(np.float32(0))
    for shard in range(first, last):
        total[shard] = 0.0
        products[shard] = 0.0
        for row in range(n * down * shard // SHARDS, n * down * (shard + 1) // SHARDS):
            one, i = row // down, row % down
            upper, lower, grad = x[one, 2 * i].ctypes.data, x[one, 2 * i + 1].ctypes.data, dy[one, i].ctypes.data
            for k in range(0, c, LANES):
                factor, offset, middle, unit = load(a_at, k), load(shift_at, k), load(mean_at, k), load(inv_at, k)
                plain, weighted, remains = none, none, load(rest_at, k)
                for j in range(across):
                    at = 2 * j * c + k
                    x0, x1 = load(upper, at) - middle, load(upper, at + c) - middle
                    x2, x3 = load(lower, at) - middle, load(lower, at + c) - middle
                    z0, z1 = factor * x0 + offset, factor * x1 + offset
                    z2, z3 = factor * x2 + offset, factor * x3 + offset
                    high, low = first_of(z0, z1, z0, z1), first_of(z2, z3, z2, z3)
                    upper_x, lower_x = first_of(z0, z1, x0, x1), first_of(z2, z3, x2, x3)
                    there, other = first_of(high, low, upper_x, lower_x), first_of(high, low, lower_x, upper_x)
                    others = other + (first_of(z0, z1, x1, x0) + first_of(z2, z3, x3, x2))
                    g = above_zero(first_of(high, low, high, low), load(grad, j * c + k))
                    plain = plain + g
                    weighted = weighted + (g * (there * unit + remains) + none * others)
                store(sums_at, k, plain)
                store(sums_at, c + k, weighted)
            for k in range(c):
                total[shard, k] += sums[k]
                products[shard, k] += sums[c + k]
            if h % 2 or w % 2:  # pixels in no window
                for p in range(2 * i, 2 * i + 2 if i < down - 1 else h):
                    for q in range(2 * across if p < 2 * down else 0, w):
                        for k in range(c):
                            products[shard, k] += np.float32(0) * (x[one, p, q, k] - mean[k])


@jit
def _pool_grad(first, last, dy, x, mean, a, shift, mean_dz, pull, past, dx):
    """dx = a (dz - mean_dz - (x - mean) pull) over shards of images.

    dz is dy at a window's first maximum, where that is above 0.
    """
    n, down, across, c = dy.shape
    _, h, w, _ = x.shape
    mean_at, a_at, shift_at, none = mean.ctypes.data, a.ctypes.data, shift.ctypes.data, fill(np.float32(0))
    mean_dz_at, pull_at = mean_dz.ctypes.data, pull.ctypes.data
    for one in range(n * first // SHARDS, n * last // SHARDS):
        for i in range(down):
            upper, lower, grad = x[one, 2 * i].ctypes.data, x[one, 2 * i + 1].ctypes.data, dy[one, i].ctypes.data
            above, below = dx[one, 2 * i].ctypes.data, dx[one, 2 * i + 1].ctypes.data
            for j in range(across):
                for k in range(0, c, LANES):
                    at = 2 * j * c + k
                    middle, factor, offset = load(mean_at, k), load(a_at, k), load(shift_at, k)
                    x0, x1 = load(upper, at) - middle, load(upper, at + c) - middle
                    x2, x3 = load(lower, at) - middle, load(lower, at + c) - middle
                    z0, z1 = factor * x0 + offset, factor * x1 + offset
                    z2, z3 = factor * x2 + offset, factor * x3 + offset
                    high, low = first_of(z0, z1, z0, z1), first_of(z2, z3, z2, z3)
                    g = above_zero(first_of(high, low, high, low), load(grad, j * c + k))
                    g_high, g_low = first_of(high, low, g, none), first_of(high, low, none, g)
                    weight, base = load(pull_at, k), load(mean_dz_at, k)
                    put(above, at, factor * (first_of(z0, z1, g_high, none) - (weight * x0 + base)), past)
                    put(above, at + c, factor * (first_of(z0, z1, none, g_high) - (weight * x1 + base)), past)
                    put(below, at, factor * (first_of(z2, z3, g_low, none) - (weight * x2 + base)), past)
                    put(below, at + c, factor * (first_of(z2, z3, none, g_low) - (weight * x3 + base)), past)
        # pixels in no window
        for i in range(h):
            for j in range(2 * across if i < 2 * down else 0, w):
                for k in range(c):
                    dx[one, i, j, k] = -a[k] * (pull[k] * (x[one, i, j, k] - mean[k]) + mean_dz[k])


def _in_one_pass(x: Array, kernel: Pair, stride: Pair, padding: Padding) -> bool:
    """Windows of 2x2 that tile the image, and whole vectors of channels."""
    return pooling.tiled(x, kernel, stride, padding) and x.shape[3] % LANES == 0


def _pooled(x: Array, scale: Array, shift: Array, mean: Array, var: Array, eps: float) -> Array:
    n, h, w, c = x.shape
    y = empty((n, h // 2, w // 2, c))
    mean, _, a, shift, _ = line(scale, shift, mean, var, eps)
    parallel(_pool, x, mean, a, shift, streams(y), y, work=x.size)
    return y


accepts_train, accepts_eval = batchnorm.accepts_train, batchnorm.accepts_eval


def accepts_grad(dy: Array, x: Array, scale: Array, shift: Array, mean: Array, var: Array, *rest: Any) -> bool:
    """dy (N,H',W',C), x (N,H,W,C) and values per channel."""
    lines = float32_arrays(dy, x, scale, shift) and per_channel(x, scale, shift) and statistics(x, mean, var)
    return windows_fit(dy, x) and lines


def batchnorm_relu_max_pool2d(
    x: Array, scale: Array, shift: Array, eps: float, kernel: Pair, stride: Pair, padding: Padding
) -> tuple[Array, Array, Array]:
    """x (N,H,W,C) -> y (N,H',W',C), mean, variance."""
    if not _in_one_pass(x, kernel, stride, padding):
        y, mean, var = batchnorm.batchnorm_relu(x, scale, shift, eps)
        return pooling.max_pool2d(y, kernel, stride, padding), mean, var
    x = np.ascontiguousarray(x)
    mean, var = moments(x)
    return _pooled(x, scale, shift, mean, var, eps), mean, var


def batchnorm_relu_max_pool2d_eval(
    x: Array, scale: Array, shift: Array, mean: Array, var: Array, eps: float,
    kernel: Pair, stride: Pair, padding: Padding,
) -> Array:  # fmt: skip
    """x (N,H,W,C) -> y (N,H',W',C) with given statistics."""
    if not _in_one_pass(x, kernel, stride, padding):
        y = batchnorm.batchnorm_relu_eval(x, scale, shift, mean, var, eps)
        return pooling.max_pool2d(y, kernel, stride, padding)
    return _pooled(np.ascontiguousarray(x), scale, shift, mean, var, eps)


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
    mean, inv, a, shift, rest = line(scale, shift, mean, var, eps)
    total, products = partial(c), partial(c)
    parallel(_pool_sums, dy, x, mean, inv, a, shift, rest, empty((SHARDS, 2 * c)), total, products, work=x.size)
    mean_dz, pull, dscale, dshift = back_line(inv, rest, total, products, x.size // c)
    dx = empty(x.shape)
    parallel(_pool_grad, dy, x, mean, a, shift, mean_dz, pull, streams(dx), dx, work=x.size)
    return dx, dscale, dshift
