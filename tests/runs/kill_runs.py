"""Real training runs, killed at random moments and resumed until they are done, end as the uninterrupted ones.

    python tests/runs/kill_runs.py --kills 2000 --jobs 2

Each run is ``gpucnn train`` on scikit-learn's digits (or on the synthetic images, for whitening), in a process of its
own.  SIGINT, SIGTERM, SIGHUP or SIGKILL comes at a random moment of the process's life: start, steps, evaluation,
saves, end; now and then a second signal follows at once.  Then the run is resumed, and may be killed again.  After each
kill its folder must hold a checkpoint that loads and is no older than before, and a log with all of its epochs.  A run
that is done is compared with the uninterrupted one: every tensor of last.h5 and best.h5, progress, history, settings,
and the rows of metrics.jsonl and metrics.csv, without their times.

Prints a line per 100 kills and a table; exits with 1 if anything differs, and keeps the folders of such runs.
"""

import argparse
import csv
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpucnn.cli import signals

if sys.argv[1:2] == ["--child"]:
    signals.handle(signals.end_at_once)  # as the command does, before NumPy is loaded

import numpy as np

from gpucnn.checkpoint import Checkpoint, load_checkpoint
from gpucnn.cli.main import command
from gpucnn.data.files.sources import Source
from gpucnn.data.registry import DATASETS
from gpucnn.data.synthetic import load_synthetic
from gpucnn.errors import CheckpointError
from gpucnn.models import MODELS
from gpucnn.models.speedrun import speedrun

COMMON = ["--threads", "1", "--batch-size", "128"]
PERCEPTRON = ["--device", "reference", "--model", "mlp", "--set", "model.options.width=32", "--epochs", "8"]
NET = ["--device", "cpu", "--epochs", "3"]
MUON = ["--opt", "muon", "--lr", "0.02", "--set", "optimizer.decoupled=true"]
LOOKAHEAD = ["--set", "train.lookahead=4"]
ELASTIC = ["--set", "data.augmentation.elastic=8", "--set", "data.augmentation.rotation=10"]
NET_FILE = Path(__file__).resolve().parents[1] / "checkpoint" / "fixtures" / "mnist_cnn_half.h5"
SETTINGS: dict[str, list[str]] = {
    "plain": [*PERCEPTRON, "--momentum", "0", "--sched", "constant"],
    "ema": [*PERCEPTRON, "--ema", "0.95", "--opt", "adamw", "--lr", "0.002", "--sched", "cosine"],
    "lookahead": [*PERCEPTRON, *LOOKAHEAD, "--sched", "triangular"],
    "patience": [*PERCEPTRON, "--patience", "2", "--epochs", "40", "--lr", "0.5", "--sched", "constant"],
    "max-steps": [*PERCEPTRON, "--max-steps", "55", "--sched", "one_cycle", "--validation", "300"],
    "muon": [*NET, *MUON],
    "mixup": [*NET, "--mixup", "0.4", "--set", "data.augmentation.cutmix=0.4", "--smoothing", "0.1"],
    "elastic": [*NET, *ELASTIC, "--set", "data.augmentation.crop=1"],
    "tuned": [
        *NET,
        *MUON,
        *LOOKAHEAD,
        "--ema",
        "0.9",
        "--init",
        str(NET_FILE),
        "--freeze",
        "features.*",
        "--head-lr",
        "0.05",
    ],
    "whitening": [*NET, "--dataset", "synthetic", "--model", "tiny"],
    "all": [*NET, *MUON, *LOOKAHEAD, *ELASTIC, "--ema", "0.9", "--mixup", "0.4", "--max-steps", "30"],
}
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL)
EARLY = 0.3  # fraction of kills before the first step
SPARED = 0.15  # fraction of processes that are not killed
TWICE = 0.1  # fraction of kills with a second signal
HANGS = 120.0  # seconds that a process has to end after a signal
TIMES = ("seconds", "images_per_second")


def tiny(input_shape: tuple[int, ...], num_classes: int) -> Any:
    """The net with whitening filters, in small."""
    return speedrun(input_shape, num_classes, (8, 8, 16), 2, unit_head=False)


@dataclass
class Reference:
    """An uninterrupted run of a setting."""

    folder: Path
    start: float  # seconds until it was about to train
    training: float  # seconds from then to its end


@dataclass
class Tally:
    """What happened to the runs of a setting."""

    kills: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    differences: int = 0


def words(name: str, folder: Path, *resume: str) -> list[str]:
    """The command line of a run."""
    return [sys.executable, __file__, "--child", "train", *COMMON, *SETTINGS[name], "--output", str(folder), *resume]


def uninterrupted(name: str, folder: Path) -> Reference:
    """Train without a kill, and see how long it takes."""
    start, started = time.monotonic(), 0.0
    child = subprocess.Popen(words(name, folder), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    said = []
    for line in child.stdout or ():
        said.append(line)
        if line.startswith("run "):
            started = time.monotonic() - start
    if child.wait():
        raise SystemExit(f"{name} does not train: {''.join(said[-3:])}")
    return Reference(folder, started, time.monotonic() - start - started)


class Campaign:
    """Runs of all settings, several at a time, until there were enough kills."""

    def __init__(self, names: list[str], kills: int, jobs: int, seed: int, root: Path) -> None:
        self.names, self.wanted, self.jobs, self.seed, self.root = names, kills, jobs, seed, root
        self.tallies = {name: Tally() for name in names}
        self.numbers = iter(range(10**9))
        self.lock = threading.Lock()
        self.kills = 0
        self.start = time.monotonic()

    def run(self) -> int:
        """All of it; returns how many differences there were."""
        self.references = {}
        for name in self.names:
            uninterrupted(name, self.root / f"{name}-first")  # compiles kernels that are missing
            self.references[name] = uninterrupted(name, self.root / f"{name}-whole")
            self.tally(name, differences(self.root / f"{name}-first", self.root / f"{name}-whole"), runs=0)
        workers = [threading.Thread(target=self.work) for _ in range(self.jobs)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return sum(tally.differences for tally in self.tallies.values())

    def work(self) -> None:
        """Runs, one after the other."""
        while True:
            with self.lock:
                number = next(self.numbers)
                if self.kills >= self.wanted:
                    return
            name = self.names[number % len(self.names)]
            folder = self.root / f"{name}-{number}"
            try:
                found = self.one_run(name, folder, random.Random(f"{self.seed} {number}"))
            except Exception as error:
                found = [f"{type(error).__name__}: {error}"]
            self.tally(name, [f"{folder}: {line}" for line in found])
            if not found:
                shutil.rmtree(folder)

    def tally(self, name: str, found: list[str], runs: int = 1) -> None:
        """Count a run and what is wrong with it."""
        with self.lock:
            self.tallies[name].runs += runs
            self.tallies[name].differences += len(found)
            for line in found:
                print(f"DIFFERENT {line}", flush=True)

    def one_run(self, name: str, folder: Path, rng: random.Random) -> list[str]:
        """A run with all its kills; returns what is wrong."""
        reference, resume, newest = self.references[name], [], -1
        while True:
            with self.lock:
                enough = self.kills >= self.wanted
            early, spared = rng.random() < EARLY, rng.random() < SPARED
            moment = None if enough or spared else rng.uniform(0, reference.start if early else reference.training)
            kinds = [rng.choice(SIGNALS)] + ([rng.choice(SIGNALS)] if rng.random() < TWICE else [])
            line = words(name, folder, *resume)
            code, said = process(line, moment, kinds, rng, early=early)
            if code == 0:
                return differences(folder, reference.folder)
            ended = {-kind for kind in kinds} | {128 + kind for kind in kinds}
            ended |= {1} if "KeyboardInterrupt" in said else set()  # of Python itself, before it runs anything of ours
            if moment is None or code not in ended:
                return [f"exit code {code} after {[kind.name for kind in kinds]}: {said[-300:]}"]
            self.count(name, kinds[0])
            now, wrong = state(folder, reference.folder)
            if now < newest:
                wrong.append(f"went back from step {newest} to {now}")
            if wrong:
                return wrong
            newest = now
            resume = ["--resume", rng.choice(["auto", str(folder), str(folder / "last.h5")] if now >= 0 else ["auto"])]

    def count(self, name: str, kind: signal.Signals) -> None:
        """Count a kill, and print a line per hundred."""
        with self.lock:
            self.kills += 1
            self.tallies[name].kills[kind.name] += 1
            if self.kills % 100 == 0:
                runs, wrong = (sum(getattr(t, what) for t in self.tallies.values()) for what in ("runs", "differences"))
                minutes = (time.monotonic() - self.start) / 60
                print(f"{self.kills} kills, {runs} runs, {wrong} differences, {minutes:.1f} minutes", flush=True)

    def table(self) -> str:
        """A line per setting."""
        titles = ["setting", *(kind.name for kind in SIGNALS), "kills", "runs", "differences"]
        rows = [
            [name, *(str(t.kills[k.name]) for k in SIGNALS), str(t.kills.total()), str(t.runs), str(t.differences)]
            for name, t in self.tallies.items()
        ]
        total = ["all of them", *(str(sum(int(row[i]) for row in rows)) for i in range(1, len(titles)))]
        return "\n".join("".join(f"{cell:>12}" for cell in row) for row in [titles, *rows, total])


def process(
    line: list[str], moment: float | None, kinds: list[signal.Signals], rng: random.Random, *, early: bool
) -> tuple[int, str]:
    """Start a process and send it signals; returns its exit code and its errors.

    The first signal comes at a moment after the start, or, where it is not ``early``, after it was about to train.
    """
    with tempfile.TemporaryFile("w+") as errors:
        child = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=errors, text=True)
        assert child.stdout
        if moment is not None and not early:
            next((said for said in child.stdout if said.startswith("run ")), None)
        try:
            child.wait(moment)
        except subprocess.TimeoutExpired:
            for kind in kinds:
                child.send_signal(kind)
                if len(kinds) > 1:
                    time.sleep(rng.uniform(0, 0.02))
            try:
                child.wait(HANGS)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
                return 1, f"did not end within {HANGS:.0f} s"
        child.stdout.close()
        errors.seek(0)
        return child.returncode, errors.read()


def state(folder: Path, whole: Path) -> tuple[int, list[str]]:
    """After a kill: the step of the newest checkpoint, -1 where there is none, and what is wrong with the folder."""
    if not (folder / "last.h5").exists():
        return -1, [f"{name} without last.h5" for name in ("best.h5", "previous.h5") if (folder / name).exists()]
    try:
        last = load_checkpoint(folder / "last.h5")
    except CheckpointError as error:
        return -1, [str(error)]
    expected, wrong = dict(rows(whole / "metrics.jsonl")), []
    for log in ("metrics.jsonl", "metrics.csv"):
        found = rows(folder / log)
        epochs = range(1, len(last.history.get("epoch", ())) + 1)
        lost = [epoch for epoch in epochs if (epoch, expected.get(epoch)) not in found]
        wrong += [f"{log} has no row of epoch {epoch}, or another one" for epoch in lost]
    return int(last.progress["step"]), wrong


def rows(log: Path) -> list[tuple[int, dict[str, float]]]:
    """(epoch, numbers without times) of each whole row in a metrics.jsonl or metrics.csv."""
    text = log.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1].splitlines()
    raw = csv.DictReader(whole) if log.suffix == ".csv" else map(json.loads, whole)
    return [
        (int(row["epoch"]), {name: float(value) for name, value in row.items() if name not in TIMES}) for row in raw
    ]


def differences(folder: Path, whole: Path) -> list[str]:
    """What differs between a run that is done and the uninterrupted one."""
    wrong = []
    for name in ("last.h5", "best.h5"):
        found, expected = (load_checkpoint(place / name) for place in (folder, whole))
        wrong += [f"{name} differs in {what}" for what in unequal(found, expected)]
    for log in ("metrics.jsonl", "metrics.csv"):
        if rows(folder / log) != rows(whole / log):
            wrong.append(f"{log} has other rows")
    leftovers = [path.name for path in folder.iterdir() if path.name.endswith(".tmp")]
    return wrong + [f"{name} was left" for name in leftovers]


def unequal(found: Checkpoint, expected: Checkpoint) -> list[str]:
    """The names of tensors and other parts of two checkpoints that are not equal to the bit."""
    mine, other = found.tensors(), expected.tensors()
    names = [name for name in sorted(mine.keys() | other.keys()) if not same(mine.get(name), other.get(name))]
    parts = ("progress", "history", "config", "environment", "dataset_digest", "test_digest", "seed")
    return names + [part for part in parts if getattr(found, part) != getattr(expected, part)]


def same(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    return a is not None and b is not None and (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=2000)
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--settings", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    args = parser.parse_args()
    for kind in SIGNALS[:3]:  # children would inherit that one is ignored, as under nohup
        if signal.getsignal(kind) is signal.SIG_IGN:
            signal.signal(kind, lambda number, frame: None)
    root = Path(tempfile.mkdtemp(prefix="kill-runs-"))
    campaign = Campaign(args.settings, args.kills, args.jobs, args.seed, root)
    wrong = campaign.run()
    print(campaign.table())
    print(f"{campaign.kills} kills, {wrong} differences{f'; runs are in {root}' if wrong else ''}")
    if not wrong:
        shutil.rmtree(root)
    return min(wrong, 1)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        MODELS["tiny"] = tiny
        DATASETS["synthetic"] = Source("small", load=lambda place: load_synthetic(600, 200, shape=(16, 16, 3)))
        command(sys.argv[2:])
    sys.exit(main())
