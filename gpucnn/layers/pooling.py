"""Max pooling and average pooling, with kernel, stride and padding (usual: 2, 2, 0).

    (L6)   y = the maximum, or the mean, of each window
    (L15)  max: the gradient goes to the maximum of each window, the first one in row-major order on a tie;
                 NaN is larger than any number
    (L16)  average: dy / (k k) to each element of the window

Max pooling pads with minus infinity; average pooling includes the zeros of its border.
"""

from functools import reduce
from math import prod
from typing import Any

from gpucnn.backend import accumulator_dtype, array_module
from gpucnn.errors import ShapeError
from gpucnn.layers.base import Layer
from gpucnn.layers.windows import as_padding, as_pair, crop, output_size, pad, view_taps
from gpucnn.types import Array, Padding, Pair, Shape


def max_pool2d(x: Array, kernel: Pair, stride: Pair, padding: Padding) -> Array:
    """(L6)  x (N,H,W,C) -> y (N,H',W',C)."""
    size = output_size(x.shape, kernel, stride, padding)
    taps = view_taps(pad(x, padding, -float("inf")), kernel, size, stride)
    return reduce(array_module(x).maximum, taps, next(taps).copy())


def max_pool2d_grad(dy: Array, x: Array, kernel: Pair, stride: Pair, padding: Padding) -> Array:
    """(L15)  dy (N,H',W',C), x (N,H,W,C) -> dx (N,H,W,C)."""
    xp = array_module(x)
    size = (dy.shape[1], dy.shape[2])
    y = max_pool2d(x, kernel, stride, padding)
    image = xp.pad(xp.ones(x.shape, dtype=bool), ((0, 0), *padding, (0, 0)))  # not the border, minus infinity as it is
    x = pad(x, padding, -float("inf"))
    dx = xp.zeros_like(x)
    searching = xp.ones(dy.shape, dtype=bool)  # windows whose first maximum is not found yet
    for pixels, inside, dpixels in zip(*(view_taps(a, kernel, size, stride) for a in (x, image, dx)), strict=True):
        found = searching & inside & ((pixels == y) | (pixels != pixels))  # NaN is the largest, as it is forward
        dpixels += xp.where(found, dy, 0)
        searching &= ~found
    return crop(dx, padding)


def avg_pool2d(x: Array, kernel: Pair, stride: Pair, padding: Padding) -> Array:
    """(L6)  x (N,H,W,C) -> y (N,H',W',C)."""
    size = output_size(x.shape, kernel, stride, padding)
    taps = (tap.astype(accumulator_dtype(x), copy=False) for tap in view_taps(pad(x, padding), kernel, size, stride))
    return (sum(taps) / prod(kernel)).astype(x.dtype, copy=False)


def avg_pool2d_grad(dy: Array, x_shape: Shape, kernel: Pair, stride: Pair, padding: Padding) -> Array:
    """(L16)  dy (N,H',W',C) -> dx of ``x_shape`` (N,H,W,C)."""
    n, h, w, c = x_shape
    (top, bottom), (left, right) = padding
    dx = array_module(dy).zeros((n, h + top + bottom, w + left + right, c), dtype=dy.dtype)
    dpixel = dy / prod(kernel)
    for dpixels in view_taps(dx, kernel, (dy.shape[1], dy.shape[2]), stride):
        dpixels += dpixel
    return crop(dx, padding)


def global_avg_pool2d(x: Array) -> Array:
    """(L6)  over the whole image: x (N,H,W,C) -> y (N,C)."""
    return x.mean(axis=(1, 2), dtype=accumulator_dtype(x)).astype(x.dtype, copy=False)


def global_avg_pool2d_grad(dy: Array, x_shape: Shape) -> Array:
    """(L16)  dy (N,C) -> dx of ``x_shape`` (N,H,W,C)."""
    n, h, w, c = x_shape
    dpixel = (dy / (h * w)).reshape(n, 1, 1, c)
    return array_module(dy).broadcast_to(dpixel, x_shape)


class _Pool2D(Layer):
    """The window and the output shape of max and average pooling.

    Args:
        kernel_size: an int or a (height, width) pair.
        stride: likewise; by default the kernel size, so that windows tile the image.
        padding: an int, a pair, or 'same' with stride 1; at most half the kernel.

    Raises:
        ShapeError: a kernel, stride or padding that does not fit this.
    """

    def __init__(
        self, kernel_size: int | Pair, *, stride: int | Pair | None = None, padding: int | Pair | str = 0
    ) -> None:
        self.kernel = as_pair(kernel_size, "kernel_size", 1)
        self.stride = as_pair(kernel_size if stride is None else stride, "stride", 1)
        self.padding = as_padding(padding, self.kernel, self.stride)
        if any(2 * before > k for (before, _), k in zip(self.padding, self.kernel, strict=True)):
            raise ShapeError(f"padding={padding!r} is more than half the kernel {self.kernel}: windows of padding")

    def symbols(self) -> dict[str, Any]:
        (kh, kw), (sh, sw), ((top, _), (left, _)) = self.kernel, self.stride, self.padding
        return {"kh": kh, "kw": kw, "sh": sh, "sw": sw, "top": top, "left": left}

    def output_shape(self, shape: Shape) -> Shape:
        if len(shape) != 3:
            raise ShapeError(f"{type(self).__name__} got x of shape {shape}: give images (H, W, C)")
        return *output_size(shape, self.kernel, self.stride, self.padding), shape[2]

    def flops(self, shape: Shape) -> int:
        return prod(self.output_shape(shape)) * prod(self.kernel)


class MaxPool2D(_Pool2D):
    """(L6, L15)"""

    equations = (
        "y[e,i,j,c] = max[m:kh, n:kw](x[e, i*sh+m-top, j*sw+n-left, c])  # (L6) max_pool2d",
        "first[e,i,j,c] = argmax[m:kh, n:kw](x[e, i*sh+m-top, j*sw+n-left, c])  # (L15) max_pool2d_grad",
        "dx[e,p,q,c] = sum[i,j](dy[e,i,j,c] * (i*sh-top + first[e,i,j,c] // kw == p)"
        " * (j*sw-left + first[e,i,j,c] % kw == q))  # (L15) max_pool2d_grad",
    )

    def forward(self, x: Array) -> Array:
        self.keep(x)
        return self.run(max_pool2d, x, self.kernel, self.stride, self.padding)

    def backward(self, dy: Array) -> Array | None:
        (x,) = self.kept()
        return self.run(max_pool2d_grad, dy, x, self.kernel, self.stride, self.padding)


class AvgPool2D(_Pool2D):
    """(L6, L16)"""

    equations = (
        "y[e,i,j,c] = mean[m:kh, n:kw](x[e, i*sh+m-top, j*sw+n-left, c])  # (L6) avg_pool2d",
        "dx[e,p,q,c] = sum[i,j](dy[e,i,j,c] / (kh*kw) * (i*sh-top <= p) * (p < i*sh-top+kh)"
        " * (j*sw-left <= q) * (q < j*sw-left+kw))  # (L16) avg_pool2d_grad",
    )

    def forward(self, x: Array) -> Array:
        self.keep(x.shape)
        return self.run(avg_pool2d, x, self.kernel, self.stride, self.padding)

    def backward(self, dy: Array) -> Array | None:
        (shape,) = self.kept()
        return self.run(avg_pool2d_grad, dy, shape, self.kernel, self.stride, self.padding)


class GlobalAvgPool2D(Layer):
    """The mean of each channel over the whole image: (N,H,W,C) -> (N,C)."""

    equations = (
        "y[e,c] = mean[p,q](x[e,p,q,c])  # (L6) global_avg_pool2d",
        "dx[e,p,q,c] = dy[e,c] / area  # (L16) global_avg_pool2d_grad",
    )

    def forward(self, x: Array) -> Array:
        self.keep(x.shape)
        return self.run(global_avg_pool2d, x)

    def backward(self, dy: Array) -> Array | None:
        (shape,) = self.kept()
        return self.run(global_avg_pool2d_grad, dy, shape)

    def symbols(self) -> dict[str, Any]:
        return {"area": lambda x: x.shape[1] * x.shape[2]}

    def output_shape(self, shape: Shape) -> Shape:
        if len(shape) != 3:
            raise ShapeError(f"GlobalAvgPool2D got x of shape {shape}: give images (H, W, C)")
        return (shape[2],)

    def flops(self, shape: Shape) -> int:
        return prod(shape)
