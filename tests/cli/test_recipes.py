"""Recipes and pretrained models by name, from any folder."""

import argparse
import re
from pathlib import Path

import pytest

from gpucnn.cli.main import build_parser, main
from gpucnn.cli.train import config_file as file_of
from gpucnn.cli.train import config_name, fitting, settings
from gpucnn.runs import catalogue
from gpucnn.runs.config import Config

RECIPES = sorted(path.stem for path in catalogue.RECIPES.glob("*.toml"))
DOCS = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text(encoding="utf-8")
UNITS = {"min": ("min", "minutes"), "s": ("s", "seconds", "|")}

Out = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def words(*given: str) -> argparse.Namespace:
    return build_parser(["train"]).parse_args(["train", *given])


def test_the_list_has_every_recipe_and_model_on_80_columns(capsys: Out) -> None:
    assert main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    first = [line.split()[0] for line in lines if line[:1].strip()]
    assert set(RECIPES) | {path.stem for path in catalogue.PRETRAINED.glob("*.h5")} <= set(first)
    (row,) = (line.split() for line in lines if line.startswith("mnist_lenet ") and "cores" in line)
    assert row == ["mnist_lenet", "mnist", "lenet5", "99.49", "%", "5", "1.3", "min", "2", "cores"]
    (row,) = (line.split() for line in lines if line.startswith("cifar10_resnet18"))
    assert row == ["cifar10_resnet18", "cifar10", "resnet18", "-", "-", "-", "-"]


@pytest.mark.parametrize("name", [name for name in RECIPES if name != "digits"])  # which is in README's quick start
def test_every_number_of_the_list_is_one_of_the_page(name: str) -> None:
    found = catalogue.results(name)
    assert len(re.findall("^# Reached", catalogue.recipe(name).read_text(), re.MULTILINE)) == len(found)
    for result in found:
        assert result.accuracy.removesuffix(" %") in DOCS
        number, unit = result.time.rstrip("*").split()
        near = rf"{re.escape(number)}\*{{0,2}} (?:{'|'.join(map(re.escape, UNITS[unit]))})"
        assert re.search(near, " ".join(DOCS.split())), result


def test_a_recipe_is_printed_as_it_is(capsys: Out) -> None:
    assert main(["recipes", "cifar10_vgg"]) == 0
    assert capsys.readouterr().out == catalogue.recipe("cifar10_vgg").read_text()
    assert main(["recipes", "cifar_vgg"]) == 2
    assert "unknown recipe 'cifar_vgg': did you mean 'cifar10_vgg'?" in capsys.readouterr().err


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_by_name_is_its_file(name: str) -> None:
    assert settings(words("--recipe", name)) == Config.from_file(catalogue.RECIPES / f"{name}.toml")
    assert settings(words("--recipe", name, "--epochs", "7")).train.epochs == 7


@pytest.mark.parametrize(
    ("given", "recipe"),
    [
        (["--dataset", "cifar10"], "cifar10_vgg"),
        (["--dataset", "mnist", "--epochs", "3"], "mnist_cnn"),
        (["--set", "data.dataset=mnist"], "mnist_cnn"),
        (["--dataset", "digits"], "digits"),
        (["--dataset", "cifar10", "--recipe", "cifar10_resnet20"], "cifar10_resnet20"),
        (["--dataset", "cifar10", "--recipe", "none"], ""),
        (["--dataset", "cifar10", "--model", "resnet20"], ""),
        (["--dataset", "cifar10", "--set", "model.name=resnet20"], ""),
        (["--dataset", "synthetic"], ""),
        ([], ""),
    ],
)
def test_a_data_set_alone_stands_for_the_recipe_that_fits(given: list[str], recipe: str) -> None:
    args = words(*given)
    config = settings(args)
    base = Config.from_file(catalogue.recipe(recipe)) if recipe else Config()
    assert (config.data.augmentation, config.optimizer, config.schedule) == (
        base.data.augmentation,
        base.optimizer,
        base.schedule,
    )
    assert config_name(config, file_of(args)) == (recipe or f"{config.data.dataset}_{config.model.name}")
    assert fitting(args) == ("" if "--recipe" in given else recipe)


def test_a_resumed_run_keeps_its_settings() -> None:
    before = Config().updated({"data": {"dataset": "cifar10"}, "model": {"name": "resnet20"}})
    assert settings(words("--dataset", "cifar10"), before) == before


def test_a_run_says_which_recipe_it_took(capsys: Out) -> None:
    quick = ["train", "--device", "reference", "--max-steps", "1", "--dataset", "digits"]
    assert main([*quick, "--output", "one"]) == 0
    assert "recipe digits fits digits; others: gpucnn recipes; without: --recipe none" in capsys.readouterr().out
    assert main([*quick, "--recipe", "none", "--output", "two"]) == 0
    assert "\nrecipe" not in capsys.readouterr().out
    assert main([*quick, "--recipe", "digits", "--config", "x.toml"]) == 2
    assert "--config x.toml and --recipe digits: give one of them" in capsys.readouterr().err


def test_a_pretrained_model_by_name_unless_a_file_has_it(capsys: Out, digit_file: Path) -> None:
    by_name = ["predict", str(digit_file), "--json", "--checkpoint"]
    assert main([*by_name, "mnist_lenet"]) == 0
    answer = capsys.readouterr().out
    assert main([*by_name, str(catalogue.pretrained("mnist_lenet"))]) == 0
    assert answer.partition('"device"')[2] == capsys.readouterr().out.partition('"device"')[2]
    assert main(["inspect", "mnist_lenet"]) == 0
    assert "142,536 bytes" in capsys.readouterr().out
    assert main(["export", "--checkpoint", "mnist_lenet", "--out", "mine.h5"]) == 0
    for command in (["inspect", "mnist_lent"], ["explain", "--checkpoint", "mnist_lent"]):
        assert main(command) == 4
        assert "no pretrained model of this name: did you mean 'mnist_lenet'?" in capsys.readouterr().err
    Path("mnist_lenet").write_bytes(Path("mine.h5").read_bytes())
    assert main(["inspect", "mnist_lenet"]) == 0
    assert "142,536 bytes" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "flag", "setting"),
    [("find-lr", "--sched", "schedule.name=cosine"), ("augmentations", "--epochs", "train.epochs=3")],
)
def test_commands_refuse_settings_that_they_do_not_use(command: str, flag: str, setting: str, capsys: Out) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, flag, "3"])
    assert stop.value.code == 2
    assert f"unknown flag {flag}" in capsys.readouterr().err
    assert main([command, "--set", setting]) == 2
    assert f"--set {setting} has no effect: gpucnn {command} does not use it" in capsys.readouterr().err
