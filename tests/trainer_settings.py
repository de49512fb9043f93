"""A small training run: settings, data and net of a ``Trainer``, and the state of one trainer in another."""

from copy import deepcopy
from dataclasses import fields

import numpy as np

from gpucnn import optim
from gpucnn.data import Augmentation, Dataset
from gpucnn.layers import BatchNorm, Conv2D, Dropout, Flatten, Layer, Linear, ReLU, Sequential
from gpucnn.optim import schedules
from gpucnn.training.trainer import Trainer, TrainerOptions

OPTIONS = {field.name for field in fields(TrainerOptions)}
CLASSES = ("dark", "middle", "bright")


def arguments(settings: dict) -> dict:
    """Settings by name -> what ``Trainer`` takes."""
    options = {name: value for name, value in settings.items() if name in OPTIONS}
    rest = {name: value for name, value in settings.items() if name not in OPTIONS}
    return {**rest, "options": TrainerOptions(**options)}


def copy_state(source: Trainer, target: Trainer) -> None:
    """Let a trainer continue from where another one is; each part has its own numbers."""
    for part in ("model", "optimizer", "clock", "metrics", "precision", "progress"):
        getattr(target, part).load_state_dict(getattr(source, part).state_dict())
    for mine, theirs in zip(target.averages, source.averages, strict=True):
        mine.load_state_dict(theirs.state_dict())
    target.progress.history = deepcopy(source.progress.history)


def images(count: int = 50, seed: int = 0) -> Dataset:
    """Noise of three brightnesses: a task that a tiny net learns in a few steps."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count).astype(np.uint8)
    pixels = rng.integers(0, 80, (count, 6, 6, 1)) + 80 * labels[:, None, None, None]
    return Dataset("noise", pixels.astype(np.uint8), labels, CLASSES)


def tiny_net() -> Layer:
    return Sequential(Conv2D(1, 4, 3, padding=1), BatchNorm(4), ReLU(), Flatten(), Dropout(0.3), Linear(144, 3))


def tiny_trainer(**changes: object) -> Trainer:
    settings = {
        "batch_size": 16,
        "schedule": schedules.cosine(0.1, 16),
        "augmentation": Augmentation(flip=True, crop=1, flip_mode="alternating", cutout=2, mixup=0.2, mixup_prob=0.5),
        "seed": 7,
    }
    return Trainer(tiny_net(), optim.SGD(0.1, momentum=0.9), **arguments({**settings, **changes}))
