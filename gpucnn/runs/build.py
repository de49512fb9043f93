"""From settings to objects: the one place that knows which config value makes what."""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from inspect import signature
from math import ceil
from typing import Any, TypeVar

from gpucnn import models
from gpucnn.backend import Backend
from gpucnn.data import Dataset, split_validation
from gpucnn.data.dataset import TEST_FRACTION
from gpucnn.data.loader import check as check_loader
from gpucnn.data.registry import is_path
from gpucnn.errors import DataError, UsageError
from gpucnn.layers import Layer
from gpucnn.models import ORIGINS
from gpucnn.models.memory import check_memory
from gpucnn.models.spec import CUSTOM
from gpucnn.optim import OPTIMIZERS, Optimizer
from gpucnn.optim.averages import EMA, Average, Lookahead
from gpucnn.optim.optimizer import GroupRule
from gpucnn.optim.schedules import SCHEDULES, Schedule, warmup
from gpucnn.runs.config import Config, ModelConfig
from gpucnn.runs.plugins import needed
from gpucnn.settings import LONGEST_LIST
from gpucnn.training.precision import FLOAT32, POLICIES
from gpucnn.training.trainer import Trainer, TrainerOptions
from gpucnn.types import Shape

T = TypeVar("T")

LONGEST_NAMES = 2**16  # characters of the names of all classes in a config, ASCII and with quotes
FLATTEST = 1e-9  # standard deviation on a 0..1 scale; 1e9 images of 8 bits with one pixel that differs have more


def split(
    config: Config, train: Dataset, test: Dataset | None = None, validation: Dataset | None = None
) -> tuple[Dataset, Dataset]:
    """What to train and to test on.

    With ``data.validation``, training images stand in for the test set, and so does a validation part where there is
    one.  Of a set without both, a fraction of each class is held out, by the same draw for every seed.
    """
    if held_out := config.data.validation:
        return split_validation(train, held_out, config.train.seed)
    chosen = validation or test
    return (train, chosen) if chosen else split_validation(train, TEST_FRACTION, 0)


def resolve(config: Config, train: Dataset) -> Config:
    """Fill in what the training set determines: statistics, class names, image shape, number of classes."""
    d, t, pixels = config.data, config.train, str(train.images.dtype)
    kept = t.init_digest and t.init_statistics == "file" and len(d.mean) == len(d.std) == train.image_shape[2]
    mean, std = (d.mean, d.std) if kept else (train.mean, train.std)
    data = replace(d, mean=mean, std=std, classes=held_names(train.classes), pixels=pixels)
    model = replace(config.model, input_shape=train.image_shape, num_classes=train.num_classes)
    config = replace(config, data=data, model=model)
    return replace(config, model=replace(model, plugins=needed(build_model(config), model.name) if ORIGINS else ()))


def held_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names of classes as a config holds them: none, so that classes are numbers, where they are too many."""
    return names if len(names) <= LONGEST_LIST and len(json.dumps(names)) <= LONGEST_NAMES else ()


def check_resolved(config: Config) -> None:
    """Raises UsageError where a config lacks what ``resolve`` fills in, or has what does not fit together."""
    d, m = config.data, config.model
    if len(m.input_shape) != 3 or not m.num_classes:
        raise UsageError(f"model.input_shape = {list(m.input_shape)}, num_classes = {m.num_classes}: of no data set")
    channels = m.input_shape[2]
    if not len(d.mean) == len(d.std) == channels or not all(std >= FLATTEST for std in d.std):
        wanted = f"give {channels} numbers each, std at least {FLATTEST}"
        raise UsageError(f"data.mean = {list(d.mean)}, data.std = {list(d.std)}: {wanted}")
    if d.classes and (len(d.classes), len(set(d.classes))) != (m.num_classes, m.num_classes):
        raise UsageError(f"data.classes has {len(set(d.classes))} names for {m.num_classes} classes")


def check_data(config: Config, dataset: Dataset) -> None:
    """Raises DataError where a data set is not of the kind that a resolved config was trained on."""
    wanted = (config.model.input_shape, config.model.num_classes)
    pixels, found = config.data.pixels, str(dataset.images.dtype)
    if found != pixels:
        raise DataError(
            f"{dataset.name} has {found} images, but the model was trained on {pixels}: give images on the same scale"
        )
    if (dataset.image_shape, dataset.num_classes) != wanted:
        raise DataError(
            f"{dataset.name} has images {dataset.image_shape} in {dataset.num_classes} classes, but the "
            f"model was trained on images {wanted[0]} in {wanted[1]}: name the matching set with --dataset"
        )


def check_files(pixels: str) -> None:
    """Raises UsageError where image files, which are bytes, are no input of a model that learned from such images."""
    if pixels != "uint8":
        raise UsageError(
            "the model was trained on float images, on a scale that files do not have: give arrays in Python, or train "
            "it on bytes, by Dataset.from_arrays(..., scale=255)"
        )


def made(kind: Callable[..., T], settings: Mapping[str, Any]) -> T:
    """What ``kind`` makes of those of the settings that are its arguments, which have the same names."""
    known = signature(kind).parameters
    return kind(**{name: value for name, value in settings.items() if name in known})


NEEDS = {
    "data.augmentation.crop_mode": ("crop",),
    "data.augmentation.flip_mode": ("flip",),
    "data.augmentation.cutout_mode": ("cutout",),
    "data.augmentation.elastic_sigma": ("elastic",),
    "data.augmentation.mixup_prob": ("mixup", "cutmix"),
    "train.lookahead_decay": ("lookahead",),
    "train.init_statistics": ("init",),
}
"""Setting -> others in its table; without any of them it changes nothing."""


KINDS: Mapping[str, Mapping[str, Callable[..., Any]]] = {"optimizer": OPTIMIZERS, "schedule": SCHEDULES}
"""Table -> what its name chooses."""


def without_effect(config: Config, name: str) -> str:
    """Why a setting of this dotted name changes nothing in this config; "" where it does, as far as is known."""
    table, _, key = name.rpartition(".")
    values = config.flat()
    if name == "data.fit" and not (config.data.size or is_path(config.data.dataset)):
        return "add data.size"
    if name == "data.skip_broken" and not is_path(config.data.dataset):
        return f"{config.data.dataset} has no image files: leave it out, or name a folder with --dataset"
    if (needs := NEEDS.get(name)) and not any(values[f"{table}.{other}"] for other in needs):
        return f"add {' or '.join(f'{table}.{other}' for other in needs)}"
    kinds = KINDS.get(table, {})
    key = {"newton_schulz_steps": "steps"}.get(key, key)
    users = sorted(kind for kind, made in kinds.items() if key in signature(made).parameters)
    chosen = values.get(f"{table}.name")
    if users and chosen not in users and key != "decoupled":
        return f"{table}.name is {chosen!r}, and it is for {' and '.join(users)}: leave it out"
    return ""


def build_model(config: Config) -> Layer:
    """The model of a resolved config, not initialised yet, with its parameters in the groups that they train in."""
    t, model = config.train, net(config)
    model.freeze_matching(t.freeze)
    if t.head_lr or config.optimizer.groups.keys() & HEAD:
        parameters = model.parameters()
        for name in head_names(list(parameters), t.drawn):
            parameters[name].group = HEADS.get(parameters[name].group, parameters[name].group)
    return model


def net(config: Config) -> Layer:
    """The model by name, or of the layers that the config lists."""
    m = config.model
    if m.name != CUSTOM:
        return models.build(m.name, m.input_shape, m.num_classes, **m.options)
    if m.options or not m.layers:
        missing = "has no options: write them into its layers" if m.layers else "has no layers: add [[model.layers]]"
        raise UsageError(f"a net with model.name = {CUSTOM!r} {missing}")
    return models.from_spec(m.layers, m.input_shape, m.num_classes)


HEADS = {"filter": "head", "weight": "head", "bias": "head_bias", "norm": "head_bias"}
HEAD = {"head": "weight", "head_bias": "bias"}
"""A group of the head -> the one whose rule it follows where it has none."""


def head_names(names: Sequence[str], drawn: Collection[str]) -> list[str]:
    """The parameters that ``train.head_lr`` is for: those that no file gave, or those of the last layer."""
    last = names[-1].rpartition(".")[0]
    return [name for name in names if (name in drawn if drawn else name.rpartition(".")[0] == last)]


def described(model: Layer, input_shape: Shape, num_classes: int) -> ModelConfig:
    """The settings from which ``build_model`` makes an equal net; raises UsageError as ``models.to_spec``."""
    layers, plugins = tuple(models.to_spec(model)), needed(model)
    return ModelConfig(name=CUSTOM, layers=layers, plugins=plugins, input_shape=input_shape, num_classes=num_classes)


def steps_in_epoch(config: Config, train: Dataset) -> int:
    """The steps of an epoch."""
    count = len(train.labels) / config.train.batch_size
    return int(count) if config.train.drop_last else ceil(count)


def build_optimizer(config: Config, steps_per_epoch: int) -> Optimizer:
    """The optimizer, its groups' rules in steps; raises UsageError for settings that contradict each other."""
    o = config.optimizer
    if o.decoupled and o.name not in ("sgd", "muon"):
        raise UsageError(f"optimizer.decoupled is for sgd and muon, not {o.name}: adamw decouples its decay itself")
    groups = dict(o.groups)
    if rate := config.train.head_lr:
        if not o.lr:
            raise UsageError("train.head_lr without a learning rate: --freeze is for what is not trained")
        own = {group: groups.get(group) or groups.get(like) or GroupRule() for group, like in HEAD.items()}
        groups |= {group: replace(rule, lr=rule.lr * rate / o.lr) for group, rule in own.items()}
    rules = {group: rule.in_steps(steps_per_epoch) for group, rule in groups.items()}
    return made(OPTIMIZERS[o.name], {**vars(o), "groups": rules, "steps": o.newton_schulz_steps})


def total_steps(config: Config, steps_per_epoch: int) -> int:
    """The steps of the whole run."""
    steps = config.train.epochs * steps_per_epoch
    return min(steps, config.train.max_steps or steps)


def build_schedule(config: Config, steps_per_epoch: int) -> Schedule:
    """The learning rate of each step, with what the settings give in epochs in steps."""
    s = config.schedule
    warm = round(s.warmup_epochs * steps_per_epoch)
    total = total_steps(config, steps_per_epoch) - warm
    knots = [(epoch * steps_per_epoch - warm, fraction) for epoch, fraction in s.knots]
    if s.name == "piecewise" and not knots:
        raise UsageError("schedule.name = 'piecewise' needs schedule.knots, as [[0, 0.2], [2, 1], [10, 0]]")
    milestones = [round(m * steps_per_epoch) - warm for m in s.milestones]
    steps = {"lr": config.optimizer.lr, "total": total, "milestones": milestones, "knots": knots}
    return warmup(made(SCHEDULES[s.name], vars(s) | steps), warm)


def build_averages(config: Config, steps_per_epoch: int) -> list[Average]:
    """Lookahead first, so that the moving average is of the weights that it has reset."""
    t = config.train
    averages: list[Average] = []
    if t.lookahead:
        averages.append(Lookahead(t.lookahead, total_steps(config, steps_per_epoch), t.lookahead_decay))
    if t.ema:
        averages.append(EMA(t.ema))
    return averages


def build_trainer(config: Config, train: Dataset, backend: Backend) -> Trainer:
    """The trainer of a resolved config, at step 0.

    Raises:
        UsageError: the images do not fill a batch, or are too small for the augmentation.
    """
    t, d, policy = config.train, config.data, POLICIES[config.train.amp]
    check_loader(train, t.batch_size, t.drop_last, d.mean, d.std, d.augmentation)
    model = build_model(config)
    if backend.synchronous:  # a GPU has a memory of its own, and says itself when it is full
        check_memory(model, config.model.input_shape, min(t.batch_size, len(train)))
    steps_per_epoch = steps_in_epoch(config, train)
    trainer = Trainer(
        model,
        build_optimizer(config, steps_per_epoch),
        backend=backend,
        batch_size=t.batch_size,
        schedule=build_schedule(config, steps_per_epoch),
        policy=policy if policy.suits(backend) else FLOAT32,
        averages=build_averages(config, steps_per_epoch),
        augmentation=d.augmentation or None,
        seed=t.seed,
        options=made(
            TrainerOptions, {**vars(t), **vars(d), **vars(config.run), "loss_options": {"smoothing": t.smoothing}}
        ),
    )
    if t.init_digest:
        trainer.kept |= model.parameters().keys() - set(t.drawn)
    return trainer
