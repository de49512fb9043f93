"""The ``Trainer`` that programs use: the loop of ``training``, which here also predicts and saves."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from gpucnn import models
from gpucnn.errors import UsageError
from gpucnn.inference.predictions import Prediction, Predictions
from gpucnn.layers import Layer
from gpucnn.models.spec import alike
from gpucnn.optim import OPTIMIZERS
from gpucnn.optim.averages import EMA, averaged
from gpucnn.optim.optimizer import GroupRule
from gpucnn.runs.build import described, held_names
from gpucnn.runs.classifier import Classifier
from gpucnn.runs.config import Config, ModelConfig, OptimizerConfig
from gpucnn.runs.plugins import needed
from gpucnn.settings import checked
from gpucnn.training.precision import POLICIES
from gpucnn.training.trainer import Trainer as Loop
from gpucnn.types import Shape


class Trainer(Loop):
    """Trains a model, predicts with it and saves it.

        trainer = Trainer(models.build("mnist_cnn", (8, 8, 1), 10), "adam", backend="cpu")
        trainer.train(train, test, epochs=5)
        trainer.save("digits.h5")

    Training itself is the base class, ``gpucnn.training.trainer``.
    """

    @contextmanager
    def evaluated(self) -> Iterator[Classifier]:
        """In a ``with`` block, the classifier that evaluation would use: averaged weights, if there are any."""
        if self.image_shape is None:
            raise UsageError("this trainer has seen no images yet: call train or fit first")
        with self.one_thread, averaged(self.averages):
            training = self.model.training
            try:
                yield Classifier(
                    self.model,
                    mean=self.mean,
                    std=self.std,
                    classes=self.classes,
                    input_shape=self.image_shape,
                    pixels=self.pixels,
                    forward=partial(self.precision.forward, self.model),
                )
            finally:
                if training:
                    self.model.train()

    def predict(self, images: Any, *, tta: str = "none", invert: bool = False) -> Prediction | Predictions:
        """The classes of images, files or a folder, as ``Classifier.predict``; changes nothing in the trainer.

        Raises:
            UsageError: nothing was trained yet, so that mean and std are not known.
        """
        with self.evaluated() as classifier:
            return classifier.predict(images, tta=tta, invert=invert)

    @checked
    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a checkpoint for ``gpucnn.load`` and for the commands ``evaluate``, ``predict`` and ``explain``.

        It holds the weights that evaluation uses, how images are normalised, the classes and the history, but not
        the optimizer's state.  To train on, give the loaded model to a new trainer.  A schedule that is a function
        stands as "constant" in the file's settings.

        Raises:
            UsageError: nothing was trained yet, or the model has a layer of one's own that is not registered
                (``models.register``), or was changed after it was made.
            NotANumberError: a weight is NaN or infinite.
            GpucnnError: it cannot be written.  In all cases a file at ``path`` stays as it was.
        """
        from gpucnn.checkpoint import save_checkpoint  # needs h5py
        from gpucnn.runs.environment import environment, stable_part
        from gpucnn.runs.state import capture

        with self.evaluated():
            config = config_of(self)
            about = stable_part(environment(self.backend.name, self.backend.name))
            found = replace(capture(self, config, about, ""), optimizer={}, averages={})
        save_checkpoint(Path(path), found)


Trainer.__doc__ = f"{Trainer.__doc__}{(Loop.__doc__ or '').partition(chr(10))[2]}"  # its arguments, for help()


def model_settings(model: Layer, input_shape: Shape, num_classes: int) -> ModelConfig:
    """The settings that a model is made of again: its name where ``models.build`` made it, else its layers.

    Raises:
        UsageError: it has a layer that is not registered, or was changed after it was made.
    """
    if model.built:
        name, options = model.built["name"], model.built["options"]
        twin = models.build(name, input_shape, num_classes, **options)
        if alike(twin, model):
            plugins = needed(model, name)
            return ModelConfig(name, input_shape, num_classes, options, plugins=plugins)
    return described(model, input_shape, num_classes)


SAME = ("drop_last", "reduction", "clip_grad", "patience", "max_steps")
"""Options of a trainer that a run's settings have under the same name."""


def config_of(trainer: Loop) -> Config:
    """A trainer's settings as those of a run, as far as they can be stated there.

    Raises:
        UsageError: the model is none that a file can hold, or a setting is out of a run's bounds.
    """
    assert trainer.image_shape
    optimizer, options, base = trainer.optimizer, trainer.options, Config()
    rules = {group: rule for group, rule in optimizer.rules.items() if rule != GroupRule()}
    kind = next((name for name, made in OPTIMIZERS.items() if type(optimizer) is made), base.optimizer.name)
    known = {f.name: getattr(optimizer, f.name) for f in fields(OptimizerConfig) if hasattr(optimizer, f.name)}
    policies = {policy: name for name, policy in POLICIES.items()}
    tables: dict[str, dict[str, Any]] = {
        "data": {
            "dataset": trainer.trained_on,
            "mean": tuple(map(float, trainer.mean)),
            "std": tuple(map(float, trainer.std)),
            "classes": held_names(trainer.classes),
            "pixels": trainer.pixels,
        },
        "train": {
            "epochs": max(trainer.progress.epoch, 1),
            "batch_size": trainer.batch_size,
            "seed": trainer.clock.seed,
            "amp": policies.get(trainer.policy, base.train.amp),
            "ema": next((average.decay for average in trainer.averages if isinstance(average, EMA)), 0.0),
            "smoothing": float(options.loss_options.get("smoothing", 0.0)),
            **{name: getattr(options, name) for name in SAME},
        },
        "optimizer": {**known, "name": kind},
        "schedule": {"name": trainer.schedule_name or "constant"},
    }
    tables["optimizer"].pop("decoupled" if kind == "adamw" else "", None)
    config = base.updated(tables)
    augmented = replace(config.data, augmentation=trainer.augmentation) if trainer.augmentation else config.data
    model = model_settings(trainer.model, trainer.image_shape, len(trainer.classes))
    return replace(config, data=augmented, model=model, optimizer=replace(config.optimizer, groups=rules))
