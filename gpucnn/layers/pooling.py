"""Max pooling and average pooling, with kernel, stride and padding (usual: 2, 2, 0).

    (L6)   y = the maximum, or the mean, of each window
    (L15)  max: the gradient goes to the maximum of each window, the first one in row-major order on a tie;
                 NaN is larger than any number
    (L16)  average: dy / (k k) to each element of the window

Max pooling pads with minus infinity; average pooling includes the zeros of its border.

Windows that would reach over the bottom or right border are left out, or with ``ceil_mode`` kept:

    (L2c)  H' = ceil((H - k + 2p) / s) + 1, less one where the last window would start behind the image

So ceil mode is more padding at bottom and right, by what the last window lacks.  That is not a border to be averaged: a
mean there is over the part of the window in the image and the padding proper, k k / (their area) times (L6).

Adaptive average pooling is given H', not a kernel.  Row i averages the rows floor(i H / H') to ceil((i+1) H / H') - 1:
equal windows where H' divides H, else some that overlap by one row (or more, where H' > H).
"""

from collections.abc import Iterator
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


def rows_inside(x: Array, length: int, kernel: int, stride: int, count: int) -> Array:
    """(L2c)  How many of ``length`` rows lie in each of ``count`` windows, (count,), as x is stored."""
    xp = array_module(x)
    start = xp.arange(count) * stride
    return (xp.minimum(start + kernel, length) - start).astype(x.dtype)


def weighted(x: Array, rows: Array, columns: Array) -> Array:
    """x (N,H,W,C) times rows (H,) and columns (W,)."""
    return (x * (rows[:, None] * columns)[:, :, None]).astype(x.dtype, copy=False)


def bins(length: int, count: int) -> list[slice]:
    """The rows that each of ``count`` bins averages."""
    return [slice(i * length // count, -(-(i + 1) * length // count)) for i in range(count)]


def bin_pairs(shape: Shape, size: Pair) -> Iterator[tuple[int, int, slice, slice]]:
    """(i, j, rows, columns) of each bin of images (N,H,W,C)."""
    for i, rows in enumerate(bins(shape[1], size[0])):
        for j, columns in enumerate(bins(shape[2], size[1])):
            yield i, j, rows, columns


def adaptive_avg_pool2d(x: Array, size: Pair) -> Array:
    """(L6)  over bins: x (N,H,W,C) -> y (N,H',W',C), with (H',W') = ``size``."""
    y = array_module(x).zeros((x.shape[0], *size, x.shape[3]), dtype=x.dtype)
    for i, j, rows, columns in bin_pairs(x.shape, size):
        y[:, i, j] = global_avg_pool2d(x[:, rows, columns])
    return y


def adaptive_avg_pool2d_grad(dy: Array, x_shape: Shape) -> Array:
    """(L16)  dy (N,H',W',C) -> dx of ``x_shape`` (N,H,W,C): what the bins over a pixel give it, added up."""
    dx = array_module(dy).zeros(x_shape, dtype=accumulator_dtype(dy))
    for i, j, rows, columns in bin_pairs(x_shape, (dy.shape[1], dy.shape[2])):
        part = dx[:, rows, columns]
        part += (dy[:, i, j] / (part.shape[1] * part.shape[2]))[:, None, None]
    return dx.astype(dy.dtype, copy=False)


class _Pool2D(Layer):
    """The window and the output shape of max and average pooling.

    Args:
        kernel_size: an int or a (height, width) pair.
        stride: likewise; by default the kernel size, so that windows tile the image.
        padding: an int, a pair, or 'same' with stride 1; at most half the kernel.
        ceil_mode: keep windows that reach over the bottom and right border.

    Raises:
        ShapeError: a kernel, stride or padding that does not fit this.
    """

    def __init__(
        self,
        kernel_size: int | Pair,
        *,
        stride: int | Pair | None = None,
        padding: int | Pair | str = 0,
        ceil_mode: bool = False,
    ) -> None:
        self.ceil_mode = ceil_mode
        self.kernel = as_pair(kernel_size, "kernel_size", 1)
        self.stride = as_pair(kernel_size if stride is None else stride, "stride", 1)
        self.padding = as_padding(padding, self.kernel, self.stride)
        if any(2 * before > k for (before, _), k in zip(self.padding, self.kernel, strict=True)):
            raise ShapeError(f"padding={padding!r} is more than half the kernel {self.kernel}: windows of padding")

    def window(self, shape: Shape) -> tuple[Pair, Pair, Padding]:
        """(L2c)  Kernel, stride and padding for images (..., H, W, C)."""
        if not self.ceil_mode:
            return self.kernel, self.stride, self.padding
        padding = []
        for size, k, s, (before, after) in zip(shape[-3:-1], self.kernel, self.stride, self.padding, strict=True):
            room = size + before + after - k
            more = -room % s if room >= 0 else 0  # what the last window lacks
            padding.append((before, after + (more if room + more < size + before else 0)))
        return self.kernel, self.stride, (padding[0], padding[1])

    def symbols(self) -> dict[str, Any]:
        (kh, kw), (sh, sw), ((top, _), (left, _)) = self.kernel, self.stride, self.padding
        return {"kh": kh, "kw": kw, "sh": sh, "sw": sw, "top": top, "left": left}

    def output_shape(self, shape: Shape) -> Shape:
        if len(shape) != 3:
            raise ShapeError(f"{type(self).__name__} got x of shape {shape}: give images (H, W, C)")
        return *output_size(shape, *self.window(shape)), shape[2]

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
        return self.run(max_pool2d, x, *self.window(x.shape))

    def backward(self, dy: Array) -> Array | None:
        (x,) = self.kept()
        return self.run(max_pool2d_grad, dy, x, *self.window(x.shape))


class AvgPool2D(_Pool2D):
    """(L6, L16)"""

    equations = (
        "y[e,i,j,c] = sum[m:kh, n:kw](x[e, i*sh+m-top, j*sw+n-left, c] / (rows[i] * columns[j]))  # (L6) avg_pool2d",
        "dx[e,p,q,c] = sum[i,j](dy[e,i,j,c] / (rows[i] * columns[j]) * (i*sh-top <= p) * (p < i*sh-top+kh)"
        " * (j*sw-left <= q) * (q < j*sw-left+kw))  # (L16) avg_pool2d_grad",
    )

    def forward(self, x: Array) -> Array:
        self.keep(x.shape)
        y = self.run(avg_pool2d, x, *self.window(x.shape))
        return self.run(weighted, y, *self.weights(y, x.shape)) if self.ceil_mode else y

    def backward(self, dy: Array) -> Array | None:
        (shape,) = self.kept()
        if self.ceil_mode:
            dy = self.run(weighted, dy, *self.weights(dy, shape))
        return self.run(avg_pool2d_grad, dy, shape, *self.window(shape))

    def symbols(self) -> dict[str, Any]:
        if not self.ceil_mode:
            return super().symbols() | {"rows": self.kernel[0], "columns": self.kernel[1]}

        return super().symbols() | {
            "rows": lambda x: self.areas(x, x.shape)[0],
            "columns": lambda x: self.areas(x, x.shape)[1],
        }

    def areas(self, like: Array, shape: Shape) -> list[Array]:
        """Rows (H',) and columns (W',) in each window of images (N,H,W,C) that its mean is over."""
        size, found = output_size(shape, *self.window(shape)), []
        for length, k, s, (before, after), count in zip(
            shape[1:3], self.kernel, self.stride, self.padding, size, strict=True
        ):
            found.append(rows_inside(like, before + length + after, k, s, count))
        return found

    def weights(self, like: Array, shape: Shape) -> list[Array]:
        """(L2c)  k / rows of each row of windows, and the same of columns."""
        return [k / area for k, area in zip(self.kernel, self.areas(like, shape), strict=True)]


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


class AdaptiveAvgPool2D(Layer):
    """The means of ``output_size`` bins of the image, of whatever size that is: (N,H,W,C) -> (N,H',W',C).

    Args:
        output_size: an int or a (height, width) pair.

    Raises:
        ShapeError: a size below 1.
    """

    equations = (
        "y[e,i,j,c] = sum[p,q](a[i,p] * b[j,q] * x[e,p,q,c])  # (L6) adaptive_avg_pool2d",
        "dx[e,p,q,c] = sum[i,j](a[i,p] * b[j,q] * dy[e,i,j,c])  # (L16) adaptive_avg_pool2d_grad",
    )

    def __init__(self, output_size: int | Pair) -> None:
        self.size = as_pair(output_size, "output_size", 1)

    def tiles(self, shape: Shape) -> Pair | None:
        """The window of which (N,H,W,C) has as many as there are bins, side by side; None where there is none."""
        whole = not (shape[1] % self.size[0] or shape[2] % self.size[1])
        return (shape[1] // self.size[0], shape[2] // self.size[1]) if whole else None

    def forward(self, x: Array) -> Array:
        self.keep(x.shape)
        if tile := self.tiles(x.shape):
            return self.run(avg_pool2d, x, tile, tile, ((0, 0), (0, 0)))
        return self.run(adaptive_avg_pool2d, x, self.size)

    def backward(self, dy: Array) -> Array | None:
        (shape,) = self.kept()
        if tile := self.tiles(shape):
            return self.run(avg_pool2d_grad, dy, shape, tile, tile, ((0, 0), (0, 0)))
        return self.run(adaptive_avg_pool2d_grad, dy, shape)

    def symbols(self) -> dict[str, Any]:
        def weights(x: Array, axis: int) -> Array:  # (H',H) or (W',W): 1 / size of a bin where it has the row
            eye = array_module(x).eye(x.shape[axis], dtype=x.dtype)
            return array_module(x).stack([eye[part].mean(axis=0) for part in bins(len(eye), self.size[axis - 1])])

        return {"a": lambda x: weights(x, 1), "b": lambda x: weights(x, 2)}

    def output_shape(self, shape: Shape) -> Shape:
        if len(shape) != 3:
            raise ShapeError(f"AdaptiveAvgPool2D got x of shape {shape}: give images (H, W, C)")
        return *self.size, shape[2]

    def flops(self, shape: Shape) -> int:
        return prod(shape)
