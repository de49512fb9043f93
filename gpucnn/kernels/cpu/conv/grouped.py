"""Convolutions with groups or dilation: which algorithm, the three kernels, and the arguments that they accept.

One filter per channel, or a few, is depthwise (``depthwise.py``).  Other groups are convolutions one after the other,
each on a copy of its channels; with dilation they are direct, since only the list of a window's places changes.
"""

import numpy as np

from gpucnn.kernels.cpu.arguments import float32_arrays
from gpucnn.kernels.cpu.conv import conv2d, depthwise, direct
from gpucnn.kernels.cpu.engine.allocator import empty
from gpucnn.types import Array, Padding, Pair, Shape

DEPTHWISE = "depthwise, channels beside each other"


def plan(x_shape: Shape, w_shape: Shape, stride: Pair, padding: Padding, dilation: Pair, groups: int) -> str:
    """The algorithm for a convolution of x (N,H,W,C) with w (F,KH,KW,C/G), forward and back."""
    if groups == x_shape[3]:
        return DEPTHWISE
    if dilation != (1, 1):
        return f"{conv2d.DIRECT}, dilated"
    (f, *kernel, per), (*image, _) = w_shape, x_shape
    return conv2d.plan((*image, per), (f // groups, *kernel, per), stride, padding)


def output_size(x_shape: Shape, w_shape: Shape, stride: Pair, padding: Padding, dilation: Pair) -> Pair:
    """(H',W')"""
    sides = zip(x_shape[1:3], w_shape[1:3], stride, padding, dilation, strict=True)
    h, w = ((size + sum(border) - d * (k - 1) - 1) // s + 1 for size, k, s, border, d in sides)
    return h, w


def _fits(x_shape: Shape, w_shape: Shape, dy: Shape | None, *how: object) -> bool:
    """Whether these are shapes of a convolution: groups of whole channels and filters, windows inside of the image."""
    *geometry, groups = how
    if len(x_shape) != 4 or len(w_shape) != 4 or x_shape[3] != groups * w_shape[3] or w_shape[0] % groups:  # type: ignore[operator]
        return False
    y_shape = (x_shape[0], *output_size(x_shape, w_shape, *geometry), w_shape[0])  # type: ignore[arg-type]
    return min(*x_shape, *w_shape, *y_shape) > 0 and dy in (None, y_shape)


def accepts_forward(
    x: Array, w: Array, b: Array | None, stride: Pair, padding: Padding, dilation: Pair, groups: int
) -> bool:
    """Float32 arrays that fit together."""
    fits = _fits(x.shape, w.shape, None, stride, padding, dilation, groups)
    return fits and float32_arrays(x, w, b) and (b is None or b.shape == w.shape[:1])


def accepts_input_grad(
    dy: Array, w: Array, x_shape: Shape, stride: Pair, padding: Padding, dilation: Pair, groups: int
) -> bool:
    """Likewise."""
    return float32_arrays(dy, w) and _fits(x_shape, w.shape, dy.shape, stride, padding, dilation, groups)


def accepts_weight_grad(
    dy: Array, x: Array, w_shape: Shape, stride: Pair, padding: Padding, dilation: Pair, groups: int
) -> bool:
    """Likewise."""
    return float32_arrays(dy, x) and _fits(x.shape, w_shape, dy.shape, stride, padding, dilation, groups)


def plan_forward(
    x: Array, w: Array, b: Array | None, stride: Pair, padding: Padding, dilation: Pair, groups: int
) -> str:
    """The algorithm of ``grouped_conv2d``."""
    return plan(x.shape, w.shape, stride, padding, dilation, groups)


def plan_input_grad(
    dy: Array, w: Array, x_shape: Shape, stride: Pair, padding: Padding, dilation: Pair, groups: int
) -> str:
    """The algorithm of ``grouped_conv2d_input_grad``."""
    return plan(x_shape, w.shape, stride, padding, dilation, groups)


def plan_weight_grad(
    dy: Array, x: Array, w_shape: Shape, stride: Pair, padding: Padding, dilation: Pair, groups: int
) -> str:
    """The algorithm of ``grouped_conv2d_weight_grad``."""
    return plan(x.shape, w_shape, stride, padding, dilation, groups)


def part(x: Array, group: int, groups: int) -> Array:
    """The channels of one group of x (..., C), beside each other."""
    per = x.shape[-1] // groups
    return np.ascontiguousarray(x[..., group * per : (group + 1) * per])


def grouped_conv2d(
    x: Array, w: Array, b: Array | None, stride: Pair, padding: Padding, dilation: Pair, groups: int
) -> Array:
    """x (N,H,W,C), w (F,KH,KW,C/G), b (F,) or None -> y (N,H',W',F)."""
    size = output_size(x.shape, w.shape, stride, padding, dilation)
    if groups == x.shape[3]:
        each = len(w) // groups  # filters for a channel
        spread = np.repeat(x, each, axis=3) if each > 1 else x
        return depthwise.forward(spread, w, b, size, stride, padding, dilation)
    y = empty((x.shape[0], *size, len(w)))
    filters = len(w) // groups
    for group in range(groups):
        own = slice(group * filters, (group + 1) * filters)
        some, weights, bias = part(x, group, groups), np.ascontiguousarray(w[own]), None if b is None else b[own]
        if dilation == (1, 1):
            made = conv2d.conv2d(some, weights, bias, stride, padding)
        else:
            made = direct.forward(some, weights, bias, stride, padding, size, dilation)
        if groups == 1:
            return made
        y[..., own] = made
    return y


def grouped_conv2d_input_grad(
    dy: Array, w: Array, x_shape: Shape, stride: Pair, padding: Padding, dilation: Pair, groups: int
) -> Array:
    """dy (N,H',W',F), w (F,KH,KW,C/G) -> dx of ``x_shape`` (N,H,W,C)."""
    *image, c = x_shape
    if groups == c:
        dx = depthwise.input_grad(dy, w, (*image, len(w)), stride, padding, dilation)
        return dx if len(w) == c else dx.reshape(*x_shape, -1).sum(axis=4)
    dx = empty(x_shape)
    filters, per = len(w) // groups, c // groups
    for group in range(groups):
        some, weights = part(dy, group, groups), np.ascontiguousarray(w[group * filters : (group + 1) * filters])
        if dilation == (1, 1):
            made = conv2d.conv2d_input_grad(some, weights, (*image, per), stride, padding)
        else:
            wide = conv2d.resize(weights, conv2d.whole(per))
            made = direct.input_grad(some, wide, (*image, wide.shape[3]), stride, padding, dilation)
            made = conv2d.resize(made, per)
        if groups == 1:
            return made
        dx[..., group * per : (group + 1) * per] = made
    return dx


def grouped_conv2d_weight_grad(
    dy: Array, x: Array, w_shape: Shape, stride: Pair, padding: Padding, dilation: Pair, groups: int
) -> Array:
    """dy (N,H',W',F), x (N,H,W,C) -> dw of ``w_shape`` (F,KH,KW,C/G)."""
    f, *kernel, per = w_shape
    if groups == x.shape[3]:
        spread = np.repeat(x, f // groups, axis=3) if f > groups else x
        return depthwise.weight_grad(dy, spread, w_shape, stride, padding, dilation)
    dw = empty(w_shape)
    filters = f // groups
    for group in range(groups):
        some, seen, shape = part(dy, group, groups), part(x, group, groups), (filters, *kernel, per)
        own = dw[group * filters : (group + 1) * filters]
        if dilation == (1, 1):
            own[...] = conv2d.conv2d_weight_grad(some, seen, shape, stride, padding)
        else:
            own[...] = direct.weight_grad(some, seen, shape, stride, padding, dilation)
    return dw
