"""Whole training steps on the GPU's table, run on the CPU: what layers, loader and optimizers hand to the kernels."""

import numpy as np
import pytest
from gpu_samples import TABLE

from gpucnn import models, optim
from gpucnn.backend import REFERENCE, Backend, guarded
from gpucnn.data import Augmentation, Dataset
from gpucnn.layers import Conv2D, Dropout, Flatten, GlobalAvgPool2D, LeakyReLU, Linear, Sequential
from gpucnn.optim.muon import Muon
from gpucnn.training.precision import FLOAT16, FLOAT32
from gpucnn.training.trainer import Trainer

EMULATED = Backend("emulated", np, {op: guarded(op, kernel) for op, kernel in TABLE.items()})


def images(shape, count=8) -> Dataset:
    rng = np.random.default_rng(0)
    pixels, labels = rng.integers(0, 256, (count, *shape)).astype(np.uint8), rng.integers(0, 10, count)
    return Dataset("noise", pixels, labels.astype(np.uint8), tuple(map(str, range(10))))


def dropping(shape):
    return Sequential(LeakyReLU(0.1), Dropout(0.4), Flatten(), Linear(int(np.prod(shape)), 10))


def averaging(shape):
    return Sequential(GlobalAvgPool2D(), Linear(shape[2], 10))


def filtering(shape):
    return Sequential(Conv2D(shape[2], 12, 3), LeakyReLU(0.1), Conv2D(12, 10, 2), GlobalAvgPool2D(), Linear(10, 10))


def weights(model, shape, optimizer, backend, policy=FLOAT32) -> dict[str, np.ndarray]:
    """After an epoch of two steps."""
    trainer = Trainer(
        models.build(model, shape) if isinstance(model, str) else model(shape),
        optimizer(),
        backend=backend,
        batch_size=4,
        policy=policy,
        augmentation=Augmentation(flip=True, crop=2, crop_mode="reflect", flip_mode="alternating", cutout=2),
    )
    trainer.precision.load_state_dict({"loss_scale": 2.0**9, "good_steps": 0})  # so that no gradient overflows
    set_ = images(shape)
    for report in trainer.fit(set_, set_, epochs=1):
        assert np.isfinite(report.train_loss)
    return trainer.model.state_dict()


@pytest.mark.parametrize(
    ("model", "shape", "optimizer"),
    [
        ("mnist_cnn", (12, 12, 1), lambda: optim.SGD(0.01, momentum=0.9, nesterov=True)),
        ("resnet20", (8, 8, 3), lambda: optim.SGD(0.01, momentum=0.9, weight_decay=1e-3)),
        ("lenet5", (28, 28, 1), lambda: optim.Adam(1e-3)),
        (dropping, (6, 5, 3), lambda: optim.SGD(0.01)),
        (averaging, (6, 5, 3), lambda: optim.AdamW(1e-3, weight_decay=0.1)),
    ],
)
def test_training_ends_where_the_reference_ends(model, shape, optimizer, emulator) -> None:
    emulator.launched.clear()
    got = weights(model, shape, optimizer, EMULATED)
    assert {file for file, _ in emulator.launched} >= {"augment.cu", "loss.cu", "optim.cu", "sums.cu"}
    for name, wanted in weights(model, shape, optimizer, REFERENCE).items():
        distance = np.linalg.norm(got[name] - wanted) / max(np.linalg.norm(wanted), 1e-3)
        assert distance < 1e-3, name


def test_muons_filters_end_where_the_references_end(emulator) -> None:
    """Within 1 percent of their length: their directions are made orthogonal in float16; the rest is not."""
    emulator.launched.clear()
    got = weights(filtering, (6, 5, 3), lambda: Muon(0.02), EMULATED)
    assert {"direction<4, true>", "polynomial", "finish<false>"} <= {name for _, name in emulator.launched}
    for name, wanted in weights(filtering, (6, 5, 3), lambda: Muon(0.02), REFERENCE).items():
        assert np.linalg.norm(got[name] - wanted) < 1e-2 * max(np.linalg.norm(wanted), 0.1), name


@pytest.mark.parametrize("model", ["mnist_cnn", "resnet20"])
def test_mixed_precision_ends_where_the_references_ends(model, emulator) -> None:
    """Within 2 percent of all weights: sums are rounded to float16 at other places."""
    shape = (8, 8, 3)
    got = weights(model, shape, lambda: optim.SGD(0.01, momentum=0.9), EMULATED, FLOAT16)
    launched = {name for _, name in emulator.launched}
    assert any("__half" in name for name in launched)
    assert launched >= {"adapt", "keep<4>", "unscale<4>"}
    wanted = weights(model, shape, lambda: optim.SGD(0.01, momentum=0.9), REFERENCE, FLOAT16)
    for name in wanted:
        distance = np.linalg.norm(got[name] - wanted[name]) / max(np.linalg.norm(wanted[name]), 1)
        assert distance < 2e-2, name
