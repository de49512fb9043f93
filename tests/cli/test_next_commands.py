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


@pytest.mark.parametrize("data", [[], ["--data-dir=-my data", "--dataset", "mnist"]], ids=["built in", "in a folder"])
def test_the_commands_at_the_end(data: list[str], capsys: Out) -> None:
    assert main([*QUICK, *data, "--epochs", "1", "--output", "it's mine"]) == 0
    found = commands(capsys.readouterr().out)
    assert [words[0] for words in found] == ["evaluate", "predict"]
    for words in found:
        assert main(words) == 0, words


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
