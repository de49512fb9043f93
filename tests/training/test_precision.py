"""Mixed precision: it follows float32, skips what is not finite without asking, and adapts its scale."""

import inspect
from dataclasses import replace

import numpy as np
import pytest
from trainer_settings import arguments

from gpucnn import models, optim
from gpucnn.backend import REFERENCE
from gpucnn.checkpoint import load_checkpoint, save_checkpoint
from gpucnn.data import Dataset
from gpucnn.devices import get_backend
from gpucnn.errors import NotANumberError, UsageError
from gpucnn.layers import BatchNorm, Conv2D, Dropout, Flatten, Layer, Linear, ReLU, Sequential
from gpucnn.models.resnet import resnet
from gpucnn.optim.loss_scale import LARGEST, SMALLEST, adapt
from gpucnn.runs.build import build_trainer, resolve
from gpucnn.runs.config import Config
from gpucnn.runs.state import capture, restore
from gpucnn.training.precision import FIRST_SCALE, FLOAT16, FLOAT32, TF32, Policy
from gpucnn.training.trainer import Trainer


def images(shape=(6, 6, 1), count=32, seed=0) -> Dataset:
    """Noise of ten brightnesses."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, count).astype(np.uint8)
    pixels = rng.integers(0, 60, (count, *shape)) + 19 * labels[:, None, None, None]
    return Dataset("noise", pixels.astype(np.uint8), labels, tuple("0123456789"))


def net(shape=(6, 6, 1)) -> Layer:
    features = shape[0] * shape[1] * 4
    return Sequential(
        Conv2D(shape[2], 4, 3, padding=1), BatchNorm(4), ReLU(), Dropout(0.1), Flatten(), Linear(features, 10)
    )


def trainer(policy: Policy, model: Layer | None = None, optimizer=None, **changes) -> Trainer:
    optimizer = optimizer or optim.SGD(0.05, momentum=0.9, weight_decay=1e-3)
    settings = {"batch_size": 8, "seed": 3, "log_interval": 1, **changes}
    return Trainer(model or net(), optimizer, policy=policy, **arguments(settings))


def state(scale: float, good: int = 0) -> dict[str, float]:
    """The ``state_dict`` of a precision."""
    return {"loss_scale": scale, "good_steps": good}


def everything(one: Trainer) -> list[np.ndarray]:
    return [*one.model.state_dict().values(), *(array.copy() for array in one.optimizer.state.values())]


@pytest.mark.parametrize(
    ("make", "shape", "optimizer"),
    [
        (net, (6, 6, 1), lambda: optim.SGD(0.05, momentum=0.9, nesterov=True, weight_decay=1e-3)),
        (lambda: models.build("mnist_cnn", (8, 8, 1)), (8, 8, 1), lambda: optim.AdamW(1e-3, weight_decay=0.01)),
        (lambda: resnet((8, 8, 3), 10, (8, 16), 1), (8, 8, 3), lambda: optim.SGD(0.02, momentum=0.9)),
    ],
    ids=["plain", "mnist_cnn", "residual"],
)
def test_training_follows_float32(make, shape, optimizer) -> None:
    """Losses of eight steps to 2 percent, and the way that the weights went to a quarter of its length."""
    data, ends, losses = images(shape, 16), [], []
    for policy in (FLOAT32, FLOAT16):
        one = trainer(policy, make(), optimizer())
        one.precision.load_state_dict(state(2.0**10))  # so that no gradient overflows and no step is skipped
        start = one.model.flat.data.copy()
        watched = []
        list(one.fit(data, data, epochs=4, watch=lambda report, watched=watched: watched.append(report.loss)))
        losses.append(watched)
        ends.append(one.model.flat.data - start)
        assert one.model.flat.data.dtype == one.model.flat.grad.dtype == np.float32
    np.testing.assert_allclose(losses[1], losses[0], rtol=2e-2)
    assert not np.array_equal(losses[1], losses[0])
    assert np.linalg.norm(ends[1] - ends[0]) < 0.25 * np.linalg.norm(ends[0])


def test_activations_are_float16_and_the_weights_are_rounded_once_a_step(monkeypatch) -> None:
    one, seen = trainer(FLOAT16), []
    original = type(one.model.flat).round
    monkeypatch.setattr(type(one.model.flat), "round", lambda *args: (seen.append("round"), original(*args)))
    for layer in one.model.layers.values():
        forward = layer.forward
        monkeypatch.setattr(layer, "forward", lambda x, forward=forward: seen.append(x.dtype.name) or forward(x))
    rng = np.random.default_rng(0)
    one.train_step(rng.standard_normal((8, 6, 6, 1), np.float32), rng.integers(0, 10, 8))
    assert seen == ["round", *["float16"] * 6]
    weight = one.model.parameters()["0.weight"]
    assert (weight.data.dtype, weight.value.dtype, weight.grad.dtype) == (np.float32, np.float16, np.float32)
    assert all(buffer.data.dtype == np.float32 for buffer in one.model.buffers().values())


def batch():
    rng = np.random.default_rng(0)
    return rng.standard_normal((8, 6, 6, 1), np.float32), rng.integers(0, 10, 8)


def test_the_scale_falls_where_a_gradient_overflows_and_rises_after_good_steps() -> None:
    one, happened = trainer(Policy("float16", interval=3)), []
    one.precision.load_state_dict(state(2.0**22, 2))  # over 8 images: beyond float16's 65504
    for _ in range(9):
        weights, velocity = one.model.flat.data.copy(), one.optimizer.state["velocity"].copy()
        scale, good = one.precision.state_dict().values()
        one.train_step(*batch())
        now = tuple(one.precision.state_dict().values())
        kept = np.array_equal(one.model.flat.data, weights) and np.array_equal(
            one.optimizer.state["velocity"], velocity
        )
        if now == (scale / 2, 0):
            happened.append("fell")
            assert kept
        else:
            happened.append("rose" if good == 2 else "stayed")
            assert now == ((2 * scale, 0) if good == 2 else (scale, good + 1))
            assert not kept
        assert np.isfinite(one.model.flat.data).all()
    falls = happened.index("stayed")
    assert happened[:falls] == ["fell"] * falls
    assert happened[falls : falls + 3] == ["stayed", "stayed", "rose"]


def test_the_gradient_is_that_of_the_loss_whatever_the_scale() -> None:
    gradients = []
    for scale in (2.0**4, 2.0**14):
        one = trainer(FLOAT16, optimizer=optim.SGD(0.0))
        one.precision.load_state_dict(state(scale))
        one.train_step(*batch())
        gradients.append(one.model.flat.grad.copy())
    single = trainer(FLOAT32, optimizer=optim.SGD(0.0))
    single.train_step(*batch())
    for gradient in gradients:
        assert np.linalg.norm(gradient - single.model.flat.grad) < 1e-2 * np.linalg.norm(gradient)


@pytest.mark.torch
def test_defaults_are_pytorchs() -> None:
    import torch

    known = inspect.signature(torch.amp.GradScaler).parameters
    assert known["init_scale"].default == FIRST_SCALE
    assert known["growth_interval"].default == Policy().interval == FLOAT16.interval
    scale, good = np.array(8.0, np.float32), np.zeros((), np.int64)
    adapt(scale, good, np.array(True), 1)
    assert scale == 8.0 * known["growth_factor"].default
    adapt(scale, good, np.array(False), 1)
    assert scale == 8.0 * known["growth_factor"].default * known["backoff_factor"].default
    assert (SMALLEST, LARGEST) == (1.0, 2.0**24)


def test_the_scale_stays_within_its_bounds() -> None:
    for start, finite, end in ((SMALLEST, False, SMALLEST), (LARGEST, True, LARGEST)):
        scale, good = np.array(start, np.float32), np.zeros((), np.int64)
        adapt(scale, good, np.array(finite), 1)
        assert (scale, good) == (end, 0)


@pytest.mark.parametrize("synchronous", [True, False])
@pytest.mark.parametrize(("poison", "culprit"), [("0.weight", "0.weight"), ("5.bias", "5.bias")])
def test_nan_in_a_weight_is_still_reported(synchronous, poison, culprit) -> None:
    one = trainer(FLOAT16, backend=replace(REFERENCE, synchronous=synchronous))
    one.model.parameters()[poison].data[...] = np.nan
    with np.errstate(all="ignore"), pytest.raises(NotANumberError, match=culprit):
        list(one.fit(images(), images(), epochs=1))


def test_gradients_that_no_scale_makes_finite_end_the_run() -> None:
    """A loss that is finite, and a slope that is not."""

    def steep(logits, labels):
        return np.float32(1.0), np.full_like(logits, np.inf)

    one = trainer(FLOAT16, loss=steep, log_interval=1)
    with pytest.raises(NotANumberError, match="step 15"):  # 2^16 has been halved 16 times, to 1
        list(one.fit(images(count=8 * 30), images(), epochs=1))


@pytest.mark.parametrize(("batch", "first"), [(16, 2.0**12), (20, 2.0**11), (2**17, SMALLEST)])
def test_a_summed_loss_begins_with_a_scale_that_is_smaller_by_the_batch(batch: int, first: float) -> None:
    assert trainer(FLOAT16, batch_size=batch, reduction="sum").precision.state_dict() == state(first)
    assert trainer(FLOAT16, batch_size=batch).precision.state_dict() == state(FIRST_SCALE)


def test_the_cpu_refuses_it() -> None:
    with pytest.raises(UsageError, match=r"train\.amp"):
        trainer(FLOAT16, backend=get_backend("cpu"))
    data = images()
    config = resolve(Config().updated({"train": {"amp": "fp16"}}), data)
    assert build_trainer(config, data, get_backend("cpu")).precision.state_dict() == state(FIRST_SCALE)
    assert build_trainer(config, data, REFERENCE).precision.skips_nonfinite
    with pytest.raises(UsageError, match=r"train\.amp = 'bf16'"):
        Config().updated({"train": {"amp": "bf16"}})


def test_tf32_is_asked_of_backends_that_have_it() -> None:
    asked: list[bool] = []
    rounding = replace(REFERENCE, tf32_kernels=lambda allowed: asked.append(allowed) or {})
    for policy in (TF32, FLOAT32):
        trainer(policy, backend=rounding)
    assert asked == [True, False]
    with pytest.raises(UsageError, match="reference backend does not compute in TF32"):
        trainer(TF32)
    data = images()
    config = resolve(Config().updated({"train": {"amp": "tf32"}}), data)
    build_trainer(config, data, rounding)
    build_trainer(config, data, REFERENCE)  # says so in a run's first lines
    assert asked == [True, False, True]


def test_the_scale_is_in_the_checkpoint_and_older_ones_begin_anew(tmp_path) -> None:
    data = images()
    config = resolve(Config().updated({"train": {"amp": "fp16"}}), data)
    one = build_trainer(config, data, REFERENCE)
    one.clock.step = 40
    one.precision.load_state_dict(state(2.0**11, 17))
    save_checkpoint(tmp_path / "last.h5", capture(one, config, {}, data.digest))
    found = load_checkpoint(tmp_path / "last.h5")
    other = build_trainer(config, data, REFERENCE)
    restore(found, other)
    assert other.precision.state_dict() == state(2.0**11, 17)
    assert other.clock.step == 40
    older = {name: value for name, value in found.progress.items() if name not in ("loss_scale", "good_steps")}
    save_checkpoint(tmp_path / "older.h5", replace(found, progress=older))
    restore(load_checkpoint(tmp_path / "older.h5"), other)
    assert other.precision.state_dict() == state(FIRST_SCALE)
