"""From arrays to a launch: how wide to load, how many threads, and who launches.

``launcher`` is CuPy.  Tests put another one in its place, which runs the same kernels, compiled for the CPU, with the
same arguments on the same grid.
"""

from math import prod
from typing import Any, NamedTuple, Protocol

import numpy as np

from gpucnn.backend import array_module
from gpucnn.kernels.gpu.compile import QUADS, SCALARS, VECTORS, Module
from gpucnn.types import Array, Shape

BLOCK = 256  # threads of a block at most
BLOCKS = 1024  # of a grid at most; kernels stride over the rest, so every GPU adds in the same order
WAVES = 16  # times that limit where nothing is summed: there is no order to keep, and short blocks end together
TILE = 64  # columns of a block at most
FEW = 4  # columns at least of a block that goes down all rows: 32 bytes of float64
ROWS_EACH = 16  # rows of a thread before a reduction takes another block
VECTOR_BYTES = 16

NULL = np.uint64(0)
"""A pointer to nothing."""


class Grid(NamedTuple):
    """Blocks, and threads in a block, as (x, y)."""

    blocks: tuple[int, int]
    threads: tuple[int, int]


class Launcher(Protocol):
    """Allocates arrays on the device and starts kernels."""

    def empty(self, shape: Shape, dtype: Any) -> Array:
        """An array with arbitrary contents."""

    def address(self, array: Array) -> int:
        """Where its first value lies."""

    def launch(self, module: Module, name: str, grid: Grid, args: tuple[Any, ...]) -> None:
        """Start a kernel; arguments are arrays and NumPy scalars of exactly the parameters' types."""


class CupyLauncher:
    """The GPU: memory from CuPy's pool, kernels on its current stream.  Nothing waits for the device."""

    def empty(self, shape: Shape, dtype: Any) -> Array:
        import cupy

        return cupy.empty(shape, dtype)

    def address(self, array: Array) -> int:
        return int(array.data.ptr)

    def launch(self, module: Module, name: str, grid: Grid, args: tuple[Any, ...]) -> None:
        module.kernel(name)(grid.blocks, grid.threads, args)


launcher: Launcher = CupyLauncher()


def launch(module: Module, name: str, grid: Grid, *args: Any) -> None:
    """Start a kernel of this module."""
    launcher.launch(module, name, grid, args)


def empty(shape: Shape, dtype: Any) -> Array:
    """An array with arbitrary contents on the device."""
    return launcher.empty(shape, dtype)


def contiguous(array: Array) -> Array:
    """The array, or a copy of it with its values side by side in the order of its axes."""
    return array_module(array).ascontiguousarray(array)


def ceil_div(a: int, b: int) -> int:
    """a / b, rounded up."""
    return -(-a // b)


def aligned(border: int, *arrays: Array) -> bool:
    """Whether all of them begin on a border of so many bytes."""
    return not any(launcher.address(array) % border for array in arrays)


def vectors(columns: int, *arrays: Array) -> tuple[str, int]:
    """Storage and width of loads, as template arguments, and the width: 16 bytes where rows allow it, else one value.

    Args:
        columns: values in a row; every row has to begin on a 16-byte border.
        arrays: of one dtype, float32 or float16.
    """
    kind = arrays[0].dtype
    wide = VECTOR_BYTES // kind.itemsize
    if columns % wide or not aligned(VECTOR_BYTES, *arrays):
        return SCALARS[kind.name], 1
    return VECTORS[kind.name], wide


def quads(columns: int, *arrays: Array) -> tuple[str, int]:
    """The same with four values at a time whatever the storage, for kernels that hold much for each of them."""
    kind = arrays[0].dtype
    if columns % 4 or not aligned(4 * kind.itemsize, *arrays):
        return SCALARS[kind.name], 1
    return QUADS[kind.name], 4


def line_of(count: int) -> Grid:
    """Threads in a row, one for each of ``count`` pieces of work, up to the limit of blocks."""
    return Grid((min(ceil_div(max(count, 1), BLOCK), BLOCKS), 1), (BLOCK, 1))


def table_of(rows: int, columns: int, each: int = 1, *, most: int | None = None, waves: bool = False) -> Grid:
    """Blocks over rows and columns, as ``columns.cuh`` explains them.

    Args:
        rows, columns: of the array, columns in vectors.
        each: rows for a thread before there is another block.
        most: blocks at most, where that is fewer than usual.
        waves: more blocks than usual, for kernels that sum nothing.
    """
    limit = BLOCKS * (WAVES if waves else 1)
    if most is not None:
        limit = min(limit, most)
    tiles = ceil_div(columns, TILE)
    across = ceil_div(columns, tiles)
    down = min(BLOCK // across, rows)
    blocks = min(ceil_div(rows, down * each), max(limit // tiles, 1))
    return Grid((tiles, blocks), (across, down))


def tall(rows: int, columns: int) -> Grid:
    """Blocks down all rows, as narrow as there are rows enough: for the last step of a sum."""
    down = min(BLOCK // FEW, rows)
    across = min(BLOCK // down, TILE, columns)
    return Grid((ceil_div(columns, across), 1), (across, down))


def number(value: Any, kind: type[np.generic]) -> tuple[Any, Any]:
    """A number, or a 0-d array with one on the device -> (the value, or 0; where it lies, or nowhere).

    A kernel reads the place where there is one, and when it runs: the host does not wait, and a CUDA graph that is
    replayed sees what the array holds by then.
    """
    if hasattr(value, "shape") and not isinstance(value, np.generic):
        return kind(0), value
    return kind(value), NULL


def outer(shape: Shape) -> int:
    """Rows of an array whose last axis is its columns."""
    return prod(shape[:-1])
