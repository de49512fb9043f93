"""A forward pass that yields the output of every layer, to look inside a trained model."""

from collections.abc import Iterator

from gpucnn.layers import Layer
from gpucnn.models.summary import walk
from gpucnn.types import Array


def trace(model: Layer, x: Array) -> Iterator[tuple[str, Layer, Array]]:
    """Run x (N, ...) through a model; yields (dotted name, layer, its output) in the order of computation.

    Containers are opened as ``walk`` says.  The last output is the model's.
    """
    for name, layer, _, y in walk(model, x, lambda layer, x: layer.forward(x)):
        yield name, layer, y
