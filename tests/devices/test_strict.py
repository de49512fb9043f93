"""Whole training steps on the double of CuPy: nothing of NumPy slips in, and no step waits for the device."""

import numpy as np
import pytest
import strict_cupy
from branched_net import branched
from strict_cupy import STRICT
from trainer_settings import arguments

from gpucnn import models, optim
from gpucnn.backend import REFERENCE
from gpucnn.data import Augmentation, Dataset
from gpucnn.layers import GELU, Conv2D, Dropout, Flatten, LeakyReLU, Linear, Sequential, SiLU
from gpucnn.optim.averages import EMA, Lookahead
from gpucnn.training.precision import FLOAT16, FLOAT32
from gpucnn.training.trainer import Trainer


def noise(shape, count=12) -> Dataset:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, *shape)).astype(np.uint8)
    return Dataset("noise", images, rng.integers(0, 10, count).astype(np.uint8), tuple("0123456789"))


def trainer(model, backend, **settings) -> Trainer:
    settings = {"batch_size": 4, "log_interval": 10**9, "seed": 1, **settings}
    optimizer = optim.SGD(0.05, momentum=0.9, nesterov=True, weight_decay=1e-3)
    return Trainer(model, optimizer, backend=backend, **arguments(settings))


def unusual() -> Sequential:
    return Sequential(
        Conv2D(3, 4, 3, stride=2), LeakyReLU(), Conv2D(4, 4, (2, 1), padding="same"), GELU(), SiLU(),
        Flatten(), Dropout(0.2), Linear(36, 10),
    )  # fmt: skip


CASES = {
    "lenet5": (lambda: models.build("lenet5", (28, 28, 1)), (28, 28, 1)),
    "mnist_cnn": (lambda: models.build("mnist_cnn", (8, 8, 1)), (8, 8, 1)),
    "resnet20": (lambda: models.build("resnet20", (8, 8, 3)), (8, 8, 3)),
    "branched": (lambda: branched(3, 10), (7, 8, 3)),
    "unusual": (unusual, (7, 8, 3)),
}


@pytest.mark.parametrize("policy", [FLOAT32, FLOAT16], ids=["float32", "float16"])
@pytest.mark.parametrize("case", CASES)
def test_no_step_waits_and_the_result_is_the_references(case, policy) -> None:
    make, shape = CASES[case]
    data, states = noise(shape), []
    for backend in (REFERENCE, STRICT):
        one = trainer(
            make(),
            backend,
            augmentation=Augmentation(flip=True, crop=1),
            clip_grad=1.0,
            reduction="sum",
            averages=[Lookahead(2, 3), EMA(0.9)],
            policy=policy,
            mean=data.mean,
            std=data.std,
        )
        batches = one.loader(data, training=True)
        one.model.train()
        for x, labels in batches.epoch(0):
            strict_cupy.reset()
            one.train_step(x, labels)
            assert strict_cupy.syncs == 0
        averages = {f"{a.name} {name}": array for a in one.averages for name, array in a.state_dict().items()}
        states.append({**one.model.state_dict(), **averages})
    for name, wanted in states[0].items():
        assert states[1][name].dtype == np.float32
        np.testing.assert_allclose(states[1][name], wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", ["lenet5", "resnet20"])
def test_an_epoch_of_batches_is_made_without_waiting(case) -> None:
    make, shape = CASES[case]
    one = trainer(
        make(),
        STRICT,
        augmentation=Augmentation(
            flip=True, crop=2, crop_mode="reflect", cutout=3, rotation=9, elastic=8, contrast=0.1
        ),
    )
    data = noise(shape)
    one.mean, one.std = data.mean, data.std
    batches = one.loader(data, training=True)
    strict_cupy.reset()
    for x, labels in batches.epoch(1):
        assert type(x) is strict_cupy.ndarray
        assert len(labels) == 4
    assert strict_cupy.syncs == 0


def test_fit_reads_the_metrics_and_little_else() -> None:
    make, shape = CASES["mnist_cnn"]
    one = trainer(make(), STRICT)
    strict_cupy.reset()
    (report,) = one.fit(noise(shape), noise(shape), epochs=1)
    assert np.isfinite(report.train_loss)
    # running sums at the end of the epoch and of the test, and one array of predictions per test batch
    assert strict_cupy.syncs <= 12


def test_the_double_is_strict() -> None:
    a = STRICT.to_device(np.ones(3, np.float32))
    for wrong in (
        lambda: a + np.ones(3),
        lambda: np.ones(3) + a,
        lambda: np.asarray(a),
        lambda: np.exp(a),
        lambda: np.concatenate([a, a]),
        lambda: strict_cupy.exp(np.ones(3)),
        lambda: a.__setitem__(STRICT.to_device(np.array([0, 0])), 1.0),
    ):
        with pytest.raises(TypeError):
            wrong()
    with pytest.raises(AttributeError):
        strict_cupy.apply_along_axis  # noqa: B018
    with pytest.raises(AttributeError):
        a.tobytes  # noqa: B018
    strict_cupy.reset()
    assert float(a.sum()) == 3.0
    assert bool((a > 0).all())
    assert (strict_cupy.syncs, strict_cupy.launches) == (2, 3)
    # a 0-d float64 array of the device makes float32 arrays float64, as in CuPy: ops use Python's numbers
    assert str((a + STRICT.to_device(np.float64(1.0))).dtype) == "float64"
