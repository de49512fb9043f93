"""One forward and backward pass of a net, with everything that went into its layers and came out."""

from collections.abc import Callable
from dataclasses import dataclass

from gpucnn.backend import Backend
from gpucnn.layers import Layer, Sequential
from gpucnn.losses import softmax_cross_entropy
from gpucnn.types import Array

Named = dict[str, Array]
"""Name, as in ``state_dict`` -> host array."""


@dataclass(frozen=True)
class Step:
    """A whole pass.

    Attributes:
        order: the layers that compute (all but ``Sequential``) in the order in which they are through.
        x, y, dy, dx: of every layer, containers included: input, output, and the gradients for them.
        gradients: of the parameters.
        flat_grad: the same as the optimiser sees them, (total,).
        statistics: the buffers after the pass.
    """

    order: list[str]
    x: Named
    y: Named
    dy: Named
    dx: Named
    gradients: Named
    flat_grad: Array
    statistics: Named
    labels: Array
    logits: Array
    loss: Array


def record(model: Layer, x: Array, labels: Array) -> Step:
    """Run an initialised model on x (N,H,W,C) and labels (N,), host arrays, in training mode.  # sync

    x is cast to the dtype of the model's parameters.
    """
    backend = model.backend
    before: tuple[Named, Named] = ({}, {})  # x, dy
    after: tuple[Named, Named] = ({}, {})  # y, dx
    layers = dict(model.named_layers())
    for name, layer in layers.items():
        layer.forward = watched(name, layer.forward, backend, before[0], after[0])  # type: ignore[assignment]
        layer.backward = watched(name, layer.backward, backend, before[1], after[1])  # type: ignore[assignment]
    try:
        model.train()
        logits = model.forward(backend.to_device(x.astype(model.flat.data.dtype)))
        loss, dlogits = backend.run(softmax_cross_entropy, logits, backend.to_device(labels), 0.0)
        model.backward(dlogits)
    finally:
        for layer in layers.values():
            del layer.forward, layer.backward  # the class's own again
    return Step(
        order=[name for name in after[0] if not isinstance(layers[name], Sequential)],
        x=before[0],
        y=after[0],
        dy=before[1],
        dx=after[1],
        gradients={name: on_host(parameter.grad, backend) for name, parameter in model.parameters().items()},
        flat_grad=on_host(model.flat.grad, backend),
        statistics={name: on_host(buffer.data, backend) for name, buffer in model.buffers().items()},
        labels=labels,
        logits=on_host(logits, backend),
        loss=on_host(loss, backend),
    )


def watched(
    name: str, function: Callable[[Array], Array | None], backend: Backend, before: Named, after: Named
) -> Callable[[Array], Array | None]:
    """A layer's forward or backward, which notes what it is given and, once it is through, what it returns."""

    def run(argument: Array) -> Array | None:
        before[name] = on_host(argument, backend)
        result = function(argument)
        if result is not None:
            after[name] = on_host(result, backend)
        return result

    return run


def on_host(array: Array, backend: Backend) -> Array:
    """A copy: kernels reuse their memory."""
    return backend.to_host(array).copy()
