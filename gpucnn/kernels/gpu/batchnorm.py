"""Batch norm, with and without ReLU: two passes over the image forward, two back, and a short one between them.

What belongs to a channel is float32 (scale, shift and their gradients), but a batch's statistics are float64; x, y and
their gradients are float32 or float16.  Sums are float64 beyond 64 rows, merged without cancellation, in an order that
the shape fixes.
"""

from typing import Any

import numpy as np

from gpucnn.kernels.arguments import statistics as statistics_of
from gpucnn.kernels.gpu.arguments import alike, channel_values, flat, on_host, storage
from gpucnn.kernels.gpu.compile import QUADS, Module, instances
from gpucnn.kernels.gpu.launch import NULL, ROWS_EACH, contiguous, empty, launch, line_of, outer, quads, table_of, tall
from gpucnn.kernels.gpu.sums import column_sums
from gpucnn.types import Array

MOMENT_SLABS, GRADIENT_SLABS = 512, 384
"""Pieces of a sum at most: as many blocks as an H100 holds at once, four or three on each of 132 multiprocessors."""
WITH_RELU = {False: "false", True: "true"}

MODULE = Module(
    "batchnorm.cu",
    [
        *instances("moments", wide=QUADS),
        "finish_moments",
        "move_running",
        *(
            name
            for kernel in ("normalize", "grad_sums", "grad_apply")
            for relu in WITH_RELU.values()
            for name in instances(kernel, relu, wide=QUADS)
        ),
    ],
)


def statistics(x: Array) -> tuple[Array, Array]:
    """x (..., C), contiguous -> mean and biased variance (C,), in float64."""
    rows, width = outer(x.shape), x.shape[-1]
    storage, wide = quads(width, x)
    grid = table_of(rows, width // wide, ROWS_EACH, most=MOMENT_SLABS)
    slabs = grid.blocks[1]
    partial = empty((slabs, 2, width), "float64")
    launch(MODULE, f"moments<{storage}>", grid, x, np.int64(rows), np.int32(width), partial)
    mean, var = empty((width,), "float64"), empty((width,), "float64")
    numbers = (np.int32(slabs), np.int64(rows), np.int32(width))
    launch(MODULE, "finish_moments", tall(slabs, width), partial, *numbers, mean, var)
    return mean, var


def either(mean: Array, var: Array) -> tuple[Any, ...]:
    """Statistics (C,) as the kernels take them: a batch's in float64, or running ones in float32."""
    return (mean, var, NULL, NULL) if var.dtype == np.float64 else (NULL, NULL, mean, var)


def in_float64(mean: Array, var: Array) -> list[Array]:
    """Statistics (C,) as gradients take them."""
    return [contiguous(values).astype("float64", copy=False) for values in (mean, var)]


def _normalize(x: Array, scale: Array, shift: Array, mean: Array, var: Array, eps: float, relu: bool) -> Array:
    rows, width = outer(x.shape), x.shape[-1]
    y = empty(x.shape, x.dtype)
    storage, wide = quads(width, x, y)
    channels = (scale, shift, *either(mean, var))
    numbers = (np.float32(eps), np.int64(rows), np.int32(width))
    grid = table_of(rows, width // wide)
    launch(MODULE, f"normalize<{storage}, {WITH_RELU[relu]}>", grid, x, *channels, *numbers, y)
    return y


def _train(x: Array, scale: Array, shift: Array, eps: float, relu: bool) -> tuple[Array, Array, Array]:
    x = contiguous(x)
    mean, var = statistics(x)
    return _normalize(x, contiguous(scale), contiguous(shift), mean, var, eps, relu), mean, var


def _evaluate(x: Array, scale: Array, shift: Array, mean: Array, var: Array, eps: float, relu: bool) -> Array:
    x, scale, shift, mean, var = map(contiguous, (x, scale, shift, mean, var))
    return _normalize(x, scale, shift, mean, var, eps, relu)


def _grad(
    dy: Array, x: Array, scale: Array, shift: Array | None, mean: Array, var: Array, eps: float
) -> tuple[Array, Array, Array]:
    """Through ReLU too where there is a shift."""
    dy, x, scale = map(contiguous, (dy, x, scale))
    mean, var = in_float64(mean, var)
    relu = shift is not None
    rows, width = outer(x.shape), x.shape[-1]
    dx = empty(x.shape, x.dtype)
    storage, wide = quads(width, dy, x, dx)
    kind = f"<{storage}, {WITH_RELU[relu]}>"
    channels = (scale, NULL if shift is None else contiguous(shift), mean, var)
    numbers = (np.float32(eps), np.int64(rows), np.int32(width))

    grid = table_of(rows, width // wide, ROWS_EACH, most=GRADIENT_SLABS)
    slabs = grid.blocks[1]
    partial = empty((slabs, 2 * width), "float64")
    launch(MODULE, "grad_sums" + kind, grid, dy, x, *channels, *numbers, partial)
    sums = column_sums(partial, 1, 1.0, "float32", (2, width))  # dshift, dscale
    launch(MODULE, "grad_apply" + kind, table_of(rows, width // wide), dy, x, *channels, sums, *numbers, dx)
    return dx, sums[1], sums[0]


def accepts_train(x: Array, scale: Array, shift: Array, eps: Any) -> bool:
    """x (..., C), float32 per channel."""
    return storage(x) and channel_values(x, scale, shift) and on_host(eps)


def accepts_eval(x: Array, scale: Array, shift: Array, mean: Array, var: Array, eps: Any) -> bool:
    """The same with statistics."""
    return storage(x) and channel_values(x, scale, shift) and statistics_of(x, mean, var) and on_host(eps)


def accepts_grad(dy: Array, x: Array, *rest: Any) -> bool:
    """dy and x (..., C); the rest are float32 values per channel, statistics, and eps."""
    *values, mean, var, eps = rest
    return alike(dy, x) and channel_values(x, *values) and statistics_of(x, mean, var) and on_host(eps)


def accepts_running(running_mean: Array, running_var: Array, mean: Array, var: Array, *numbers: Any) -> bool:
    """Float32 (C,) each, and statistics of as many channels."""
    return flat(running_mean, running_var) and statistics_of(running_mean, mean, var) and on_host(*numbers)


def batchnorm(x: Array, scale: Array, shift: Array, eps: float) -> tuple[Array, Array, Array]:
    """x (..., C) -> y, mean, variance."""
    return _train(x, scale, shift, eps, relu=False)


def batchnorm_relu(x: Array, scale: Array, shift: Array, eps: float) -> tuple[Array, Array, Array]:
    """The same and ReLU, in the same passes."""
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
    return _grad(dy, x, scale, None, mean, var, eps)


def batchnorm_relu_grad(
    dy: Array, x: Array, scale: Array, shift: Array, mean: Array, var: Array, eps: float
) -> tuple[Array, Array, Array]:
    """The same through ReLU, whose mask is made again from x."""
    return _grad(dy, x, scale, shift, mean, var, eps)


def move_running(
    running_mean: Array, running_var: Array, mean: Array, var: Array, momentum: float, correction: float
) -> None:
    """The running statistics (C,), in place: one launch in place of eight."""
    mean, var = in_float64(mean, var)
    weights = (np.float32(1 - momentum), np.float32(momentum), np.float32(momentum * correction))
    width = mean.size
    launch(MODULE, "move_running", line_of(width), running_mean, running_var, mean, var, *weights, np.int32(width))
