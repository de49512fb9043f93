"""Fully connected layers without cuBLAS, which CuPy refuses while a CUDA graph is captured.

A product of few multiply-adds is cheap however it is computed.  Larger ones stay on cuBLAS, with its tensor cores.
"""

from collections.abc import Callable

import numpy as np

from gpucnn.kernels.gpu import launch as launching
from gpucnn.kernels.gpu.arguments import storage
from gpucnn.kernels.gpu.compile import TYPES, Module
from gpucnn.kernels.gpu.launch import NULL, Grid, ceil_div, contiguous, empty, launch
from gpucnn.kernels.gpu.sums import column_sums
from gpucnn.types import Array

TILE, BLOCK_SIDE = 32, 16
LAYOUTS = {"linear": ("false", "true"), "input_grad": ("false", "false"), "weight_grad": ("true", "false")}
"""Whether the first and the second factor lie in memory transposed, as template arguments."""

SIDES: dict[str, Callable[[Array, Array], tuple[int, int, int]]] = {
    "linear": lambda x, w: (len(x), len(w), x.shape[1]),
    "input_grad": lambda dy, w: (len(dy), w.shape[1], len(w)),
    "weight_grad": lambda dy, x: (dy.shape[1], x.shape[1], len(x)),
}
"""m, n and k of the product (m, k) (k, n)."""

MODULE = Module(
    "gemm.cu",
    [
        f"product<{stored}, {', '.join(transposed)}, {out}>"
        for transposed in LAYOUTS.values()
        for stored, out in (("float", "float"), ("__half", "__half"), ("__half", "float"))
    ],
)

MOST = 1 << 26  # multiply-adds of a product that is computed here
BUSY = 128  # blocks that a GPU should have to do
DEEP = 64  # steps of k that are worth a block of their own


def plan(m: int, n: int, k: int) -> str:
    """What computes a product (m, k) (k, n): "gemm.cu", or "cublas" where it is a large one."""
    return "gemm.cu" if 0 < m * n * k <= MOST else "cublas"


def pieces(m: int, n: int, k: int) -> int:
    """How many pieces k is cut into, so that products of few tiles keep a GPU busy; a matter of the shape alone."""
    tiles = ceil_div(m, TILE) * ceil_div(n, TILE)
    return max(1, min(BUSY // tiles, k // DEEP))


def product(layout: str, a: Array, b: Array, bias: Array | None = None) -> Array:
    """a (m, k) times b (k, n) plus bias (n,), in the factors' dtype; sums are float32."""
    a, b = contiguous(a), contiguous(b)
    m, n, k = SIDES[layout](a, b)
    splits = pieces(m, n, k)
    out = a.dtype if splits == 1 else np.dtype("float32")
    c = empty((splits, m * n), out)
    name = f"product<{TYPES[a.dtype.name]}, {', '.join(LAYOUTS[layout])}, {TYPES[out.name]}>"
    rows = min(ceil_div(m, TILE) * splits, launching.BLOCKS)
    sizes = (np.int64(m), np.int64(n), np.int64(k), np.int32(splits))
    grid = Grid((ceil_div(n, TILE), rows), (BLOCK_SIDE, BLOCK_SIDE))
    launch(MODULE, name, grid, a, b, NULL if bias is None else contiguous(bias), *sizes, c)
    return c.reshape(m, n) if splits == 1 else column_sums(c, 1, 1.0, a.dtype, (m, n))


def accepts(layout: str, a: Array, b: Array, *bias: Array) -> bool:
    """Two matrices that fit together, a bias of theirs perhaps, and few enough multiply-adds."""
    if not (storage(a, b, *bias) and a.ndim == b.ndim == 2):
        return False
    m, n, k = SIDES[layout](a, b)
    fit = (a.size, b.size) == (m * k, n * k) and all(array.shape == (n,) for array in bias)
    return fit and plan(m, n, k) == MODULE.file


def accepts_linear(x: Array, w: Array, b: Array | None) -> bool:
    """x (N,C), w (F,C), b (F,) or None."""
    return accepts("linear", x, w, *([] if b is None else [b]))


def accepts_input_grad(dy: Array, w: Array) -> bool:
    """dy (N,F), w (F,C)."""
    return accepts("input_grad", dy, w)


def accepts_weight_grad(dy: Array, x: Array) -> bool:
    """dy (N,F), x (N,C)."""
    return accepts("weight_grad", dy, x)


def linear(x: Array, w: Array, b: Array | None) -> Array:
    """x (N,C), w (F,C), b (F,) or None -> y (N,F)."""
    return product("linear", x, w, b)


def linear_input_grad(dy: Array, w: Array) -> Array:
    """dy (N,F), w (F,C) -> dx (N,C)."""
    return product("input_grad", dy, w)


def linear_weight_grad(dy: Array, x: Array) -> Array:
    """dy (N,F), x (N,C) -> dw (F,C)."""
    return product("weight_grad", dy, x)
