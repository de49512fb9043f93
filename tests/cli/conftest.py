"""A model that was trained for two epochs on digits, as a checkpoint, and what training said about it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gpucnn.checkpoint import save_checkpoint
from gpucnn.data import Dataset, load_dataset
from gpucnn.devices.select import choose_backend
from gpucnn.runs.build import build_trainer, resolve, split
from gpucnn.runs.config import Config
from gpucnn.runs.state import capture
from gpucnn.training.trainer import EpochReport


@dataclass(frozen=True)
class Trained:
    path: Path
    report: EpochReport
    train: Dataset
    test: Dataset


def train_digits(folder: Path, **data: object) -> Trained:
    train, test = load_dataset("digits")
    config = Config().updated({"data": {"dataset": "digits", **data}, "train": {"batch_size": 50}})
    train, test = split(config, train, test)
    config = resolve(config, train)
    backend, _ = choose_backend("reference")  # as the commands do: it bounds the threads of BLAS, which change bits
    trainer = build_trainer(config, train, backend)
    report = list(trainer.fit(train, test, epochs=2))[-1]
    save_checkpoint(folder / "last.h5", capture(trainer, config, {}, train.digest))
    return Trained(folder / "last.h5", report, train, test)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train_digits(tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="session")
def validated(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The same with 150 images held out, which then stand for the test set."""
    return train_digits(tmp_path_factory.mktemp("validated"), validation=150)


@pytest.fixture
def digit_file(trained: Trained, tmp_path: Path) -> Path:
    """The first test image as a PNG."""
    path = tmp_path / "digit.png"
    Image.fromarray(np.asarray(trained.test.images[0, :, :, 0])).save(path)
    return path
