"""Texts from outside, whichever way they come: on the terminal they are printable, and they begin no line."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from gpucnn.checkpoint import load_checkpoint, save_checkpoint
from gpucnn.cli.main import main
from gpucnn.data import DATASETS
from gpucnn.data.files.sources import RemoteFile
from gpucnn.runs.state import expected_tensors

EVIL = "\x1b[2J\x1b]0;title\x07\nEVIL \x9b1A\x7f\u202e\u200b\u2028"
SHOWN = "\\x1b[2J\\x1b]0;title\\x07\\nEVIL \\x9b1A\\x7f\\u202e\\u200b\\u2028"

Out = pytest.CaptureFixture[str]


def check(capsys: Out, *wanted: str) -> str:
    """What was printed, all of it printable lines, none of which begins with what came from outside."""
    captured = capsys.readouterr()
    for text in (captured.out, captured.err):
        lines = text.split("\n")
        assert all(line.isprintable() for line in lines), text
        assert not any(line.startswith("EVIL") for line in lines), text
        assert max(map(len, lines)) <= 6000
    both = captured.out + captured.err
    for words in wanted:
        assert words in both
    return both


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["train", "--model", EVIL], 2),
        (["train", "--dataset", EVIL], 2),
        (["train", "--device", EVIL], 2),
        (["train", "--config", EVIL], 2),
        (["train", "--set", EVIL], 2),
        (["train", "--set", f"optimizer.{EVIL}=1"], 2),
        (["train", "--set", f'model.name="""{EVIL}"""'], 2),
        (["train", "--resume", EVIL], 4),
        (["train", "--data-dir", EVIL], 2),
        (["train", "--memory-limit", EVIL], 2),
        (["inspect", EVIL], 4),
        (["plot", EVIL], 2),
        (["gradcheck", "--layer", EVIL], 2),
        (["data", "verify", EVIL], 2),
        (["features", EVIL], 3),
        (["parity", "--model", EVIL], 2),
        (["benchmark", "--model", EVIL], 2),
        (["benchmark", "--input-shape", EVIL, "--model", "mlp"], 2),
        (["export", "--checkpoint", "x", "--out", EVIL], 2),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else "",
)
def test_words_of_the_command_line(words: list[str], code: int, capsys: Out) -> None:
    assert main(words) == code
    assert len(check(capsys, "EVIL").splitlines()) == 1


@pytest.mark.parametrize(
    "words", [[EVIL], ["train", f"--{EVIL}"], ["train", EVIL], ["data", EVIL], ["train", "--lr", EVIL]]
)
def test_what_argparse_refuses(words: list[str], capsys: Out) -> None:
    with pytest.raises(SystemExit):
        main(words)
    assert len(check(capsys, "EVIL").splitlines()) == 1


def test_a_text_of_a_million_letters_is_shortened(capsys: Out) -> None:
    assert main(["train", "--model", "x" * 1_000_000]) == 2
    assert len(check(capsys, "known are")) < 700


@pytest.mark.parametrize(
    "text",
    [
        f"[train]\n{json.dumps(EVIL)} = 1\n",
        f"{json.dumps(EVIL)} = 1\n",
        f"[model]\nname = {json.dumps(EVIL)}\n",
        f"[optimizer.groups.{json.dumps(EVIL)}]\nlr = 1.0\n",
        f"[model.options]\n{json.dumps(EVIL)} = 1\n",
        "[train]\n\x1b[2J = 1\n",
    ],
)
def test_keys_and_values_of_a_config(text: str, tmp_path: Path, capsys: Out) -> None:
    (tmp_path / "config.toml").write_text(text)
    assert main(["train", "--config", str(tmp_path / "config.toml"), "--output", str(tmp_path / "run")]) == 2
    assert len(check(capsys).splitlines()) == 1


def test_texts_in_a_checkpoint(trained, digit_file: Path, tmp_path: Path, capsys: Out) -> None:
    checkpoint = load_checkpoint(trained.path, expected_tensors)
    classes = json.dumps([f"{EVIL}{i}" for i in range(10)])
    config = checkpoint.config.replace('["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]', classes)
    assert config != checkpoint.config
    environment = json.dumps({"python": EVIL, "device_used": EVIL})
    save_checkpoint(tmp_path / "x.h5", replace(checkpoint, config=config, environment=environment, dataset_digest=EVIL))
    assert main(["inspect", str(tmp_path / "x.h5")]) == 0
    check(capsys, "EVIL")
    words = ["predict", "--device", "reference", "--checkpoint", str(tmp_path / "x.h5"), str(digit_file)]
    assert main(words) == 4  # no run has such names
    check(capsys, SHOWN[:20])


@pytest.mark.parametrize("name", [EVIL, os.fsdecode(b"caf\xe9")])
def test_names_of_files(name: str, trained, digit_file: Path, tmp_path: Path, capsys: Out) -> None:
    shown = "caf\\udce9" if name != EVIL else SHOWN
    image, folder = tmp_path / f"{name}.png", tmp_path / name
    Image.open(digit_file).save(image)
    words = ["predict", "--device", "reference", "--checkpoint", str(trained.path)]
    assert main([*words, str(image)]) == 0
    check(capsys, f"{shown}.png")
    image.write_bytes(b"no picture")
    assert main([*words, str(image)]) == 3
    check(capsys, f"{shown}.png")
    quick = ["train", "--device", "reference", "--model", "mlp", "--epochs", "1", "--max-steps", "2"]
    assert main([*quick, "--output", str(folder)]) == 0
    said = check(capsys, f"run    {tmp_path}/{shown}")
    (command,) = [line.removeprefix("next   gpucnn ") for line in said.splitlines() if line.startswith("next ")]
    words = subprocess.run(["bash", "-c", f"printf '%s\\0' {command}"], capture_output=True, check=True).stdout
    assert os.fsdecode(words).split("\0")[:3] == ["evaluate", "--checkpoint", str(folder / "best.h5")]
    for words in (["plot", str(folder), "--out", str(tmp_path / "x.svg")], ["inspect", str(folder)]):
        assert main(words) == 0
        check(capsys, shown)


def test_environment_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Out) -> None:
    monkeypatch.setenv("GPUCNN_DATA_DIR", str(tmp_path / EVIL))
    for words, code in ((["data", "list"], 0), (["doctor"], 0), (["train", "--dataset", "mnist", "--no-download"], 3)):
        assert main(words) == code
        check(capsys, "\\x1b[2J")


@pytest.fixture
def mirror() -> Iterator[str]:
    """The address of a server whose reason phrase is hostile."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.0 500 \x1b[2J\x07EVIL\x9b\x7f\r\nContent-Type: a/b\r\n\r\n")

    threading.Thread(target=serve, daemon=True).start()
    yield f"http://127.0.0.1:{server.getsockname()[1]}/file"
    server.shutdown(socket.SHUT_RDWR)
    server.close()


def test_the_answer_of_a_mirror(mirror: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Out) -> None:
    source = replace(DATASETS["mnist"], remote=(RemoteFile("mnist/file", 8, "0" * 64, (mirror,)),))
    monkeypatch.setitem(DATASETS, "mnist", source)
    monkeypatch.delenv("GPUCNN_DATA_DIR", raising=False)
    assert main(["data", "download", "mnist", "--data-dir", str(tmp_path)]) == 3
    check(capsys, "127.0.0.1", "\\x1b[2J\\x07EVIL")


def test_an_error_that_nobody_caught() -> None:
    code = """
import sys
from gpucnn.cli import doctor, main
def run(args):
    raise RuntimeError("a library says \\x1b[2J\\nEVIL")
doctor.run = run
main.command(["doctor"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert all(line.isprintable() and line.startswith("gpucnn: ") for line in done.stderr.splitlines())
    assert "RuntimeError: a library says \\x1b[2J" in done.stderr


def test_no_warning_comes_before_the_error_about_nan(tmp_path: Path) -> None:
    words = ["train", "--device", "reference", "--model", "mlp", "--lr", "1e30", "--output", str(tmp_path / "run")]
    done = subprocess.run(
        [sys.executable, "-W", "always", "-m", "gpucnn.cli.main", *words], capture_output=True, text=True
    )
    assert done.returncode == 5
    (line,) = done.stderr.splitlines()
    assert line.startswith("gpucnn: error: ")
