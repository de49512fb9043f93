"""Sets of more classes than a byte counts, other channels and floats: trained, saved, loaded and evaluated."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gpucnn.backend import REFERENCE
from gpucnn.checkpoint import save_checkpoint
from gpucnn.cli.evaluate import as_lines, by_class
from gpucnn.data import Dataset, Loader
from gpucnn.data.image_files import visible
from gpucnn.errors import DataError, UsageError
from gpucnn.inference.evaluate import evaluate
from gpucnn.models import build
from gpucnn.optim import SGD
from gpucnn.runs.build import build_trainer, check_data, check_files, check_resolved, held_names, resolve
from gpucnn.runs.classifier import load
from gpucnn.runs.config import Config
from gpucnn.runs.state import capture, load_trained
from gpucnn.runs.trainer import Trainer


def made(classes: int, channels: int, dtype: str = "uint8") -> Dataset:
    images = np.random.default_rng(0).integers(0, 256, (40, 4, 4, channels)).astype(dtype)
    labels = np.linspace(0, classes - 1, 40).astype(int)
    return Dataset("made", images, labels, tuple(f"class {number}" for number in range(classes)))


@pytest.mark.parametrize(
    ("classes", "channels", "dtype"), [(256, 2, "uint8"), (1000, 1, "float32"), (10_000, 7, "uint8")]
)
def test_a_run_goes_through_its_file(tmp_path: Path, classes: int, channels: int, dtype: str) -> None:
    dataset = made(classes, channels, dtype)
    options = {"train": {"epochs": 1, "batch_size": 20}, "model": {"name": "mlp", "options": {"width": 4}}}
    config = resolve(Config().updated(options), dataset)
    assert Config.from_toml(config.to_toml()) == config
    assert config.data.classes == (dataset.classes if classes <= 1000 else ())
    trainer = build_trainer(config, dataset, REFERENCE)
    (report,) = trainer.fit(dataset, dataset, epochs=1)
    save_checkpoint(tmp_path / "a.h5", capture(trainer, config, {}, dataset.digest))
    model, found, _ = load_trained(tmp_path / "a.h5")
    assert found == config
    check_data(found, dataset)
    batches = Loader(dataset, 20, mean=found.data.mean, std=found.data.std)
    result = evaluate(model, batches)
    assert result.loss == pytest.approx(report.test_loss, rel=1e-5)
    told = {"checkpoint": "", "dataset": "", "split": "", "tta": "none", "examples": 40, "device": "", "epoch": 1}
    told |= {"loss": result.loss, "accuracy": result.accuracy, **by_class(dataset, result.predictions)}
    assert len(as_lines(told, "mlp")) < 300
    assert len(told["per_class"]) == classes
    right = int((result.predictions == dataset.labels).sum())
    assert (told["confusion_matrix"] is None) == (classes > 1024)
    assert told["confusion_matrix"] is None or np.trace(told["confusion_matrix"]) == right


def test_images_of_another_scale_are_refused() -> None:
    config = resolve(Config(), made(3, 3, "float32"))
    with pytest.raises(DataError, match="uint8 images, but the model was trained on float32"):
        check_data(config, made(3, 3))
    with pytest.raises(UsageError, match="on a scale that files do not have"):
        check_files(config.data.pixels)
    check_files(resolve(Config(), made(3, 3)).data.pixels)


def test_names_that_a_config_cannot_hold_become_numbers() -> None:
    dataset = made(600, 1)
    long = replace(dataset, classes=tuple(f"{number:>100}" for number in range(600)))
    check_resolved(resolve(Config(), long))
    odd = replace(dataset, classes=tuple(f"{'ä' * 90}{number}" for number in range(600)))
    assert [held_names(data.classes) for data in (dataset, long, odd)] == [dataset.classes, long.classes, ()]
    for data in (dataset, long, odd):
        config = resolve(Config(), data)
        assert Config.from_toml(config.to_toml()) == config


def test_any_images_can_be_drawn() -> None:
    grey, colour = np.arange(8, dtype=np.uint8).reshape(1, 2, 4, 1), np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3)
    assert np.array_equal(visible(grey), grey)
    assert np.array_equal(visible(colour), colour)
    assert np.array_equal(visible(np.concatenate([grey, grey + 1], axis=3)), grey)
    assert np.array_equal(visible(np.concatenate([colour, colour], axis=3)), colour)
    assert visible(np.float32([[[[-1.0]], [[1.0]], [[3.0]]]])).ravel().tolist() == [0, 128, 255]
    assert visible(np.float32([[[[-1.0]], [[1.0]], [[3.0]]]]), 0, 1).ravel().tolist() == [0, 255, 255]


def test_a_classifier_takes_floats_where_it_learned_from_them(tmp_path: Path) -> None:
    dataset = Dataset.from_arrays(made(3, 2).images / 50 - 2, np.arange(40) % 3)
    trainer = Trainer(build("mlp", (4, 4, 2), 3, width=4), SGD(lr=0.1), batch_size=20)
    trainer.train(dataset, dataset, epochs=1)
    trainer.save(tmp_path / "a.h5")
    wanted = trainer.evaluate(dataset).predictions
    with pytest.raises(DataError, match="made has uint8 images, arrays has float32: give one kind"):
        trainer.evaluate(made(3, 2))
    for classifier in (trainer, load(tmp_path / "a.h5", REFERENCE)):
        found = classifier.predict(dataset.images.astype(float))
        assert np.array_equal(found.labels, wanted)
        assert "base64" in found[0]._repr_html_()
        with pytest.raises(UsageError, match="on a scale that files do not have"):
            classifier.predict(Path(__file__).parents[2] / "docs/images/explain.png")
