"""From settings to objects: epochs become steps, and every setting of a group arrives."""

import re

import pytest

from gpucnn.backend import REFERENCE
from gpucnn.data import load_dataset
from gpucnn.errors import UsageError
from gpucnn.optim import OPTIMIZERS
from gpucnn.optim.muon import Muon
from gpucnn.optim.optimizer import GroupRule
from gpucnn.optim.schedules import SCHEDULES
from gpucnn.runs.build import build_averages, build_optimizer, build_schedule, build_trainer, resolve, total_steps
from gpucnn.runs.config import Config

GROUPS = """
[optimizer]
momentum = 0.85
decoupled = true
[optimizer.groups.norm]
lr = 64.0
weight_decay = 0.125
momentum = 0.5
[optimizer.groups.whiten]
epochs = 2.25
fade = true
"""


def test_groups_of_the_config_become_rules_of_the_optimizer() -> None:
    optimizer = build_optimizer(Config.from_toml(GROUPS), 10)
    assert optimizer.rules["norm"] == GroupRule(lr=64.0, weight_decay=0.125, momentum=0.5)
    assert optimizer.rules["whiten"] == GroupRule(steps=23, fade=True)  # no step less than was asked for
    assert optimizer.rules["filter"] == GroupRule()
    assert optimizer.decay("norm") == pytest.approx(0.125 / (0.05 * 64))
    assert optimizer.decay("filter") == pytest.approx(5e-4 / 0.05)


def test_a_group_may_be_given_in_steps() -> None:
    config = Config().with_setting("optimizer.groups.bias.steps=7")
    assert build_optimizer(config, 10).rules["bias"] == GroupRule(steps=7)


def test_muon() -> None:
    optimizer = build_optimizer(
        Config.from_toml(GROUPS).updated({"optimizer": {"name": "muon", "newton_schulz_steps": 4}}), 10
    )
    assert isinstance(optimizer, Muon)
    assert (optimizer.steps, optimizer.momenta["norm"], optimizer.momenta["filter"]) == (4, 0.5, 0.85)


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("[optimizer]\nname='adamw'\ndecoupled=true", "optimizer.decoupled is for sgd and muon, not adamw"),
        ("[optimizer.groups.bias]\nfade=true", "optimizer.groups.bias.fade needs steps or epochs"),
        ("[optimizer]\nname='adam'\n[optimizer.groups.bias]\nmomentum=0.5", "Adam has none"),
    ],
)
def test_settings_that_contradict_each_other_are_named(toml: str, message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        build_optimizer(Config.from_toml(toml), 10)


@pytest.mark.parametrize("lookahead", [0, 5])
def test_a_batch_larger_than_the_set_is_named_whatever_else_is_set(lookahead: int) -> None:
    train, _ = load_dataset("digits")
    settings = {"train": {"batch_size": 2000, "drop_last": True, "lookahead": lookahead}}
    with pytest.raises(UsageError, match="batch_size = 2000 with drop_last leaves no batch of the 1437 images"):
        build_trainer(resolve(Config().updated(settings), train), train, REFERENCE)


def test_schedules_of_the_config_are_in_epochs() -> None:
    knots = {"name": "piecewise", "knots": [[0, 0.5], [2, 1.0], [4, 0.0]]}
    rate = build_schedule(Config().updated({"schedule": knots, "optimizer": {"lr": 2.0}}), 10)
    assert [rate(step) for step in (0, 10, 20, 30, 40)] == pytest.approx([1.0, 1.5, 2.0, 1.0, 0.0])
    settings = {"name": "triangular", "peak": 0.25, "start": 0.2, "final": 0.1}
    rate = build_schedule(Config().updated({"schedule": settings, "train": {"epochs": 4, "max_steps": 30}}), 10)
    assert [rate(step) / 0.05 for step in (0, 7, 30)] == pytest.approx([0.2, 1.0, 0.1])
    with pytest.raises(UsageError, match=r"'piecewise' needs schedule\.knots"):
        build_schedule(Config().updated({"schedule": {"name": "piecewise"}}), 10)


def test_averages_of_the_config() -> None:
    assert build_averages(Config(), 10) == []
    settings = {"lookahead": 5, "lookahead_decay": 0.9, "ema": 0.99, "epochs": 3, "max_steps": 25}
    lookahead, ema = build_averages(Config().updated({"train": settings}), 10)
    assert (lookahead.every, lookahead.total, lookahead.decay) == (5, 25, 0.9)
    assert ema.decay == 0.99


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_can_be_built(name: str) -> None:
    assert type(build_optimizer(Config().updated({"optimizer": {"name": name}}), 10)) is OPTIMIZERS[name]


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_can_be_built(name: str) -> None:
    settings = {"name": name, "knots": [[0, 1], [3, 0]], "warmup_epochs": 1}
    rate = build_schedule(Config().updated({"schedule": settings}), 10)
    assert 0.0 < rate(0) < rate(9) <= 0.05


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_adam_has_rules_as_well(name: str) -> None:
    config = Config().updated({"optimizer": {"name": name, "groups": {"weight": {"lr": 0.5}}}})
    assert build_optimizer(config, 10).rules["weight"] == GroupRule(lr=0.5)


@pytest.mark.parametrize(("max_steps", "total"), [(0, 30), (24, 24), (40, 30)])
def test_the_schedule_ends_with_the_last_step(max_steps: int, total: int) -> None:
    config = Config().updated(
        {
            "train": {"epochs": 3, "max_steps": max_steps},
            "optimizer": {"lr": 2.0},
            "schedule": {"name": "one_cycle", "start": 0.25, "peak": 0.5, "final": 0.125},
        }
    )
    assert total_steps(config, 10) == total
    rate = build_schedule(config, 10)
    assert (rate(0), rate(total // 2), rate(total)) == (0.5, 2.0, 0.25)
