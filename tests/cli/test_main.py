"""The outermost layer: whatever a user types ends in one line and an exit code."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gpucnn.cli.main import main

LONG = "x" * 300  # longer than a file's name can be


def only_error(capsys: pytest.CaptureFixture[str]) -> str:
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("gpucnn: error: ")
    return line


@pytest.mark.parametrize(
    "words",
    [
        ["inspect", LONG],
        ["train", "--resume", LONG],
        ["data", "verify", "mnist", "--data-dir", LONG],
        ["export", "--checkpoint", "last.h5", "--out", f"{LONG}.h5"],
    ],
    ids=lambda words: words[0],
)
def test_what_the_system_refuses_is_one_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 1
    assert "File name too long: check name, rights and free space" in only_error(capsys)


def test_a_disk_too_full_for_the_output_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys, "stdout", Full())
    assert main(["data", "list"]) == 1
    assert "No space left on device" in only_error(capsys)


@pytest.mark.parametrize(("full", "said"), [(True, "No space left on device"), (False, "")], ids=["disk", "pipe"])
def test_output_that_cannot_be_written_ends_in_1(full: bool, said: str) -> None:
    if full:
        target = os.open("/dev/full", os.O_WRONLY)
    else:
        reader, target = os.pipe()
        os.close(reader)
    words = [sys.executable, "-m", "gpucnn.cli.main", "data", "list"]
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    child = subprocess.run(words, stdout=target, stderr=subprocess.PIPE, text=True, env=buffered)
    os.close(target)
    assert child.returncode == 1
    assert len(child.stderr.splitlines()) == bool(said)
    assert said in child.stderr


def test_a_home_that_is_not_known_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "list", "--data-dir", "~no-such-user/data"]) == 2
    assert "data folder ~no-such-user/data: no home of that user is known" in only_error(capsys)


@pytest.mark.parametrize("command", ["evaluate", "parity", "benchmark"])
def test_threads_below_0_are_refused_by_every_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    more = ["--checkpoint", "last.h5"] if command == "evaluate" else []
    assert main([command, "--threads", "-1", *more]) == 2
    assert "--threads -1: give at least 1, or 0" in only_error(capsys)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "mlp", "--input-shape", "28"], "--input-shape '28': give height, width and channels"),
        (["--model", "mlp", "--input-shape", "0x8x1"], "--input-shape '0x8x1': give height, width and channels"),
        (["--model", "mlq"], "unknown model 'mlq': did you mean 'mlp'?"),
        (["--batch-size", "0"], "--batch-size 0"),
        (["--rounds", "0"], "--rounds 0"),
    ],
)
def test_a_race_that_cannot_be_run_is_refused(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["benchmark", *words]) == 2
    assert message in only_error(capsys)


def test_a_name_that_the_terminal_cannot_write_is_written_in_escapes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii", write_through=True))
    assert main(["data", "list", "--data-dir", str(tmp_path / os.fsdecode("n\u00fcn-\u00e9".encode() + b"\xff"))]) == 0
    assert b"n\\xfcn-\\xe9\\udcff" in written.getvalue()
