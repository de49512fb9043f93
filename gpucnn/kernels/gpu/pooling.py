"""Max, average and global average pooling, and their gradients, which gather: no atomics, one order of every sum."""

from math import prod
from typing import Any

import numpy as np

from gpucnn.kernels.gpu.arguments import PLACES, storage
from gpucnn.kernels.gpu.compile import Module, instances
from gpucnn.kernels.gpu.launch import contiguous, empty, launch, table_of, vectors
from gpucnn.kernels.gpu.sums import column_sums
from gpucnn.types import Array, Padding, Pair, Shape

WITH_RELU = {False: "false", True: "true"}
MAXIMUM = Module(
    "max_pool.cu",
    [
        name
        for kernel in ("max_pool", "max_pool_2x2", "max_pool_grad", "max_pool_2x2_grad")
        for relu in WITH_RELU.values()
        for name in instances(kernel, relu)
    ],
)
AVERAGE = Module("avg_pool.cu", [*instances("avg_pool"), *instances("avg_pool_grad"), *instances("spread")])

NO_PADDING = ((0, 0), (0, 0))


def pooled_size(size: Pair, kernel: Pair, stride: Pair, padding: Padding) -> Pair:
    """Height and width of what comes out; below 1 where the window does not fit."""
    h, w = (
        (length + before + after - k) // s + 1
        for length, k, s, (before, after) in zip(size, kernel, stride, padding, strict=True)
    )
    return h, w


def tiled(kernel: Pair, stride: Pair, padding: Padding) -> bool:
    """Whether the windows are those of the usual pooling: 2, 2, 0."""
    return kernel == stride == (2, 2) and padding == NO_PADDING


def _windows(image: Pair, pooled: Pair, kernel: Pair, stride: Pair, padding: Padding) -> tuple[Any, ...]:
    """The parameters that ``window.cuh`` names."""
    sizes = (*image, *pooled, *kernel, *stride, padding[0][0], padding[1][0])
    return tuple(np.int32(size) for size in sizes)


def _pool(module: Module, name: str, x: Array, kernel: Pair, stride: Pair, padding: Padding, *extra: str) -> Array:
    """A thread for each vector of channels of each output pixel; ``extra`` are further template arguments."""
    x = contiguous(x)
    n, h, w, c = x.shape
    down, across = pooled_size((h, w), kernel, stride, padding)
    y = empty((n, down, across, c), x.dtype)
    storage, wide = vectors(c, x, y)
    rows, columns, channels = n * down, across * c // wide, c // wide
    windows = _windows((h, w), (down, across), kernel, stride, padding)
    sizes = (np.int64(rows), np.int32(columns), np.int32(channels))
    launch(module, f"{name}<{', '.join((storage, *extra))}>", table_of(rows, columns), x, *sizes, *windows, y)
    return y


def pooled_maximum(x: Array, kernel: Pair, stride: Pair, padding: Padding, *, relu: bool) -> Array:
    """x (N,H,W,C) -> y (N,H',W',C), of max(x, 0) where ``relu``."""
    if not tiled(kernel, stride, padding):
        return _pool(MAXIMUM, "max_pool", x, kernel, stride, padding, WITH_RELU[relu])
    x = contiguous(x)
    n, h, w, c = x.shape
    y = empty((n, h // 2, w // 2, c), x.dtype)
    storage, wide = vectors(c, x, y)
    rows, columns, channels = n * (h // 2), w // 2 * (c // wide), c // wide
    sizes = (np.int64(rows), np.int32(columns), np.int32(channels), np.int32(h), np.int32(w))
    launch(MAXIMUM, f"max_pool_2x2<{storage}, {WITH_RELU[relu]}>", table_of(rows, columns, waves=True), x, *sizes, y)
    return y


def maximum_gradient(dy: Array, x: Array, kernel: Pair, stride: Pair, padding: Padding, *, relu: bool) -> Array:
    """dy (N,H',W',C), x (N,H,W,C) -> dx (N,H,W,C); the first maximum of a window takes its gradient."""
    dy, x = contiguous(dy), contiguous(x)
    dx = empty(x.shape, x.dtype)
    storage, wide = vectors(x.shape[3], dy, x, dx)
    (n, h, w), channels = x.shape[:3], x.shape[3] // wide
    shape: tuple[Any, ...]
    if tiled(kernel, stride, padding):  # a thread for a window, and for what is left of one at the edge
        name, rows, columns = "max_pool_2x2_grad", n * ((h + 1) // 2), (w + 1) // 2 * channels
        shape = (np.int32(h), np.int32(w))
    else:  # a thread for a pixel
        name, rows, columns = "max_pool_grad", n * h, w * channels
        shape = _windows((h, w), dy.shape[1:3], kernel, stride, padding)
    sizes = (np.int64(rows), np.int32(columns), np.int32(channels))
    name = f"{name}<{storage}, {WITH_RELU[relu]}>"
    launch(MAXIMUM, name, table_of(rows, columns), dy, x, *sizes, *shape, dx)
    return dx


def fits(image: Shape, kernel: Pair, padding: Padding) -> bool:
    """A window is no larger than the image (N,H,W,C) with its border."""
    return all(k <= size + sum(border) for k, size, border in zip(kernel, image[1:3], padding, strict=True))


def accepts(x: Array, kernel: Pair, stride: Pair, padding: Padding) -> bool:
    """Images that the windows fit into."""
    return storage(x) and x.ndim == 4 and fits(x.shape, kernel, padding)


def accepts_grad(dy: Array, x_shape: Shape, kernel: Pair, stride: Pair, padding: Padding) -> bool:
    """A gradient of what the windows over such images give."""
    if not (storage(dy) and len(x_shape) == 4 and prod(x_shape[1:]) < PLACES and fits(x_shape, kernel, padding)):
        return False
    return bool(dy.shape == (x_shape[0], *pooled_size((x_shape[1], x_shape[2]), kernel, stride, padding), x_shape[3]))


def accepts_max_grad(dy: Array, x: Array, *window: Any) -> bool:
    """The same, with the images."""
    return storage(dy, x) and accepts_grad(dy, x.shape, *window)


def accepts_global(x: Array) -> bool:
    """Images (N,H,W,C)."""
    return storage(x) and x.ndim == 4


def accepts_global_grad(dy: Array, x_shape: Shape) -> bool:
    """dy (N,C) for images of ``x_shape``."""
    return storage(dy) and dy.shape == (x_shape[0], x_shape[3]) and 0 < prod(x_shape[1:]) < PLACES


def max_pool2d(x: Array, kernel: Pair, stride: Pair, padding: Padding) -> Array:
    """x (N,H,W,C) -> y (N,H',W',C)."""
    return pooled_maximum(x, kernel, stride, padding, relu=False)


def max_pool2d_grad(dy: Array, x: Array, kernel: Pair, stride: Pair, padding: Padding) -> Array:
    """dy (N,H',W',C), x (N,H,W,C) -> dx (N,H,W,C)."""
    return maximum_gradient(dy, x, kernel, stride, padding, relu=False)


def avg_pool2d(x: Array, kernel: Pair, stride: Pair, padding: Padding) -> Array:
    """x (N,H,W,C) -> y (N,H',W',C); zeros of the border count."""
    return _pool(AVERAGE, "avg_pool", x, kernel, stride, padding)


def avg_pool2d_grad(dy: Array, x_shape: Shape, kernel: Pair, stride: Pair, padding: Padding) -> Array:
    """dy (N,H',W',C) -> dx of ``x_shape``."""
    dy = contiguous(dy)
    n, h, w, c = x_shape
    dx = empty(x_shape, dy.dtype)
    storage, wide = vectors(c, dy, dx)
    rows, columns, channels = n * h, w * c // wide, c // wide
    windows = _windows((h, w), dy.shape[1:3], kernel, stride, padding)
    sizes = (np.int64(rows), np.int32(columns), np.int32(channels))
    launch(AVERAGE, f"avg_pool_grad<{storage}>", table_of(rows, columns), dy, *sizes, *windows, dx)
    return dx


def global_avg_pool2d(x: Array) -> Array:
    """x (N,H,W,C) -> y (N,C)."""
    n, h, w, c = x.shape
    return column_sums(contiguous(x).reshape(n * h * w, c), n, 1.0 / (h * w), x.dtype, (n, c))


def global_avg_pool2d_grad(dy: Array, x_shape: Shape) -> Array:
    """dy (N,C) -> dx of ``x_shape``."""
    dy = contiguous(dy)
    n, h, w, c = x_shape
    dx = empty(x_shape, dy.dtype)
    storage, wide = vectors(c, dy, dx)
    rows = n * h * w
    sizes = (np.int64(rows), np.int32(c), np.int32(h * w))
    launch(AVERAGE, f"spread<{storage}>", table_of(rows, c // wide), dy, *sizes, dx)
    return dx
