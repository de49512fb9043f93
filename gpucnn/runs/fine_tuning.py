"""Fine-tuning: a run that starts from the weights of another one.  docs/fine_tuning.md has its rules."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from gpucnn.data import Dataset
from gpucnn.errors import CheckpointError, UsageError, near
from gpucnn.exchange.safetensors_file import refuse_pickle
from gpucnn.layers.base import TAKEN, sizes
from gpucnn.runs.build import build_model, resolve
from gpucnn.runs.catalogue import checkpoint_file
from gpucnn.runs.config import Config, DataConfig, ModelConfig, TrainConfig
from gpucnn.runs.imported import import_safetensors
from gpucnn.runs.state import evaluated_state, load_run
from gpucnn.settings import LONGEST_LIST, LONGEST_TEXT
from gpucnn.types import Array


@dataclass(frozen=True)
class Source:
    """A trained model to start from.

    Attributes:
        state: name -> host array of its parameters, averaged ones where evaluation uses those, and of its buffers.
        config: its settings.
        digest: SHA-256 of the file.
    """

    path: Path
    state: Mapping[str, Array]
    config: Config
    digest: str

    def defaults(self) -> Config:
        """Settings without any, but for its model and the kind of its images."""
        height, width, channels = self.config.model.input_shape
        return Config(DataConfig(size=(height, width), channels=channels), unsized(self.config.model))


def read_source(name: str) -> Source:
    """The model in a checkpoint or an exported file, or in a run folder: its best one.

    Raises:
        UsageError: there is none.
        CheckpointError: it is damaged.
    """
    path = checkpoint_file(Path(name))
    if path.is_dir():
        path = next((path / file for file in ("best.h5", "last.h5") if (path / file).exists()), path / "best.h5")
    if path.exists() and not path.is_file():
        raise UsageError(f"--init {path}: not a regular file: give a checkpoint, or the folder of a run")
    if not path.is_file():
        raise UsageError(f"--init {path}: there is no such file{near(path)}")
    refuse_pickle(path)
    checkpoint, config = import_safetensors(path) if path.suffix == ".safetensors" else load_run(path)
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or error}") from None
    return Source(path, evaluated_state(checkpoint), config, digest)


def resolve_start(config: Config, train: Dataset, source: Source | None) -> Config:
    """``resolve``, and what a source determines: its digest, which parameters it does not have, and statistics.

    Raises:
        UsageError: nothing in it fits the model.
    """
    config = resolve(config, train)
    if source is None:
        return config
    data, theirs, channels = config.data, source.config.data, train.image_shape[2]
    if config.train.init_statistics == "file" and len(theirs.mean) == channels:
        data = replace(data, mean=theirs.mean, std=theirs.std)
    fresh = replace(config.train, init_digest=source.digest, drawn=())
    model = build_model(replace(config, train=fresh))
    report, parameters = model.matching(source.state), model.parameters()
    if TAKEN not in report.values():
        there, here = next(iter(build_model(source.config).parameters())), next(iter(parameters))
        raise UsageError(
            f"--init {source.path}: nothing in it fits: its {source.config.model.name} begins with {there} "
            f"({sizes(source.state[there].shape)}), this {config.model.name} with {here} "
            f"({sizes(parameters[here].shape)}): give the same --model, or none"
        )
    drawn = tuple(name for name in parameters if report[name] != TAKEN)
    if len(drawn) > LONGEST_LIST or max(map(len, drawn), default=0) > LONGEST_TEXT:
        raise UsageError(
            f"--init {source.path}: it lacks {len(drawn):,} parameters of this {config.model.name}, as {drawn[0]}: at "
            f"most {LONGEST_LIST:,} can be new, with names of {LONGEST_TEXT} characters: give the file's own model"
        )
    return replace(config, data=data, train=replace(fresh, drawn=drawn))


def unsized(model: ModelConfig) -> ModelConfig:
    """The same network for any images."""
    return replace(model, input_shape=(), num_classes=0)


def found_at_start(config: Config) -> Config:
    """Settings without any, but for what a run with these took from its source when it began."""
    if not config.train.init_digest:
        return Config()
    d, t = config.data, config.train
    data = DataConfig(size=d.size, channels=d.channels, mean=d.mean, std=d.std)
    return Config(data, unsized(config.model), TrainConfig(init_digest=t.init_digest, drawn=t.drawn))


def two_models() -> tuple[Config, Config]:
    """Settings without any, but for a model, in two ways: whoever names one makes both the same."""
    return Config(model=ModelConfig(name="mlp")), Config(model=ModelConfig(name="lenet5"))
