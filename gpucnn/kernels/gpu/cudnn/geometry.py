"""What a convolution is, on any library: op, shapes, stride, padding, dilation, groups, dtype."""

from math import prod
from typing import Any, NamedTuple

from gpucnn.types import Padding, Pair, Shape

FPROP, DGRAD, WGRAD = "fprop", "dgrad", "wgrad"
"""cuDNN's words for the forward pass, the gradient of the input and the gradient of the weights."""


class Geometry(NamedTuple):
    """One of the three ops on arrays of given shapes: the key of a plan.

    A named tuple and no dataclass, since one is made and looked up at every call.

    Attributes:
        op: ``FPROP``, ``DGRAD`` or ``WGRAD``.
        x_shape: (N,H,W,C).
        w_shape: (F,KH,KW,C/G).
        dtype: of all arrays.
        bias: whether the forward pass adds one.
        groups: G.
    """

    op: str
    x_shape: Shape
    w_shape: Shape
    stride: Pair
    padding: Padding
    dtype: Any
    bias: bool = False
    dilation: Pair = (1, 1)
    groups: int = 1

    @property
    def y_shape(self) -> Shape:
        """(N,H',W',F)"""
        n, h, w, _ = self.x_shape
        f, kh, kw, _ = self.w_shape
        (top, bottom), (left, right) = self.padding
        (down, across), (dh, dw) = self.stride, self.dilation
        tall, wide = h + top + bottom - dh * (kh - 1) - 1, w + left + right - dw * (kw - 1) - 1
        return n, tall // down + 1, wide // across + 1, f

    @property
    def plain(self) -> bool:
        """Whether it has neither dilation nor groups."""
        return self.dilation == (1, 1) and self.groups == 1

    @property
    def input_shapes(self) -> list[Shape]:
        """The shapes of the op's arrays, in the order in which it takes them."""
        if self.op == FPROP:
            arrays = [self.x_shape, self.w_shape]
            return [*arrays, (self.w_shape[0],)] if self.bias else arrays
        return [self.y_shape, self.w_shape if self.op == DGRAD else self.x_shape]

    @property
    def output_shape(self) -> Shape:
        """The shape of what the op returns."""
        return {FPROP: self.y_shape, DGRAD: self.x_shape, WGRAD: self.w_shape}[self.op]

    def problem(self) -> str:
        """Why these shapes are no convolution for cuDNN; "" where they are one.

        cuDNN itself takes fewer input channels than the image has for a grouped convolution, without a word.
        """
        if self.dtype.name not in ("float16", "float32"):
            return f"dtype {self.dtype.name}: cuDNN computes float16 and float32 here"
        if len(self.x_shape) != 4 or len(self.w_shape) != 4 or self.x_shape[3] != self.groups * self.w_shape[3]:
            return f"x {self.x_shape} and w {self.w_shape} do not fit together"
        if self.w_shape[0] % self.groups:
            return f"{self.w_shape[0]} filters cannot be cut into {self.groups} groups"
        if not (prod(self.x_shape) and prod(self.w_shape)):
            return "an array without elements"
        if min(self.y_shape) < 1:
            return f"a kernel {self.w_shape[1:3]} does not fit into x {self.x_shape} padded by {self.padding}"
        return ""

    def __str__(self) -> str:
        """As in ``fprop float32 x=128,32,32,3 w=64,3,3,3 stride=1,1 padding=1,1,1,1 bias``."""
        (top, bottom), (left, right) = self.padding
        parts = {"x": self.x_shape, "w": self.w_shape, "stride": self.stride, "padding": (top, bottom, left, right)}
        if not self.plain:
            parts |= {"dilation": self.dilation, "groups": (self.groups,)}
        words = [self.op, self.dtype.name, *(f"{key}={','.join(map(str, value))}" for key, value in parts.items())]
        return " ".join([*words, "bias"] if self.bias else words)
