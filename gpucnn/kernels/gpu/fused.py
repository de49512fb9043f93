"""ReLU or batch norm and the max pooling behind it: 2x2 windows that tile the image go in batch norm's own passes.

Behind batch norm, other windows take the kernels one after the other, and what lies between is stored as x is.
"""

from typing import Any

import numpy as np

from gpucnn.kernels.arguments import statistics
from gpucnn.kernels.gpu import batchnorm, pooling
from gpucnn.kernels.gpu.arguments import channel_values, on_host
from gpucnn.kernels.gpu.compile import Module, instances
from gpucnn.kernels.gpu.launch import ROWS_EACH, contiguous, empty, launch, table_of, vectors
from gpucnn.kernels.gpu.sums import column_sums
from gpucnn.types import Array, Padding, Pair

MODULE = Module(
    "fused.cu", [*instances("pool_normalized"), *instances("pool_grad_sums"), *instances("pool_grad_apply")]
)


def in_one_pass(x: Array, kernel: Pair, stride: Pair, padding: Padding) -> bool:
    """Whether a kernel does all three at once: windows of 2x2 that tile the image, at least one."""
    return pooling.tiled(kernel, stride, padding) and min(x.shape[1:3]) >= 2


def _pooled(x: Array, scale: Array, shift: Array, mean: Array, var: Array, eps: float) -> Array:
    n, h, w, c = x.shape
    y = empty((n, h // 2, w // 2, c), x.dtype)
    storage, wide = vectors(c, x, y)
    rows, columns, count = n * (h // 2), w // 2 * (c // wide), c // wide
    sizes = (np.int64(rows), np.int32(columns), np.int32(count), np.int32(h), np.int32(w))
    channels = (scale, shift, *batchnorm.either(mean, var), np.float32(eps))
    launch(MODULE, f"pool_normalized<{storage}>", table_of(rows, columns), x, *channels, *sizes, y)
    return y


def accepts_train(x: Array, scale: Array, shift: Array, eps: Any, *window: Any) -> bool:
    """What pooling accepts, and float32 per channel."""
    return pooling.accepts(x, *window) and channel_values(x, scale, shift) and on_host(eps)


def accepts_eval(x: Array, scale: Array, shift: Array, mean: Array, var: Array, eps: Any, *window: Any) -> bool:
    """The same with statistics."""
    return accepts_train(x, scale, shift, eps, *window) and statistics(x, mean, var)


def accepts_grad(
    dy: Array, x: Array, scale: Array, shift: Array, mean: Array, var: Array, eps: Any, *window: Any
) -> bool:
    """What the gradient of pooling accepts, float32 per channel, and variances."""
    values = channel_values(x, scale, shift) and statistics(x, mean, var) and on_host(eps)
    return pooling.accepts_max_grad(dy, x, *window) and values


def relu_max_pool2d(x: Array, kernel: Pair, stride: Pair, padding: Padding) -> Array:
    """x (N,H,W,C) -> y (N,H',W',C), in one pass for all windows."""
    return pooling.pooled_maximum(x, kernel, stride, padding, relu=True)


def relu_max_pool2d_grad(dy: Array, x: Array, kernel: Pair, stride: Pair, padding: Padding) -> Array:
    """dy (N,H',W',C), x (N,H,W,C) -> dx (N,H,W,C), in one pass for all windows."""
    return pooling.maximum_gradient(dy, x, kernel, stride, padding, relu=True)


def batchnorm_relu_max_pool2d(
    x: Array, scale: Array, shift: Array, eps: float, kernel: Pair, stride: Pair, padding: Padding
) -> tuple[Array, Array, Array]:
    """x (N,H,W,C) -> y (N,H',W',C), mean, variance."""
    if not in_one_pass(x, kernel, stride, padding):
        y, mean, var = batchnorm.batchnorm_relu(x, scale, shift, eps)
        return pooling.max_pool2d(y, kernel, stride, padding), mean, var
    x, scale, shift = map(contiguous, (x, scale, shift))
    mean, var = batchnorm.statistics(x)
    return _pooled(x, scale, shift, mean, var, eps), mean, var


def batchnorm_relu_max_pool2d_eval(
    x: Array, scale: Array, shift: Array, mean: Array, var: Array, eps: float,
    kernel: Pair, stride: Pair, padding: Padding,
) -> Array:  # fmt: skip
    """x (N,H,W,C) -> y (N,H',W',C) with given statistics."""
    if not in_one_pass(x, kernel, stride, padding):
        y = batchnorm.batchnorm_relu_eval(x, scale, shift, mean, var, eps)
        return pooling.max_pool2d(y, kernel, stride, padding)
    x, scale, shift, mean, var = map(contiguous, (x, scale, shift, mean, var))
    return _pooled(x, scale, shift, mean, var, eps)


def batchnorm_relu_max_pool2d_grad(
    dy: Array, x: Array, scale: Array, shift: Array, mean: Array, var: Array, eps: float,
    kernel: Pair, stride: Pair, padding: Padding,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """dy (N,H',W',C), x (N,H,W,C) -> dx, dscale, dshift."""
    if not in_one_pass(x, kernel, stride, padding):
        y = batchnorm.batchnorm_relu_eval(x, scale, shift, mean, var, eps)
        dz = pooling.max_pool2d_grad(dy, y, kernel, stride, padding)
        return batchnorm.batchnorm_relu_grad(dz, x, scale, shift, mean, var, eps)
    dy, x, scale, shift = map(contiguous, (dy, x, scale, shift))
    mean, var = batchnorm.in_float64(mean, var)
    n, h, w, c = x.shape
    dx = empty(x.shape, x.dtype)
    storage, wide = vectors(c, dy, x, dx)
    channels = (scale, shift, mean, var)

    windows = n * (h // 2) * (w // 2)
    grid = table_of(windows, c // wide, ROWS_EACH)
    slabs = grid.blocks[1]
    partial = empty((slabs, 2 * c), "float64")
    image = (np.int32(h), np.int32(w))
    numbers = (np.float32(eps), np.int64(windows), np.int32(c), *image)
    launch(MODULE, f"pool_grad_sums<{storage}>", grid, dy, x, *channels, *numbers, partial)
    sums = column_sums(partial, 1, 1.0, "float32", (2, c))  # dshift, dscale

    rows, count = n * ((h + 1) // 2), c // wide
    columns = (w + 1) // 2 * count
    sizes = (np.float32(eps), np.int64(n * h * w), np.int64(rows), np.int32(columns), np.int32(count), *image)
    grid = table_of(rows, columns)
    launch(MODULE, f"pool_grad_apply<{storage}>", grid, dy, x, *channels, sums, *sizes, dx)
    return dx, sums[1], sums[0]
