"""From settings to objects: the one place that knows which config value makes what."""

from dataclasses import replace
from math import ceil
from typing import Any

from gpucnn import models
from gpucnn.optim import schedules
from gpucnn.optim.averages import EMA, Average, Lookahead
from gpucnn.backend import Backend
from gpucnn.runs.config import Config, GroupConfig
from gpucnn.data import Dataset, split_validation
from gpucnn.data.loader import check as check_loader
from gpucnn.errors import DataError, UsageError
from gpucnn.layers import Layer
from gpucnn.optim.muon import Muon
from gpucnn.optim.optimizer import SGD, Adam, AdamW, GroupRule, Optimizer
from gpucnn.training.precision import FLOAT32, POLICIES, Policy
from gpucnn.optim.schedules import Schedule
from gpucnn.training.trainer import Trainer


def split(config: Config, train: Dataset, test: Dataset) -> tuple[Dataset, Dataset]:
    """What to train and to test on; with ``data.validation``, training images stand in for the test set."""
    if not config.data.validation:
        return train, test
    return split_validation(train, config.data.validation, config.train.seed)


def resolve(config: Config, train: Dataset) -> Config:
    """Fill in what the training set determines: statistics, class names, image shape, number of classes."""
    data = replace(config.data, mean=train.mean, std=train.std, classes=train.classes)
    model = replace(config.model, input_shape=train.image_shape, num_classes=train.num_classes)
    return replace(config, data=data, model=model)


def check_data(config: Config, dataset: Dataset) -> None:
    """Raises DataError where a data set is not of the kind that a resolved config was trained on."""
    wanted = (config.model.input_shape, config.model.num_classes)
    if (dataset.image_shape, dataset.num_classes) != wanted:
        raise DataError(
            f"{dataset.name} has images {dataset.image_shape} in {dataset.num_classes} classes, but the "
            f"model was trained on images {wanted[0]} in {wanted[1]}: name the matching set with --dataset"
        )


def build_model(config: Config) -> Layer:
    """The model of a resolved config, not initialised yet."""
    return models.build(config.model.name, config.model.input_shape, config.model.num_classes, **config.model.options)


def build_rule(group: str, table: GroupConfig, steps_per_epoch: int) -> GroupRule:
    """What ``optimizer.groups`` says of a group, in steps."""
    if table.fade and not table.epochs:
        name = f"optimizer.groups.{group}"
        raise UsageError(f"{name}.fade needs {name}.epochs: in how many epochs its rate falls to 0")
    steps = ceil(table.epochs * steps_per_epoch)
    return GroupRule(table.lr, table.weight_decay, table.momentum, steps, table.fade)


def build_optimizer(config: Config, steps_per_epoch: int) -> Optimizer:
    o = config.optimizer
    if o.decoupled and o.name in ("adam", "adamw"):
        raise UsageError(f"optimizer.decoupled is for sgd and muon, not {o.name}: adamw decouples its decay itself")
    rules = {group: build_rule(group, table, steps_per_epoch) for group, table in o.groups.items()}
    shared: dict[str, Any] = {"weight_decay": o.weight_decay, "groups": rules}
    if o.name in ("sgd", "muon"):
        shared |= {"momentum": o.momentum, "nesterov": o.nesterov, "decoupled": o.decoupled}
        return SGD(o.lr, **shared) if o.name == "sgd" else Muon(o.lr, **shared, steps=o.newton_schulz_steps)
    kind = {"adam": Adam, "adamw": AdamW}[o.name]
    return kind(o.lr, beta1=o.beta1, beta2=o.beta2, eps=o.eps, **shared)


def total_steps(config: Config, steps_per_epoch: int) -> int:
    """The steps of the whole run."""
    steps = config.train.epochs * steps_per_epoch
    return min(steps, config.train.max_steps or steps)


def build_schedule(config: Config, steps_per_epoch: int) -> Schedule:
    s, lr = config.schedule, config.optimizer.lr
    warm = round(s.warmup_epochs * steps_per_epoch)
    knots = [(epoch * steps_per_epoch - warm, share) for epoch, share in s.knots]
    if s.name == "piecewise" and not knots:
        raise UsageError("schedule.name = 'piecewise' needs schedule.knots, as [[0, 0.2], [2, 1], [10, 0]]")
    total = total_steps(config, steps_per_epoch) - warm
    made = {
        "constant": lambda: schedules.constant(lr),
        "step": lambda: schedules.step_decay(lr, [round(m * steps_per_epoch) - warm for m in s.milestones], s.gamma),
        "cosine": lambda: schedules.cosine(lr, total, s.final),
        "one_cycle": lambda: schedules.one_cycle(lr, total, s.peak, s.start, s.final),
        "triangular": lambda: schedules.triangular(lr, total, s.peak, s.start, s.final),
        "piecewise": lambda: schedules.piecewise_linear(lr, knots),
    }[s.name]()
    return schedules.warmup(made, warm)


def build_averages(config: Config, steps_per_epoch: int) -> list[Average]:
    """Lookahead first, so that the moving average is of weights that have returned."""
    t = config.train
    made: list[Average] = []
    if t.lookahead:
        made.append(Lookahead(t.lookahead, total_steps(config, steps_per_epoch), t.lookahead_decay))
    if t.ema:
        made.append(EMA(t.ema))
    return made


def build_policy(config: Config, backend: Backend) -> Policy:
    """Float32 as well where another precision is asked for and the backend has no use for it."""
    policy = POLICIES[config.train.amp]
    return policy if policy.suits(backend) else FLOAT32


def build_trainer(config: Config, train: Dataset, backend: Backend) -> Trainer:
    """The trainer of a resolved config, at step 0; raises UsageError where no epoch can be made of the images."""
    t, d = config.train, config.data
    check_loader(train, t.batch_size, t.drop_last, d.mean, d.std, d.augmentation())
    count = len(train.labels) / t.batch_size
    steps_per_epoch = int(count) if t.drop_last else ceil(count)
    return Trainer(
        build_model(config),
        build_optimizer(config, steps_per_epoch),
        backend=backend,
        batch_size=t.batch_size,
        schedule=build_schedule(config, steps_per_epoch),
        loss_options={"smoothing": t.smoothing},
        reduction=t.reduction,
        clip_grad=t.clip_grad,
        policy=build_policy(config, backend),
        averages=build_averages(config, steps_per_epoch),
        augmentation=d.augmentation() or None,
        drop_last=t.drop_last,
        patience=t.patience,
        max_steps=t.max_steps,
        mean=d.mean,
        std=d.std,
        seed=t.seed,
        log_interval=config.run.log_interval,
        cuda_graph=config.run.cuda_graph,
    )
