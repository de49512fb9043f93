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

Two things make it more general.  With dilation d the taps of a kernel lie d pixels apart: m becomes m d in (L1).  And
channels and filters may be cut into G groups, side by side; filter f is in group g(f) = floor(f / (F/G)) and sees only
the channels of its own group, which are o(f) + c with o(f) = g(f) C/G and 0 <= c < C/G.  So

    (L1, L3)  Z[i,j,f] = sum_{m,n,c} X[i s + m d, j s + n d, o(f) + c] W_f[m,n,c] + b_f

The factor of X[p,q,k] in Z[i,j,f] is now W_f[m,n,c] where p = i s + m d, q = j s + n d and k = o(f) + c: there is one
only where d divides p - i s and q - j s, and f is in the group of channel k, which is floor(k / (C/G)).  The other
factors are read off as before:

    (L18)  dX[p,q,k]   = sum of dZ[i,j,f] W_f[(p - i s) / d, (q - j s) / d, k - o(f)]  over those i, j and f
    (L19)  dW_f[m,n,c] = sum_{i,j} dZ[i,j,f] X[i s + m d, j s + n d, o(f) + c]

Each group is a convolution of its own, so there are G matrix products.  With G = C a filter sees one channel, a
"depthwise" convolution; a 1x1 convolution behind it mixes the channels (arXiv 1704.04861).
"""

from typing import Any

from gpucnn.backend import Op, accumulator_dtype
from gpucnn.errors import ShapeError
from gpucnn.layers.base import Layer
from gpucnn.layers.initializers import he_normal, zeros
from gpucnn.layers.parameter import Initializer, Parameter
from gpucnn.layers.windows import add_windows, as_padding, as_pair, crop, extent, output_size, pad, view_windows
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


def grouped_im2col(x: Array, kernel: Pair, stride: Pair, padding: Padding, dilation: Pair, groups: int) -> Array:
    """The windows of each group's channels as rows: x (N,H,W,C) -> (G, N*H'*W', KH*KW*C/G)."""
    windows = view_windows(pad(x, padding), kernel, stride, dilation)  # (N,H',W',KH,KW,C)
    apart = windows.reshape(*windows.shape[:5], groups, -1).transpose(5, 0, 1, 2, 3, 4, 6)  # (G,N,H',W',KH,KW,C/G)
    return apart.reshape(groups, -1, kernel[0] * kernel[1] * apart.shape[6])


def grouped_conv2d(
    x: Array, w: Array, b: Array | None, stride: Pair, padding: Padding, dilation: Pair, groups: int
) -> Array:
    """(L1, L3)  x (N,H,W,C), w (F,KH,KW,C/G), b (F,) or None -> y (N,H',W',F)."""
    f, kh, kw, _ = w.shape
    size = output_size(x.shape, extent((kh, kw), dilation), stride, padding)
    cols = grouped_im2col(x, (kh, kw), stride, padding, dilation, groups)  # (G, N*H'*W', KH*KW*C/G)
    y = cols @ w.reshape(groups, f // groups, -1).transpose(0, 2, 1)  # (G, N*H'*W', F/G)
    y = y.transpose(1, 0, 2).reshape(x.shape[0], *size, f)
    return y if b is None else y + b


def grouped_conv2d_input_grad(
    dy: Array, w: Array, x_shape: Shape, stride: Pair, padding: Padding, dilation: Pair, groups: int
) -> Array:
    """(L18)  dy (N,H',W',F), w (F,KH,KW,C/G) -> dx of ``x_shape`` (N,H,W,C)."""
    n, h, w_, c = x_shape
    f, kh, kw, _ = w.shape
    (top, bottom), (left, right) = padding
    drows = dy.reshape(-1, groups, f // groups).transpose(1, 0, 2)  # (G, N*H'*W', F/G)
    dwindows = drows @ w.reshape(groups, f // groups, -1)  # (G, N*H'*W', KH*KW*C/G)
    dwindows = dwindows.reshape(groups, *dy.shape[:3], kh, kw, c // groups).transpose(1, 2, 3, 4, 5, 0, 6)
    dwindows = dwindows.reshape(*dy.shape[:3], kh, kw, c)  # at (i,j,m,n): for the pixel (i s + m d, j s + n d)
    return crop(add_windows(dwindows, (n, h + top + bottom, w_ + left + right, c), stride, dilation), padding)


def grouped_conv2d_weight_grad(
    dy: Array, x: Array, w_shape: Shape, stride: Pair, padding: Padding, dilation: Pair, groups: int
) -> Array:
    """(L19)  dy (N,H',W',F), x (N,H,W,C) -> dw of ``w_shape`` (F,KH,KW,C/G)."""
    f, kh, kw, _ = w_shape
    columns = dy.reshape(-1, groups, f // groups).transpose(1, 2, 0)  # (G, F/G, N*H'*W')
    return (columns @ grouped_im2col(x, (kh, kw), stride, padding, dilation, groups)).reshape(w_shape)


def ops_of(stride: Pair, padding: Padding, dilation: Pair, groups: int) -> tuple[tuple[Op, Op, Op], tuple[Any, ...]]:
    """The lecture's three ops where they are enough, else the general ones; and what they take behind the arrays."""
    if dilation == (1, 1) and groups == 1:
        return (conv2d, conv2d_input_grad, conv2d_weight_grad), (stride, padding)
    return (grouped_conv2d, grouped_conv2d_input_grad, grouped_conv2d_weight_grad), (stride, padding, dilation, groups)


def check_groups(groups: int, in_channels: int, out_channels: int) -> None:
    """Raises ShapeError where the channels cannot be cut into so many groups."""
    if groups < 1 or in_channels % groups or out_channels % groups:
        raise ShapeError(
            f"groups={groups} of {in_channels} channels in and {out_channels} out: give a number that divides both"
        )


GENERAL = (
    "y[e,i,j,f] = sum[m,n,c](x[e, i*sh+m*dh-top, j*sw+n*dw-left, f//fg*cg+c] * w[f,m,n,c]) + b[f]"
    "  # (L1, L3) grouped_conv2d",
    "dx[e,p,q,c] = sum[i,j,k:fg](dy[e,i,j,c//cg*fg+k] * ((p+top-i*sh)%dh == 0) * ((q+left-j*sw)%dw == 0)"
    " * w[c//cg*fg+k, (p+top-i*sh)//dh, (q+left-j*sw)//dw, c%cg])  # (L18) grouped_conv2d_input_grad",
    "dw[f,m,n,c] = sum[e,i,j](dy[e,i,j,f] * x[e, i*sh+m*dh-top, j*sw+n*dw-left, f//fg*cg+c])"
    "  # (L19) grouped_conv2d_weight_grad",
)
"""``Conv2D.equations`` with dilation dh, dw, and fg = F/G filters for cg = C/G channels."""


class Conv2D(Layer):
    """Filters that slide over the image: (N,H,W,C) -> (N,H',W',F).

    Args:
        in_channels, out_channels: C and F.
        kernel_size, stride: an int or a (height, width) pair.
        padding: zeros around the image: an int, a pair, ((top, bottom), (left, right)), or 'same'.
        dilation: how many pixels the taps of a kernel lie apart: an int or a pair.
        groups: G; with ``groups=in_channels`` the convolution is depthwise.
        bias: whether each filter has one.
        weight_init: He et al. (arXiv 1502.01852) by default.
        weight_group, bias_group: their parameter groups (``parameter.GROUPS``).

    Raises:
        ShapeError: sizes that make no sense; groups that do not divide C and F.
    """

    equations: tuple[str, ...] = (
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
        padding: int | Pair | Padding | str = 0,
        dilation: int | Pair = 1,
        groups: int = 1,
        bias: bool = True,
        weight_init: Initializer = he_normal,
        weight_group: str = "filter",
        bias_group: str = "bias",
    ) -> None:
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size = as_pair(kernel_size, "kernel_size", 1)
        self.stride = as_pair(stride, "stride", 1)
        self.dilation, self.groups = as_pair(dilation, "dilation", 1), groups
        self.padding = as_padding(padding, extent(self.kernel_size, self.dilation), self.stride)
        check_groups(groups, in_channels, out_channels)
        self._ops, self._how = ops_of(self.stride, self.padding, self.dilation, groups)
        if conv2d not in self._ops:
            self.equations = (*GENERAL, self.equations[-1])
        self.weight = Parameter((out_channels, *self.kernel_size, in_channels // groups), weight_init, weight_group)
        self.bias = Parameter((out_channels,), zeros, bias_group) if bias else None

    def forward(self, x: Array) -> Array:
        self.keep(x)
        b = self.bias.value if self.bias else None
        return self.run(self._ops[0], x, self.weight.value, b, *self._how)  # (L1, L3)

    def backward(self, dy: Array) -> Array | None:
        (x,) = self.kept()
        w = self.weight
        _, input_grad, weight_grad = self._ops
        if w.trainable:
            w.grad[...] = self.run(weight_grad, dy, x, w.shape, *self._how)  # (L19)
        if self.bias and self.bias.trainable:
            self.bias.grad[...] = self.run(bias_grad, dy)  # (L20)
        if not self.needs_input_grad:
            return None
        return self.run(input_grad, dy, w.value, x.shape, *self._how)  # (L18)

    def symbols(self) -> dict[str, Any]:
        (sh, sw), ((top, _), (left, _)) = self.stride, self.padding
        known = {"w": self.weight, "b": self.bias, "sh": sh, "sw": sw, "top": top, "left": left}
        if conv2d in self._ops:
            return known
        (dh, dw), fg, cg = self.dilation, self.out_channels // self.groups, self.in_channels // self.groups
        return {**known, "dh": dh, "dw": dw, "fg": fg, "cg": cg}

    def output_shape(self, shape: Shape) -> Shape:
        if len(shape) != 3 or shape[2] != self.in_channels:
            raise ShapeError(
                f"Conv2D(in_channels={self.in_channels}) got x of shape {shape}: "
                f"give images (H, W, {self.in_channels}), channels last"
            )
        size = output_size(shape, extent(self.kernel_size, self.dilation), self.stride, self.padding)
        return *size, self.out_channels

    def flops(self, shape: Shape) -> int:
        h, w, f = self.output_shape(shape)
        kh, kw = self.kernel_size
        return 2 * h * w * f * kh * kw * (self.in_channels // self.groups)
