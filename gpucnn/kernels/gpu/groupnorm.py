"""Group norm and layer norm: a launch forward, three back.

x, y and their gradients are float32 or float16, what belongs to a channel is float32, and the statistics of a group are
float64.  Sums are float64, in an order that the shape fixes.
"""

from typing import Any

import numpy as np

from gpucnn.kernels.arguments import group_statistics
from gpucnn.kernels.gpu.arguments import alike, channel_values, on_host, storage
from gpucnn.kernels.gpu.compile import TYPES, Module
from gpucnn.kernels.gpu.launch import ROWS_EACH, contiguous, empty, launch, line_of, outer, table_of
from gpucnn.kernels.gpu.sums import column_sums
from gpucnn.types import Array

WARP, BLOCK = 32, 256  # threads of a team
FEW = 1024  # values of a group that a warp sums alone
SLABS = 384  # pieces of a channel's sum at most

MODULE = Module(
    "groupnorm.cu",
    [
        *(
            f"{kernel}<{storage}, {team}>"
            for kernel in ("group_norm", "group_norm_grad")
            for storage in TYPES.values()
            for team in (WARP, BLOCK)
        ),
        *(f"group_sums<{storage}>" for storage in TYPES.values()),
    ],
)


def sizes(x: Array, groups: int) -> tuple[int, int, int]:
    """Pixels of an example, channels of a group, and how many examples and groups there are."""
    return outer(x.shape[1:]), x.shape[-1] // groups, x.shape[0] * groups


def launch_teams(kernel: str, x: Array, groups: int, eps: float, before: list[Array], after: list[Array]) -> None:
    """A team for each example and group of x: arrays, eps and sizes, arrays."""
    pixels, size, teams = sizes(x, groups)
    team = WARP if pixels * size <= FEW else BLOCK
    numbers = np.float32(eps), np.int64(teams), np.int32(groups), np.int32(pixels), np.int32(size)
    name = f"{kernel}<{TYPES[x.dtype.name]}, {team}>"
    launch(MODULE, name, line_of(teams * team), *before, *numbers, *after)


def accepts(x: Array, scale: Array, shift: Array, groups: Any, eps: Any) -> bool:
    """x (N, ..., C) with whole groups, float32 per channel."""
    fit = storage(x) and x.ndim > 1 and channel_values(x, scale, shift) and on_host(groups, eps)
    return bool(fit and x.shape[-1] % groups == 0)


def accepts_grad(dy: Array, x: Array, scale: Array, mean: Array, var: Array, groups: Any, eps: Any) -> bool:
    """dy and x (N, ..., C), float32 per channel, float64 statistics of each example and group."""
    fit = alike(dy, x) and x.ndim > 1 and channel_values(x, scale) and on_host(groups, eps)
    return fit and group_statistics(x, mean, var, groups)


def groupnorm(x: Array, scale: Array, shift: Array, groups: int, eps: float) -> tuple[Array, Array, Array]:
    """x (N, ..., C) -> y, mean and variance (N, G)."""
    x, scale, shift = map(contiguous, (x, scale, shift))
    y, mean, var = empty(x.shape, x.dtype), *(empty((x.shape[0], groups), "float64") for _ in range(2))
    launch_teams("group_norm", x, groups, eps, [x, scale, shift], [mean, var, y])
    return y, mean, var


def groupnorm_grad(
    dy: Array, x: Array, scale: Array, mean: Array, var: Array, groups: int, eps: float
) -> tuple[Array, Array, Array]:
    """dy, x (N, ..., C) -> dx, dscale (C,), dshift (C,)."""
    dy, x, scale, mean, var = map(contiguous, (dy, x, scale, mean, var))
    dx = empty(x.shape, x.dtype)
    launch_teams("group_norm_grad", x, groups, eps, [dy, x, scale, mean, var], [dx])
    pixels, size, _ = sizes(x, groups)
    rows, width = outer(x.shape), x.shape[-1]
    grid = table_of(rows, width, ROWS_EACH, most=SLABS)
    partial = empty((grid.blocks[1], 2 * width), "float64")
    numbers = np.float32(eps), np.int64(rows), np.int32(groups), np.int32(pixels), np.int32(size)
    launch(MODULE, f"group_sums<{TYPES[x.dtype.name]}>", grid, dy, x, mean, var, *numbers, partial)
    sums = column_sums(partial, 1, 1.0, "float32", (2, width))  # dshift, dscale
    return dx, sums[1], sums[0]
