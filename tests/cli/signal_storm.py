"""Signals at random moments in the life of commands: ``python tests/cli/signal_storm.py --signals 1000``.

Each one ends the process with 128 plus its number and one line, unless the command was done before.  A moment lies
between the first line of code, from which on the process handles SIGTERM, and a little after what the command takes.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KINDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
WEIGHTS = ROOT / "gpucnn" / "pretrained" / "mnist_lenet.h5"
MODULE = [sys.executable, "-m", "gpucnn"]
TINY = ["--epochs", "2", "--model", "mlp", "--set", "model.options.width=8"]
COMMANDS: dict[str, list[str]] = {
    "version": [*MODULE, "--version"],
    "data list": [*MODULE, "data", "list"],
    "inspect": [*MODULE, "inspect", str(WEIGHTS)],
    "train": [*MODULE, "train", *TINY, "--device", "cpu"],
    "train script": [sys.executable, str(ROOT / "scripts" / "train.py"), *TINY, "--device", "reference"],
    "gradcheck": [*MODULE, "gradcheck", "--layer", "conv"],
    "find-lr": [*MODULE, "find-lr", "--device", "cpu", "--steps", "30", "--out", "rates.png"],
    "benchmark": [*MODULE, "benchmark", "--model", "mlp", "--input-shape", "8x8x1", "-b", "2", "--rounds", "1"],
}
LINES = ("gpucnn: interrupted", "gpucnn: stopped by", "gpucnn: finishing this step")


def default_signals() -> None:
    """In a child: no signal is ignored, whatever the tests were started with."""
    for kind in KINDS:
        signal.signal(kind, signal.SIG_DFL)


def environment() -> dict[str, str]:
    """With this checkout first."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg"}


def start(name: str, folder: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        COMMANDS[name],
        cwd=folder,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=default_signals,
    )


def handles(process: subprocess.Popen[str], kind: signal.Signals = signal.SIGTERM) -> bool:
    """Whether a process has a handler for a signal, as Linux tells."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except OSError:
        return False
    caught = next((line for line in status.splitlines() if line.startswith("SigCgt")), "SigCgt: 0")
    return bool(int(caught.split()[1], 16) >> (kind - 1) & 1)


def wait_for_handlers(process: subprocess.Popen[str]) -> None:
    while process.poll() is None and not handles(process):
        time.sleep(0.0005)


def duration(name: str, folder: str) -> float:
    """Seconds from a command's first line to its end."""
    process = start(name, folder)
    wait_for_handlers(process)
    begun = time.monotonic()
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, (name, out, err)
    return time.monotonic() - begun


def strike(name: str, kind: signal.Signals, delay: float, folder: str) -> tuple[bool, str]:
    """Send a signal so long after a command's first line -> (whether it was in time, what is wrong, or "")."""
    process = start(name, folder)
    wait_for_handlers(process)
    time.sleep(delay)
    process.send_signal(kind)
    out, err = process.communicate(timeout=120)
    lines, code = err.splitlines(), process.returncode
    said = [line for line in lines if line.startswith(LINES)]
    if code == 0 and not said:
        problem = "" if not lines or all(line.startswith("gpucnn: ") for line in lines) else "noise"
        return False, f"{name} {kind.name} after {delay:.4f} s: {problem}: {err}" if problem else ""
    right = code == 128 + kind and len(said) == 1 and all(line.startswith("gpucnn: ") for line in lines)
    return True, "" if right else f"{name} {kind.name} after {delay:.4f} s: exit code {code}: {err!r} {out[-300:]!r}"


def storm(names: list[str], count: int, seed: int, stretch: float = 1.3) -> tuple[Counter[str], list[str]]:
    """``count`` signals over some commands -> (how many hit a running command, by command; what went wrong)."""
    rng, hits, problems = random.Random(seed), Counter[str](), list[str]()
    with tempfile.TemporaryDirectory() as folder:
        usual = {name: duration(name, folder) for name in names}
        for number in range(count):
            name, kind = names[number % len(names)], rng.choice(KINDS)
            hit, problem = strike(name, kind, rng.uniform(0.0, stretch * usual[name]), folder)
            hits[name] += hit
            problems += [problem] if problem else []
            if problem or number % 50 == 49:
                print(problem or f"{number + 1} signals, {hits.total()} in time, {len(problems)} wrong", flush=True)
    return hits, problems


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--signals", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=[*COMMANDS], action="append")
    given = parser.parse_args()
    found, wrong = storm(given.only or [*COMMANDS], given.signals, given.seed)
    print(f"{given.signals} signals, {found.total()} while the command ran ({dict(found)}), {len(wrong)} wrong")
    sys.exit(1 if wrong else 0)
