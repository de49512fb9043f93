"""Saliency against finite differences, Grad-CAM against its equation, and a model that stays as it was."""

import numpy as np
import pytest

from gpucnn import models
from gpucnn.inference.attribution import attribute, differentiable
from gpucnn.layers import BatchNormReLU, Conv2D, Flatten, Layer, Linear, Sequential


def fused() -> Layer:
    return Sequential(Conv2D(1, 3, 3, padding=1), BatchNormReLU(3), Flatten(), Linear(3 * 144, 10))


MODELS = {
    "lenet5": lambda: models.build("lenet5", (12, 12, 1)),
    "mnist_cnn": lambda: models.build("mnist_cnn", (12, 12, 1)),
    "resnet20": lambda: models.build("resnet20", (12, 12, 1)),
    "BatchNormReLU": fused,
}
RNG = np.random.default_rng(0)


def evaluated(name: str) -> Layer:
    """In evaluation, with statistics as after training."""
    model = MODELS[name]().initialize(0, dtype="float64").eval()
    for buffer in model.buffers().values():
        buffer.data[...] = np.random.default_rng(1).uniform(0.5, 1.5, buffer.shape)
    return model


@pytest.mark.parametrize("name", MODELS)
def test_saliency_is_how_the_score_changes_in_evaluation(name: str) -> None:
    model = evaluated(name)
    x, classes, h = RNG.standard_normal((2, 12, 12, 1)), np.array([3, 5]), 1e-6
    saliency, *_ = attribute(model, x, classes)
    for _ in range(8):
        n, i, j = RNG.integers(0, (2, 12, 12))
        moved = np.zeros_like(x)
        moved[n, i, j] = h
        slope = (model(x + moved) - model(x - moved))[n, classes[n]] / (2 * h)
        assert saliency[n, i, j] == pytest.approx(abs(slope), rel=1e-4, abs=1e-7)


def test_grad_cam_by_its_equation() -> None:
    model, x, classes = evaluated("mnist_cnn"), RNG.standard_normal((2, 12, 12, 1)), np.array([1, 8])
    _, cam, name = attribute(model, x, classes)
    assert name == "features.7"  # the last pooling
    kept = {}
    with differentiable(model, lambda layer, symbol, array: kept.update({(layer, symbol): array})):
        logits = model.forward(x)
        model.backward((np.arange(10) == classes[:, None]).astype(float))
    y, dy = kept[name, "y"], kept[name, "dy"]
    for n in range(2):
        wanted = sum(dy[n, :, :, c].mean() * y[n, :, :, c] for c in range(y.shape[3]))
        np.testing.assert_allclose(cam[n], np.maximum(wanted, 0), rtol=1e-12)
    np.testing.assert_array_equal(logits, model(x))  # evaluation it was


def test_the_model_stays_as_it_was() -> None:
    model, x = evaluated("mnist_cnn"), RNG.standard_normal((1, 12, 12, 1))
    model.skip_input_grad()
    model.flat.grad[...] = 3.0
    before, needs = model.state_dict(), [layer.needs_input_grad for _, layer in model.named_layers()]
    attribute(model, x, np.array([0]))
    assert all(np.array_equal(value, before[name]) for name, value in model.state_dict().items())
    assert (model.flat.grad == 3.0).all()
    assert needs == [layer.needs_input_grad for _, layer in model.named_layers()]
    assert not any(layer.training or "forward" in vars(layer) for _, layer in model.named_layers())


def test_a_perceptron_has_no_map() -> None:
    model = models.build("mlp", (6, 6, 1)).initialize(0).eval()
    saliency, cam, name = attribute(model, RNG.standard_normal((1, 6, 6, 1)).astype("float32"), np.array([2]))
    assert saliency.shape == (1, 6, 6)
    assert cam is None
    assert name == ""
