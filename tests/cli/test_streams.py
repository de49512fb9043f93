"""Standard input, output and error that are closed, full, slow or in another encoding."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from signal_storm import MODULE, WEIGHTS, environment

from gpucnn.checkpoint import load_checkpoint
from gpucnn.cli.streams import Output

FULL = "standard output: No space left on device"
INSPECT = [*MODULE, "inspect", str(WEIGHTS)]


def run(words: list[str], redirection: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", f'"$@" {redirection}', "bash", *words],
        capture_output=True,
        text=True,
        env={**environment(), "PYTHONUNBUFFERED": "", **variables},
        timeout=60,
    )


@pytest.mark.parametrize(
    ("redirection", "code", "printed", "said"),
    [
        (">&-", 0, False, ""),
        ("2>&-", 0, True, ""),
        ("<&-", 0, True, ""),
        ("<&- >&- 2>&-", 0, False, ""),
        ("2>/dev/full", 0, True, ""),
        (">/dev/full", 1, False, FULL),
        ("1</dev/null", 1, False, "standard output: Bad file descriptor"),
        (">/dev/full 2>/dev/full", 1, False, ""),
    ],
)
@pytest.mark.parametrize(
    ("words", "unbuffered"), [([*MODULE, "--version"], "1"), (INSPECT, "")], ids=["unbuffered", "buffered"]
)
def test_streams_that_cannot_be_used(
    words: list[str], unbuffered: str, redirection: str, code: int, printed: bool, said: str
) -> None:
    done = run(words, redirection, PYTHONUNBUFFERED=unbuffered)
    assert done.returncode == code
    assert bool(done.stdout) == printed
    assert done.stderr.count("\n") == bool(said)
    assert said in done.stderr


def test_what_is_printed_gets_into_no_file(tmp_path: Path) -> None:
    """Without a standard output the first file that is opened would get its number."""
    train = [*MODULE, "train", "--device", "reference", "--max-steps", "2", "--output", str(tmp_path / "run")]
    assert run(train, "<&- >&- 2>&-").returncode == 0
    assert load_checkpoint(tmp_path / "run" / "last.h5").history["epoch"]
    assert (tmp_path / "run" / "metrics.jsonl").read_text().count("\n") == 1


def test_errors_keep_their_code_where_nobody_reads_them() -> None:
    for redirection in ("2>&-", "2>/dev/full", ">&- 2>&-"):
        assert run([*MODULE, "inspect", "nowhere.h5"], redirection).returncode == 4


def test_help_for_a_reader_that_stops_reading() -> None:
    done = run([*MODULE, "train", "--help"], "| true; exit ${PIPESTATUS[0]}")
    assert (done.returncode, done.stderr) in ((1, ""), (0, ""))  # by who was first


@pytest.mark.parametrize("variables", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}])
def test_names_that_the_encoding_lacks(variables: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "d\u00fcnn \U0001f600"
    folder.mkdir()
    for words in (["data", "list", "--data-dir", str(folder)], ["inspect", str(folder / "no.h5")]):
        done = run([*MODULE, *words], "", **variables)
        assert done.returncode == (0 if words[0] == "data" else 4)
        assert "Traceback" not in done.stderr
        assert "nn " in done.stdout + done.stderr


def test_a_stream_that_does_not_block_gets_everything() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    text, got = os.urandom(1 << 20), bytearray()

    def read() -> None:
        while block := os.read(reader, 50_000):
            got.extend(block)

    thread = threading.Thread(target=read)
    output = Output(writer, needed=True)
    threading.Timer(0.05, thread.start).start()
    assert output.write(text) == len(text)
    os.close(writer)
    thread.join(timeout=30)
    os.close(reader)
    assert got == text


def test_messages_that_nobody_can_read_are_dropped_and_output_is_not() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    assert Output(writer, needed=False).write(b"lost") == 4
    with pytest.raises(BrokenPipeError):
        Output(writer, needed=True).write(b"needed")
    os.close(writer)


def test_scripts_from_a_clone_are_commands(tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "scripts" / "evaluate.py"
    done = run([sys.executable, str(script), "--help"], ">/dev/full")
    assert done.returncode == 1
    assert FULL in done.stderr
