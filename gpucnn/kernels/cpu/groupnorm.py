"""Group norm and layer norm: each example alone, in three passes forward and two back over what lies in a cache.

An example is P pixels of C channels in G groups (layer norm: one pixel, one group).  Sums are float64 of each channel,
then of a group's channels: first the mean, then squares around it, so no mean is too far and no value too large.  As
in ``batchnorm.py`` the mean is taken off each x, and what float32 does not hold of it off the shift.

Examples are cut into a fixed number of shards.  dscale and dshift are summed by shard and added in order, all else is
an example's own, so threads change no bit.
"""

from typing import Any

import numpy as np

from gpucnn.kernels.arguments import group_statistics, per_channel, same_shape
from gpucnn.kernels.cpu.arguments import float32_arrays
from gpucnn.kernels.cpu.batchnorm import fill_line
from gpucnn.kernels.cpu.engine.allocator import empty
from gpucnn.kernels.cpu.engine.compile import jit
from gpucnn.kernels.cpu.engine.threads import SHARDS, parallel, partial
from gpucnn.types import Array


@jit
def _over_groups(sums, count, size, mean):
    """Sums of channels (C,) -> the mean of each group of ``size`` channels and ``count`` values, (G,)."""
    for g in range(mean.size):
        total = 0.0
        for k in range(g * size, (g + 1) * size):
            total += sums[k]
        mean[g] = total / count


@jit
def _forward(first, last, x, scale, shift, eps, mean, var, y):
    """x (N,P,C) -> mean and var (N,G), y (N,P,C)."""
    n, p, c = x.shape
    groups = mean.shape[1]
    size = c // groups
    sums, wide, made = np.empty(c), np.empty(c), np.empty((5, c), np.float32)
    near, a, b = made[0], made[2], made[3]
    for e in range(n * first // SHARDS, n * last // SHARDS):
        sums[:] = 0.0
        for row in range(p):
            for k in range(c):
                sums[k] += x[e, row, k]
        _over_groups(sums, p * size, size, mean[e])
        for g in range(groups):
            for k in range(g * size, (g + 1) * size):
                wide[k] = mean[e, g]
        sums[:] = 0.0
        for row in range(p):
            for k in range(c):
                d = x[e, row, k] - wide[k]
                sums[k] += d * d
        _over_groups(sums, p * size, size, var[e])
        fill_line(scale, shift, mean[e], var[e], eps, size, made)
        for row in range(p):
            for k in range(c):
                y[e, row, k] = a[k] * (x[e, row, k] - near[k]) + b[k]


@jit
def _backward(first, last, dy, x, scale, mean, var, eps, dscale, dshift, dx):
    """dy, x (N,P,C) -> dx (N,P,C), and sums over each shard's examples -> dscale and dshift (SHARDS,C)."""
    n, p, c = x.shape
    groups = mean.shape[1]
    size = c // groups
    some, more, made = np.empty(c), np.empty(c), np.empty((5, c), np.float32)
    near, inv, rest = made[0], made[1], made[4]
    about, pull = np.empty(c, np.float32), np.empty(c, np.float32)
    for shard in range(first, last):
        dscale[shard] = 0.0
        dshift[shard] = 0.0
        for e in range(n * shard // SHARDS, n * (shard + 1) // SHARDS):
            fill_line(scale, scale, mean[e], var[e], eps, size, made)
            some[:] = 0.0
            more[:] = 0.0
            for row in range(p):
                for k in range(c):
                    d = dy[e, row, k]
                    some[k] += d
                    more[k] += d * ((x[e, row, k] - near[k]) * inv[k] + rest[k])
            for k in range(c):
                dshift[shard, k] += some[k]
                dscale[shard, k] += more[k]
            for g in range(groups):
                one = two = 0.0
                for k in range(g * size, (g + 1) * size):
                    if np.isfinite(scale[k]):
                        one += scale[k] * some[k]
                        two += scale[k] * more[k]
                    else:  # times numbers of either sign it is NaN, which their sum would hide
                        for row in range(p):
                            d = scale[k] * dy[e, row, k]
                            one += d
                            two += d * ((x[e, row, k] - near[k]) * inv[k] + rest[k])
                one, two = one / (p * size), two / (p * size)
                for k in range(g * size, (g + 1) * size):
                    about[k] = one + rest[k] * two if np.isfinite(two) else one
                    pull[k] = inv[k] * two
            for row in range(p):
                for k in range(c):
                    d = scale[k] * dy[e, row, k]
                    dx[e, row, k] = inv[k] * (d - (pull[k] * (x[e, row, k] - near[k]) + about[k]))


def accepts(x: Array, scale: Array, shift: Array, groups: Any, eps: Any) -> bool:
    """x (N, ..., C) with whole groups, float32 per channel."""
    return per_channel(x, scale, shift) and float32_arrays(x, scale, shift) and x.shape[-1] % groups == 0


def accepts_grad(dy: Array, x: Array, scale: Array, mean: Array, var: Array, groups: Any, eps: Any) -> bool:
    """dy and x (N, ..., C), float32 per channel, float64 statistics of each example and group."""
    fit = same_shape(dy, x) and per_channel(x, scale) and group_statistics(x, mean, var, groups)
    return fit and float32_arrays(dy, x, scale)


def examples(x: Array) -> Array:
    """x (N, ..., C) -> (N, P, C), contiguous."""
    return np.ascontiguousarray(x).reshape(x.shape[0], -1, x.shape[-1])


def groupnorm(x: Array, scale: Array, shift: Array, groups: int, eps: float) -> tuple[Array, Array, Array]:
    """x (N, ..., C) -> y, mean and variance (N, G)."""
    y, mean, var = empty(x.shape), np.empty((len(x), groups)), np.empty((len(x), groups))
    values = examples(x)
    scale, shift = np.ascontiguousarray(scale), np.ascontiguousarray(shift)
    parallel(_forward, values, scale, shift, float(eps), mean, var, y.reshape(values.shape), work=3 * x.size)
    return y, mean, var


def groupnorm_grad(
    dy: Array, x: Array, scale: Array, mean: Array, var: Array, groups: int, eps: float
) -> tuple[Array, Array, Array]:
    """dy, x (N, ..., C) -> dx, dscale (C,), dshift (C,)."""
    dx, values = empty(x.shape), examples(x)
    dscale, dshift = partial(x.shape[-1]), partial(x.shape[-1])
    given = (np.ascontiguousarray(a) for a in (scale, mean, var))
    how = (examples(dy), values, *given, float(eps), dscale, dshift)
    parallel(_backward, *how, dx.reshape(values.shape), work=4 * x.size)
    return dx, dscale.sum(axis=0).astype(np.float32), dshift.sum(axis=0).astype(np.float32)
