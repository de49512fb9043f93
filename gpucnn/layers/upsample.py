"""Upsampling by whole factors: nearest neighbours or straight lines between pixels.

Along one axis, pixel i becomes f pixels.  Number p of them (p = 0 .. f-1) lies at i + o_p in pixels of the input:

    (UP)  nearest:   y[i f + p] = x[i]
          bilinear:  y[i f + p] = (1 - |o_p|) x[i] + |o_p| x[i + sign o_p],   o_p = (p + 1/2) / f - 1/2

where beyond the border the pixel at the border stands in (PyTorch's align_corners=False).  Nearest is the second
equation with all o_p = 0.  An image is upsampled along its height, then along its width.

Backward.  y is linear in x, so the gradient takes each weight back to the pixel it came from: with the slice
d_p[i] = dy[i f + p],

    dx[i] = sum_p (1 - |o_p|) d_p[i] + |o_p| d_p[i - sign o_p]

and what the pixel at the border stood in for is its own: there also d_p[i] itself where i + sign o_p is outside.
The loops run over p, f slices of whole images; there is no matrix, and no two slices write to one place.
"""

from math import prod
from typing import Any

from gpucnn.backend import accumulator_dtype, array_module
from gpucnn.errors import ShapeError, UsageError
from gpucnn.layers.base import Layer
from gpucnn.layers.windows import as_pair
from gpucnn.types import Array, Pair, Shape

HEIGHT, WIDTH = 1, 2  # axes of (N,H,W,C)


def offsets(factor: int, linear: bool) -> list[float]:
    """o_p of the p-th pixel of each f; 0 for nearest neighbours."""
    return [(p + 0.5) / factor - 0.5 if linear else 0.0 for p in range(factor)]


def along(axis: int, part: slice) -> tuple[slice, ...]:
    """An index of (N,H,W,C) that takes a part of one axis."""
    return tuple(part if i == axis else slice(None) for i in range(4))


def neighbours(o: float, size: int) -> tuple[slice, slice, slice]:
    """(pixels that have a neighbour at sign o, these neighbours, the pixel at the border that is its own)."""
    left, right = slice(0, size - 1), slice(1, size)
    return (right, left, slice(0, 1)) if o < 0 else (left, right, slice(size - 1, size))


def upsample_axis(x: Array, axis: int, factor: int, linear: bool) -> Array:
    """(UP)  x with ``factor`` times as many pixels along an axis."""
    y = array_module(x).zeros([factor * s if i == axis else s for i, s in enumerate(x.shape)], dtype=x.dtype)
    for p, o in enumerate(offsets(factor, linear)):
        target = y[along(axis, slice(p, None, factor))]
        target[...] = (1 - abs(o)) * x if o else x
        if o:
            here, there, border = (along(axis, part) for part in neighbours(o, x.shape[axis]))
            target[here] += abs(o) * x[there]
            target[border] += abs(o) * x[border]
    return y


def upsample_axis_grad(dy: Array, axis: int, factor: int, linear: bool) -> Array:
    """(UP)  dy -> dx, with as many pixels along an axis divided by ``factor``: what was read is added to."""
    shape = [s // factor if i == axis else s for i, s in enumerate(dy.shape)]
    dx = array_module(dy).zeros(shape, dtype=accumulator_dtype(dy))
    for p, o in enumerate(offsets(factor, linear)):
        part = dy[along(axis, slice(p, None, factor))].astype(dx.dtype, copy=False)
        dx += (1 - abs(o)) * part if o else part
        if o:
            here, there, border = (along(axis, part) for part in neighbours(o, shape[axis]))
            dx[there] += abs(o) * part[here]
            dx[border] += abs(o) * part[border]
    return dx.astype(dy.dtype, copy=False)


def upsample(x: Array, factor: Pair, linear: bool) -> Array:
    """(UP)  x (N,H,W,C) -> y (N, H FH, W FW, C)."""
    return upsample_axis(upsample_axis(x, HEIGHT, factor[0], linear), WIDTH, factor[1], linear)


def upsample_grad(dy: Array, factor: Pair, linear: bool) -> Array:
    """(UP)  dy (N, H FH, W FW, C) -> dx (N,H,W,C)."""
    return upsample_axis_grad(upsample_axis_grad(dy, WIDTH, factor[1], linear), HEIGHT, factor[0], linear)


class Upsample(Layer):
    """Images of ``factor`` times the height and width.

    Args:
        factor: an int or a (height, width) pair.
        mode: "nearest" or "bilinear".

    Raises:
        UsageError: another mode.
        ShapeError: a factor below 1.
    """

    def __init__(self, factor: int | Pair = 2, *, mode: str = "nearest") -> None:
        if mode not in ("nearest", "bilinear"):
            raise UsageError(f"Upsample(mode={mode!r}): give 'nearest' or 'bilinear'")
        self.factor, self.mode = as_pair(factor, "factor", 1), mode
        self.linear = mode == "bilinear"
        self.equations = LINES if self.linear else NEAREST

    def forward(self, x: Array) -> Array:
        self.keep(None)
        return self.run(upsample, x, self.factor, self.linear)

    def backward(self, dy: Array) -> Array | None:
        self.kept()
        return self.run(upsample_grad, dy, self.factor, self.linear)

    def symbols(self) -> dict[str, Any]:
        (fh, fw), linear = self.factor, self.linear

        def weights(size: int, factor: int, x: Array) -> Array:  # (size factor, size): the whole map along an axis
            eye = array_module(x).eye(size, dtype=x.dtype)
            return upsample_axis(eye.reshape(1, size, 1, size), HEIGHT, factor, linear)[0, :, 0]

        rows = {"a": lambda x: weights(x.shape[1], fh, x), "b": lambda x: weights(x.shape[2], fw, x)} if linear else {}
        return {"fh": fh, "fw": fw, **rows}

    def output_shape(self, shape: Shape) -> Shape:
        if len(shape) != 3:
            raise ShapeError(f"Upsample got x of shape {shape}: give images (H, W, C)")
        return self.factor[0] * shape[0], self.factor[1] * shape[1], shape[2]

    def flops(self, shape: Shape) -> int:
        return 6 * prod(self.output_shape(shape)) if self.linear else 0


NEAREST = (
    "y[e,p,q,c] = x[e, p//fh, q//fw, c]  # (UP) upsample",
    "dx[e,i,j,c] = sum[m:fh, n:fw](dy[e, i*fh+m, j*fw+n, c])  # (UP) upsample_grad",
)
LINES = (
    "y[e,p,q,c] = sum[i,j](a[p,i] * b[q,j] * x[e,i,j,c])  # (UP) upsample",
    "dx[e,i,j,c] = sum[p,q](a[p,i] * b[q,j] * dy[e,p,q,c])  # (UP) upsample_grad",
)
