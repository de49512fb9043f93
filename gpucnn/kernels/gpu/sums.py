"""Sums down the rows of an array: a bias's gradient, global average pooling, and the last step of other reductions."""

from typing import Any

import numpy as np

from gpucnn.kernels.gpu.arguments import storage
from gpucnn.kernels.gpu.compile import SCALARS, VECTORS, Module
from gpucnn.kernels.gpu.launch import ROWS_EACH, contiguous, empty, launch, outer, table_of, tall, vectors
from gpucnn.types import Array, Shape

OUTPUTS = {"float32": "float", "float16": "__half", "float64": "double", "int64": "index_t"}

MODULE = Module(
    "sums.cu",
    [
        *(f"column_sums<{storage}, double>" for storage in (*VECTORS.values(), *SCALARS.values())),
        *(f"column_sums<{storage}, float>" for storage in (*VECTORS.values(), *SCALARS.values())),
        *(f"column_sums<{storage}, __half>" for storage in (VECTORS["float16"], SCALARS["float16"])),
        *(f"column_sums<{storage}, __half>" for storage in (VECTORS["float32"], SCALARS["float32"])),
        "column_sums<float, 1, index_t>",
        "column_sums<double, 1, float>",
    ],
)


def column_sums(x: Array, segments: int, factor: float, dtype: Any, shape: Shape) -> Array:
    """x (rows, width), contiguous -> sums of equal segments of rows, times a factor, as ``shape``.

    Float64 inside wherever more than 64 rows come together.
    """
    rows, width = x.shape
    storage, wide = vectors(width, x) if x.dtype != np.float64 else ("double, 1", 1)
    out = empty(shape, dtype)
    grid = tall(rows, width // wide)
    if segments > 1:
        grid = table_of(ceil_rows(rows, segments), width // wide)
        grid = grid._replace(blocks=(grid.blocks[0], min(segments, 65535)))
    name = f"column_sums<{storage}, {OUTPUTS[np.dtype(dtype).name]}>"
    launch(MODULE, name, grid, x, np.int64(rows), np.int32(width), np.int64(segments), np.float64(factor), out)
    return out


def ceil_rows(rows: int, segments: int) -> int:
    """Rows of the longest segment."""
    return -(-rows // segments)


def total(x: Array, dtype: Any, factor: float = 1.0) -> Array:
    """x (n,) -> its sum times a factor, as a 0-d array."""
    return column_sums(x.reshape(-1, 1), 1, factor, dtype, ())


accepts_bias_grad = storage


def bias_grad(dy: Array) -> Array:
    """dy (..., F) -> db (F,), float32 whatever dy is stored in: sums of float16 overflow."""
    dy = contiguous(dy).reshape(-1, dy.shape[-1])
    rows, width = outer(dy.shape), dy.shape[-1]
    _, wide = vectors(width, dy)
    slabs = table_of(rows, width // wide, ROWS_EACH).blocks[1]
    if slabs > 1:
        dy = column_sums(dy, slabs, 1.0, "float64", (slabs, width))
    return column_sums(dy, 1, 1.0, "float32", (width,))
