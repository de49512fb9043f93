"""One forward and backward pass of a net, with the inputs and outputs of all its layers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gpucnn.backend import Backend
from gpucnn.layers import Layer, Sequential
from gpucnn.layers.fusion import Fused
from gpucnn.losses import softmax_cross_entropy
from gpucnn.types import Array

Named = dict[str, Array]
"""Name, as in ``state_dict`` -> host array."""


@dataclass(frozen=True)
class Step:
    """A whole pass: input, output and their gradients of every layer, containers included.

    Of layers that ran fused, the first has x and dx, the last y and dy.
    """

    order: list[str]  # the layers that compute (all but ``Sequential``) in the order in which they finish
    x: Named
    y: Named
    dy: Named
    dx: Named
    gradients: Named  # of the parameters
    flat_grad: Array  # the same in one array, as the optimizer gets them, (total,)
    statistics: Named  # the buffers after the pass
    labels: Array
    logits: Array
    loss: Array


def record(model: Layer, x: Array, labels: Array) -> Step:
    """Run an initialised model on x (N,H,W,C) and labels (N,), host arrays, in training mode.  # sync

    x is cast to the dtype of the model's parameters.
    """
    backend = model.backend
    seen: dict[str, Named] = {"x": {}, "y": {}, "dy": {}, "dx": {}}

    def watched(function: Callable[..., Array | None], taken: tuple[str, str], given: tuple[str, str]) -> Any:
        """A layer's forward or backward that also records its argument and its result, each as (kind, name)."""

        def run(argument: Array) -> Array | None:
            seen[taken[0]][taken[1]] = on_host(argument, backend)
            result = function(argument)
            if result is not None:
                seen[given[0]][given[1]] = on_host(result, backend)
            return result

        return run

    layers = dict(model.train().named_layers())
    ends = [(layer, name, name) for name, layer in layers.items()]
    ends += [(step, step.layers[0].name, step.layers[-1].name) for step in fused_steps(model)]
    for layer, first, last in ends:
        layer.forward = watched(layer.forward, ("x", first), ("y", last))  # type: ignore[method-assign]
        layer.backward = watched(layer.backward, ("dy", last), ("dx", first))  # type: ignore[method-assign]
    try:
        logits = model.forward(backend.to_device(x.astype(model.flat.data.dtype)))
        loss, dlogits = backend.run(softmax_cross_entropy, logits, backend.to_device(labels), 0.0)
        model.backward(dlogits)
    finally:
        for layer, _, _ in ends:
            del layer.forward, layer.backward  # the class's own again
    return Step(
        order=[name for name in seen["y"] if not isinstance(layers[name], Sequential)],
        **seen,
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


def on_host(array: Array, backend: Backend) -> Array:
    """A copy: kernels reuse their memory."""
    return backend.to_host(array).copy()
