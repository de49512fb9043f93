"""Convolution and its gradients on cuDNN: what it computes, what it leaves to others, and the three kernels."""

from collections.abc import Callable
from typing import Any

from gpucnn.kernels.gpu import stem
from gpucnn.kernels.gpu.cudnn.geometry import DGRAD, FPROP, WGRAD, Geometry
from gpucnn.kernels.gpu.cudnn.library import Library
from gpucnn.types import Array, Padding, Pair, Shape

SECOND_CHOICE = "im2col + cublas"
FUSED_BIAS, SEPARATE_BIAS = "cudnn fprop + bias", "cudnn fprop, then bias"

Request = tuple[Geometry, tuple[Array, ...]]
"""A convolution, and its arrays in the order in which its op takes them."""


def forward(x: Array, w: Array, b: Array | None, stride: Pair, padding: Padding) -> Request:
    arrays = (x, w) if b is None else (x, w, b)
    return Geometry(FPROP, x.shape, w.shape, stride, padding, x.dtype, b is not None), arrays


def input_grad(dy: Array, w: Array, x_shape: Shape, stride: Pair, padding: Padding) -> Request:
    return Geometry(DGRAD, x_shape, w.shape, stride, padding, dy.dtype), (dy, w)


def weight_grad(dy: Array, x: Array, w_shape: Shape, stride: Pair, padding: Padding) -> Request:
    return Geometry(WGRAD, x.shape, w_shape, stride, padding, dy.dtype), (dy, x)


def grouped_forward(
    x: Array, w: Array, b: Array | None, stride: Pair, padding: Padding, dilation: Pair, groups: int
) -> Request:
    plain, arrays = forward(x, w, b, stride, padding)
    return plain._replace(dilation=dilation, groups=groups), arrays


def grouped_input_grad(
    dy: Array, w: Array, x_shape: Shape, stride: Pair, padding: Padding, dilation: Pair, groups: int
) -> Request:
    plain, arrays = input_grad(dy, w, x_shape, stride, padding)
    return plain._replace(dilation=dilation, groups=groups), arrays


def grouped_weight_grad(
    dy: Array, x: Array, w_shape: Shape, stride: Pair, padding: Padding, dilation: Pair, groups: int
) -> Request:
    plain, arrays = weight_grad(dy, x, w_shape, stride, padding)
    return plain._replace(dilation=dilation, groups=groups), arrays


REQUESTS: dict[str, Callable[..., Request]] = {
    "conv2d": forward,
    "conv2d_input_grad": input_grad,
    "conv2d_weight_grad": weight_grad,
    "grouped_conv2d": grouped_forward,
    "grouped_conv2d_input_grad": grouped_input_grad,
    "grouped_conv2d_weight_grad": grouped_weight_grad,
}


class Convolutions:
    """The kernels by a library's cuDNN, and ``stem.cu`` forward where there are few channels.

    Ops are named as in ``REQUESTS``.
    """

    def __init__(self, library: Library) -> None:
        self.library = library

    def engine(self) -> str:
        """What computes convolutions on the current GPU, in one human-readable line."""
        plans, options = self.library.current(), self.library.options
        first = f"; few channels forward by {stem.PLAN}" if options.stem else ""
        if isinstance(plans, str):
            return f"{SECOND_CHOICE}: {plans}{first}"
        about = plans.cache.environment
        chosen = "the fastest engines by timing" if options.autotune else "engines by its heuristics"
        return f"cuDNN {about.cudnn}, frontend {about.frontend}: {chosen}, {options}{first}"

    def plan(self, op: str, *args: Any, **kwargs: Any) -> str:
        """Which way an op goes with its arguments: "cudnn fprop", "cudnn dgrad" ..., "stem.cu", or ``SECOND_CHOICE``.

        Asks and computes nothing.
        """
        geometry, arrays = REQUESTS[op](*args, **kwargs)
        if self.by_stem(geometry, arrays):
            return stem.PLAN
        if self.refusal(geometry, arrays):
            return SECOND_CHOICE
        if not geometry.bias:
            return f"cudnn {geometry.op}"
        return SEPARATE_BIAS if self.library.plans().find(geometry).refusal else FUSED_BIAS

    def accepts(self, op: str, *args: Any) -> bool:
        """Whether an op's arguments are computed here; ``plan`` says how."""
        request = REQUESTS[op](*args)
        return self.by_stem(*request) or not self.refusal(*request)

    def by_stem(self, geometry: Geometry, arrays: tuple[Array, ...]) -> bool:
        """Whether ``stem.cu`` computes this in place of cuDNN."""
        return self.library.options.stem and stem.accepts(geometry, arrays)

    def refusal(self, geometry: Geometry, arrays: tuple[Array, ...]) -> str:
        """Why cuDNN does not compute this; "" where it does.

        Kernels read by address, so arrays have to fit the geometry: one shape, dtype and GPU for each, nothing
        broadcast.
        """
        plans = self.library.current()
        if isinstance(plans, str):
            return plans
        if reason := plans.find(geometry._replace(bias=False)).refusal:
            return reason
        for array, shape in zip(arrays, geometry.input_shapes, strict=True):
            if array.shape != shape or array.dtype != geometry.dtype:
                return f"{geometry} was given an array {array.dtype} {array.shape} in place of {shape}"
            if array.data.device_id != plans.device:
                return (
                    f"{geometry} was given an array of GPU {array.data.device_id} while GPU {plans.device} is current"
                )
        return ""

    def conv2d(self, x: Array, w: Array, b: Array | None, stride: Pair, padding: Padding) -> Array:
        """x (N,H,W,C), w (F,KH,KW,C), b (F,) or None -> y (N,H',W',F)."""
        geometry, arrays = forward(x, w, b, stride, padding)
        if self.by_stem(geometry, arrays):
            return stem.conv2d(x, w, b, stride, padding)
        return self._forward(geometry, arrays)

    def _forward(self, geometry: Geometry, arrays: tuple[Array, ...]) -> Array:
        """The bias is added afterwards where no engine adds it."""
        if not geometry.bias or not self.library.plans().find(geometry).refusal:
            return self.library.compute(geometry, arrays)
        y = self.library.compute(geometry._replace(bias=False), arrays[:2])
        y += arrays[2]
        return y

    def conv2d_input_grad(self, dy: Array, w: Array, x_shape: Shape, stride: Pair, padding: Padding) -> Array:
        """dy (N,H',W',F), w (F,KH,KW,C) -> dx of ``x_shape`` (N,H,W,C)."""
        return self.library.compute(*input_grad(dy, w, x_shape, stride, padding))

    def conv2d_weight_grad(self, dy: Array, x: Array, w_shape: Shape, stride: Pair, padding: Padding) -> Array:
        """dy (N,H',W',F), x (N,H,W,C) -> dw of ``w_shape`` (F,KH,KW,C).

        From float16 arrays it is float16 too: cuDNN's engines store no other.
        """
        return self.library.compute(*weight_grad(dy, x, w_shape, stride, padding))

    def grouped_conv2d(
        self, x: Array, w: Array, b: Array | None, stride: Pair, padding: Padding, dilation: Pair, groups: int
    ) -> Array:
        """x (N,H,W,C), w (F,KH,KW,C/G), b (F,) or None -> y (N,H',W',F)."""
        return self._forward(*grouped_forward(x, w, b, stride, padding, dilation, groups))

    def grouped_conv2d_input_grad(
        self, dy: Array, w: Array, x_shape: Shape, stride: Pair, padding: Padding, dilation: Pair, groups: int
    ) -> Array:
        """dy (N,H',W',F), w (F,KH,KW,C/G) -> dx of ``x_shape`` (N,H,W,C)."""
        return self.library.compute(*grouped_input_grad(dy, w, x_shape, stride, padding, dilation, groups))

    def grouped_conv2d_weight_grad(
        self, dy: Array, x: Array, w_shape: Shape, stride: Pair, padding: Padding, dilation: Pair, groups: int
    ) -> Array:
        """dy (N,H',W',F), x (N,H,W,C) -> dw of ``w_shape`` (F,KH,KW,C/G), in the arrays' dtype."""
        return self.library.compute(*grouped_weight_grad(dy, x, w_shape, stride, padding, dilation, groups))
