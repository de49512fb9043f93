"""Finds where NaN or infinity first appeared: the batch, a weight, a layer's output or a gradient."""

from collections.abc import Iterator

from gpucnn.inference.activations import trace
from gpucnn.layers import Layer
from gpucnn.types import Array

REMEDY = "lower the learning rate, clip the gradient or warm up; the last checkpoint is untouched"


def explain_nonfinite(model: Layer, x: Array, step: int) -> str:
    """One line for the user; repeats the forward pass of the batch x (B,H,W,C) to find the layer.  # sync"""
    backend = model.backend
    found = (what for array, what in parts(model, x) if not backend.to_host(backend.xp.isfinite(array).all()))
    return f"step {step} gave NaN or infinity: {next(found, 'the loss overflows')}; {REMEDY}"


def parts(model: Layer, x: Array) -> Iterator[tuple[Array, str]]:
    """What a step computes with, in the order of computation, and what to say where it is not finite."""
    yield x, "the batch itself has NaN or infinity"
    for name, parameter in model.parameters().items():
        yield parameter.data, f"weights {name!r} have NaN or infinity"
    for name, layer, y in trace(model, x):
        yield y, f"layer {name!r} ({type(layer).__name__}) is the first whose output has NaN or infinity"
    for name, parameter in reversed(list(model.parameters().items())):  # backward reaches the last layer first
        yield parameter.grad, f"the gradient of {name!r} has NaN or infinity"
