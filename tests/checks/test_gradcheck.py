"""Finite differences of every layer and loss, and proof that the checker can fail."""

import numpy as np
import pytest

from gpucnn import layers
from gpucnn.checks.gradcheck import FUSING, LAYERS, LOSSES, check_all, check_layer, check_loss, spaced
from gpucnn.cli.main import main
from gpucnn.layers.fusion import FUSIONS, Fused


@pytest.mark.parametrize("case", [*LAYERS, *LOSSES])
def test_gradients_agree_with_finite_differences(case) -> None:
    checks = [check for check in check_all(case) if check.case == case]
    assert checks
    assert {check.array: check.error for check in checks if not check.error < 1e-6} == {}


def test_every_layer_has_a_case() -> None:
    made = {type(layer) for make, _ in LAYERS.values() for _, layer in make().named_layers()}
    assert made >= {getattr(layers, name) for name in layers.__all__ if name != "Layer"}


def test_every_fusion_has_a_case_that_runs_it() -> None:
    models = [make().initialize(0, FUSING) for make, _ in LAYERS.values()]
    steps = [step for model in models if isinstance(model, layers.Sequential) for step in model.steps()]
    assert {type(step) for step in steps if isinstance(step, Fused)} == set(FUSIONS.values())


class OffByOne(layers.Linear):
    """Its gradient for x is a little wrong."""

    def backward(self, dy):
        return super().backward(dy) * 1.001


def test_a_wrong_gradient_is_found() -> None:
    errors = {check.array: check.error for check in check_layer(OffByOne(4, 3), (2, 4))}
    assert errors["x"] > 1e-4
    assert errors["weight"] < 1e-6
    (check,) = check_loss(lambda y: ((y * y).sum(), y), spaced((3, 2)), case="half")
    assert check.error == pytest.approx(0.5, rel=1e-3)
    assert not check.passed


def test_spaced_values_are_distinct_and_not_zero() -> None:
    for shape in ((2, 3), (3, 5), (1, 1), (7, 7)):
        x = np.sort(np.append(spaced(shape).reshape(-1), 0.0))
        assert np.diff(x).min() > 1e-3


def test_the_command_prints_a_table_and_fails_where_a_gradient_is_wrong(capsys, monkeypatch) -> None:
    assert main(["gradcheck", "--layer", "linear"]) == 0
    assert "Linear" in capsys.readouterr().out
    monkeypatch.setitem(LAYERS, "Linear", (lambda: OffByOne(4, 3), (2, 4)))
    assert main(["gradcheck", "--layer", "linear"]) == 1
    assert "WRONG" in capsys.readouterr().out
    assert main(["gradcheck", "--layer", "nothing"]) == 2
