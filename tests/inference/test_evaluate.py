"""Evaluation of any function from images to logits."""

import numpy as np
import pytest

from gpucnn.backend import REFERENCE
from gpucnn.data import Dataset, Loader
from gpucnn.errors import UsageError
from gpucnn.inference.evaluate import evaluate
from gpucnn.losses import softmax_cross_entropy

RNG = np.random.default_rng(0)
IMAGES, LABELS = RNG.integers(0, 256, (11, 4, 4, 1)).astype(np.uint8), RNG.integers(0, 3, 11).astype(np.uint8)
WEIGHTS = RNG.standard_normal((16, 3)).astype(np.float32)


def batches(backend) -> Loader:
    return Loader(Dataset("noise", IMAGES, LABELS, tuple("abc")), 4, backend=backend, mean=(0.0,), std=(1.0,))


@pytest.mark.parametrize("tta", ["none", "flip"])
def test_loss_accuracy_and_predictions_are_those_of_all_images_at_once(tta: str, backend) -> None:
    weights = backend.to_device(WEIGHTS)
    found = evaluate(lambda x: x.reshape(len(x), 16) @ weights, batches(backend), tta=tta)
    x = (IMAGES / 255.0).astype(np.float32)
    logits = x.reshape(11, 16) @ WEIGHTS
    if tta == "flip":
        logits = (logits + x[:, :, ::-1].reshape(11, 16) @ WEIGHTS) / 2
    loss, _ = softmax_cross_entropy(logits, LABELS.astype(np.int64))
    assert found.loss == pytest.approx(float(loss), rel=1e-5)
    assert found.accuracy == (logits.argmax(axis=1) == LABELS).mean()
    np.testing.assert_array_equal(found.predictions, logits.argmax(axis=1))


def test_the_loss_can_be_another_one(backend) -> None:
    def loss(logits, labels):
        return float(len(labels)), logits

    found = evaluate(lambda x: x.reshape(len(x), 16), batches(backend), loss)
    assert found.loss == pytest.approx((4 * 4 + 4 * 4 + 3 * 3) / 11)


def test_unknown_views_are_refused() -> None:
    with pytest.raises(UsageError, match=r"tta = 'flips'.*flip"):
        evaluate(lambda x: x, batches(REFERENCE), tta="flips")
