"""A model's layers, output shapes, parameters and floating-point operations."""

from collections.abc import Iterator
from dataclasses import dataclass

from gpucnn.layers import Layer, Residual, Sequential
from gpucnn.types import Shape


@dataclass(frozen=True)
class Row:
    """One layer: dotted name, class, output shape and forward FLOPs of one example, parameters."""

    name: str
    kind: str
    shape: Shape
    parameters: int
    flops: int


def rows(layer: Layer, shape: Shape, name: str = "") -> Iterator[Row]:
    """Every layer that computes, in the order of computation."""
    if isinstance(layer, Sequential):
        for child_name, child in layer.children().items():
            yield from rows(child, shape, f"{name}.{child_name}" if name else child_name)
            shape = child.output_shape(shape)
    elif isinstance(layer, Residual):
        for child_name, child in layer.children().items():
            yield from rows(child, shape, f"{name}.{child_name}" if name else child_name)
        own = layer.flops(shape) - sum(child.flops(shape) for child in layer.children().values())
        yield Row(name, "Residual (sum)", layer.output_shape(shape), 0, own)
    else:
        parameters = sum(parameter.size for parameter in layer.parameters().values())
        yield Row(name, type(layer).__name__, layer.output_shape(shape), parameters, layer.flops(shape))


def summary(model: Layer, input_shape: Shape) -> str:
    """A human-readable table; shapes and FLOPs are of one example, forward."""
    table = [("layer", "", "output", "parameters", "FLOPs")]
    listed = list(rows(model, input_shape))
    for row in listed:
        shape = " x ".join(map(str, row.shape))
        table.append((row.name, row.kind, shape, f"{row.parameters:,}", f"{row.flops:,}"))
    total = (sum(row.parameters for row in listed), sum(row.flops for row in listed))
    table.append(("total", "", "", f"{total[0]:,}", f"{total[1]:,}"))
    widths = [max(len(line[column]) for line in table) for column in range(5)]
    lines = [
        f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:>{widths[2]}}  {d:>{widths[3]}}  {e:>{widths[4]}}".rstrip()
        for a, b, c, d, e in table
    ]
    rule = "-" * max(map(len, lines))
    return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])
