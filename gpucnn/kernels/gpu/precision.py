"""Mixed precision on the device: unscaled gradients, updates taken back, the next loss scale; the host never asks."""

from typing import Any

import numpy as np

from gpucnn.kernels.gpu.arguments import flat, is_array, on_host, scalar
from gpucnn.kernels.gpu.compile import Module
from gpucnn.kernels.gpu.launch import Grid, ceil_div, contiguous, empty, launch, line_of, vectors
from gpucnn.optim.loss_scale import LARGEST, SMALLEST
from gpucnn.types import Array

WIDTHS = (4, 1)

MODULE = Module(
    "precision.cu",
    [
        *(f"{kernel}<{wide}>" for kernel in ("finite_blocks", "unscale", "keep") for wide in WIDTHS),
        "all_of",
        "adapt",
    ],
)


def accepts_unscale(g: Array, finite: Array, scale: Array) -> bool:
    """A flat buffer, and two scalars on the device."""
    return accepts_keep(g, g, finite) and scalar(scale, np.float32) and is_array(scale)


def accepts_keep(now: Array, before: Array, finite: Array) -> bool:
    """Flat buffers, and a bool on the device."""
    return flat(now, before) and finite.shape == () and finite.dtype == np.bool_


def accepts_adapt(scale: Array, good: Array, finite: Array, interval: Any) -> bool:
    """Three scalars on the device, and a number."""
    return (
        (scale.dtype, good.dtype, finite.dtype) == (np.float32, np.int64, np.bool_)
        and scale.shape == good.shape == finite.shape == ()
        and on_host(interval)
    )


def unscale(g: Array, finite: Array, scale: Array) -> None:
    """Divide g (n,) by scale () and set finite, bool (), to whether all of g is; g becomes 0 where not.  In place."""
    _, wide = vectors(0, g)
    grid, n = line_of(ceil_div(g.size, wide)), np.int64(g.size)
    blocks = grid.blocks[0]
    partial = empty((blocks,), "bool")
    launch(MODULE, f"finite_blocks<{wide}>", grid, g, n, partial)
    launch(MODULE, "all_of", line_of(1), partial, np.int32(blocks), finite)
    launch(MODULE, f"unscale<{wide}>", grid, g, scale, finite, n)


def keep(now: Array, before: Array, finite: Array) -> None:
    """Put back what was there before, in place, unless finite ()."""
    before = contiguous(before)
    _, wide = vectors(0, now, before)
    launch(MODULE, f"keep<{wide}>", line_of(ceil_div(now.size, wide)), now, before, finite, np.int64(now.size))


def adapt(scale: Array, good: Array, finite: Array, interval: int) -> None:
    """The next scale (), and how many good steps () it has had, in place."""
    bounds = (np.int64(interval), np.float32(SMALLEST), np.float32(LARGEST))
    launch(MODULE, "adapt", Grid((1, 1), (1, 1)), scale, good, finite, *bounds)
