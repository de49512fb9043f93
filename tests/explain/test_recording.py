"""What is recorded is what a trainer computes, and every number of it follows from the layer's equations."""

from typing import Any

import numpy as np
import pytest
from evaluator import Evaluator, elements
from layer_recordings import recorded

from gpucnn import losses
from gpucnn.checks import gradcheck
from gpucnn.checks.gradcheck import LAYERS, LOSSES
from gpucnn.explain.recording import LayerRecord, read_all
from gpucnn.losses import EQUATIONS


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
        gradients = {f"d{symbol}" for symbol in layer.paths if f"d{symbol}" in layer.arrays}
        assert {"y", "dx", *gradients} <= {equation.name for equation in layer.equations}, name
        assert check_equations(layer) >= 2


@pytest.mark.parametrize("case", LOSSES)
def test_every_number_of_every_loss_follows_from_its_equations(case: str) -> None:
    """Of those that a net can be trained with: the loss of scores (N,K) and labels."""
    loss, x = LOSSES[case]
    value, gradient = loss(x)
    name = case.split(",")[0].replace(" ", "_").replace("-", "_")
    arrays = {"x": x, "t": targets_of(case), "y": np.reshape(value, 1), "dx": gradient}
    found = LayerRecord("loss", case, arrays, numbers={"images": len(x), "size": x.size})
    read_all(found, EQUATIONS[getattr(losses, name)], {symbol: array.shape for symbol, array in arrays.items()})
    assert check_equations(found) == 2


def targets_of(case: str) -> Any:
    """The targets of gradcheck's losses, as rows."""
    if "binary" in case or "squared" in case:
        return gradcheck._BITS.astype(float)
    rows = np.eye(4)[gradcheck._LABELS]
    return rows * 0.8 + 0.2 / 4 if "smoothed" in case else rows
