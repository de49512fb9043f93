"""From settings to objects: epochs become steps, and every setting of a group arrives."""

import pytest

from gpucnn.config import Config
from gpucnn.optim import GroupRule
from gpucnn.recipe import build_optimizer, build_schedule, total_steps

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
