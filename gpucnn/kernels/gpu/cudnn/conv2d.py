"""Convolution and its gradients on cuDNN: what it computes, what it leaves to others, and the three kernels."""

from collections.abc import Callable
from typing import Any

from gpucnn.kernels.gpu import stem
from gpucnn.kernels.gpu.cudnn import library
from gpucnn.kernels.gpu.cudnn.geometry import DGRAD, FPROP, WGRAD, Geometry
from gpucnn.types import Array, Padding, Pair, Shape

SECOND_CHOICE = "im2col + cublas"
FUSED_BIAS, SEPARATE_BIAS = "cudnn fprop + bias", "cudnn fprop, then bias"
ALIGNMENT = 16  # bytes: what cuDNN expects of every address


Request = tuple[Geometry, tuple[Array, ...]]
"""A convolution, and its arrays in the order in which its op takes them."""


def forward(x: Array, w: Array, b: Array | None, stride: Pair, padding: Padding) -> Request:
    arrays = (x, w) if b is None else (x, w, b)
    return Geometry(FPROP, x.shape, w.shape, stride, padding, x.dtype, b is not None), arrays


def input_grad(dy: Array, w: Array, x_shape: Shape, stride: Pair, padding: Padding) -> Request:
    return Geometry(DGRAD, x_shape, w.shape, stride, padding, dy.dtype), (dy, w)


def weight_grad(dy: Array, x: Array, w_shape: Shape, stride: Pair, padding: Padding) -> Request:
    return Geometry(WGRAD, x.shape, w_shape, stride, padding, dy.dtype), (dy, x)


REQUESTS: dict[str, Callable[..., Request]] = {
    "conv2d": forward,
    "conv2d_input_grad": input_grad,
    "conv2d_weight_grad": weight_grad,
}


# -- the choice ---------------------------------------------------------------------------------------


def plan(op: str, *args: Any, **kwargs: Any) -> str:
    """Which way an op goes with these arguments: "cudnn fprop", "cudnn dgrad" ..., "stem.cu", or ``SECOND_CHOICE``.

    Asks and computes nothing.

    Args:
        op: "conv2d", "conv2d_input_grad" or "conv2d_weight_grad"; the others are what it would be called with.
    """
    geometry, arrays = REQUESTS[op](*args, **kwargs)
    if stem.supports(geometry, arrays):
        return stem.PLAN
    if refusal(geometry, arrays):
        return SECOND_CHOICE
    if not geometry.bias:
        return f"cudnn {geometry.op}"
    return SEPARATE_BIAS if library.plans().find(geometry).refusal else FUSED_BIAS


def engine() -> str:
    """What computes convolutions on the current GPU, in one line for people."""
    plans = library.current()
    first = f"; few channels forward by {stem.PLAN}" if library.options().stem else ""
    if isinstance(plans, str):
        return f"{SECOND_CHOICE}: {plans}{first}"
    about, options = plans.cache.environment, plans.options
    chosen = "the fastest engines by timing" if options.autotune else "engines by its heuristics"
    return f"cuDNN {about.cudnn}, frontend {about.frontend}: {chosen}, {options}{first}"


def supports(op: str, *args: Any, **kwargs: Any) -> bool:
    """Whether the kernel of this name covers these arguments; ``plan`` for programs."""
    request = REQUESTS[op](*args, **kwargs)
    return stem.supports(*request) or not refusal(*request)


def refusal(geometry: Geometry, arrays: tuple[Array, ...]) -> str:
    """Why cuDNN does not compute this; "" where it does.

    Kernels read by address, so arrays have to fit the geometry: one shape, dtype and GPU for each, nothing broadcast.
    """
    plans = library.current()
    if isinstance(plans, str):
        return plans
    if reason := plans.find(geometry._replace(bias=False)).refusal:
        return reason
    for array, shape in zip(arrays, geometry.input_shapes, strict=True):
        if array.shape != shape or array.dtype != geometry.dtype:
            return f"{geometry} was given an array {array.dtype} {array.shape} in place of {shape}"
        if array.data.device_id != plans.device:
            return f"{geometry} was given an array of GPU {array.data.device_id} while GPU {plans.device} is current"
    return ""


# -- the kernels --------------------------------------------------------------------------------------


def conv2d(x: Array, w: Array, b: Array | None, stride: Pair, padding: Padding) -> Array:
    """x (N,H,W,C), w (F,KH,KW,C), b (F,) or None -> y (N,H',W',F)."""
    geometry, arrays = forward(x, w, b, stride, padding)
    if stem.supports(geometry, arrays):
        return stem.conv2d(x, w, b, stride, padding)
    if b is None or not library.plans().find(geometry).refusal:
        return compute(geometry, arrays)
    y = compute(geometry._replace(bias=False), (x, w))
    y += b
    return y


def conv2d_input_grad(dy: Array, w: Array, x_shape: Shape, stride: Pair, padding: Padding) -> Array:
    """dy (N,H',W',F), w (F,KH,KW,C) -> dx of ``x_shape`` (N,H,W,C)."""
    return compute(*input_grad(dy, w, x_shape, stride, padding))


def conv2d_weight_grad(dy: Array, x: Array, w_shape: Shape, stride: Pair, padding: Padding) -> Array:
    """dy (N,H',W',F), x (N,H,W,C) -> dw of ``w_shape`` (F,KH,KW,C).

    From float16 arrays it is float16 too: cuDNN's engines store no other.
    """
    return compute(*weight_grad(dy, x, w_shape, stride, padding))


def compute(geometry: Geometry, arrays: tuple[Array, ...]) -> Array:
    """A convolution that cuDNN does not refuse -> a new array."""
    import cupy

    result = cupy.empty(geometry.output_shape, geometry.dtype)
    packed = [pack(array) for array in arrays]  # held until the launch
    library.plans().run(geometry, [array.data.ptr for array in (*packed, result)], result)
    return result


def pack(array: Array) -> Array:
    """The array as cuDNN reads it: in C order, at an aligned address; a copy where it is not."""
    if array.flags.c_contiguous and array.data.ptr % ALIGNMENT == 0:
        return array
    return array.copy(order="C")
