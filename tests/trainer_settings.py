"""Settings of a ``Trainer`` and of its options in one dict, and the state of one trainer in another."""

from copy import deepcopy
from dataclasses import fields

from gpucnn.training.trainer import Trainer, TrainerOptions

OPTIONS = {field.name for field in fields(TrainerOptions)}


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
