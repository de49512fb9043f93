"""Where a trained network looks: gradients of a class's score in evaluation.

    saliency  S[i,j] = max_c |d score / d x[i,j,c]|                               (arXiv 1312.6034)
    Grad-CAM  G[i,j] = max(0, sum_c a_c A[i,j,c]),  a_c = mean_{i,j} d score / d A[i,j,c]     (arXiv 1610.02391)

A is the output of a layer that still has height and width; score is the class's logit.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from gpucnn.backend import array_module
from gpucnn.layers import BatchNorm, BatchNormReLU, Dropout, Layer, MaxPool2D, Residual, Sequential
from gpucnn.layers.activations import Activation
from gpucnn.types import Array

SMALLEST_MAP = 3  # pixels on the short side of the map that Grad-CAM takes

MAPS = Activation, BatchNormReLU, MaxPool2D, Residual  # layers whose output Grad-CAM may take


@contextmanager
def differentiable(model: Layer, watch: Callable[[str, str, Array], None] | None = None) -> Iterator[None]:
    """A model in evaluation whose ``backward`` works: batch norm is the linear function of its running statistics.

    Args:
        watch: called with (dotted name, "y" or "dy", array) of every layer that is not a container.
    """
    modes = [(name, layer, layer.training, layer.needs_input_grad) for name, layer in model.named_layers()]
    for name, layer, *_ in modes:
        frozen = isinstance(layer, BatchNorm | Dropout)
        layer._enter_mode(not frozen)
        layer.needs_input_grad = True
        if isinstance(layer, Sequential):
            layer._steps = layer.backend, list(layer.layers.values())  # one by one: what is fused is no layer
            continue
        kept: dict[str, Array] = {}
        vars(layer)["forward"] = partial(run, name, kept, "y", watch, layer.forward)
        backward = partial(frozen_grad, layer, kept) if frozen else layer.backward
        vars(layer)["backward"] = partial(run, name, kept, "dy", watch, backward)
    try:
        yield
    finally:
        for _, layer, training, needs in modes:
            vars(layer).pop("forward", None)
            vars(layer).pop("backward", None)
            layer._enter_mode(training)
            layer.needs_input_grad = needs
            if isinstance(layer, Sequential):
                layer._steps = None


def run(name: str, kept: dict[str, Array], symbol: str, watch: Any, method: Any, argument: Array) -> Array:
    """A layer's forward or backward; its output, or the gradient of that, is shown to ``watch``."""
    result = method(argument)
    kept[symbol] = result if symbol == "y" else argument
    if watch:
        watch(name, symbol, kept[symbol])
    return result


def frozen_grad(layer: Layer, kept: dict[str, Array], dy: Array) -> Array:
    """Back through batch norm with given statistics, where each value counts for itself; through dropout as it is."""
    if isinstance(layer, Dropout):
        return dy
    assert isinstance(layer, BatchNorm)
    if isinstance(layer, BatchNormReLU):
        dy = dy * (kept["y"] > 0)
    return dy * (layer.scale.data / array_module(dy).sqrt(layer.running_var.data + layer.eps))


def attribute(model: Layer, x: Array, classes: Array) -> tuple[Array, Array | None, str]:
    """Saliency (N,H,W) and Grad-CAM (N,h,w) of images x (N,H,W,C) for classes (N,), on the host; and Grad-CAM's layer.

    Grad-CAM takes the last activation that is at least 3 pixels high and wide, and is None where there is none.
    """
    backend, grad = model.backend, model.flat.grad.copy()
    layers = dict(model.named_layers())
    outputs: dict[str, Array] = {}
    gradients: dict[str, Array] = {}

    def watch(name: str, symbol: str, array: Array) -> None:
        if array.ndim == 4 and min(array.shape[1:3]) >= SMALLEST_MAP and isinstance(layers[name], MAPS):
            (outputs if symbol == "y" else gradients)[name] = array

    with differentiable(model, watch):
        logits = model.forward(x)
        rows = backend.xp.arange(logits.shape[1]) == backend.to_device(classes)[:, None]
        dx: Array = model.backward(rows.astype(logits.dtype))
    model.flat.grad[...] = grad
    saliency = backend.to_host(abs(dx).max(axis=3))
    if not outputs:
        return saliency, None, ""
    name = list(outputs)[-1]
    weights = gradients[name].mean(axis=(1, 2), keepdims=True)  # (N,1,1,C)
    cam = backend.xp.maximum((weights * outputs[name]).sum(axis=3), 0)
    return saliency, backend.to_host(cam), name
