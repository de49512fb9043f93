"""Settings: precedence, checks, and the way to TOML and back."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpucnn.data import Augmentation
from gpucnn.errors import UsageError
from gpucnn.optim.optimizer import GroupRule
from gpucnn.runs.config import Config, OptimizerConfig, stated_settings

CONFIGS = sorted((Path(__file__).resolve().parents[2] / "configs").glob("*.toml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configs_load_and_survive_the_round_trip(path: Path) -> None:
    config = Config.from_file(path)
    assert Config.from_toml(config.to_toml()) == config


def test_defaults_are_the_digits_recipe() -> None:
    (digits,) = (path for path in CONFIGS if path.stem == "digits")
    assert Config.from_file(digits) == Config()


@given(
    classes=st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8), max_size=3),
    lr=st.floats(0, 1e3),
    mean=st.lists(st.floats(0, 1), max_size=3),
    epochs=st.integers(1, 10**6),
)
def test_any_values_survive_the_round_trip(classes: list[str], lr: float, mean: list[float], epochs: int) -> None:
    config = Config().updated(
        {
            "data": {"classes": classes, "mean": mean},
            "optimizer": {"lr": lr},
            "train": {"epochs": epochs},
            "model": {"options": {"dropout": 0.25}},
        }
    )
    assert Config.from_toml(config.to_toml()) == config


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("optimizer.learning_rte=1", "unknown config key optimizer.learning_rte"),
        ("optimizer.momentun=1", "did you mean optimizer.momentum?"),
        ("optimizer.learning_rate=1", "unknown config key optimizer.learning_rate: did you mean optimizer.lr?"),
        ("optimizer.wd=1", "did you mean optimizer.weight_decay?"),
        ("train.lr=1", "unknown config key train.lr: did you mean optimizer.lr?"),
        ("scheduler.name=cosine", "unknown config section scheduler: did you mean schedule?"),
        ("data.flp=true", "did you mean data.augmentation.flip?"),
        ("model.name=lenet", "model.name = 'lenet': did you mean 'lenet5'?"),
        ("optimizer.groups.norm.steps=-1", "optimizer.groups.norm.steps = -1: give a number >= 0"),
        ("data.augmentation=3", "config key data.augmentation = 3: expected a table"),
        ("optimiser.lr=1", "did you mean optimizer?"),
        ("train.epochs=-1", "train.epochs = -1: give a number >= 1"),
        ("train.epochs=1.5", "train.epochs = 1.5: expected an integer"),
        ("train.epochs=true", "train.epochs = True: expected an integer"),
        ("optimizer.lr=fast", "optimizer.lr = 'fast': expected a number"),
        ("optimizer.lr=nan", "optimizer.lr = nan"),
        ("optimizer.name=sgdm", "did you mean 'sgd'?"),
        ("schedule.milestones=3", "schedule.milestones = 3: expected a list"),
        ("data.flip=1", "data.augmentation.flip = 1: expected true or false"),
        ("data.flip_mode=alternate", "did you mean 'alternating'?"),
        ("data.mixup=-1", "data.augmentation.mixup = -1.0: give a number >= 0 and <= 1000000"),
        ("data.mixup_prob=1.1", "data.augmentation.mixup_prob = 1.1: give a number >= 0 and <= 1"),
        ("data.rotation=200", "data.augmentation.rotation = 200.0: give a number >= 0 and <= 180"),
        ("data.scale=nan", "data.augmentation.scale = nan: give a number >= 0 and <= 0.9"),
        ("data.crop_mode=zeros", "data.augmentation.crop_mode = 'zeros': did you mean 'zero'?"),
        ("data.cutout=-1", "data.augmentation.cutout = -1: give a number >= 0"),
        ("optimizer.momentum=1", "optimizer.momentum = 1.0"),
        ("optimizer.beta1=1", "optimizer.beta1 = 1.0: give a number >= 0 and < 1"),
        ("optimizer.beta2=nan", "optimizer.beta2 = nan: give a number >= 0"),
        ("optimizer.eps=0", "optimizer.eps = 0.0: give a number > 0"),
        ("optimizer.eps=-1e-8", "optimizer.eps = -1e-08: give a number > 0"),
        (
            "train.seed=9223372036854775808",
            "train.seed = 9223372036854775808: give a number >= 0 and <= 9223372036854775807",
        ),
        ("schedule.gamma=nan", "schedule.gamma = nan: give a number >= 0"),
        ("schedule.start=inf", "schedule.start = inf: give a number >= 0"),
        ("schedule.final=-0.1", "schedule.final = -0.1: give a number >= 0"),
        ("schedule.peak=1.5", "schedule.peak = 1.5: give a number >= 0 and <= 1"),
        ("schedule.warmup_epochs=1e308", "schedule.warmup_epochs = 1e+308: give a number >= 0 and <= 1000000000"),
        ("schedule.milestones=[8, nan]", "schedule.milestones = nan: give a number >= 0 and <= 1000000000"),
        ("schedule.milestones=[inf]", "schedule.milestones = inf: give a number >= 0"),
        ("schedule.milestones=[-1]", "schedule.milestones = -1.0: give a number >= 0"),
        (
            "optimizer.groups.norm.epochs=1e308",
            "optimizer.groups.norm.epochs = 1e+308: give a number >= 0 and <= 1000000000",
        ),
        ("train.smoothing=1.0", "train.smoothing = 1.0"),
        ("train.reduction=total", "train.reduction = 'total': known are mean, sum"),
        ("optimizer.groups.nrom.lr=2", "optimizer.groups.nrom is unknown: did you mean 'norm'?"),
        ("optimizer.groups.frozen.lr=2", "optimizer.groups.frozen is unknown: known are bias, filter"),
        (
            "optimizer.groups.norm.lrr=2",
            "unknown config key optimizer.groups.norm.lrr: did you mean optimizer.groups.norm.lr?",
        ),
        ("optimizer.groups.norm.lr=-2", "optimizer.groups.norm.lr = -2.0: give a number >= 0"),
        ("optimizer.groups.norm.weight_decay=some", "optimizer.groups.norm.weight_decay = 'some': expected a number"),
        ("optimizer.groups.norm.momentum=1", "optimizer.groups.norm.momentum = 1.0: give a number >= 0 and < 1"),
        ("train.ema=1", "train.ema = 1.0: give a number >= 0 and < 1"),
        ("train.lookahead=-5", "train.lookahead = -5: give a number >= 0"),
        ("train.lookahead_decay=1", "train.lookahead_decay = 1.0: give a number >= 0 and < 1"),
        ("schedule.knots=[[0, 1], [2]]", "schedule.knots: [2.0] is not [epoch, fraction of lr]"),
        ("schedule.knots=[[0, 1], [2, -1]]", "schedule.knots = -1.0: give a number >= 0"),
        ("schedule.knots=[[0, 1], [0, 2]]", "schedule.knots are at the epochs [0.0, 0.0]: give each once, in order"),
        ("schedule.knots=[1, 2]", "schedule.knots = 1: expected a list"),
        ("optimizer.groups.norm=3", "optimizer.groups.norm = 3: expected a table"),
        ("optimizer.groups=3", "optimizer.groups = 3: expected a table"),
        ("train.epochs.many=3", "train.epochs = {'many': 3}: expected an integer"),
        ("lr=1", "write section.key=value"),
        ("optimizer.lr", "write section.key=value"),
    ],
)
def test_bad_settings_name_the_value_and_the_remedy(assignment: str, message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)) as caught:
        Config().with_setting(assignment)
    assert "\n" not in str(caught.value)


def test_later_settings_win_and_leave_the_rest_alone() -> None:
    config = Config.from_toml("[optimizer]\nlr = 1\nmomentum = 0.5\n").with_setting("optimizer.lr=2")
    assert (config.optimizer.lr, config.optimizer.momentum) == (2.0, 0.5)
    assert config.train == Config().train


def test_rules_for_groups_are_merged_key_by_key_and_survive_the_round_trip() -> None:
    text = "[optimizer.groups.norm]\nlr = 64\nweight_decay = 0\n[optimizer.groups.whiten]\nepochs = 3\nfade = true\n"
    config = Config.from_toml(text).with_setting("optimizer.groups.norm.momentum=0.5")
    groups = config.optimizer.groups
    assert (groups["norm"].lr, groups["norm"].weight_decay, groups["norm"].momentum) == (64.0, 0.0, 0.5)
    assert (groups["whiten"].epochs, groups["whiten"].fade, groups["whiten"].weight_decay) == (3.0, True, None)
    assert Config.from_toml(config.to_toml()) == config
    knots = config.with_setting("schedule.knots=[[0, 0.2], [2.5, 1]]")
    assert knots.schedule.knots == ((0.0, 0.2), (2.5, 1.0))
    assert Config.from_toml(knots.to_toml()) == knots


def test_bad_files_are_usage_errors(tmp_path: Path) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text("[train\n")
    with pytest.raises(UsageError, match="not valid TOML"):
        Config.from_file(bad)
    for deep in (f"a = {'[' * 9999}", f"a = {'9' * 9999}"):
        with pytest.raises(UsageError, match="not valid TOML"):
            Config.from_toml(deep)
    with pytest.raises(UsageError, match="cannot read the config"):
        Config.from_file(tmp_path / "missing.toml")
    with pytest.raises(UsageError, match="config key train = 3: expected a table"):
        Config.from_toml("train = 3\n")


def test_settings_of_the_data_reach_the_augmentation() -> None:
    assert Config().data.augmentation == Augmentation()
    config = Config().updated(
        {"data": {"augmentation": {"flip": True, "flip_mode": "alternating", "crop": 3, "cutout": 5}}}
    )
    assert config.data.augmentation == Augmentation(flip=True, flip_mode="alternating", crop=3, cutout=5)


FLAT = """[data]
dataset = "cifar10"
flip = true
crop = 4
crop_mode = "reflect"
[data.augmentation]
crop = 2
cutout = 8
"""


def test_the_settings_of_augmentation_may_stand_flat_in_data_as_they_once_did() -> None:
    """What stands where it belongs wins; the config is written in today's form."""
    config = Config.from_toml(FLAT).with_setting("data.flip_mode=alternating")
    changed = Augmentation(flip=True, crop=2, crop_mode="reflect", cutout=8, flip_mode="alternating")
    assert config.data.augmentation == changed
    written = config.to_toml()
    assert "[data.augmentation]\nflip = true\ncrop = 2\n" in written
    assert Config.from_toml(written) == config


def test_a_setting_without_effect_alone_is_kept_for_the_next_one() -> None:
    config = Config().with_setting("data.augmentation.crop_mode=reflect").with_setting("data.augmentation.crop=2")
    assert config.data.augmentation == Augmentation(crop=2, crop_mode="reflect")


@pytest.mark.parametrize("moved", [{"augmentation": 3, "flip": True}, {"augmentation": 3}, 3])
def test_what_is_no_table_is_named(moved: object) -> None:
    with pytest.raises(UsageError, match=r"config key data(\.augmentation)? = 3: expected a table"):
        Config().updated({"data": moved})


def test_sections_check_what_they_are_made_of() -> None:
    with pytest.raises(UsageError, match=r"lr = -1\.0: give a number >= 0"):
        OptimizerConfig(lr=-1.0)
    with pytest.raises(UsageError, match=r"groups\.nrom is unknown: did you mean 'norm'"):
        OptimizerConfig(groups={"nrom": GroupRule()})


def test_flat_names_every_setting_as_a_user_writes_it() -> None:
    flat = Config.from_toml("[optimizer.groups.norm]\nlr = 64\n").flat()
    assert flat["optimizer.groups.norm.lr"] == 64.0
    assert flat["data.augmentation.flip"] is False
    for name, _, kind, _ in stated_settings():
        assert name in flat or kind == dict[str, GroupRule] or name == "model.options"


def test_a_config_from_before_a_setting_was_there_means_what_it_meant() -> None:
    old = Config.from_toml('[data]\nflip = true\ncrop = 4\ncrop_mode = "reflect"\n')
    assert old.data.augmentation == Augmentation(flip=True, crop=4, crop_mode="reflect", flip_mode="random")
