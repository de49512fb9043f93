"""The outermost layer: whatever a user types ends in one line and an exit code."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gpucnn.cli.main import main
from gpucnn.runs.config import stated_settings

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


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "--modle", "x"], "unknown flag --modle: did you mean --model?"),
        (["train", "--learning-rate=1"], "unknown flag --learning-rate: did you mean --lr?"),
        (["train", "--optimizer", "adam"], "unknown flag --optimizer: did you mean --opt?"),
        (["train", "--scheduler", "cosine"], "unknown flag --scheduler: did you mean --sched?"),
        (["train", "--epoch", "3"], "unknown flag --epoch: did you mean --epochs?"),
        (["train", "--wibble"], "unknown flag --wibble: see gpucnn train --help"),
        (["evaluate", "--checkpont", "x"], "unknown flag --checkpont: did you mean --checkpoint?"),
        (["data", "list", "--data-dri", "x"], "unknown flag --data-dri: did you mean --data-dir?"),
        (["train", "--epochs", "many"], "argument --epochs: invalid int value: 'many'"),
        (["train", "extra"], "unrecognized arguments: extra"),
        (["trian"], "unknown command 'trian': did you mean 'train'?"),
    ],
)
def test_words_that_are_not_known_are_one_line_and_2(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    assert message in only_error(capsys)


def test_help_fits_80_columns_and_shows_the_defaults_of_the_settings(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as stop:
        main(["train", "--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    words = " ".join(shown.split())
    for _, field, *_ in stated_settings():
        for flag in field.flags:
            assert f"{flag} " in words
            assert "".join(field.help.split()) in "".join(words.split())  # lines also break at hyphens
    for text in ("learning rate (default: 0.05)", "(off, fp16, tf32; default: off)", "images per step (default: 64)"):
        assert text in words


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
