"""Signals at any moment of a command: one line and 128 plus their number; commands in threads, and twice."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from signal_storm import COMMANDS, KINDS, default_signals, environment, start, storm, wait_for_handlers

from gpucnn.cli.main import main

BEGIN = "import os, signal, sys, time; from gpucnn.cli import signals; signals.handle(signals.end_at_once);"


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=60,
        preexec_fn=default_signals,
    )


def test_signals_at_random_moments_end_a_command_with_one_line() -> None:
    hits, problems = storm(["version", "data list", "inspect"], 12, seed=1)
    assert problems == []
    assert hits.total() >= 4


@pytest.mark.parametrize("kind", KINDS)
def test_a_signal_before_anything_is_imported(kind: signal.Signals, tmp_path: Path) -> None:
    process = start("train", str(tmp_path))
    wait_for_handlers(process)
    process.send_signal(kind)
    _, err = process.communicate(timeout=60)
    said = "interrupted" if kind == signal.SIGINT else f"stopped by {kind.name}"
    assert (process.returncode, err) == (128 + kind, f"gpucnn: {said}\n")


@pytest.mark.parametrize("kind", KINDS)
def test_a_signal_that_is_ignored_from_the_start_stays_ignored(kind: signal.Signals, tmp_path: Path) -> None:
    def ignore() -> None:
        default_signals()
        signal.signal(kind, signal.SIG_IGN)

    process = subprocess.Popen(
        [*COMMANDS["data list"], "--data-dir", str(tmp_path)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=ignore,
    )
    while process.poll() is None:
        process.send_signal(kind)
        threading.Event().wait(0.01)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert str(tmp_path) in out


def test_a_signal_within_a_destructor_is_not_lost() -> None:
    done = run(
        f"{BEGIN}\n"
        "class Fragile:\n"
        "    def __del__(self): signal.raise_signal(signal.SIGTERM)\n"
        "with signals.Unwinding():\n"
        "    Fragile()\n"
        "    print('went on')\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (143, "", "gpucnn: stopped by SIGTERM\n")


@pytest.mark.parametrize("then", ["pass", "raise ValueError('broken') from None"])
def test_a_signal_that_a_library_swallows_is_raised_at_the_end(then: str) -> None:
    done = run(
        f"{BEGIN}\n"
        "try:\n"
        "    with signals.Unwinding():\n"
        "        try: signal.raise_signal(signal.SIGHUP)\n"
        f"        except BaseException: {then}\n"
        "except KeyboardInterrupt as stop:\n"
        "    sys.exit(signals.explain(stop))\n"
    )
    assert (done.returncode, done.stderr) == (129, "gpucnn: stopped by SIGHUP\n")


def test_files_are_left_in_order_and_a_second_signal_ends_at_once() -> None:
    done = run(
        f"{BEGIN}\n"
        "with signals.Unwinding():\n"
        "    try: signal.raise_signal(signal.SIGINT)\n"
        "    finally:\n"
        "        print('tidied', flush=True)\n"
        "        signal.raise_signal(signal.SIGTERM)\n"
        "        print('waited')\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (143, "tidied\n", "gpucnn: stopped by SIGTERM\n")


def test_a_signal_while_python_shuts_down_changes_nothing() -> None:
    done = run(
        "import atexit, signal, sys; from gpucnn.cli.main import command\n"
        "atexit.register(lambda: [signal.raise_signal(kind) for kind in (2, 15, 1)])\n"
        "command(['--version'])\n"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("gpucnn ")


def test_commands_run_in_a_thread_and_leave_the_handlers_alone(tmp_path: Path) -> None:
    before = [signal.getsignal(kind) for kind in KINDS]
    codes: list[int] = []
    words = ["train", "--device", "reference", "--epochs", "1", "--max-steps", "2", "--output"]
    for number in range(2):
        call = [*words, str(tmp_path / str(number))]
        thread = threading.Thread(target=lambda call=call: codes.append(main(call)))
        thread.start()
        thread.join(timeout=60)
    assert codes == [0, 0]
    assert [signal.getsignal(kind) for kind in KINDS] == before


def test_an_interrupted_command_in_a_process_of_the_users_own(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from gpucnn.cli import data

    def interrupted(folder: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(data, "listing", interrupted)
    assert main(["data", "list"]) == 130
    assert capfd.readouterr().err.strip() == "gpucnn: interrupted"
    monkeypatch.undo()
    assert main(["data", "list"]) == 0
    assert os.fstat(2)
