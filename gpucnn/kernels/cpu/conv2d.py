"""Which algorithm a convolution takes, and the three ops."""

import numpy as np

from gpucnn.kernels.cpu import direct, winograd
from gpucnn.kernels.cpu.simd import LANES
from gpucnn.typing import Array, Padding, Pair, Shape

WINOGRAD, DIRECT = "winograd F(4x4,3x3)", "direct, windows where they lie"
TILES, PAYING = 16, 64  # the fewest tiles for Winograd, and the channels for which they are enough


def plan(x_shape: Shape, w_shape: Shape, stride: Pair, padding: Padding) -> str:
    """The algorithm for a convolution of x (N,H,W,C) with w (F,KH,KW,C), forward and back.

    Winograd needs whole vectors of channels, and enough tiles for its transformed kernel to pay: where there are few
    images, the direct algorithm is up to nine times as fast.
    """
    f, kh, kw, c = w_shape
    n, h, w, _ = x_shape
    tiles = n * -(-h // 4) * -(-w // 4)
    fits = (kh, kw) == (3, 3) and stride == (1, 1) and max(*padding[0], *padding[1]) <= 2
    pays = tiles >= TILES and tiles * min(c, f) >= TILES * PAYING
    return WINOGRAD if fits and pays and f % LANES == 0 and c % LANES == 0 else DIRECT


def conv2d(x: Array, w: Array, b: Array | None, stride: Pair, padding: Padding) -> Array:
    """x (N,H,W,C), w (F,KH,KW,C), b (F,) or None -> y (N,H',W',F)."""
    _, kh, kw, _ = w.shape
    x, w = np.ascontiguousarray(x), np.ascontiguousarray(w)
    (top, bottom), (left, right) = padding
    size = (
        (x.shape[1] + top + bottom - kh) // stride[0] + 1,
        (x.shape[2] + left + right - kw) // stride[1] + 1,
    )
    if plan(x.shape, w.shape, stride, padding) == DIRECT:
        return direct.forward(x, w, b, stride, padding, size)
    y = winograd.forward(x, w, padding)
    if b is not None:
        y += b
    return y


def conv2d_input_grad(dy: Array, w: Array, x_shape: Shape, stride: Pair, padding: Padding) -> Array:
    """dy (N,H',W',F), w (F,KH,KW,C) -> dx of ``x_shape``."""
    dy, w = np.ascontiguousarray(dy), np.ascontiguousarray(w)
    if plan(x_shape, w.shape, stride, padding) == DIRECT:
        return direct.input_grad(dy, w, x_shape, stride, padding)
    return winograd.input_grad(dy, w, padding)


def conv2d_weight_grad(dy: Array, x: Array, w_shape: Shape, stride: Pair, padding: Padding) -> Array:
    """dy (N,H',W',F), x (N,H,W,C) -> dw of ``w_shape``."""
    dy, x = np.ascontiguousarray(dy), np.ascontiguousarray(x)
    if plan(x.shape, w_shape, stride, padding) == DIRECT:
        return direct.weight_grad(dy, x, w_shape, stride, padding)
    return winograd.weight_grad(dy, x, padding)
