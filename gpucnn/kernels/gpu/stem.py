"""The first convolution of a net, forward: few channels, so few products that tensor cores would wait for memory.

Before cuDNN's tensor cores take one or three channels, it may copy the images into more of them.  Here an output is
KH KW C multiply-adds, and two or four bytes to be written.  A GPU that does 30e12 multiply-adds a second in float32
while it writes 4e12 bytes breaks even at 15 of them for a float16 output and at 30 for a float32 one.  So whitening by
2x2x3 waits for memory, 3x3x3 in float16 for arithmetic, about twice as long; what has more than ``TAPS`` is left to
tensor cores.  The gradients have other shapes and stay on cuDNN.
"""

from math import prod

import numpy as np

from gpucnn.kernels.gpu.compile import QUADS, VECTORS, Module, instances
from gpucnn.kernels.gpu.cudnn.geometry import FPROP, Geometry
from gpucnn.kernels.gpu.launch import NULL, ceil_div, contiguous, empty, launch, quads, table_of, vectors
from gpucnn.types import Array, Padding, Pair

PLAN = "stem.cu"
LINES = ((2, 1), (3, 1), (5, 1), (2, 3), (3, 3))
"""Width of a filter, channels: what is kept in registers is a constant of the source."""

LONG = (3, 3)
"""So much of it that a thread has registers for four filters beside it, not for eight."""

MODULE = Module(
    PLAN,
    [name for line in LINES for name in instances("stem", *map(str, line), wide=QUADS if line == LONG else VECTORS)],
)

TAPS, FILTERS = 32, 64  # of a filter, and how many, at most: they lie in shared memory
PIXELS = 8  # neighbours that a thread computes: a factor is read once for all of them
MOST = 2**31  # elements of an image, and of what comes of it


def accepts(geometry: Geometry, arrays: tuple[Array, ...]) -> bool:
    """A forward convolution of few channels, and arrays of its shapes and of one dtype."""
    _, kh, kw, c = geometry.w_shape if len(geometry.w_shape) == 4 else (0, 0, 0, 0)
    return (
        geometry.op == FPROP
        and (kw, c) in LINES
        and kh * kw * c <= TAPS
        and geometry.w_shape[0] <= FILTERS
        and geometry.stride == (1, 1)
        and geometry.plain
        and not geometry.problem()
        and all(prod(shape[1:]) < MOST for shape in (geometry.x_shape, geometry.y_shape))
        and all(
            array.shape == shape and array.dtype == geometry.dtype
            for array, shape in zip(arrays, geometry.input_shapes, strict=True)
        )
    )


def conv2d(x: Array, w: Array, b: Array | None, stride: Pair, padding: Padding) -> Array:
    """x (N,H,W,C), w (F,KH,KW,C), b (F,) or None -> y (N,H',W',F), with float32 sums in the order of w."""
    x, w = contiguous(x), contiguous(w)
    (_, h, width, _), (f, kh, kw, c) = x.shape, w.shape
    geometry = Geometry(FPROP, x.shape, w.shape, stride, padding, x.dtype)
    n, down, across, _ = geometry.y_shape
    y = empty(geometry.y_shape, x.dtype)
    storage, wide = quads(f, y) if (kw, c) == LONG else vectors(f, y)
    rows, columns = n * down, ceil_div(across, PIXELS) * (f // wide)
    sizes = (f, h, width, down, across, kh, padding[0][0], padding[1][0])
    numbers = (np.int64(rows), np.int32(columns), *map(np.int32, sizes))
    bias = NULL if b is None else contiguous(b)
    launch(MODULE, f"stem<{storage}, {kw}, {c}>", table_of(rows, columns), x, w, bias, *numbers, y)
    return y
