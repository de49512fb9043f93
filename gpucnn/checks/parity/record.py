"""One forward and backward pass of a net, with the inputs and outputs of all its layers."""

from collections.abc import Callable
from dataclasses import dataclass

from gpucnn.backend import Backend
from gpucnn.layers import Layer, Sequential
from gpucnn.layers.fusion import Fused
from gpucnn.losses import softmax_cross_entropy
from gpucnn.types import Array

Named = dict[str, Array]
"""Name, as in ``state_dict`` -> host array."""


@dataclass(frozen=True)
class Step:
    """A whole pass.

    Attributes:
        order: the layers that compute (all but ``Sequential``) in the order in which they finish.
        x, y, dy, dx: input, output and their gradients, of every layer, containers included.  Of layers that ran fused,
            the first has x and dx, the last y and dy.
        gradients: of the parameters.
        flat_grad: the same in one array, as the optimiser gets them, (total,).
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
    model.train()
    layers = dict(model.named_layers())
    ends = [(layer, name, name) for name, layer in layers.items()]
    ends += [(step, step.layers[0].name, step.layers[-1].name) for step in fused_steps(model)]
    for layer, first, last in ends:
        layer.forward = watched(layer.forward, backend, (before[0], first), (after[0], last))  # type: ignore[assignment]
        layer.backward = watched(layer.backward, backend, (before[1], last), (after[1], first))  # type: ignore[assignment]
    try:
        logits = model.forward(backend.to_device(x.astype(model.flat.data.dtype)))
        loss, dlogits = backend.run(softmax_cross_entropy, logits, backend.to_device(labels), 0.0)
        model.backward(dlogits)
    finally:
        for layer, _, _ in ends:
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


def fused_steps(model: Layer) -> list[Fused]:
    """The neighbours that an initialised model runs as one."""
    containers = [layer for _, layer in model.named_layers() if isinstance(layer, Sequential)]
    return [step for container in containers for step in container.steps() if isinstance(step, Fused)]


def watched(
    function: Callable[[Array], Array | None], backend: Backend, before: tuple[Named, str], after: tuple[Named, str]
) -> Callable[[Array], Array | None]:
    """A layer's forward or backward that also records its argument and its result, each in a dict under a name."""

    def run(argument: Array) -> Array | None:
        before[0][before[1]] = on_host(argument, backend)
        result = function(argument)
        if result is not None:
            after[0][after[1]] = on_host(result, backend)
        return result

    return run


def on_host(array: Array, backend: Backend) -> Array:
    """A copy: kernels reuse their memory."""
    return backend.to_host(array).copy()
