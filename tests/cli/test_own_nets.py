"""Nets of one's own: the page about them does what it says, and files with layers are asked for and never taken."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from readme import README, blocks

from gpucnn.cli.main import main
from gpucnn.errors import UsageError
from gpucnn.models import MODELS, ORIGINS
from gpucnn.models.spec import LAYERS
from gpucnn.runs.build import build_model
from gpucnn.runs.config import Config
from gpucnn.runs.plugins import plugged

PAGE = README.parent / "docs" / "own_nets.md"
PLUGIN = """
from gpucnn import layers, models

@models.register
class Twice(layers.Scale):
    def __init__(self) -> None:
        super().__init__(2.0)

@models.register
def twice(input_shape, num_classes):
    return layers.Sequential(Twice(), layers.Flatten(), layers.Linear(64, num_classes))
"""
BROKEN = {
    "x = [][3]": r"mine.py: line 1: IndexError: list index out of range",
    "def f(:": r"mine.py: line 1: SyntaxError: invalid syntax",
    "import sys\nsys.exit(0)": r"mine.py: line 2: SystemExit: 0",
    "x = 1": r"mine.py: it registers nothing",
    PLUGIN.replace("Twice", "Conv2D"): r"mine.py: register: Conv2D of mine.py has the name of another",
    PLUGIN.replace("twice", "lenet5"): r"mine.py: register: lenet5 of mine.py has the name of another",
    PLUGIN.replace("super().__init__(2.0)", "self.x = 1 / 0"): r"mine.py, line 7: ZeroDivisionError",
    PLUGIN.replace(
        "    return layers.Seq", "    return layers, layers.Seq"
    ): "a function that returns .*: return a Layer",
}
TRAIN = ["train", "--device", "reference", "--max-steps", "3", "--output", "run"]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(PLUGIN)


def error(words: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of a command that fails with this code."""
    capsys.readouterr()
    assert main(words) == code
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_the_page_does_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    Path("own.toml").write_text(blocks("toml", page=PAGE)[0])
    python, plugin = blocks("python", page=PAGE)
    Path("my_layers.py").write_text(plugin)
    exec(compile(python, str(PAGE), "exec"), {"__name__": "page"})
    for line in "".join(blocks("bash", page=PAGE)).splitlines():
        words = shlex.split(line)[1:]
        words += ["--device", "reference"] if words[0] in ("train", "evaluate") else []
        if words[0] == "evaluate":  # from the file alone, in a process that has not trained it
            command = [sys.executable, "-m", "gpucnn.cli.main", *words]
            done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=True)
            assert float(re.findall(r"accuracy +(\S+)", done.stdout)[0]) > 0.7
        else:
            assert main(words) == 0, line


def test_what_inspect_prints_is_a_config_of_an_equal_net(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "--architecture", "--model", "resnet20", "--input-shape", "8x8x1"]) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) < 130
    config = Config.from_toml(printed).updated({"model": {"input_shape": [8, 8, 1], "num_classes": 10}})
    wanted = MODELS["resnet20"]((8, 8, 1), 10)
    assert [*build_model(config).parameters()] == [*wanted.parameters()]
    Path("net.toml").write_text(printed)
    assert main([*TRAIN, "--config", "net.toml"]) == 0
    capsys.readouterr()
    assert main(["inspect", "run", "--architecture"]) == 0
    assert capsys.readouterr().out == printed
    assert main(["inspect", "run"]) == 0
    assert 'layers = [ {layer = "Sequential"' in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name a checkpoint"),
        (["x.h5", "--model", "mlp"], "name a checkpoint"),
        (["--model", "mlp"], "--model is for --architecture"),
        (["x.h5", "--architecture", "--input-shape", "8x8x1"], "--input-shape for --model"),
        (["--architecture", "--model", "custom"], "has no layers: add"),
    ],
)
def test_flags_of_inspect_that_contradict_each_other(words, message, capsys) -> None:
    assert message in error(["inspect", *words], 2, capsys)


def test_two_nets_at_once_are_a_contradiction(capsys: pytest.CaptureFixture[str]) -> None:
    layers = 'layers = [{layer = "Flatten"}, {layer = "Linear", out_features = "classes"}]'
    Path("own.toml").write_text(f"[model]\n{layers}\n")
    config = Config.from_file(Path("own.toml"))
    assert config.model.name == "custom"
    assert Config.from_toml(config.to_toml()) == config
    wanted = "model.name = 'mlp', but layers are a net of their own: leave one of the two out"
    assert wanted in error([*TRAIN, "--config", "own.toml", "--model", "mlp"], 2, capsys)
    with pytest.raises(UsageError, match="but layers are a net"):
        Config.from_toml(f'[model]\nname = "mlp"\n{layers}')
    assert "has no layers: add [[model.layers]]" in error([*TRAIN, "--model", "custom"], 2, capsys)
    options = ["--set", "model.options.width=3"]
    assert "has no options" in error([*TRAIN, "--config", "own.toml", *options], 2, capsys)
    assert main([*TRAIN, "--set", f"model.{layers.replace(' = [', '=[', 1)}"]) == 0


def test_a_file_with_layers_is_asked_for_and_a_changed_one_is_mentioned(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TRAIN, "--plugin", "mine.py", "--model", "twice"]) == 0
    assert "--plugin mine.py" in capsys.readouterr().out  # in the command that comes next
    (origin,) = re.findall(
        r'^plugins = \["(mine.py [0-9a-f]{16})"\]$', Path("run/config.toml").read_text(), re.MULTILINE
    )
    assert ORIGINS == {}
    assert LAYERS.get("Twice") is MODELS.get("twice") is None
    evaluate = ["evaluate", "--device", "reference", "--checkpoint", "run/last.h5"]
    assert "the net needs mine.py: add --plugin mine.py" in error(evaluate, 4, capsys)
    assert "the net needs mine.py: add --plugin mine.py" in error([*TRAIN, "--config", "run/config.toml"], 2, capsys)
    assert main(["inspect", "run"]) == 0  # which makes no net
    Path("mine.py").write_text(PLUGIN + "\n# changed\n")
    capsys.readouterr()
    assert main([*evaluate, "--plugin", "mine.py"]) == 0
    assert capsys.readouterr().err.splitlines() == [
        "gpucnn: mine.py has changed since the net was trained: run/last.h5 may not give what it gave"
    ]
    assert main(["train", "--resume", "run", "--plugin", "mine.py", "--max-steps", "5"]) == 0
    assert origin not in Path("run/config.toml").read_text()
    assert main(["parity", "--plugin", "mine.py", "--model", "twice", "--input-shape", "8x8x1", "--steps", "0"]) == 0


def test_only_files_that_a_net_uses_are_recorded() -> None:
    Path("other.py").write_text(PLUGIN.replace("Twice", "Thrice").replace("twice", "thrice"))
    spec = 'model.layers=[{layer="Flatten"},{layer="Thrice"},{layer="Linear",out_features="classes"}]'
    assert main([*TRAIN, "--plugin", "mine.py", "--plugin", "other.py", "--set", spec]) == 0
    assert re.findall(r"plugins = (.*)", Path("run/config.toml").read_text())[0].startswith('["other.py ')


@pytest.mark.parametrize("source", BROKEN)
def test_a_file_that_raises_is_one_line_with_the_place(source: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.py").write_text(source)
    assert re.search(BROKEN[source], error([*TRAIN, "--plugin", "mine.py", "--model", "twice"], 2, capsys))
    assert ORIGINS == {}


def test_files_that_cannot_be_read_or_come_twice(capsys: pytest.CaptureFixture[str]) -> None:
    Path("folder").mkdir()
    Path("folder/mine.py").write_text(PLUGIN)
    for path, message in (
        ("min.py", "did you mean mine.py"),
        ("folder", "folder"),
        ("/dev/zero", "not a regular file"),
    ):
        assert message in error([*TRAIN, "--plugin", path], 2, capsys)
    assert "give each a name of its own" in error(
        [*TRAIN, "--plugin", "mine.py", "--plugin", "folder/mine.py"], 2, capsys
    )


def test_a_layer_of_a_file_is_checked_by_its_example(capsys: pytest.CaptureFixture[str]) -> None:
    wrong = "def backward(self, dy):\n        return 3 * dy"
    source = PLUGIN.replace(
        "self) -> None:\n        super().__init__(2.0)",
        f"self, by: float) -> None:\n        super().__init__(by)\n    example = {{'by': 3.0}}\n    {wrong}",
    )
    Path("mine.py").write_text(source)
    with plugged([Path("mine.py")]):
        assert main(["gradcheck", "--layer", "twice"]) == 0
    Path("mine.py").write_text(source.replace("3 * dy", "3.1 * dy"))
    assert main(["gradcheck", "--layer", "twice", "--plugin", "mine.py"]) == 1
    assert re.search(r"Twice +x .*WRONG", capsys.readouterr().out)
