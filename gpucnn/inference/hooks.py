"""Listening to the layers of a model while it computes; the layers keep their code."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from gpucnn.layers import Layer, Sequential

Method = Callable[[Any], Any]
Hook = Callable[[str, Layer, Method], Method]
"""(dotted name, layer, its method) -> what is called in place of the method."""


@contextmanager
def hooked(model: Layer, forward: Hook, backward: Hook) -> Iterator[None]:
    """While this lasts, layers run through these hooks, one by one also where a backend fuses them, with all dL/dx.

    Mode and ``needs_input_grad`` of each layer are as before afterwards.
    """
    before = [(layer, layer.training, layer.needs_input_grad) for _, layer in model.named_layers()]
    for name, layer in model.named_layers():
        layer.needs_input_grad = True
        vars(layer).update(forward=forward(name, layer, layer.forward), backward=backward(name, layer, layer.backward))
        if isinstance(layer, Sequential):
            layer._steps = layer.backend, list(layer.layers.values())
    try:
        yield
    finally:
        for layer, training, needs in before:
            del vars(layer)["forward"], vars(layer)["backward"]
            layer._enter_mode(training)
            layer.needs_input_grad = needs
            if isinstance(layer, Sequential):
                layer._steps = None
