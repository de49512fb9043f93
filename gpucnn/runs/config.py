"""A run's settings: TOML -> frozen dataclasses, with every name and type checked, and back to TOML.

Precedence: the defaults here < the file < ``--set section.key=value`` < flags.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import pairwise
from math import isfinite
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Self, get_args, get_origin, get_type_hints

from gpucnn.data.augment.settings import Augmentation
from gpucnn.errors import UsageError, closest
from gpucnn.devices.gpu_memory import memory_limit
from gpucnn.layers.parameter import GROUPS
from gpucnn.training.precision import POLICIES
from gpucnn.inference.tta import VIEWS

Option = bool | int | float | str


@dataclass(frozen=True)
class DataConfig:
    """Which images, and what happens to them.

    ``mean``, ``std`` (per channel, 0..1 scale) and ``classes`` are filled in from the training set.
    """

    dataset: str = "digits"
    validation: int = 0  # images taken off the training set; they then stand in for the test set
    flip: bool = False
    crop: int = 0  # pixels of shift at most
    crop_mode: str = "zero"
    flip_mode: str = "random"  # or alternating: what was mirrored in one epoch is not in the next
    cutout: int = 0  # pixels a side of a square that is covered
    cutout_mode: str = "clipped"  # at the edge of the image; or inside: all of it is in the image
    mixup: float = 0.0  # alpha of Beta(alpha, alpha); 0 mixes nothing
    cutmix: float = 0.0  # alpha likewise; with both, each has half of the batches
    mixup_prob: float = 1.0  # share of the batches that are mixed
    rotation: float = 0.0  # degrees to either side at most
    scale: float = 0.0  # enlarged by 1 - scale .. 1 + scale
    elastic: float = 0.0  # Simard's alpha: displacements, smoothed, times so many pixels; 34 for MNIST
    elastic_sigma: float = 4.0  # of that smoothing, in pixels
    brightness: float = 0.0  # times 1 - brightness .. 1 + brightness
    contrast: float = 0.0  # distance from the mean times 1 - contrast .. 1 + contrast
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    classes: tuple[str, ...] = ()

    def augmentation(self) -> Augmentation:
        """The settings of the same names; raises UsageError for what no augmentation can have."""
        try:
            return Augmentation(**{setting.name: getattr(self, setting.name) for setting in fields(Augmentation)})
        except UsageError as error:
            raise UsageError(f"data.{error}") from None


@dataclass(frozen=True)
class ModelConfig:
    """Which network; ``input_shape`` (H, W, C) and ``num_classes`` are filled in from the data set."""

    name: str = "mnist_cnn"
    input_shape: tuple[int, ...] = ()
    num_classes: int = 0
    options: dict[str, Option] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainConfig:
    """The loop."""

    epochs: int = 12
    batch_size: int = 64
    drop_last: bool = False
    seed: int = 0
    smoothing: float = 0.0
    reduction: str = "mean"  # what is differentiated: the mean or the sum of the batch's losses
    clip_grad: float = 0.0  # largest gradient norm; 0 does not clip
    ema: float = 0.0  # decay of a moving average of the weights, which evaluation then uses; 0: none
    lookahead: int = 0  # steps between two returns of the weights to slow ones; 0: none
    lookahead_decay: float = 0.95  # what a step leaves of the slow weights, at the end of the run
    amp: str = "off"  # on a GPU: "fp16" computes in float16 with float32 weights, "tf32" rounds in convolutions
    patience: int = 0  # epochs without a better test accuracy before an early stop; 0 never stops
    tta: str = "none"  # views to average over, once more in the end: flip, shift or multicrop
    max_steps: int = 0  # the run and its schedule end with this step, within an epoch perhaps; 0: with the epochs


@dataclass(frozen=True)
class GroupConfig:
    """How one group of parameters is trained where it is not as the optimiser says for all (``optim.GroupRule``)."""

    lr: float = 1.0  # factor of the learning rate
    weight_decay: float | None = None  # where not given, the optimiser's for filters and weights, 0 for the rest
    momentum: float | None = None  # where not given, the optimiser's
    epochs: float = 0.0  # held fixed after so many; 0 trains it to the end
    fade: bool = False  # in those epochs its rate falls straight to 0, whatever the schedule says


@dataclass(frozen=True)
class OptimizerConfig:
    """sgd (plain where momentum = 0), muon, adam or adamw; with a table for each group of parameters that differs."""

    name: str = "sgd"
    lr: float = 0.05
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    decoupled: bool = False  # for sgd and muon: weight_decay is the share of w that a step at the full rate takes off
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    newton_schulz_steps: int = 3  # for muon
    groups: dict[str, GroupConfig] = field(default_factory=dict)  # filter, weight, bias, norm, whiten


@dataclass(frozen=True)
class ScheduleConfig:
    """constant, step, cosine, one_cycle, triangular or piecewise, with a linear warm-up in front."""

    name: str = "step"
    warmup_epochs: float = 0.0
    milestones: tuple[float, ...] = (8.0, 11.0)  # in epochs, for step
    gamma: float = 0.2  # for step
    peak: float = 0.3  # share of the run that climbs, for one_cycle and triangular
    start: float = 0.04  # first rate as a share of lr, for one_cycle and triangular
    final: float = 0.0  # last rate as a share of lr, for cosine, one_cycle and triangular
    knots: tuple[tuple[float, ...], ...] = ()  # [epoch, share of lr] each, for piecewise: straight lines between them


@dataclass(frozen=True)
class RunConfig:
    """Where and how it runs; none of it changes what a run learns on one device."""

    device: str = "auto"
    strict_device: bool = False
    memory_limit: str = ""  # of a GPU, for arrays: GiB as in "12", or a share as in "80%"; all of it where empty
    threads: int = 0  # 0: as many as the cores this process may use
    cuda_graph: str = "auto"  # a step's launches as one, on a GPU: auto, on or off
    log_interval: int = 50  # steps between two readings of the running loss
    tensorboard: bool = False  # events beside the logs


@dataclass(frozen=True)
class Config:
    """All settings of a run."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    run: RunConfig = RunConfig()

    @classmethod
    def from_toml(cls, text: str, origin: str = "config") -> Self:
        """Raises UsageError for bad TOML, unknown names and values of the wrong type."""
        try:
            tables = tomllib.loads(text)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{origin} is not valid TOML: {error}") from None
        return cls().updated(tables)

    @classmethod
    def from_file(cls, path: Path) -> Self:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"cannot read the config {path}: {error}") from None
        return cls.from_toml(text, str(path))

    def updated(self, tables: Mapping[str, Any]) -> Self:
        """A copy with some values replaced: {"train": {"epochs": 3}, ...}; then checked as a whole."""
        changed = {}
        for section, values in tables.items():
            if section not in SECTIONS:
                raise UsageError(f"unknown config section [{section}]{closest(section, SECTIONS)}")
            if not isinstance(values, Mapping):
                raise UsageError(f"config section [{section}] must be a table, got {values!r}")
            changed[section] = _update(getattr(self, section), section, values)
        config = replace(self, **changed)
        config.check()
        return config

    def with_setting(self, assignment: str) -> Self:
        """A copy with one ``section.key=value``; the value is TOML, or a bare string."""
        name, equals, text = assignment.partition("=")
        section, *keys = name.strip().split(".")
        if not equals or not keys:
            raise UsageError(f"--set {assignment}: write section.key=value, as in --set optimizer.lr=0.1")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except (ValueError, RecursionError):
            value = text.strip()
        for key in reversed(keys):
            value = {key: value}
        return self.updated({section: value})

    def check(self) -> None:
        """Values that no run can have; raises UsageError with the value and what is allowed."""
        for name, minimum in POSITIVE.items():
            section, key = name.split(".")
            value = getattr(getattr(self, section), key)
            if not (isfinite(value) and value >= minimum):
                raise UsageError(f"{name} = {value}: give a number >= {minimum}")
        for name, most in AT_MOST.items():
            section, key = name.split(".")
            value = getattr(getattr(self, section), key)
            if value > most:
                raise UsageError(f"{name} = {value}: give a number <= {most}")
        for name, allowed in CHOICES.items():
            section, key = name.split(".")
            value = getattr(getattr(self, section), key)
            if value not in allowed:
                raise UsageError(f"{name} = {value!r}{closest(value, allowed)}")
        self.data.augmentation()
        memory_limit(self.run.memory_limit)
        for name in BELOW_ONE:
            section, key = name.split(".")
            value = getattr(getattr(self, section), key)
            if not value < 1.0:
                raise UsageError(f"{name} = {value}: give a number in [0, 1)")
        for group, rule in self.optimizer.groups.items():
            _check_group(f"optimizer.groups.{group}", group, rule)
        if self.optimizer.eps == 0.0:
            raise UsageError("optimizer.eps = 0.0: give a number > 0, as 1e-8")
        _check_milestones(self.schedule.milestones)
        _check_knots(self.schedule.knots)

    def to_toml(self) -> str:
        """All sections with all keys; ``from_toml`` gives an equal config back."""
        return "\n".join(line for section, values in asdict(self).items() for line in _table(section, values))


SECTIONS = tuple(f.name for f in fields(Config))

POSITIVE: dict[str, float] = {
    "data.validation": 0,
    "train.epochs": 1,
    "train.batch_size": 1,
    "train.seed": 0,
    "train.smoothing": 0,
    "train.clip_grad": 0,
    "train.ema": 0,
    "train.lookahead": 0,
    "train.lookahead_decay": 0,
    "train.patience": 0,
    "train.max_steps": 0,
    "optimizer.lr": 0,
    "optimizer.momentum": 0,
    "optimizer.weight_decay": 0,
    "optimizer.beta1": 0,
    "optimizer.beta2": 0,
    "optimizer.eps": 0,
    "optimizer.newton_schulz_steps": 1,
    "schedule.warmup_epochs": 0,
    "schedule.gamma": 0,
    "schedule.peak": 0,
    "schedule.start": 0,
    "schedule.final": 0,
    "run.threads": 0,
    "run.log_interval": 1,
}

EPOCHS = 1e9  # more than any run has; times the steps of an epoch it is still a number

AT_MOST: dict[str, float] = {
    "train.seed": 2**63 - 1,  # a checkpoint has 64 bits for it
    "schedule.warmup_epochs": EPOCHS,
    "schedule.peak": 1,
}

BELOW_ONE = (
    "train.smoothing",
    "train.ema",
    "train.lookahead_decay",
    "optimizer.momentum",
    "optimizer.beta1",
    "optimizer.beta2",
)

CHOICES: dict[str, tuple[str, ...]] = {
    "train.amp": tuple(POLICIES),
    "run.cuda_graph": ("auto", "on", "off"),
    "train.reduction": ("mean", "sum"),
    "train.tta": tuple(VIEWS),
    "optimizer.name": ("sgd", "muon", "adam", "adamw"),
    "schedule.name": ("constant", "step", "cosine", "one_cycle", "triangular", "piecewise"),
}


def _check_group(name: str, group: str, rule: GroupConfig) -> None:
    trained = tuple(known for known in GROUPS if known != "frozen")
    if group not in trained:
        raise UsageError(f"unknown config key {name}{closest(group, trained)}")
    for key in ("lr", "weight_decay", "momentum", "epochs"):
        value = getattr(rule, key)
        if value is not None and not (isfinite(value) and value >= 0):
            raise UsageError(f"{name}.{key} = {value}: give a number >= 0")
    if rule.epochs > EPOCHS:
        raise UsageError(f"{name}.epochs = {rule.epochs}: give a number <= {EPOCHS:g}")
    if not (rule.momentum or 0.0) < 1.0:
        raise UsageError(f"{name}.momentum = {rule.momentum}: give a number in [0, 1)")


def _check_milestones(milestones: tuple[float, ...]) -> None:
    for epoch in milestones:
        if not 0 <= epoch <= EPOCHS:
            raise UsageError(f"schedule.milestones: {epoch} is no epoch, a number in [0, {EPOCHS:g}]")


def _check_knots(knots: tuple[tuple[float, ...], ...]) -> None:
    for knot in knots:
        if not (len(knot) == 2 and all(isfinite(value) and value >= 0 for value in knot)):
            raise UsageError(f"schedule.knots: {list(knot)} is no [epoch, share of lr], two numbers >= 0")
    epochs = [knot[0] for knot in knots]
    if any(after <= before for before, after in pairwise(epochs)):
        raise UsageError(f"schedule.knots are at the epochs {epochs}: give each once, in order")


def _update(section: Any, name: str, values: Mapping[str, Any]) -> Any:
    types = get_type_hints(type(section))
    changed = {}
    for key, value in values.items():
        if key not in types:
            raise UsageError(f"unknown config key {name}.{key}{closest(key, types)}")
        changed[key] = _convert(value, types[key], f"{name}.{key}", getattr(section, key))
    return replace(section, **changed)


def _convert(value: Any, wanted: Any, name: str, before: Any = None) -> Any:
    """A TOML value as the type a field wants; an int may stand for a float, nothing else is bent.

    A table is merged into the one that the field had ``before``.
    """
    origin, inner = get_origin(wanted), get_args(wanted)
    if wanted is GroupConfig and isinstance(value, Mapping):
        return _update(before or GroupConfig(), name, value)
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_convert(item, inner[0], name) for item in value)
    if origin is dict and isinstance(value, Mapping):
        had = before or {}
        return had | {key: _convert(item, inner[1], f"{name}.{key}", had.get(key)) for key, item in value.items()}
    if origin in (UnionType,) and type(value) in inner:
        return value
    if origin in (UnionType,) and type(value) is int and float in inner:
        return float(value)
    if wanted is float and type(value) is int:
        return float(value)
    if wanted in (bool, int, float, str, NoneType) and type(value) is wanted:
        return value
    readable = {bool: "true or false", int: "an integer", float: "a number", str: "a string"}
    wanted = next((kind for kind in inner if kind is not NoneType), None) if origin is UnionType else wanted
    kinds = {"a list": origin is tuple, "a table": origin is dict or wanted is GroupConfig}
    others = (kind for kind, fits in kinds.items() if fits)
    expected = readable.get(wanted) or next(others, "a value of another type")
    raise UsageError(f"config key {name} = {value!r}: expected {expected}")


def _table(name: str, values: Mapping[str, Any]) -> list[str]:
    """The lines of a table and of the tables in it; what is None is left out."""
    plain = {key: value for key, value in values.items() if value is not None and not isinstance(value, dict)}
    lines = [f"[{name}]", *(f"{key} = {_toml(value)}" for key, value in plain.items()), ""]
    for key, value in values.items():
        if isinstance(value, dict) and value:
            lines += _table(f"{name}.{key}", value)
    return lines


def _toml(value: Any) -> str:
    """One value in TOML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
        return f'"{escaped}"'
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_toml, value))}]"
    return repr(value)
