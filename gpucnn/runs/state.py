"""Between a Trainer and a Checkpoint: everything that a run needs to go on to the same bits, and a model to use."""

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from gpucnn.optim.averages import EMA
from gpucnn.backend import REFERENCE, Backend
from gpucnn.checkpoint import Checkpoint, load_checkpoint
from gpucnn.runs.config import Config
from gpucnn.errors import CheckpointError, GpucnnError
from gpucnn.layers import Layer
from gpucnn.runs.build import build_averages, build_model
from gpucnn.training.trainer import Progress, Trainer
from gpucnn.types import Shape

LATER = {"loss_scale", "good_steps"}
"""Of a trainer's progress, what the first checkpoints do not hold."""

REMEDY = "go on from last.h5 of a run with the same settings (what gpucnn export made is for evaluation)"

Expected = dict[str, dict[str, tuple[Shape, str]]]


def take(trainer: Trainer, config: Config, environment: Mapping[str, Any], digest: str) -> Checkpoint:
    """The state of a run after a step.  # sync"""
    state = trainer.model.state_dict()
    progress = asdict(trainer.progress)
    rows = progress.pop("history")
    return Checkpoint(
        parameters={name: state[name] for name in trainer.model.parameters()},
        buffers={name: state[name] for name in trainer.model.buffers()},
        optimizer=trainer.optimizer.state_dict(),
        averages={average.name: average.state_dict() for average in trainer.averages},
        progress=progress,
        history={column: [row[column] for row in rows] for column in (rows[0] if rows else ())},
        config=config.to_toml(),
        environment=json.dumps(environment, sort_keys=True),
        dataset_digest=digest,
        seed=config.train.seed,
    )


def put_back(checkpoint: Checkpoint, trainer: Trainer) -> None:
    """Let a trainer of the same config go on from a checkpoint."""
    trainer.model.load_state_dict({**checkpoint.parameters, **checkpoint.buffers})
    names = set(trainer.optimizer.state_names)
    if set(checkpoint.optimizer) != names:
        raise CheckpointError(
            f"the checkpoint holds optimiser state {sorted(checkpoint.optimizer)}, this run needs {sorted(names)}: "
            f"{REMEDY}"
        )
    trainer.optimizer.load_state_dict(checkpoint.optimizer)
    averages = {average.name: average for average in trainer.averages}
    if set(checkpoint.averages) != set(averages):
        raise CheckpointError(
            f"the checkpoint holds the averages {sorted(checkpoint.averages)}, this run needs {sorted(averages)}: "
            f"{REMEDY}"
        )
    for name, average in averages.items():
        average.load_state_dict(checkpoint.averages[name])
    columns = checkpoint.history
    length = len(next(iter(columns.values()), []))
    rows = [{name: column[i] for name, column in columns.items()} for i in range(length)]
    numbers = dict(checkpoint.progress)
    wanted = {f.name: f.type for f in fields(Progress) if f.name != "history"}
    if odd := sorted((numbers.keys() ^ wanted.keys()) - LATER):
        raise CheckpointError(f"the checkpoint's progress and this version's differ in {odd}")
    kinds = {name: float if kind in (float, "float") else int for name, kind in wanted.items()}
    values: dict[str, Any] = {name: kinds[name](value) for name, value in numbers.items()}
    trainer.restore(Progress(**values, history=rows))


def expected_tensors(config_text: str) -> Expected:
    """What a checkpoint with this config must hold: names, shapes and dtypes of the model rebuilt from it."""
    try:
        config = Config.from_toml(config_text, "the config in the checkpoint")
        model = build_model(config)
    except GpucnnError as error:
        raise CheckpointError(f"its config does not make a model: {error}") from None
    parameters = {name: (entry.shape, "float32") for name, entry in model.parameters().items()}
    buffers = {name: (entry.shape, "float32") for name, entry in model.buffers().items()}
    averaged = {name: parameters[name] for name, entry in model.parameters().items() if not entry.frozen} | buffers
    averages = {f"averages/{average.name}": averaged for average in build_averages(config, 1)}
    return {"parameters": parameters, "buffers": buffers, **averages}


def load_trained(path: Path, backend: Backend = REFERENCE) -> tuple[Layer, Config, Checkpoint]:
    """A trained model, in evaluation mode, from its checkpoint and nothing else.

    Its weights are the averaged ones where evaluation used those in training as well.
    """
    checkpoint = load_checkpoint(path, expected_tensors)
    config = Config.from_toml(checkpoint.config)
    model = build_model(config).initialize(config.train.seed, backend)
    model.load_state_dict({**checkpoint.parameters, **checkpoint.buffers, **checkpoint.averages.get(EMA.name, {})})
    return model.eval(), config, checkpoint
