"""Mixed precision on the device: unscaled gradients, updates taken back, the next loss scale; the host never asks."""

import numpy as np

from gpucnn.kernels.gpu.compile import Module
from gpucnn.kernels.gpu.launch import Grid, ceil_div, contiguous, empty, launch, line_of, vectors
from gpucnn.types import Array

WIDTHS = (4, 1)
SMALLEST, LARGEST = 1.0, 2.0**24  # bounds of the scale, as in gpucnn/precision.py

MODULE = Module(
    "precision.cu",
    [
        *(f"{kernel}<{wide}>" for kernel in ("finite_blocks", "unscale", "keep") for wide in WIDTHS),
        "all_of",
        "adapt",
    ],
)


def unscale(g: Array, finite: Array, scale: Array) -> None:
    """Divide g (n,) by scale () and note whether all of it is finite, bool (), both in place; else g becomes 0."""
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
