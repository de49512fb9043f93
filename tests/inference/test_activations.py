"""Looking inside a model changes nothing and misses nothing."""

import numpy as np
import pytest

from gpucnn import models
from gpucnn.inference.activations import trace
from gpucnn.layers import Residual
from gpucnn.models.summary import rows


@pytest.mark.parametrize("name", ["lenet5", "mnist_cnn", "resnet20", "mlp"])
def test_every_layer_of_the_summary_is_seen_in_its_order(name) -> None:
    model = models.build(name, (28, 28, 1)).initialize(seed=1).eval()
    x = np.random.default_rng(0).standard_normal((2, 28, 28, 1), dtype=np.float32)
    steps = list(trace(model, x))
    listed = list(rows(model, (28, 28, 1)))
    assert [step[0] for step in steps] == [row.name for row in listed]
    assert [step[2].shape[1:] for step in steps] == [row.shape for row in listed]
    np.testing.assert_array_equal(steps[-1][2], model(x))


def test_the_sum_of_a_residual_adds_its_branches() -> None:
    model = models.build("resnet20", (16, 16, 3)).initialize(seed=1).eval()
    x = np.random.default_rng(0).standard_normal((1, 16, 16, 3), dtype=np.float32)
    outputs = {name: y for name, _, y in trace(model, x)}
    sums = [name for name, layer, _ in trace(model, x) if isinstance(layer, Residual)]
    assert len(sums) == 9
    added = outputs["stage2.0.body.3"] + outputs["stage2.0.shortcut.1"]
    np.testing.assert_array_equal(outputs["stage2.0"], np.maximum(added, 0))
