"""One layer in one recorded step, with the loss of gradcheck."""

from typing import Any

from gpucnn.checks.gradcheck import spaced
from gpucnn.explain import Recording, record
from gpucnn.layers import Layer


def direction(y: Any, v: Any) -> tuple[Any, Any]:
    """The loss of gradcheck: sum v y, whose gradient is v."""
    return (v * y).sum(), v


def recorded(layer: Layer, shape: tuple[int, ...]) -> Recording:
    layer.initialize(0, dtype="float64")
    x = spaced(shape)
    for parameter in layer.parameters().values():
        parameter.data[...] += 0.1 * spaced(parameter.shape, 1)
    v = spaced(layer.train().forward(x).shape, 2)
    return record(layer, x, v, loss=direction)[0]
