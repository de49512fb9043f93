"""From a Trainer to a Checkpoint and back, so that a resumed run gives the same bits; and a model from a checkpoint."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from gpucnn.backend import REFERENCE, Backend
from gpucnn.checkpoint import Checkpoint, load_checkpoint
from gpucnn.errors import CheckpointError, GpucnnError
from gpucnn.layers import Layer
from gpucnn.optim.averages import EMA
from gpucnn.optim.optimizer import MOST_EPOCHS, MOST_STEPS
from gpucnn.runs.build import build_averages, build_model, check_resolved
from gpucnn.runs.catalogue import checkpoint_file
from gpucnn.runs.config import Config
from gpucnn.runs.log import HISTORY, check_history
from gpucnn.runs.plugins import changed
from gpucnn.terminal import tell
from gpucnn.training.trainer import Trainer
from gpucnn.types import Array, Shape

REMEDY = "resume from last.h5 of a run with the same settings (files of export and Trainer.save are for evaluation)"

PROGRESS: dict[str, tuple[type, float, float]] = {
    **dict.fromkeys(("epoch", "best_epoch"), (int, 0, MOST_EPOCHS)),
    **dict.fromkeys(("batch", "cut", "step", "correct", "examples", "good_steps"), (int, 0, MOST_STEPS)),
    "best_accuracy": (float, -1, 1),
    "loss_sum": (float, -1e60, 1e60),
    "loss_scale": (float, 1e-30, 1e38),
}
"""Number of ``owners`` -> its type, the least and the most that a run has."""


def owners(trainer: Trainer) -> tuple[Any, ...]:
    """The parts of a trainer whose numbers make up ``Checkpoint.progress``."""
    return trainer.progress, trainer.clock, trainer.metrics, trainer.precision


def capture(
    trainer: Trainer, config: Config, environment: Mapping[str, Any], digest: str, test_digest: str = ""
) -> Checkpoint:
    """The state of a run after a step, with the digests of the training set and of the test set.  # sync"""
    state, history = trainer.model.state_dict(), trainer.progress.history
    return Checkpoint(
        parameters={name: state[name] for name in trainer.model.parameters()},
        buffers={name: state[name] for name in trainer.model.buffers()},
        optimizer=trainer.optimizer.state_dict(),
        averages={average.name: average.state_dict() for average in trainer.averages},
        progress={name: value for owner in owners(trainer) for name, value in owner.state_dict().items()},
        history={column: [row[column] for row in history] for column in (history[0] if history else ())},
        config=config.to_toml(),
        environment=json.dumps(environment, sort_keys=True),
        dataset_digest=digest,
        test_digest=test_digest,
        seed=config.train.seed,
    )


def restore(checkpoint: Checkpoint, trainer: Trainer) -> None:
    """Continue from a checkpoint in a trainer of the same config.

    Raises:
        CheckpointError: tensors, averages or numbers are missing, unknown or of another shape.
    """
    trainer.model.load_state_dict({**checkpoint.parameters, **checkpoint.buffers})
    check_names("the optimizer state", checkpoint.optimizer, trainer.optimizer.state_names)
    trainer.optimizer.load_state_dict(checkpoint.optimizer)
    check_names("the averages", checkpoint.averages, [average.name for average in trainer.averages])
    for average in trainer.averages:
        average.load_state_dict(checkpoint.averages[average.name])
    wanted = [owner.state_dict() for owner in owners(trainer)]
    if odd := sorted(checkpoint.progress.keys() ^ {name for own in wanted for name in own}):
        raise CheckpointError(f"the checkpoint's progress and this version's differ in {odd}")
    for owner, own in zip(owners(trainer), wanted, strict=True):
        owner.load_state_dict({name: type(value)(checkpoint.progress[name]) for name, value in own.items()})
    columns = checkpoint.history
    trainer.progress.history = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def check_names(what: str, found: Collection[str], wanted: Collection[str]) -> None:
    """Raises CheckpointError if the names differ."""
    if set(found) != set(wanted):
        raise CheckpointError(f"the checkpoint has {what} {sorted(found)}, this run needs {sorted(wanted)}: {REMEDY}")


def expected_tensors(config_text: str) -> dict[str, dict[str, tuple[Shape, str]]]:
    """What a checkpoint with this config must hold: names, shapes and dtypes of the model rebuilt from it."""
    try:
        config = Config.from_toml(config_text, "the config in the checkpoint")
        check_resolved(config)
        model = build_model(config)
    except GpucnnError as error:
        raise CheckpointError(f"its config does not make a model: {error}") from None
    parameters = {name: (entry.shape, "float32") for name, entry in model.parameters().items()}
    buffers = {name: (entry.shape, "float32") for name, entry in model.buffers().items()}
    averaged = {name: parameters[name] for name, entry in model.parameters().items() if not entry.frozen} | buffers
    averages = {f"averages/{average.name}": averaged for average in build_averages(config, 1)}
    return {"parameters": parameters, "buffers": buffers, **averages}


def check_progress(checkpoint: Checkpoint, path: str) -> None:
    """Raises CheckpointError for numbers that no run has, each alone and all together."""
    progress, history = checkpoint.progress, checkpoint.history
    if missing := sorted(PROGRESS.keys() - progress.keys()):
        raise CheckpointError(f"{path}: its number 'progress/{missing[0]}' is missing")
    for name, (kind, low, high) in PROGRESS.items():
        if type(progress[name]) is not kind or not low <= progress[name] <= high:
            wanted = f"{'an integer' if kind is int else 'a number'} from {low} to {high}"
            raise CheckpointError(f"{path}: its number 'progress/{name}' is {progress[name]}, not {wanted}")
    if progress["best_epoch"] > progress["epoch"] or progress["correct"] > progress["examples"]:
        raise CheckpointError(f"{path}: its progress has a best epoch, or right answers, that are still to come")
    if history and (odd := sorted(history.keys() ^ HISTORY.keys())):
        raise CheckpointError(f"{path}: its history differs from a run's in the column {odd[0]!r}")
    check_history(history, CheckpointError, path)
    epochs = history.get("epoch", [])
    if len(epochs) != progress["epoch"] or epochs != list(range(1, len(epochs) + 1)):
        raise CheckpointError(f"{path}: its history is not that of the {progress['epoch']} epochs of its progress")


def load_run(path: Path) -> tuple[Checkpoint, Config]:
    """The checkpoint of a run and its settings, all of it checked: the one way from a file to a trainer or a model.

    Raises:
        CheckpointError: it is damaged, or holds settings, numbers or tensors that no run has.
    """
    checkpoint = load_checkpoint(path, expected_tensors)
    check_progress(checkpoint, str(path))
    config = Config.from_toml(checkpoint.config)
    tell(*(f"{line}: {path} may not give what it gave" for line in changed(config.model.plugins)))
    return checkpoint, config


def evaluated_state(checkpoint: Checkpoint) -> dict[str, Array]:
    """Name -> parameter or buffer, averaged where evaluation uses the average."""
    return {**checkpoint.parameters, **checkpoint.buffers, **checkpoint.averages.get(EMA.name, {})}


def load_trained(path: Path, backend: Backend = REFERENCE) -> tuple[Layer, Config, Checkpoint]:
    """A trained model, in evaluation mode, from its checkpoint, or from a pretrained model's name, and nothing else.

    Its weights are the averaged ones where evaluation used those in training as well.
    """
    checkpoint, config = load_run(checkpoint_file(path))
    model = build_model(config).initialize(config.train.seed, backend)
    model.load_state_dict(evaluated_state(checkpoint))
    return model.eval(), config, checkpoint
