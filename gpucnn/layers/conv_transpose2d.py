"""Transposed convolution: a convolution read from its output to its input, which makes images larger.

Let conv(Y) = X be a convolution with weights W, C filters over images Y of F channels.  It is linear, so with all
pixels in one column it is a matrix, X = A Y, and the gradient of its input is A^T dX: (L18).  A transposed convolution
takes that as its forward pass, so a pixel of X is spread over a window of Y:

    (L18)  Y[p,q,f] = sum_{i,j,c} X[i,j,c] W_c[p - i s, q - j s, f] + b_f

By the chain rule its gradients are those of Y = A^T X + b.  For X it is A dY, the convolution itself; in the weight's,
X and Y have changed places; the bias's is a sum as ever:

    (L1)   dX[i,j,c]   = sum_{m,n,f} dY[i s + m, j s + n, f] W_c[m,n,f]
    (L19)  dW_c[m,n,f] = sum_{i,j} X[i,j,c] dY[i s + m, j s + n, f]
    (L20)  db_f        = sum_{p,q} dY[p,q,f]

(L2) gives the size of X from that of Y by rounding down, so with a stride s several sizes of Y give one of X.  The
smallest of them is s (H - 1) + k - 2p, and ``output_padding`` (less than s) is added to it at bottom and right.
"""

from math import sqrt
from typing import Any

from gpucnn import random
from gpucnn.errors import ShapeError
from gpucnn.layers.base import Layer
from gpucnn.layers.conv2d import bias_grad, check_groups, ops_of
from gpucnn.layers.initializers import zeros
from gpucnn.layers.parameter import Initializer, Parameter
from gpucnn.layers.windows import as_padding, as_pair
from gpucnn.types import Array, Padding, Pair, Shape


class ConvTranspose2D(Layer):
    """Each pixel becomes a window of filters, and windows add up: (N,H,W,C) -> (N,H',W',F), larger by the stride.

    Args:
        in_channels, out_channels: C and F.
        kernel_size, stride: an int or a (height, width) pair.
        padding: pixels cut off around the result: an int, a pair, or ((top, bottom), (left, right)).
        output_padding: lines and columns more at bottom and right, fewer than the stride: an int or a pair.
        groups: G, as in ``Conv2D``.
        bias: whether each filter has one.
        weight_init: of weights (C,KH,KW,F/G); by default normal with the variance 2 / (C/G KH KW / (s s)), one over
            half of what a pixel of the result sums, which keeps the variance through ReLU (arXiv 1502.01852).

    Raises:
        ShapeError: sizes that make no sense; groups that do not divide C and F.
    """

    equations = (
        "y[e,p,q,f] = sum[i,j,k:cg](x[e,i,j,f//fg*cg+k] * w[f//fg*cg+k, p+top-i*sh, q+left-j*sw, f%fg]) + b[f]"
        "  # (L18) conv2d_input_grad",
        "dx[e,i,j,c] = sum[m,n,k](dy[e, i*sh+m-top, j*sw+n-left, c//cg*fg+k] * w[c,m,n,k])  # (L1) conv2d",
        "dw[c,m,n,k] = sum[e,i,j](x[e,i,j,c] * dy[e, i*sh+m-top, j*sw+n-left, c//cg*fg+k])  # (L19) conv2d_weight_grad",
        "db[f] = sum[e,p,q](dy[e,p,q,f])  # (L20) bias_grad",
    )

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Pair,
        *,
        stride: int | Pair = 1,
        padding: int | Pair | Padding = 0,
        output_padding: int | Pair = 0,
        groups: int = 1,
        bias: bool = True,
        weight_init: Initializer | None = None,
    ) -> None:
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size = as_pair(kernel_size, "kernel_size", 1)
        self.stride = as_pair(stride, "stride", 1)
        self.padding = as_padding(padding, self.kernel_size, self.stride)
        self.output_padding = as_pair(output_padding, "output_padding", 0)
        if any(more >= s for more, s in zip(self.output_padding, self.stride, strict=True)):
            raise ShapeError(f"output_padding={output_padding} with stride={stride}: give less than the stride")
        check_groups(groups, in_channels, out_channels)
        self._ops, self._how = ops_of(self.stride, self.padding, (1, 1), groups)
        shape = (in_channels, *self.kernel_size, out_channels // groups)
        self.weight = Parameter(shape, weight_init or self.he_normal, "filter")
        self.bias = Parameter((out_channels,), zeros, "bias") if bias else None

    def he_normal(self, shape: Shape, seed: int, stream: int) -> Array:
        """N(0, 2 / fan_in), where a pixel of the result sums C/G KH KW / (s s) products."""
        (kh, kw), (sh, sw) = self.kernel_size, self.stride
        fan_in = self.in_channels // self.groups * kh * kw / (sh * sw)
        return random.normal(shape, seed=seed, stream=stream) * sqrt(2.0 / fan_in)

    def forward(self, x: Array) -> Array:
        self.keep(x)
        spread = self._ops[1]
        shape = (x.shape[0], *self.output_shape(x.shape[1:]))
        y = self.run(spread, x, self.weight.value, shape, *self._how)  # (L18)
        if self.bias:
            y += self.bias.value
        return y

    def backward(self, dy: Array) -> Array | None:
        (x,) = self.kept()
        convolve, _, weight_grad = self._ops
        w = self.weight
        if w.trainable:
            w.grad[...] = self.run(weight_grad, x, dy, w.shape, *self._how)  # (L19)
        if self.bias and self.bias.trainable:
            self.bias.grad[...] = self.run(bias_grad, dy)  # (L20)
        return self.run(convolve, dy, w.value, None, *self._how) if self.needs_input_grad else None  # (L1)

    def symbols(self) -> dict[str, Any]:
        (sh, sw), ((top, _), (left, _)) = self.stride, self.padding
        sizes = {"fg": self.out_channels // self.groups, "cg": self.in_channels // self.groups}
        return {"w": self.weight, "b": self.bias, "sh": sh, "sw": sw, "top": top, "left": left, **sizes}

    def output_shape(self, shape: Shape) -> Shape:
        if len(shape) != 3 or shape[2] != self.in_channels:
            raise ShapeError(
                f"ConvTranspose2D(in_channels={self.in_channels}) got x of shape {shape}: "
                f"give images (H, W, {self.in_channels}), channels last"
            )
        sides = zip(shape, self.stride, self.kernel_size, self.padding, self.output_padding, strict=False)
        h, w = (s * (size - 1) + k - sum(cut) + more for size, s, k, cut, more in sides)
        if min(h, w) < 1:
            raise ShapeError(f"ConvTranspose2D(padding={self.padding}) cuts off all of an image {shape}: give less")
        return h, w, self.out_channels

    def flops(self, shape: Shape) -> int:
        kh, kw = self.kernel_size
        return 2 * shape[0] * shape[1] * self.in_channels * kh * kw * (self.out_channels // self.groups)
