"""Settings: precedence, checks, and the way to TOML and back."""

import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpucnn.data import Augmentation
from gpucnn.errors import UsageError
from gpucnn.optim.optimizer import GroupRule
from gpucnn.runs.config import Config, OptimizerConfig, stated_settings
from gpucnn.settings import Setting

CONFIGS = sorted((Path(__file__).resolve().parents[2] / "gpucnn" / "recipes").glob("*.toml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configs_load_and_survive_the_round_trip(path: Path) -> None:
    config = Config.from_file(path)
    assert Config.from_toml(config.to_toml()) == config


def test_defaults_are_the_digits_recipe() -> None:
    (digits,) = (path for path in CONFIGS if path.stem == "digits")
    assert Config.from_file(digits) == Config()


TEXTS = st.text(st.one_of(st.characters(), st.sampled_from("\x7f\x1f\0\u2028\ud800\\\"'#$[]{}=\n\t")), max_size=8)
NUMBERS = st.one_of(
    st.floats(), st.integers(), st.sampled_from([0.0, -0.0, 5e-324, 1e-320, 1e22, 1e30, 2**63, 10**400])
)


@settings(deadline=None)
@given(
    classes=st.lists(TEXTS, max_size=3),
    lr=NUMBERS,
    mean=st.lists(st.floats(0, 1), max_size=3),
    epochs=st.integers(),
    options=st.dictionaries(st.one_of(st.just("dropout"), TEXTS), st.one_of(NUMBERS, TEXTS, st.booleans()), max_size=3),
)
def test_any_values_survive_the_round_trip_or_are_refused_where_they_are_set(
    classes: list[str], lr: float, mean: list[float], epochs: int, options: dict[str, object]
) -> None:
    """Refused is what TOML has no way to write, and what is out of bounds; never anything else."""
    plain = all(
        ord(c) > 0x1F and not 0x7F <= ord(c) <= 0x9F and not 0xD800 <= ord(c) < 0xE000 for c in "".join(classes)
    )
    wanted = {
        "data.classes": (classes, plain),
        "data.mean": (mean, True),
        "optimizer.lr": (lr, 0 <= lr <= 1e30),
        "train.epochs": (epochs, 1 <= epochs <= 10**9),
        "model.options": (options, None),
    }
    config = Config()
    for name, (value, legal) in wanted.items():
        try:
            config = config.with_value(name, value)
            assert legal is not False
        except UsageError:
            assert not legal
    assert Config.from_toml(config.to_toml()) == config


def numbers(kind: type = Config, table: str = "") -> Iterator[tuple[str, Setting | None]]:
    """(dotted name, what its field states) of all numbers and lists of them, those of rules for groups too."""
    types = get_type_hints(kind)
    for f in fields(kind):
        leaves = re.findall(r"[A-Za-z]+", str(types[f.name]))
        if is_dataclass(types[f.name]):
            yield from numbers(types[f.name], f"{f.name}.")
        elif "int" in leaves or "float" in leaves or types[f.name] in (int, float):
            yield table + f.name, f.metadata.get("setting")
    if kind is Config:
        yield from numbers(GroupRule, "groups.")


def test_every_number_is_bounded_on_both_sides() -> None:
    found = dict(numbers())
    assert {"epochs", "lr", "mean", "knots", "options"} <= {name.rpartition(".")[2] for name in found}
    for name, stated in found.items():
        assert stated is not None, name
        sides = {kind in ("at_least", "above") for kind in stated.bounds}
        assert sides == {True, False}, name


def test_long_texts_and_deep_keys_are_refused_before_they_are_parsed() -> None:
    chain = "a" + ".a" * 20_000
    for text in (
        f"{chain} = 1",
        f"[{chain}]",
        f"x = {{{chain} = 1}}",
        "#" * 2**17 + "#",
        f"x = ['''a'''', {{{chain} = 1}}]",
    ):
        with pytest.raises(UsageError, match=r"not valid TOML: (a dotted key|131,073 characters)"):
            Config.from_toml(text)
    names = [f"a.b.c.d.e.f.g.h.i.j.{n} # [x]" for n in range(256)]
    config = Config().with_value("data.classes", names)  # dots in texts are no keys
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
