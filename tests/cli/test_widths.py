"""On a real terminal of 80, 60 and 40 columns: no line is wider, and the accuracy is on it."""

import fcntl
import os
import pty
import re
import select
import struct
import sys
import termios
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gpucnn.data import load_dataset
from gpucnn.terminal import width

COMMANDS = """
import sys
from gpucnn.cli.main import main
def run(*words):
    print("$", words[0])
    assert main(words) == 0
run("train", "--device", "reference", "--epochs", "2", "--log-interval", "4", "--output", "my run")
run("train", "--device", "reference", "--epochs", "3", "--resume", "my run", "--verbose")
run("evaluate", "--device", "reference", "--checkpoint", "my run/last.h5")
run("predict", "--device", "reference", "--checkpoint", "my run/last.h5", "digit.png")
run("inspect", "my run")
run("benchmark", "--explain", "--model", "mlp", "--input-shape", "8x8x1", "--batch-size", "8", "--device", "reference")
run("data", "list")
run("doctor")
"""


def on_a_terminal(code: str, columns: int, folder: Path) -> str:
    """What a process writes to a terminal of so many columns."""
    path = str(Path(__file__).resolve().parents[2])
    process, terminal = pty.fork()
    if not process:
        os.chdir(folder)
        environment = {**os.environ, "PYTHONPATH": path, "LANG": "C.UTF-8"}
        os.execve(sys.executable, [sys.executable, "-c", code], environment)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    written = b""
    while select.select([terminal], [], [], 240)[0]:
        try:
            block = os.read(terminal, 65536)
        except OSError:  # its end, on Linux
            break
        written += block
    os.close(terminal)
    _, status = os.waitpid(process, 0)
    text = written.decode().replace("\r\n", "\n")
    assert status == 0, text
    return text


@pytest.fixture(scope="module", params=[80, 60, 40])
def shown(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, dict[str, str]]:
    """The columns, and what the commands show: command -> text."""
    folder = tmp_path_factory.mktemp(f"columns{request.param}")
    Image.fromarray(np.asarray(load_dataset("digits")[1].images[0, :, :, 0])).save(folder / "digit.png")
    parts = on_a_terminal(COMMANDS, request.param, folder).split("$ ")[1:]
    found: dict[str, str] = {}
    for part in parts:
        command, _, text = part.partition("\n")
        found[command] = found.get(command, "") + text
    return request.param, found


def test_no_line_is_wider_than_the_terminal(shown: tuple[int, dict[str, str]]) -> None:
    columns, texts = shown
    for command, text in texts.items():
        for line in re.split(r"[\r\n]", text):
            assert line.isprintable(), f"{command}: {line!r}"
            whole = max(map(width, line.split()), default=0) > columns - 6  # a long path is not broken
            assert width(line) <= columns or whole, f"{command} at {columns}: {line}"


def test_every_line_of_an_epoch_has_its_accuracy(shown: tuple[int, dict[str, str]]) -> None:
    columns, texts = shown
    lines = [line.split("\r")[-1] for line in texts["train"].split("\n")]
    epochs = [line for line in lines if re.match(r"epoch [123]/[23] ", line)]
    assert len(epochs) == 3
    assert all(re.search(r"acc \d\.\d{4}\*?( |$)", line) for line in epochs)
    assert len({line.index("acc") for line in epochs}) == 1  # numbers stand below each other
    bars = [part for part in texts["train"].split("\r") if re.match(r"epoch \d/\d .*loss", part) and "\n" not in part]
    assert bars
    assert all(re.search(r"accuracy \d\.\d{4}", bar) for bar in bars)
    if columns == 80:
        assert any("test loss" in line and " s" in line for line in epochs)


def test_numbers_are_there_at_every_width(shown: tuple[int, dict[str, str]]) -> None:
    _, texts = shown
    assert re.search(r"accuracy  \d\.\d{4}   \d+ of 360", texts["evaluate"])
    assert len(re.findall(r"^  \d +\d+\.\d\d %", texts["predict"], flags=re.MULTILINE)) == 3
    assert "ms a call" in texts["benchmark"]
    assert "test acc" in texts["inspect"]


def test_printed_commands_can_be_copied(shown: tuple[int, dict[str, str]]) -> None:
    _, texts = shown
    text = texts["train"].replace(" \\\n", " ")
    assert re.search(r"^next +gpucnn evaluate +--checkpoint +'my run/best.h5'$", text, flags=re.MULTILINE)


def test_only_what_differs_is_shown_unless_all_is_asked_for(shown: tuple[int, dict[str, str]]) -> None:
    _, texts = shown
    first, second = (" ".join(part.split()) for part in texts["train"].split("gpucnn 0.")[1:])
    assert "train.epochs=2, run.device=reference, run.log_interval=4" in first
    assert "momentum" not in first
    assert "momentum=0.9" in second
