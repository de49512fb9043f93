"""From a trainer to a checkpoint and back: with everything on, a resumed run ends in the same bytes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gpucnn.backend import REFERENCE
from gpucnn.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from gpucnn.data import Dataset
from gpucnn.errors import CheckpointError
from gpucnn.runs.build import build_trainer, resolve
from gpucnn.runs.config import Config
from gpucnn.runs.state import capture, expected_tensors, load_trained, restore
from gpucnn.training.trainer import Trainer

EPOCHS, STEPS = 2, 6
COMMON = """
[data]
flip = true
flip_mode = "alternating"
crop = 1
mixup = 0.2
[model]
name = "mnist_cnn"
[train]
epochs = 2
batch_size = 8
smoothing = 0.2
reduction = "sum"
clip_grad = 50.0
ema = 0.9
lookahead = 2
[schedule]
name = "triangular"
peak = 0.23
[optimizer]
nesterov = true
momentum = 0.85
"""
RECIPES = {
    "sgd": """lr = 1e-3
decoupled = true
weight_decay = 1e-3
[optimizer.groups.norm]
lr = 16.0
weight_decay = 0.0
[optimizer.groups.bias]
epochs = 1.5
fade = true
""",
    "muon": """name = "muon"
lr = 1.0
decoupled = true
[optimizer.groups.filter]
lr = 0.24
momentum = 0.6
[optimizer.groups.weight]
lr = 0.01
[optimizer.groups.norm]
lr = 0.01
[optimizer.groups.bias]
lr = 0.01
""",
}


def images() -> Dataset:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 24).astype(np.uint8)
    return Dataset("noise", rng.integers(0, 256, (24, 8, 8, 1)).astype(np.uint8), labels, tuple("0123456789"))


DATA = images()


def made(recipe: str) -> tuple[Config, Trainer]:
    config = resolve(Config.from_toml(COMMON + RECIPES[recipe]), DATA)
    return config, build_trainer(config, DATA, REFERENCE)


def train(trainer: Trainer, stop_after: int = 10**9) -> None:
    original = trainer.train_step

    def step(x: np.ndarray, labels: np.ndarray) -> None:
        original(x, labels)
        trainer.stop_requested = trainer.clock.step >= stop_after

    trainer.train_step = step  # type: ignore[method-assign]
    list(trainer.fit(DATA, DATA, epochs=EPOCHS))


def captured(config: Config, trainer: Trainer) -> Checkpoint:
    return capture(trainer, config, {}, DATA.digest)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_run_with_everything_on_resumes_to_the_same_bytes(recipe: str, tmp_path: Path) -> None:
    config, whole = made(recipe)
    train(whole)
    assert whole.clock.step == STEPS
    save_checkpoint(tmp_path / "whole.h5", captured(config, whole))
    for stop_after in (1, 3, 5):  # within an epoch, between two, and before the last step
        _, first = made(recipe)
        train(first, stop_after)
        save_checkpoint(tmp_path / "part.h5", captured(config, first))
        _, second = made(recipe)
        restore(load_checkpoint(tmp_path / "part.h5", expected_tensors), second)
        train(second)
        save_checkpoint(tmp_path / "resumed.h5", captured(config, second))
        assert (tmp_path / "resumed.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()


def test_the_recipes_train() -> None:
    for recipe in RECIPES:
        _, trainer = made(recipe)
        train(trainer)
        losses = [row["train_loss"] for row in trainer.progress.history]
        assert losses[1] < losses[0]


def test_a_trained_model_has_the_averaged_weights_and_the_checkpoint_both(tmp_path: Path) -> None:
    config, trainer = made("sgd")
    train(trainer)
    save_checkpoint(tmp_path / "last.h5", captured(config, trainer))
    model, _, checkpoint = load_trained(tmp_path / "last.h5")
    assert set(checkpoint.averages) == {"ema", "lookahead"}
    for name, array in trainer.model.state_dict().items():
        raw = {**checkpoint.parameters, **checkpoint.buffers}[name]
        assert np.array_equal(raw, array)
        assert np.array_equal(model.state_dict()[name], checkpoint.averages["ema"][name])
        assert np.array_equal(checkpoint.averages["lookahead"][name], array)  # the last step returns to it
    assert not np.array_equal(
        checkpoint.averages["ema"]["features.0.weight"], checkpoint.parameters["features.0.weight"]
    )


def test_averages_that_do_not_belong_to_the_run_are_refused(tmp_path: Path) -> None:
    config, trainer = made("sgd")
    checkpoint = captured(config, trainer)
    ema = dict(checkpoint.averages["ema"])
    wrong = {
        "missing": {"lookahead": ema},
        "belongs to no part": {"ema": {**ema, "more": ema["features.0.weight"]}, "lookahead": ema},
        "the model wants": {"ema": {**ema, "features.0.weight": np.zeros(3, np.float32)}, "lookahead": ema},
        "averages/swa": {"ema": ema, "lookahead": ema, "swa": ema},
    }
    for message, averages in wrong.items():
        save_checkpoint(tmp_path / "wrong.h5", replace(checkpoint, averages=averages))
        with pytest.raises(CheckpointError, match=message):
            load_checkpoint(tmp_path / "wrong.h5", expected_tensors)
    with pytest.raises(CheckpointError, match=r"averages \[\], this run needs \['ema', 'lookahead'\]"):
        restore(replace(checkpoint, averages={}), trainer)


def test_every_number_of_progress_comes_from_its_owner_and_goes_back_there() -> None:
    config, first = made("sgd")
    train(first, 4)  # a batch into the second epoch
    checkpoint = captured(config, first)
    assert checkpoint.progress == {
        "epoch": 1, "batch": 1, "cut": 0, "best_accuracy": first.progress.best_accuracy, "best_epoch": 1,
        "step": first.clock.step,
        "loss_sum": first.metrics.sums()[0], "correct": first.metrics.sums()[1], "examples": 8,
        "loss_scale": 2.0**16, "good_steps": 0,
    }  # fmt: skip
    _, second = made("sgd")
    restore(checkpoint, second)
    assert second.clock.step == 4
    assert second.metrics.sums() == first.metrics.sums()
    assert second.progress == first.progress
    assert {name: type(value) for name, value in captured(config, second).progress.items()} == {
        name: type(value) for name, value in checkpoint.progress.items()
    }


@pytest.mark.parametrize("change", [{"more": 1}, {"step": None}])
def test_progress_with_other_numbers_is_refused(change: dict[str, int | None]) -> None:
    config, trainer = made("sgd")
    checkpoint = captured(config, trainer)
    progress = {name: value for name, value in {**checkpoint.progress, **change}.items() if value is not None}
    with pytest.raises(CheckpointError, match=next(iter(change))):
        restore(replace(checkpoint, progress=progress), trainer)
