"""Weights of other programs as a trained model: a checkpoint at epoch 0.  docs/exchange.md has the rules."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from gpucnn.checkpoint import Checkpoint
from gpucnn.errors import CheckpointError, UsageError
from gpucnn.exchange.safetensors_file import Tensors, read_tensors, tensors_image
from gpucnn.exchange.torch_names import from_torch, to_torch
from gpucnn.layers import Layer
from gpucnn.runs.build import build_model, check_resolved
from gpucnn.runs.config import Config, DataConfig, ModelConfig

METADATA = "gpucnn"
"""The name of our settings in a file's metadata: JSON, tables and keys as in a config."""

STATED = {
    "data": ("dataset", "mean", "std", "classes", "pixels"),
    "model": ("name", "input_shape", "num_classes", "options", "layers", "plugins"),
}
"""Table -> the settings that go with weights."""

PROGRESS = {
    **dict.fromkeys(("epoch", "best_epoch", "batch", "cut", "step", "correct", "examples", "good_steps"), 0),
    "best_accuracy": -1.0,
    "loss_sum": 0.0,
    "loss_scale": 1.0,
}
"""Of a run that has not begun."""


def safetensors_image(model: Layer, config: Config, *, half: bool = False) -> bytes:
    """The bytes of a safetensors file with a model's tensors, as PyTorch has them, and its settings as metadata.

    Args:
        half: parameters in float16; running statistics stay float32.

    Raises:
        UsageError: a layer has no form in PyTorch.
        CheckpointError: a weight is too large for float16.
    """
    shape = config.model.input_shape
    tensors = to_torch(model, shape)
    if half:
        buffers = {name for name in tensors if name.rpartition(".")[2] in ("running_mean", "running_var")}
        large = [name for name in tensors.keys() - buffers if abs(tensors[name]).max() > 65504]
        if large:
            raise CheckpointError(f"tensor {min(large)!r} has numbers that float16 does not hold: leave out --half")
        tensors = {name: a if name in buffers else a.astype("float16") for name, a in tensors.items()}
    tables = {
        table: {key: getattr(getattr(config, table), key) for key in keys if getattr(getattr(config, table), key)}
        for table, keys in STATED.items()
    }
    return tensors_image(tensors, {"format": "pt", METADATA: json.dumps(tables)})


def stated(tensors: Tensors) -> Config | None:
    """The settings in a file's metadata; None where it has none of ours.

    Raises:
        CheckpointError: they are damaged, or none that a run has.
    """
    if (text := tensors.metadata.get(METADATA)) is None:
        return None
    try:
        tables = json.loads(text)
        known = {table: {key: tables[table][key] for key in STATED[table] if key in tables[table]} for table in STATED}
        return Config().updated(known) if known["model"].get("name") else None
    except (AttributeError, ValueError, KeyError, TypeError, RecursionError):
        raise CheckpointError(f"{tensors.path}: its metadata {METADATA!r} are damaged") from None
    except UsageError as error:
        raise CheckpointError(f"{tensors.path}: its metadata {METADATA!r}: {error}") from None


def import_safetensors(
    path: Path, given: Mapping[str, Mapping[str, Any]] | None = None, spec: Path | None = None
) -> tuple[Checkpoint, Config]:
    """A checkpoint with the weights of a safetensors file.

    Args:
        given: settings by table, which come before those of the spec.
        spec: a config whose [model] describes the net; its settings come before those in the file's metadata.

    Raises:
        UsageError: the settings do not say which model it is, or contradict each other.
        CheckpointError: the file is damaged, or its tensors are not the model's.
    """
    given, tensors = given or {}, read_tensors(path)
    named = spec is not None or "name" in given.get("model", {})
    config = stated(tensors)
    if config is None and not named:
        raise UsageError(f"{path} does not say which model it is of: give --model NAME or --spec FILE.toml")
    config = config or Config()
    if named:  # of the file's own settings, only what goes with its images stays
        kept = ModelConfig(input_shape=config.model.input_shape, num_classes=config.model.num_classes)
        config = replace(config, model=kept)
    if spec is not None:
        config = Config.from_file(spec, config)
    config = config.updated(given)
    config = Config(replace(config.data, augmentation=DataConfig().augmentation), config.model)
    check_stated(path, config)
    try:
        check_resolved(config)
        model = build_model(config)
    except UsageError as error:
        kind = UsageError if spec or any(given.values()) else CheckpointError  # the file itself says what is wrong
        raise kind(f"{path}: {error}") from None
    state = from_torch(model, config.model.input_shape, tensors)
    checkpoint = Checkpoint(
        parameters={name: state[name] for name in model.parameters()},
        buffers={name: state[name] for name in model.buffers()},
        progress=PROGRESS,
        config=config.to_toml(),
    )
    Config.from_toml(checkpoint.config, f"what {path} says, as a config,")  # which may be too long for one
    return checkpoint, config


def check_stated(path: Path, config: Config) -> None:
    """Raises UsageError where a setting that no model can do without is not given."""
    if not config.model.input_shape:
        raise UsageError(f"{path} does not say which images it takes: give --input-shape, as 224x224x3")
    if not config.model.num_classes:
        raise UsageError(f"{path} does not say how many classes it has: give --classes, their number or their names")
    if not (config.data.mean and config.data.std):
        raise UsageError(
            f"{path} does not say how images are normalised: give --mean and --std, one number a channel on a 0..1 "
            "scale; torchvision's are --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225"
        )
