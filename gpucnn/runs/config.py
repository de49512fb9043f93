"""A run's settings: TOML -> frozen dataclasses, with every name, type and value checked, and back to TOML.

Precedence: the defaults here < the file < ``--set section.key=value`` < flags.
"""

import json
import re
import tomllib
from collections import ChainMap
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from itertools import pairwise
from pathlib import Path
from types import UnionType
from typing import Any, Self, get_args, get_origin, get_type_hints

from gpucnn.data.augment.settings import Augmentation
from gpucnn.data.dataset import MOST_CHANNELS, MOST_CLASSES
from gpucnn.data.image_files import FITS
from gpucnn.data.reading import LARGEST_SIDE
from gpucnn.data.registry import DATASETS
from gpucnn.devices import NAMES
from gpucnn.devices.cores import MOST_THREADS
from gpucnn.devices.gpu_memory import memory_limit
from gpucnn.errors import UsageError, cut, near, nearest, shown
from gpucnn.files import read_text
from gpucnn.inference.tta import VIEWS
from gpucnn.models import MODELS
from gpucnn.models.spec import CUSTOM, plain
from gpucnn.optim import OPTIMIZERS
from gpucnn.optim.optimizer import MOST, MOST_EPOCHS, MOST_STEPS, TRAINED, GroupRule
from gpucnn.optim.schedules import SCHEDULES
from gpucnn.runs.plugins import require
from gpucnn.settings import LONGEST_PATH, LONGEST_TEXT, Setting, Settings, setting
from gpucnn.training.cuda_graph import MODES
from gpucnn.training.precision import POLICIES

LONGEST, DEEPEST = 2**17, 8  # characters of a config and words of a dotted key; TOML's parser takes its length squared

NETS: Collection[str] = ChainMap[str, Any]({CUSTOM: None}, MODELS)  # a view: plugins add models

QUOTED = re.compile(
    r"""#[^\n]*|\"{3}(?:\\.|[^\\])*?(?:\"{3,5}|\Z)|'{3}.*?(?:'{3,5}|\Z)|"(?:\\.|[^"\\\n])*.?|'[^'\n]*.?""", re.DOTALL
)
"""Comments and texts of TOML, from their start to where they end or should have ended."""


@dataclass(frozen=True)
class DataConfig(Settings):
    """Which images, and what happens to them.

    ``mean``, ``std`` (per channel; of bytes on a 0..1 scale, of floats on their own), ``pixels`` (the dtype of images)
    and ``classes`` are filled in from the training set; of more names than ``held_names`` allows there are none.
    """

    dataset: str = setting(
        "digits",
        f"the data set: {', '.join(DATASETS)}; or the path of a folder with a sub-folder of images per class, or of an "
        ".npz, .csv or HDF5 file",
        "--dataset",
        longest=LONGEST_PATH,
    )
    validation: float = setting(
        0.0,
        "hold out this many training images, or below 1 this fraction of each class, and test on them",
        "--validation",
        at_least=0,
        at_most=10**9,
    )
    size: tuple[int, ...] = setting(
        (), "height and width of image files, as 64x48; default: their own", "--size", at_least=1, at_most=LARGEST_SIDE
    )
    fit: str = setting("crop", "how image files come to another aspect ratio", "--fit", choices=FITS)
    channels: int = setting(
        0, "of image files: 1 for grey, 3 for colour, 0 for what is there", "--channels", at_least=0, at_most=3
    )
    skip_broken: bool = setting(False, "leave out image files that cannot be read", "--skip-broken")
    augmentation: Augmentation = Augmentation()
    mean: tuple[float, ...] = setting((), at_least=-MOST, at_most=MOST)
    std: tuple[float, ...] = setting((), at_least=0, at_most=MOST)
    pixels: str = setting("uint8", choices=("uint8", "float32"))
    classes: tuple[str, ...] = setting(())

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.size) not in (0, 2):
            raise UsageError(f"size = {list(self.size)}: give [height, width]")


@dataclass(frozen=True)
class ModelConfig(Settings):
    """Which network: by name, or layer by layer as ``models.from_spec`` takes it, where the name is "custom".

    ``input_shape`` (H, W, C), ``num_classes`` and ``plugins`` (of what is in use) are filled in.
    """

    name: str = setting("mnist_cnn", "the network", "--model", choices=NETS)
    input_shape: tuple[int, ...] = setting((), at_least=1, at_most=MOST_CHANNELS)
    num_classes: int = setting(0, at_least=0, at_most=MOST_CLASSES)
    options: dict[str, bool | int | float | str] = setting({}, at_least=-(10**9), at_most=10**9)
    layers: tuple[dict[str, Any], ...] = setting((), at_least=-(10**9), at_most=10**9)
    plugins: tuple[str, ...] = setting(())

    def __post_init__(self) -> None:
        require(self.plugins)
        object.__setattr__(self, "layers", plain(self.layers))
        super().__post_init__()
        if self.layers and self.name != CUSTOM:
            raise UsageError(f"name = {shown(self.name)}, but layers are a net of their own: leave one of the two out")


@dataclass(frozen=True)
class TrainConfig(Settings):
    """The loop."""

    epochs: int = setting(
        12, "epochs in all, those before a resume included", "--epochs", at_least=1, at_most=MOST_EPOCHS
    )
    batch_size: int = setting(64, "images per step", "--batch-size", "-b", at_least=1, at_most=10**6)
    drop_last: bool = setting(False, "leave out a last batch that is not full")
    # a checkpoint has 64 bits for it
    seed: int = setting(0, "of weights, shuffles, dropout, augmentation", "--seed", at_least=0, at_most=2**63 - 1)
    smoothing: float = setting(0.0, "label smoothing, a fraction", "--smoothing", at_least=0, below=1)
    reduction: str = setting("mean", "of a batch's losses, before they are differentiated", choices=("mean", "sum"))
    clip_grad: float = setting(
        0.0, "largest norm of the gradient; 0: no clipping", "--clip-grad", at_least=0, at_most=MOST
    )
    ema: float = setting(0.0, "decay of the averaged weights for evaluation; 0: none", "--ema", at_least=0, below=1)
    lookahead: int = setting(
        0, "steps between two returns of the weights to the slow ones; 0: none", at_least=0, at_most=MOST_STEPS
    )
    lookahead_decay: float = setting(0.95, "fraction of the slow weights a late return keeps", at_least=0, below=1)
    amp: str = setting("off", "precision on a GPU; fp16 is mixed precision", "--amp", choices=POLICIES)
    patience: int = setting(
        0, "epochs without a better accuracy before it stops; 0: never", "--patience", at_least=0, at_most=MOST_EPOCHS
    )
    tta: str = setting("none", "views per test image, averaged once more at the end", "--tta", choices=VIEWS)
    init: str = setting("", "start from the weights of this checkpoint or exported model", "--init", longest=4096)
    init_statistics: str = setting("file", "with init, whose mean and std normalise images", choices=("file", "data"))
    init_digest: str = setting("")  # of that file; filled in, as is the next one
    drawn: tuple[str, ...] = setting(())  # parameters that are not from that file
    freeze: tuple[str, ...] = setting((), "parameters that stay as they are, as 'features.*'", "--freeze")
    head_lr: float = setting(
        0.0, "learning rate of new parameters, or of the last layer; 0: as lr", "--head-lr", at_least=0, at_most=MOST
    )
    max_steps: int = setting(
        0, "end the run with this step; 0: with the last epoch", "--max-steps", at_least=0, at_most=MOST_STEPS
    )


@dataclass(frozen=True)
class OptimizerConfig(Settings):
    """The optimizer, with a rule for each group of parameters that differs."""

    name: str = setting("sgd", "the optimizer", "--opt", choices=OPTIMIZERS)
    lr: float = setting(0.05, "learning rate", "--lr", at_least=0, at_most=MOST)
    momentum: float = setting(0.9, "momentum of sgd and muon; sgd is plain with 0", "--momentum", at_least=0, below=1)
    nesterov: bool = setting(True, "for sgd and muon")
    weight_decay: float = setting(
        5e-4, "of weights; not of biases and batch norm", "--weight-decay", at_least=0, at_most=MOST
    )
    decoupled: bool = setting(False, "for sgd and muon: decay by this fraction of w in a step at the full rate")
    beta1: float = setting(0.9, "for adam and adamw", at_least=0, below=1)
    beta2: float = setting(0.999, "for adam and adamw", at_least=0, below=1)
    eps: float = setting(1e-8, "for adam and adamw", above=0, at_most=MOST)
    newton_schulz_steps: int = setting(3, "for muon", at_least=1, at_most=100)
    groups: dict[str, GroupRule] = setting({}, "rules for groups of parameters", keys=TRAINED)


@dataclass(frozen=True)
class ScheduleConfig(Settings):
    """The learning rate of each step, with a linear warm-up in front."""

    name: str = setting("step", "the learning-rate schedule", "--sched", choices=SCHEDULES)
    warmup_epochs: float = setting(0.0, "epochs of linear warm-up", "--warmup-epochs", at_least=0, at_most=MOST_EPOCHS)
    milestones: tuple[float, ...] = setting((8.0, 11.0), "in epochs, for step", at_least=0, at_most=MOST_EPOCHS)
    gamma: float = setting(0.2, "factor at each milestone, for step", at_least=0, at_most=10)
    peak: float = setting(0.3, "fraction of the run that climbs, for one_cycle and triangular", at_least=0, at_most=1)
    start: float = setting(
        0.04, "first rate as a fraction of lr, for one_cycle and triangular", at_least=0, at_most=MOST
    )
    final: float = setting(
        0.0, "last rate as a fraction of lr, for cosine, one_cycle and triangular", at_least=0, at_most=MOST
    )
    knots: tuple[tuple[float, ...], ...] = setting(
        (), "[epoch, fraction of lr] each, for piecewise", at_least=0, at_most=MOST_EPOCHS
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for knot in self.knots:
            if len(knot) != 2:
                raise UsageError(f"knots: {list(knot)} is not [epoch, fraction of lr]: give two numbers")
        epochs = [epoch for epoch, _ in self.knots]
        if any(after <= before for before, after in pairwise(epochs)):
            raise UsageError(f"knots are at the epochs {epochs}: give each once, in order")


@dataclass(frozen=True)
class RunConfig(Settings):
    """Where and how it runs; none of it changes what a run learns on one device."""

    device: str = setting("auto", f"{', '.join(NAMES)} (plain NumPy)", "--device")
    strict_device: bool = setting(False, "exit 6 where the GPU asked for is missing", "--strict-device")
    memory_limit: str = setting("", "GPU memory for arrays: GiB as in 12, or 80%; empty: all of it", "--memory-limit")
    data_memory: str = setting(
        "",
        "memory for images: GiB as in 2, or 25%; larger sets are read as they are needed; empty: half of what is free",
        "--data-memory",
    )
    threads: int = setting(0, "CPU threads; 0: all cores it may use", "--threads", at_least=0, at_most=MOST_THREADS)
    cuda_graph: str = setting("auto", "on a GPU, launch a step as one graph", "--cuda-graph", choices=MODES)
    log_interval: int = setting(
        50, "steps between two readings of the running loss", "--log-interval", at_least=1, at_most=10**9
    )
    log_steps: bool = setting(False, "also log each interval, for gpucnn plot --steps", "--log-steps")
    tensorboard: bool = setting(False, "also write TensorBoard events into the run folder", "--tensorboard")


@dataclass(frozen=True)
class Config:
    """All settings of a run."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    run: RunConfig = RunConfig()

    def __post_init__(self) -> None:
        memory_limit(self.run.memory_limit)
        memory_limit(self.run.data_memory, "run.data_memory", "memory")

    @classmethod
    def from_toml(cls, text: str, origin: str = "config", defaults: Self | None = None) -> Self:
        """Raises UsageError for bad TOML, unknown names and values that no run can have."""
        try:
            return (defaults or cls()).updated(parse_toml(text))
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{origin} is not valid TOML: {error}") from None

    @classmethod
    def from_file(cls, path: Path, defaults: Self | None = None) -> Self:
        try:
            text = read_text(path, LONGEST)
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UsageError(f"cannot read the config {path}: {reason}{near(path)}") from None
        return cls.from_toml(text, str(path), defaults)

    def updated(self, tables: Mapping[str, Any]) -> Self:
        """A copy with some values replaced: {"train": {"epochs": 3}, ...}; names of older versions will do."""
        model = tables.get("model")
        if isinstance(model, Mapping) and model.get("layers") and "name" not in model:
            tables = {**tables, "model": {"name": CUSTOM, **model}}
        updated: Self = _update(self, "", tables)
        return updated

    def with_value(self, name: str, value: Any) -> Self:
        """A copy with the setting of this dotted name replaced."""
        for key in reversed(name.split(".", DEEPEST)):
            value = {key: value}
        return self.updated(value)

    def with_setting(self, assignment: str) -> Self:
        """A copy with one ``section.key=value``; the value is TOML, or a bare string."""
        name, equals, text = assignment.partition("=")
        if not equals or "." not in name:
            raise UsageError(f"--set {assignment}: write section.key=value, as in --set optimizer.lr=0.1")
        try:
            found = parse_toml(f"value = {text}")
        except (ValueError, RecursionError):
            found = {}
        return self.with_value(name.strip(), found["value"] if found.keys() == {"value"} else text.strip())

    def to_toml(self) -> str:
        """All sections with all keys; ``from_toml`` gives an equal config back."""
        tables: dict[str, str] = {}
        for name, value in self.flat().items():
            table, _, key = name.rpartition(".")
            line = "" if value is None else f"{key} = {as_toml(value)}\n"
            tables[table] = tables.get(table, f"[{table}]\n") + line
        return "\n".join(tables.values())

    def flat(self) -> dict[str, Any]:
        """Dotted name -> value of every setting: "data.augmentation.flip", "optimizer.groups.norm.lr", ..."""
        return dict(_flat(asdict(self), ""))


def stated_settings(kind: Any = Config, table: str = "") -> Iterator[tuple[str, Setting, Any, Any]]:
    """(dotted name, what its field says, type, default) of every ``setting``."""
    types = get_type_hints(kind)
    for f in fields(kind):
        if is_dataclass(types[f.name]):
            yield from stated_settings(types[f.name], _dotted(table, f.name))
        elif "setting" in f.metadata:
            yield _dotted(table, f.name), f.metadata["setting"], types[f.name], f.default


def as_toml(value: Any, indent: str = "") -> str:
    """A value in TOML; a list of tables has a line for each, whose keys are plain words."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key} = {as_toml(item, indent)}' for key, item in value.items())}}}"
    if nested(value):
        rows = (f"{indent}  {as_toml(item, indent + '  ')},\n" for item in value)
        return f"[\n{''.join(rows)}{indent}]"
    return json.dumps(value, ensure_ascii=False)  # numbers, texts and lists of them are in TOML as in JSON


def nested(value: Any) -> bool:
    """Whether there are tables in a list, or in its lists."""
    return isinstance(value, Mapping) or (isinstance(value, list | tuple) and any(map(nested, value)))


def parse_toml(text: str) -> dict[str, Any]:
    """The tables of a TOML text; raises ValueError, or RecursionError, where it is wrong, too long or too deep."""
    if len(text) > LONGEST:
        raise ValueError(f"{len(text):,} characters, more than the {LONGEST:,} of a config")
    if any(part.count(".") > DEEPEST for part in re.split(r"[][{}=,\n]", QUOTED.sub("", text))):
        raise ValueError(f"a dotted key of more than {DEEPEST} words")
    return tomllib.loads(text)


MOVED = {f"data.{f.name}": ("augmentation", f.name) for f in fields(Augmentation)}
"""What older versions had in another place -> where it is now, below the same table."""


def _update(before: Any, table: str, values: Mapping[str, Any]) -> Any:
    """A copy of a dataclass, which is this table of the config, with some fields replaced."""
    types = get_type_hints(type(before))
    changed: dict[str, Any] = {}
    for key, value in values.items():
        if moved := MOVED.get(_dotted(table, key)):
            key, value = moved[0], {moved[1]: value}
        if key not in types:
            raise _unknown(table, key, types)
        changed[key] = _convert(value, types[key], _dotted(table, key), changed.get(key, getattr(before, key)))
    try:
        return replace(before, **changed)
    except UsageError as error:
        raise UsageError(_dotted(table, str(error))) from None


def _convert(value: Any, wanted: Any, name: str, before: Any = None) -> Any:
    """A TOML value as the type a field wants; an int may stand for a float, and nothing else is converted.

    A table is merged into the one that the field had ``before``.
    """
    if wanted is Any:
        return value
    origin, inner = get_origin(wanted), get_args(wanted)
    if is_dataclass(wanted) and isinstance(value, Mapping):
        kind: Any = wanted
        return _update(kind() if before is None else before, name, value)
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_convert(item, inner[0], name) for item in value)
    if origin is dict and isinstance(value, Mapping):
        had = before or {}
        return had | {key: _convert(item, inner[1], f"{name}.{key}", had.get(key)) for key, item in value.items()}
    kinds = inner if origin is UnionType else (wanted,)
    if type(value) in kinds:
        return value
    if type(value) is int and float in kinds:
        return float(value) if abs(value) < 1e300 else value  # which is out of all bounds
    readable = {bool: "true or false", int: "an integer", float: "a number", str: "a string"}
    expected = readable.get(kinds[0]) or ("a list" if origin is tuple else "a table")
    raise UsageError(f"config key {name} = {shown(value)}: expected {expected}")


def _unknown(table: str, key: str, known: Collection[str]) -> UsageError:
    """The error about a key that a table does not have: what could have been meant, there or elsewhere."""
    elsewhere, key = {name.rpartition(".")[2]: name for name in Config().flat()}, cut(key, LONGEST_TEXT)
    if here := nearest(key, known):
        hint = f"did you mean {_dotted(table, here)}?"
    elif table and (other := nearest(key, elsewhere)):
        hint = f"did you mean {elsewhere[other]}?"
    else:
        hint = f"known are {', '.join(sorted(known))}"
    return UsageError(f"unknown config {'key' if table else 'section'} {_dotted(table, key)}: {hint}")


def _dotted(table: str, key: str) -> str:
    return f"{table}.{key}" if table else key


def _flat(values: Mapping[str, Any], table: str) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, _dotted(table, key))
        else:
            yield _dotted(table, key), value
