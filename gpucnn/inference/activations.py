"""A forward pass that yields the output of every layer, to look inside a trained model."""

from collections.abc import Iterator

from gpucnn.layers import Layer, Residual, Sequential
from gpucnn.types import Array


def trace(layer: Layer, x: Array, name: str = "") -> Iterator[tuple[str, Layer, Array]]:
    """Run x (N, ...) through a model; yields (dotted name, layer, its output) in the order of computation.

    Containers are opened: the layers of a ``Sequential`` run one by one, not fused, and after the branches of a
    ``Residual`` comes their sum, under its own name.  The last output is the model's.
    """
    if isinstance(layer, Sequential):
        for child_name, child in layer.children().items():
            for step in trace(child, x, f"{name}.{child_name}" if name else child_name):
                y = step[2]
                yield step
            x = y
    elif isinstance(layer, Residual):
        for child_name, child in layer.children().items():
            yield from trace(child, x, f"{name}.{child_name}" if name else child_name)
        yield name, layer, layer.forward(x)
    else:
        yield name, layer, layer.forward(x)
