"""Where a trained network looks: gradients of a class's score in evaluation.

    saliency  S[i,j] = max_c |d score / d x[i,j,c]|                               (arXiv 1312.6034)
    Grad-CAM  G[i,j] = max(0, sum_c a_c A[i,j,c]),  a_c = mean_{i,j} d score / d A[i,j,c]     (arXiv 1610.02391)

A is the output of a layer that still has height and width; score is the class's logit.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gpucnn.backend import array_module
from gpucnn.inference.hooks import Method, hooked
from gpucnn.layers import BatchNorm, BatchNormReLU, Dropout, Layer, MaxPool2D, Residual, Sequential
from gpucnn.layers.activations import Activation
from gpucnn.types import Array

SMALLEST_MAP = 3  # pixels on the short side of the map that Grad-CAM takes

FROZEN = BatchNorm, Dropout  # layers that stay in evaluation
MAPS = Activation, BatchNormReLU, MaxPool2D, Residual  # layers whose output Grad-CAM may take


Watch = Callable[[str, str, Array], None]


@contextmanager
def differentiable(model: Layer, watch: Watch | None = None) -> Iterator[None]:
    """A model in evaluation whose ``backward`` works: batch norm is the linear function of its running statistics.

    Args:
        watch: called with (dotted name, "y" or "dy", array) of every layer that is not a container.
    """
    outputs: dict[str, Array] = {}

    def forward(name: str, layer: Layer, method: Method) -> Method:
        def run(x: Array) -> Array:
            outputs[name] = y = method(x)
            if watch and not isinstance(layer, Sequential):
                watch(name, "y", y)
            return y

        return run

    def backward(name: str, layer: Layer, method: Method) -> Method:
        def run(dy: Array) -> Array:
            if watch and not isinstance(layer, Sequential):
                watch(name, "dy", dy)
            return frozen_grad(layer, outputs[name], dy) if isinstance(layer, FROZEN) else method(dy)

        return run

    with hooked(model, forward, backward):
        for _, layer in model.named_layers():
            layer._enter_mode(not isinstance(layer, FROZEN))
        yield


def frozen_grad(layer: Layer, y: Array, dy: Array) -> Array:
    """Back through batch norm with given statistics, where each value counts for itself; through dropout as it is."""
    if isinstance(layer, Dropout):
        return dy
    assert isinstance(layer, BatchNorm)
    if isinstance(layer, BatchNormReLU):
        dy = dy * (y > 0)
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
