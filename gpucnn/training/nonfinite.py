"""Finds where NaN or infinity first appeared: the batch, a weight, a layer's output or a gradient."""

from gpucnn.backend import Backend
from gpucnn.inference.activations import trace
from gpucnn.layers import Layer
from gpucnn.types import Array


def all_finite(array: Array, backend: Backend) -> bool:
    """Whether no element is NaN or infinite.  # sync"""
    return bool(backend.to_host(backend.xp.isfinite(array).all()))


def explain_nonfinite(model: Layer, x: Array, step: int) -> str:
    """One line for the user; repeats the forward pass of the batch x (B,H,W,C) to find the layer.  # sync"""
    remedy = "lower the learning rate, clip the gradient or warm up; the last checkpoint is untouched"
    return f"step {step} gave NaN or infinity: {first_nonfinite(model, x)}; {remedy}"


def first_nonfinite(model: Layer, x: Array) -> str:
    """What is not finite first, in the order of computation.  # sync"""
    backend = model.backend
    if not all_finite(x, backend):
        return "the batch itself has NaN or infinity"
    for name, parameter in model.parameters().items():
        if not all_finite(parameter.data, backend):
            return f"weights {name!r} have NaN or infinity"
    for name, layer, y in trace(model, x):
        if not all_finite(y, backend):
            return f"layer {name!r} ({type(layer).__name__}) is the first whose output has NaN or infinity"
    for name, parameter in model.parameters().items():
        if not all_finite(parameter.grad, backend):
            return f"the gradient of {name!r} has NaN or infinity"
    return "the loss overflows"
