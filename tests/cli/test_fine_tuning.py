"""``gpucnn train --init``, ``--freeze`` and ``--head-lr``."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kill_runs import unequal
from PIL import Image

from gpucnn.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from gpucnn.cli.main import main
from gpucnn.data import load_dataset
from gpucnn.errors import UsageError
from gpucnn.runs.build import build_model, build_optimizer
from gpucnn.runs.config import Config
from gpucnn.runs.fine_tuning import read_source, resolve_start
from gpucnn.runs.state import expected_tensors

HEAD = ("classifier.3.weight", "classifier.3.bias")
TUNE = ["--device", "reference", "--freeze", "features.*", "--head-lr", "0.1", "--ema", "0.9", "--sched", "constant"]


@pytest.fixture(scope="module")
def five(trained: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``trained`` with a head of five classes, other statistics and a moving average."""
    found, path = load_checkpoint(trained.path), tmp_path_factory.mktemp("five") / "five.h5"
    config = Config.from_toml(found.config).updated(
        {"data": {"mean": [0.25], "classes": list("abcde")}, "model": {"num_classes": 5}, "train": {"ema": 0.9}}
    )
    parameters = {name: value[:5] if name in HEAD else value for name, value in found.parameters.items()}
    changed = {
        "parameters": parameters,
        "optimizer": {"velocity": {name: np.zeros_like(value) for name, value in parameters.items()}},
        "averages": {"ema": {name: value / 2 for name, value in (parameters | dict(found.buffers)).items()}},
        "config": config.to_toml(),
    }
    save_checkpoint(path, Checkpoint(**{**vars(found), **changed}))
    return path


def train(*words: object) -> int:
    return main(["train", *map(str, words)])


def test_a_run_takes_what_fits_says_so_and_goes_on_without_the_file(
    five: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "source.h5"
    source.write_bytes(five.read_bytes())
    assert train("--init", source, *TUNE, "--epochs", 2, "--output", tmp_path / "whole") == 0
    said = capsys.readouterr().out
    assert f"init   {source}: 17 of 19 tensors taken" in said
    assert "mean and std are the file's" in said
    assert "new, its shape differs: classifier.3.weight (10 x 128 here, 5 x 128 there), classifier.3.bias" in said
    assert "frozen features.*: 9 of 13 parameters" in said
    assert "head   learning rate 0.1 for classifier.3.weight, classifier.3.bias" in said
    whole, given = load_checkpoint(tmp_path / "whole" / "last.h5", expected_tensors), load_checkpoint(five)
    config = Config.from_toml(whole.config)
    assert (config.data.mean, config.train.drawn) == ((0.25,), HEAD)
    for name, value in {**whole.parameters, **whole.buffers}.items():
        kept = name.startswith("features")
        if name not in HEAD:
            assert np.array_equal(value, given.averages["ema"][name]) == kept  # the averaged weights
        assert (name in whole.averages["ema"]) != (kept and name in whole.parameters)

    words = ["--init", source, *TUNE, "--output", tmp_path / "part", "--resume", "auto"]
    assert train(*words, "--epochs", 2, "--max-steps", 1) == 0
    source.unlink()
    assert train(*words, "--epochs", 1, "--max-steps", 0) == 0  # the same words start a run and restart it
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f'[train]\ninit = "{source}"\n')
    assert train("--config", recipe, *words[2:], "--epochs", 2, "--max-steps", 0) == 0
    resumed = load_checkpoint(tmp_path / "part" / "last.h5")
    assert set(unequal(resumed, whole)) <= {"config"}  # max_steps was other
    assert main(["evaluate", "--checkpoint", str(tmp_path / "part" / "last.h5"), "--device", "reference"]) == 0


def test_the_files_model_is_used_and_images_are_fitted_to_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lenet = Path(__file__).resolve().parents[1] / "checkpoint" / "fixtures" / "mnist_cnn_half.h5"
    source = read_source(str(lenet))
    height, width, channels = source.config.model.input_shape
    words = ["--dataset", "digits", "--set", f"data.size=[{height + 4},{width}]", "--set", f"data.channels={channels}"]
    run = tmp_path / "run"
    assert (
        train("--init", lenet, *words, "--freeze", "features.*", "--epochs", 1, "--max-steps", 1, "--output", run) == 0
    )
    config = Config.from_file(run / "config.toml")
    assert config.model.name == source.config.model.name
    assert config.model.input_shape == (height + 4, width, channels)
    picture = tmp_path / "digit.png"
    Image.fromarray(load_dataset("digits")[1].images[0, :, :, 0]).save(picture)
    for command in (
        ["evaluate"],
        ["predict", str(picture)],
    ):
        assert main([*command, "--checkpoint", str(run / "last.h5"), "--device", "cpu"]) == 0, capsys.readouterr().err


def test_what_cannot_be_tuned_is_said_in_a_line(five: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, reason in (
        (
            ["--init", five, "--model", "mlp"],
            "nothing in it fits: its mnist_cnn begins with features.0.weight (32 x 3 x 3",
        ),
        (["--init", five.parent / "fiv.h5"], "there is no such file; did you mean"),
        (["--freeze", "feature.*"], "freeze 'feature.*' matches no parameter: did you mean 'features.*'?"),
        (["--freeze", "*"], "nothing is left to train"),
        (["--lr", 0, "--head-lr", 1], "train.head_lr without a learning rate"),
        (["--set", "train.init_statistics=data"], "has no effect: add train.init"),
    ):
        assert train(*words) == 2
        assert reason in capsys.readouterr().err


def test_the_rate_of_the_head_is_a_rate_beside_lr(trained: Any) -> None:
    base = Config().updated({"train": {"head_lr": 0.2}, "optimizer": {"lr": 0.05, "groups": {"weight": {"lr": 0.5}}}})
    config = resolve_start(base, trained.train, None)
    groups = {name: parameter.group for name, parameter in build_model(config).parameters().items()}
    assert [groups[name] for name in HEAD] == ["head", "head_bias"]
    assert groups["classifier.0.weight"] == "weight"
    rates = build_optimizer(config, 10).rates(0.05, 0)
    assert (rates["head"], rates["head_bias"], rates["filter"]) == pytest.approx((0.1, 0.2, 0.05))
    drawn = config.updated({"train": {"drawn": ["classifier.0.weight", "features.1.scale"]}})
    groups = {name: parameter.group for name, parameter in build_model(drawn).parameters().items()}
    assert [name for name in groups if groups[name].startswith("head")] == ["features.1.scale", "classifier.0.weight"]


def test_statistics_are_the_files_or_the_new_images(five: Path, trained: Any) -> None:
    source = read_source(str(five))
    for which, mean in (("file", (0.25,)), ("data", trained.train.mean)):
        config = Config().updated({"train": {"init": str(five), "init_statistics": which}})
        assert resolve_start(config, trained.train, source).data.mean == mean
    with pytest.raises(UsageError, match="no such file"):
        read_source(str(five.parent))  # a folder without best.h5
