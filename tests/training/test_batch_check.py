"""Batches that ``train_step`` refuses, each with one line, before anything has changed."""

from collections.abc import Callable

import numpy as np
import pytest
from strict_cupy import STRICT

from gpucnn import REFERENCE, Trainer, layers, optim
from gpucnn.backend import Backend
from gpucnn.errors import UsageError
from gpucnn.types import Array

X, LABELS = np.zeros((4, 6, 5, 3), np.float32), np.arange(4)


def trainer(backend: Backend = REFERENCE) -> Trainer:
    net = layers.Sequential(layers.Conv2D(3, 2, 3), layers.Flatten(), layers.Linear(24, 10))
    return Trainer(net, optim.SGD(lr=0.1), backend=backend, batch_size=4)


@pytest.mark.parametrize(
    ("x", "labels", "message"),
    [
        (X.tolist(), LABELS, "x is a builtins.list, the reference backend takes numpy arrays"),
        (X, LABELS.tolist(), "labels is a builtins.list"),
        (X.astype(np.float64), LABELS, r"x is float64: give float32, normalised .* \(x / 255 - mean\) / std"),
        (X.astype(np.uint8), LABELS, "x is uint8"),
        (X.astype(np.float16), LABELS, "x is float16"),
        (X.transpose(0, 3, 1, 2), LABELS, r"shape \(3, 6, 5\)"),
        (X[0], LABELS[:1], r"shape \(5, 3\)"),
        (X.reshape(4, -1), LABELS, r"shape \(90,\)"),
        (X[:, :, :, :1], LABELS, r"got x of shape \(6, 5, 1\): give images \(H, W, 3\)"),
        (X[:0], LABELS[:0], "has no images"),
        (X, LABELS.astype(np.float32), r"labels of shape \(4,\), float32"),
        (X, LABELS[:2], r"labels of shape \(2,\)"),
        (X, LABELS[:, None], r"labels of shape \(4, 1\)"),
        (X, LABELS + 7, "label 10 for a net with 10 outputs"),
    ],
)
def test_a_wrong_batch(x: Array, labels: Array, message: str) -> None:
    mine = trainer()
    before = mine.model.flat.data.copy()
    for _ in range(2):  # it is refused again
        with pytest.raises(UsageError, match=message) as error:
            mine.train_step(x, labels)
        assert "\n" not in str(error.value)
    np.testing.assert_array_equal(mine.model.flat.data, before)
    assert mine.clock.step == 0
    mine.train_step(X, LABELS)
    assert mine.clock.step == 1


@pytest.mark.parametrize("change", [lambda x, y: (x, STRICT.to_device(y)), lambda x, y: (STRICT.to_device(x), y)])
def test_numpy_arrays_on_a_gpu(change: Callable[[Array, Array], tuple[Array, Array]]) -> None:
    with pytest.raises(UsageError, match=r"is a numpy.ndarray, the strict backend .* backend.to_device"):
        trainer(STRICT).train_step(*change(X, LABELS))


def test_a_model_in_evaluation_mode() -> None:
    mine = trainer()
    mine.train_step(X, LABELS)
    mine.model.eval()
    with pytest.raises(UsageError, match=r"call model.train\(\) before a training step"):
        mine.train_step(X, LABELS)
    mine.model.train()
    mine.train_step(X, LABELS)
