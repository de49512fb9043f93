"""A model's layers, output shapes, parameters and floating-point operations."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from gpucnn.layers import Layer, Sequential
from gpucnn.layers.containers import Branches
from gpucnn.settings import checked
from gpucnn.types import Shape

Step = tuple[str, Layer, Any, Any]


@dataclass(frozen=True)
class Row:
    """One layer: dotted name, class, output shape and forward FLOPs of one example, parameters."""

    name: str
    kind: str
    shape: Shape
    parameters: int
    flops: int


def walk(layer: Layer, x: Any, run: Callable[[Layer, Any], Any], name: str = "") -> Iterator[Step]:
    """Every layer that computes, in order: (dotted name, layer, its input, its output), the output by ``run``.

    The layers of a ``Sequential`` come one by one, not fused, and after branches what puts them together.
    """
    child_x = x
    for child_name, child in layer.children().items() if isinstance(layer, Sequential | Branches) else ():
        for step in walk(child, child_x, run, f"{name}.{child_name}" if name else child_name):
            yield step
            child_x = step[3] if isinstance(layer, Sequential) else x
    if not isinstance(layer, Sequential):
        yield name, layer, x, run(layer, x)


def rows(model: Layer, input_shape: Shape) -> Iterator[Row]:
    """Every layer that computes, in the order of computation."""
    for name, layer, shape, output in walk(model, input_shape, lambda layer, shape: layer.output_shape(shape)):
        kind, flops = type(layer).__name__, layer.flops(shape)
        parameters = sum(parameter.size for parameter in layer.parameters().values())
        if isinstance(layer, Branches):  # the branches have rows of their own
            kind, parameters = f"{kind} ({layer.result})", 0
            flops -= sum(child.flops(shape) for child in layer.children().values())
        yield Row(name, kind, output, parameters, flops)


@checked
def summary(model: Layer, input_shape: Shape) -> str:
    """A human-readable table; shapes and FLOPs are of one example, forward."""
    listed = list(rows(model, input_shape))
    listed.append(Row("total", "", (), sum(row.parameters for row in listed), sum(row.flops for row in listed)))
    cells = ((r.name, r.kind, " x ".join(map(str, r.shape)), f"{r.parameters:,}", f"{r.flops:,}") for r in listed)
    table = [("layer", "", "output", "parameters", "FLOPs"), *cells]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    line = "  ".join(f"{{:{side}{width}}}" for side, width in zip("<<>>>", widths, strict=True))
    lines = [line.format(*texts).rstrip() for texts in table]
    rule = "-" * max(map(len, lines))
    return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])
