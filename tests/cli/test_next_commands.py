"""The commands that ``gpucnn train`` prints work, as they are, on what it has just made."""

import shlex
import signal
from pathlib import Path

import numpy as np
import pytest
from data_samples import write_mnist
from PIL import Image

from gpucnn.cli import train as train_command
from gpucnn.cli.main import main

Out = pytest.CaptureFixture[str]
QUICK = ["train", "--device", "reference", "--model", "mlp"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with files whose names are no single words, and the picture that the commands name."""
    monkeypatch.delenv("GPUCNN_DATA_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    write_mnist(tmp_path / "-my data" / "mnist")
    Image.fromarray(np.zeros((28, 28), np.uint8)).save("IMAGE.png")


def commands(said: str) -> list[list[str]]:
    """The command lines in an output."""
    lines = [line.partition("gpucnn ")[2] for line in said.splitlines() if " gpucnn " in line]
    return [shlex.split(line) for line in lines if line.split()[0] in ("train", "evaluate", "predict")]


PLUGIN = """
from gpucnn import layers, models


@models.register
def mine(input_shape, num_classes):
    height, width, channels = input_shape
    return layers.Sequential(layers.Flatten(), layers.Linear(height * width * channels, num_classes))
"""


def own_pictures(folder: Path) -> None:
    """Five pictures in each of two classes."""
    for number, name in enumerate(("a cat", "it's a dog")):
        (folder / name).mkdir(parents=True)
        for i in range(5):
            Image.fromarray(np.full((8, 8), 100 * number + i, np.uint8)).save(folder / name / f"{i}.png")


@pytest.mark.parametrize(
    "data",
    [[], ["--data-dir=-my data", "--dataset", "mnist"], ["--dataset", "my pictures/", "--plugin", "my net.py"]],
    ids=["built in", "in a folder", "own pictures and net"],
)
def test_the_commands_at_the_end(data: list[str], capsys: Out) -> None:
    own_pictures(Path("my pictures"))
    Path("my net.py").write_text(PLUGIN)
    quick = [word if word != "mlp" or "--plugin" not in data else "mine" for word in QUICK]
    assert main([*quick, *data, "--epochs", "1", "--output", "it's mine"]) == 0
    found = commands(capsys.readouterr().out)
    assert [words[0] for words in found] == ["evaluate", "predict"]
    for words in found:
        assert main(words) == 0, words
    assert "--plugin" not in data or "a cat" in capsys.readouterr().out


def test_the_command_after_a_signal(capsys: Out, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*rest: object, **more: object) -> None:
        monkeypatch.undo()  # the handler of the run is there; the working folder has to stay
        signal.raise_signal(signal.SIGTERM)

    here = Path.cwd()
    monkeypatch.setattr(train_command.Display, "epoch", stop)
    words = [*QUICK, "--data-dir", f"{here}/-my data", "--dataset", "mnist", "--epochs", "3", "--output", f"{here}/run"]
    assert main(words) == 128 + signal.SIGTERM
    (again,) = commands(capsys.readouterr().out)
    assert again[0] == "train"
    assert main(again) == 0
    assert "done   test accuracy" in capsys.readouterr().out
