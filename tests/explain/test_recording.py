"""What is recorded is what a trainer computes, and every number of it follows from the layer's equations."""

from typing import Any

import pytest
from evaluator import Evaluator, elements

from gpucnn.checks.gradcheck import LAYERS, spaced
from gpucnn.explain import record
from gpucnn.explain.recording import LayerRecord, Recording
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


def check_equations(layer: LayerRecord) -> int:
    """Every array that an equation defines, element by element -> how many there are."""
    evaluator, defined = Evaluator(layer), 0
    for equation in layer.equations:
        if equation.name in layer.arrays:
            defined += 1
            array = layer.arrays[equation.name]
            for index in elements(array.shape, 30, 3):
                assert evaluator.number(equation.name, index) == pytest.approx(array[index], rel=1e-9, abs=1e-9)
    return defined


@pytest.mark.parametrize("case", LAYERS)
def test_every_number_of_every_layer_follows_from_its_equations(case: str) -> None:
    make, shape = LAYERS[case]
    for name, layer in recorded(make(), shape).layers.items():
        wanted = {"y", "dx", *(symbol for symbol in layer.arrays if f"d{symbol}" in layer.arrays and symbol != "x")}
        gradients = {f"d{symbol}" for symbol in layer.paths if f"d{symbol}" in layer.arrays}
        assert {"y", "dx", *gradients} <= {equation.name for equation in layer.equations}, f"{case}: {name} {wanted}"
        assert check_equations(layer) >= 2
