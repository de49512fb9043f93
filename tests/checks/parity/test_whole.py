"""Whole nets and training steps: three distances, of which float64 is the yardstick."""

from functools import partial

import numpy as np
import pytest
from strict_cupy import STRICT

from gpucnn import models
from gpucnn.backend import REFERENCE, Backend
from gpucnn.checks.parity import batch, compare, livened
from gpucnn.checks.parity.record import record
from gpucnn.layers.conv2d import conv2d
from gpucnn.losses import softmax_cross_entropy
from gpucnn.optim.optimizer import momentum_update

LENET = partial(models.build, "lenet5", (28, 28, 1))
RESNET = partial(models.build, "resnet20", (8, 8, 3))


def lenet(backend: Backend, **settings):
    return compare(LENET, (28, 28, 1), backend, batch_size=4, **settings)


@pytest.mark.parametrize("backend", [Backend("plain", np), STRICT], ids=lambda backend: backend.name)
def test_the_same_functions_are_as_far_from_float64_as_the_reference(backend) -> None:
    parity = compare(RESNET, (8, 8, 3), backend, batch_size=4, steps=3)
    for row in [*parity.whole, *parity.training.deviations]:
        assert row.candidate_to_reference == 0
        assert row.candidate_to_float64 == row.reference_to_float64
    assert parity.training.candidate == parity.training.reference
    outputs = {row.name: row for row in parity.whole if row.part == "output"}
    assert list(outputs)[-1] == "classifier"
    assert 1e-9 < outputs["classifier"].reference_to_float64 < 1e-4  # rounding, and no more than that


def test_all_arrays_are_there_by_their_names() -> None:
    parity = compare(RESNET, (8, 8, 3), REFERENCE, batch_size=4)
    model = RESNET()
    assert {row.name for row in parity.whole if row.part == "gradient"} == set(model.parameters())
    assert {row.name for row in parity.whole if row.part == "statistic"} == set(model.buffers())
    assert [row.part for row in parity.whole].count("loss") == 1
    assert parity.training is None


def test_errors_add_up_in_the_whole_net_and_not_layer_by_layer() -> None:
    worse = Backend("worse", np, {conv2d: lambda *args: conv2d(*args) * np.float32(1.001)})
    parity = lenet(worse)
    assert {row.layer for row in parity.layers if not row.passed} == {"features.0", "features.3"}
    outputs = {row.name: row for row in parity.whole if row.part == "output"}
    for name in ("features.0", "features.3", "features.6", "classifier.0", "classifier.4"):
        assert outputs[name].candidate_to_reference > 3e-4
        assert outputs[name].candidate_to_float64 > 3e-4
        assert outputs[name].reference_to_float64 < 1e-5
    assert outputs["features.3"].candidate_to_reference > 1.5 * outputs["features.0"].candidate_to_reference


def test_the_recorded_pass_is_the_plain_one_and_leaves_the_model_as_it_was() -> None:
    x, labels = batch(0, 4, (8, 8, 3), 10, seed=5)
    model, plain = RESNET().initialize(1), RESNET().initialize(1)
    step = record(model, x, labels)
    logits = plain.forward(x)
    loss, dlogits = softmax_cross_entropy(logits, labels)
    dx = plain.backward(dlogits)
    np.testing.assert_array_equal(step.logits, logits)
    np.testing.assert_array_equal(step.loss, loss)
    np.testing.assert_array_equal(step.dx[""], dx)
    np.testing.assert_array_equal(step.x[""], x)
    for name, parameter in plain.parameters().items():
        np.testing.assert_array_equal(step.gradients[name], parameter.grad)
    for name, buffer in plain.buffers().items():
        np.testing.assert_array_equal(step.statistics[name], buffer.data)
    assert not any("forward" in vars(layer) or "backward" in vars(layer) for _, layer in model.named_layers())


def test_the_curve_is_that_of_the_trainer() -> None:
    from gpucnn.optim.optimizer import SGD
    from gpucnn.training.trainer import Trainer

    parity = lenet(REFERENCE, steps=5, seed=2)
    trainer = Trainer(LENET(), SGD(0.002, momentum=0.9, weight_decay=5e-4), seed=2)
    trainer.model.load_state_dict(livened(LENET().initialize(2), 2))
    losses, before = [], 0.0
    for number in (0, 1, 2, 3, 0):  # the batches come in turn
        trainer.train_step(*batch(number, 4, (28, 28, 1), 10, seed=2))
        total = trainer.metrics.sums()[0]
        losses.append((total - before) / 4)
        before = total
    np.testing.assert_allclose(parity.training.reference, losses, rtol=1e-6)
    np.testing.assert_allclose(parity.training.float64, losses, rtol=1e-5)


def test_a_wrong_optimizer_parts_the_curves() -> None:
    def kernel(w, g, *rest):
        momentum_update(w, g * np.float32(1.01), *rest)

    parity = lenet(Backend("broken", np, {momentum_update: kernel}), steps=5)
    curve, weights = parity.training.deviations
    assert curve.candidate_to_float64 > 1e-4 > 10 * curve.reference_to_float64
    assert weights.candidate_to_float64 > 10 * weights.reference_to_float64
    assert parity.training.candidate[0] == parity.training.reference[0]  # before the first update


def test_batches_depend_on_the_seed_and_their_number_alone() -> None:
    first = batch(1, 4, (2, 2, 1), 10, seed=3)
    for a, b in zip(first, batch(1, 4, (2, 2, 1), 10, seed=3), strict=True):
        np.testing.assert_array_equal(a, b)
    for other in (batch(2, 4, (2, 2, 1), 10, seed=3), batch(1, 4, (2, 2, 1), 10, seed=4)):
        assert not np.array_equal(first[0], other[0])
    assert first[0].dtype == np.float32
