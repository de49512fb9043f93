"""Maps over all elements, one pass each."""

from typing import Any

import numpy as np

from gpucnn.kernels.gpu.arguments import alike, on_host, storage
from gpucnn.kernels.gpu.compile import SCALARS, VECTORS, Module
from gpucnn.kernels.gpu.launch import NULL, ceil_div, contiguous, empty, launch, line_of, vectors
from gpucnn.types import Array

OPS = (
    "Relu", "Relu6", "LeakyRelu", "ReluGrad", "Relu6Grad", "LeakyReluGrad", "Gelu", "GeluGrad",
    "Hardswish", "HardswishGrad", "Add", "AddRelu",
)  # fmt: skip

MODULE = Module(
    "elementwise.cu",
    [f"map<{op}, {storage}>" for op in OPS for storage in (*VECTORS.values(), *SCALARS.values())],
)


def _map(op: str, a: Array, b: Array | None = None, slope: float = 0.0) -> Array:
    """y = op(a, b): arrays of one shape and dtype.  What is left over of the last vector goes one by one."""
    a = contiguous(a)
    b = None if b is None else contiguous(b)
    y = empty(a.shape, a.dtype)
    storage, wide = vectors(0, y, *(array for array in (a, b) if array is not None))
    grid = line_of(ceil_div(a.size, wide))
    second = NULL if b is None else b
    launch(MODULE, f"map<{op}, {storage}>", grid, a, second, np.float32(slope), np.int64(a.size), y)
    return y


accepts_one = storage
accepts_two = alike


def accepts_slope(x: Array, slope: Any) -> bool:
    """x and a number."""
    return storage(x) and on_host(slope)


def accepts_slope_grad(dy: Array, x: Array, slope: Any) -> bool:
    """dy, x and a number."""
    return alike(dy, x) and on_host(slope)


def relu(x: Array) -> Array:
    """max(x, 0)."""
    return _map("Relu", x)


def relu_grad(dy: Array, x: Array) -> Array:
    """dy where x > 0, else 0."""
    return _map("ReluGrad", dy, x)


def relu6(x: Array) -> Array:
    """min(max(x, 0), 6)."""
    return _map("Relu6", x)


def relu6_grad(dy: Array, x: Array) -> Array:
    """dy where 0 < x < 6, else 0."""
    return _map("Relu6Grad", dy, x)


def leaky_relu(x: Array, slope: float) -> Array:
    """x where x > 0, else slope x."""
    return _map("LeakyRelu", x, slope=slope)


def leaky_relu_grad(dy: Array, x: Array, slope: float) -> Array:
    """dy where x > 0, else slope dy."""
    return _map("LeakyReluGrad", dy, x, slope)


def gelu(x: Array) -> Array:
    """Exact GELU."""
    return _map("Gelu", x)


def gelu_grad(dy: Array, x: Array) -> Array:
    """dy (P(x) + x p(x))."""
    return _map("GeluGrad", dy, x)


def hardswish(x: Array) -> Array:
    """x min(max(x + 3, 0), 6) / 6."""
    return _map("Hardswish", x)


def hardswish_grad(dy: Array, x: Array) -> Array:
    """0 where x <= -3, dy where x >= 3, else dy (2 x + 3) / 6."""
    return _map("HardswishGrad", dy, x)


def add(a: Array, b: Array) -> Array:
    """The sum of two arrays of one shape."""
    return _map("Add", a, b)


def add_relu(a: Array, b: Array) -> Array:
    """The sum of two arrays of one shape, cut at 0."""
    return _map("AddRelu", a, b)
