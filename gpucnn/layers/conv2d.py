"""Convolution (strictly, cross-correlation) and its three gradients.

Forward, with stride s, for every (padded) image and filter f:

    (L1, L3)  Z[i,j,f] = sum_{m,n,c} X[i s + m, j s + n, c] W_f[m,n,c] + b_f

Backward, with dX = dL/dX and so on.  A pixel X[p,q,c] is in many windows.  In the sum of Z[i,j,f] it is the term with
p = i s + m and q = j s + n, where its factor is W_f[m,n,c].  So m = p - i s and n = q - j s, and

    ∂Z[i,j,f] / ∂X[p,q,c] = W_f[p - i s, q - j s, c]      (W is zero outside the kernel)

By the chain rule, dX sums dZ times this derivative over all outputs:

    (L18)  dX[p,q,c] = sum_{i,j,f} dZ[i,j,f] W_f[p - i s, q - j s, c]

For stride 1 this is the lecture's sum of dZ[i,j] W[p-i, q-j].  Substituting i = p - m and j = q - n turns it into the
sum of dZ[p-m, q-n] W[m,n] over the kernel, a true convolution of dZ with W.

The factor of W_f[m,n,c] in Z[i,j,f] is X[i s + m, j s + n, c], and that of b_f is 1.  So, over all outputs and images,

    (L19)  dW_f[m,n,c] = sum_{i,j} dZ[i,j,f] X[i s + m, j s + n, c]
    (L20)  db_f        = sum_{i,j} dZ[i,j,f]

With all windows of X as the rows of one matrix ("im2col"), Z = cols W^T + b is a matrix product, and so are
dW = dZ^T cols and dcols = dZ W.  Adding each row of dcols back to the pixels of its window is the sum in (L18).
"""

from typing import Any

from gpucnn.backend import accumulator_dtype
from gpucnn.errors import ShapeError
from gpucnn.layers.base import Layer
from gpucnn.layers.initializers import he_normal, zeros
from gpucnn.layers.parameter import Initializer, Parameter
from gpucnn.layers.windows import add_windows, as_padding, as_pair, crop, output_size, pad, view_windows
from gpucnn.types import Array, Padding, Pair, Shape


def im2col(x: Array, kernel: Pair, stride: Pair, padding: Padding) -> Array:
    """The windows of x (N,H,W,C) as rows: (N*H'*W', KH*KW*C)."""
    windows = view_windows(pad(x, padding), kernel, stride)  # (N,H',W',KH,KW,C)
    return windows.reshape(-1, kernel[0] * kernel[1] * x.shape[3])


def conv2d(x: Array, w: Array, b: Array | None, stride: Pair, padding: Padding) -> Array:
    """(L1, L3)  x (N,H,W,C), w (F,KH,KW,C), b (F,) or None -> y (N,H',W',F)."""
    f, kh, kw, _ = w.shape
    size = output_size(x.shape, (kh, kw), stride, padding)
    y = im2col(x, (kh, kw), stride, padding) @ w.reshape(f, -1).T  # (N*H'*W', F)
    if b is not None:
        y += b
    return y.reshape(x.shape[0], *size, f)


def conv2d_input_grad(dy: Array, w: Array, x_shape: Shape, stride: Pair, padding: Padding) -> Array:
    """(L18)  dy (N,H',W',F), w (F,KH,KW,C) -> dx of ``x_shape`` (N,H,W,C)."""
    n, h, w_, c = x_shape
    f, kh, kw, _ = w.shape
    (top, bottom), (left, right) = padding
    dwindows = dy.reshape(-1, f) @ w.reshape(f, -1)  # (N*H'*W', KH*KW*C)
    dwindows = dwindows.reshape(*dy.shape[:3], kh, kw, c)  # at (i,j,m,n): for the pixel (i s + m, j s + n)
    return crop(add_windows(dwindows, (n, h + top + bottom, w_ + left + right, c), stride), padding)


def conv2d_weight_grad(dy: Array, x: Array, w_shape: Shape, stride: Pair, padding: Padding) -> Array:
    """(L19)  dy (N,H',W',F), x (N,H,W,C) -> dw of ``w_shape`` (F,KH,KW,C)."""
    f, kh, kw, _ = w_shape
    return (dy.reshape(-1, f).T @ im2col(x, (kh, kw), stride, padding)).reshape(w_shape)


def bias_grad(dy: Array) -> Array:
    """(L20)  dy (..., F) -> db (F,): the sum over everything but the last axis; float32 where dy is float16."""
    # float32 totals over 10^5 rows lose three digits: float64 inside
    return dy.reshape(-1, dy.shape[-1]).sum(axis=0, dtype="float64").astype(accumulator_dtype(dy))


class Conv2D(Layer):
    """Filters that slide over the image: (N,H,W,C) -> (N,H',W',F).

    Args:
        in_channels, out_channels: C and F.
        kernel_size, stride: an int or a (height, width) pair.
        padding: zeros around the image: an int, a pair, or 'same'.
        bias: whether each filter has one.
        weight_init: He et al. (arXiv 1502.01852) by default.
        weight_group, bias_group: their parameter groups (``parameter.GROUPS``).
    """

    equations = (
        "y[e,i,j,f] = sum[m,n,c](x[e, i*sh+m-top, j*sw+n-left, c] * w[f,m,n,c]) + b[f]  # (L1, L3) conv2d",
        "dx[e,p,q,c] = sum[i,j,f](dy[e,i,j,f] * w[f, p+top-i*sh, q+left-j*sw, c])  # (L18) conv2d_input_grad",
        "dw[f,m,n,c] = sum[e,i,j](dy[e,i,j,f] * x[e, i*sh+m-top, j*sw+n-left, c])  # (L19) conv2d_weight_grad",
        "db[f] = sum[e,i,j](dy[e,i,j,f])  # (L20) bias_grad",
    )

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Pair,
        *,
        stride: int | Pair = 1,
        padding: int | Pair | str = 0,
        bias: bool = True,
        weight_init: Initializer = he_normal,
        weight_group: str = "filter",
        bias_group: str = "bias",
    ) -> None:
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size = as_pair(kernel_size, "kernel_size", 1)
        self.stride = as_pair(stride, "stride", 1)
        self.padding = as_padding(padding, self.kernel_size, self.stride)
        self.weight = Parameter((out_channels, *self.kernel_size, in_channels), weight_init, weight_group)
        self.bias = Parameter((out_channels,), zeros, bias_group) if bias else None

    def forward(self, x: Array) -> Array:
        self.keep(x)
        b = self.bias.value if self.bias else None
        return self.run(conv2d, x, self.weight.value, b, self.stride, self.padding)

    def backward(self, dy: Array) -> Array | None:
        (x,) = self.kept()
        w = self.weight
        if w.trainable:
            w.grad[...] = self.run(conv2d_weight_grad, dy, x, w.shape, self.stride, self.padding)  # (L19)
        if self.bias and self.bias.trainable:
            self.bias.grad[...] = self.run(bias_grad, dy)  # (L20)
        if not self.needs_input_grad:
            return None
        return self.run(conv2d_input_grad, dy, w.value, x.shape, self.stride, self.padding)  # (L18)

    def symbols(self) -> dict[str, Any]:
        (sh, sw), ((top, _), (left, _)) = self.stride, self.padding
        return {"w": self.weight, "b": self.bias, "sh": sh, "sw": sw, "top": top, "left": left}

    def output_shape(self, shape: Shape) -> Shape:
        if len(shape) != 3 or shape[2] != self.in_channels:
            raise ShapeError(
                f"Conv2D(in_channels={self.in_channels}) got x of shape {shape}: "
                f"give images (H, W, {self.in_channels}), channels last"
            )
        return *output_size(shape, self.kernel_size, self.stride, self.padding), self.out_channels

    def flops(self, shape: Shape) -> int:
        h, w, f = self.output_shape(shape)
        kh, kw = self.kernel_size
        return 2 * h * w * f * kh * kw * self.in_channels
