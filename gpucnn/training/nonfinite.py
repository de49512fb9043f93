"""Where a number went wrong: the first layer of a forward pass that makes NaN or infinity."""

from gpucnn.backend import Backend
from gpucnn.inference.activations import trace
from gpucnn.layers import Layer
from gpucnn.types import Array


def all_finite(array: Array, backend: Backend) -> bool:
    """Whether no element is NaN or infinite.  # sync"""
    return bool(backend.to_host(backend.xp.isfinite(array).all()))


def explain_not_finite(model: Layer, x: Array, step: int) -> str:
    """One line for the user; runs the forward pass of this batch once more to find the layer."""
    remedy = "lower the learning rate, clip the gradient or warm up; the last checkpoint is untouched"
    return f"step {step} is not a number: {first_culprit(model, x)}; {remedy}"


def first_culprit(model: Layer, x: Array) -> str:
    """What is not finite first: the batch, a weight, a layer's output, or else a gradient."""
    backend = model.backend
    if not all_finite(x, backend):
        return "the batch itself holds NaN or infinity"
    for name, parameter in model.parameters().items():
        if not all_finite(parameter.data, backend):
            return f"weights {name!r} hold NaN or infinity"
    for name, layer, y in trace(model, x):
        if not all_finite(y, backend):
            return f"layer {name!r} ({type(layer).__name__}) is the first whose output holds NaN or infinity"
    for name, parameter in model.parameters().items():
        if not all_finite(parameter.grad, backend):
            return f"the gradient of {name!r} holds NaN or infinity"
    return "the loss overflows"
