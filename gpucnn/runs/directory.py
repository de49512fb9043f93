"""The run directory: settings, environment, log and checkpoints of one run, and one process at a time in it.

runs/20250131-174500-mnist_cnn/
  config.toml  env.json            settings; versions and hardware
  metrics.jsonl  metrics.csv       one row per epoch
  steps.jsonl                      one row per interval of --log-interval steps, where asked for
  result.json                      accuracy with test-time augmentation, where asked for
  not_a_number.npz  tensorboard/   the batch that led to NaN or infinity; events, where asked for
  last.h5  previous.h5  best.h5    checkpoints: the newest, the one before, the most accurate
  damaged.h5                       a last.h5 that could not be loaded, where the run went on from another one
"""

import io
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gpucnn import terminal
from gpucnn.checkpoint import Checkpoint, open_checkpoint, save_checkpoint
from gpucnn.checkpoint.contents import Number
from gpucnn.checkpoint.durable import clean_leftovers, replace_file
from gpucnn.errors import CheckpointError, GpucnnError, UsageError
from gpucnn.runs.log import CSV, EVENTS, JSONL, STEPS, Row, RunLog

CHECKPOINTS = ("last.h5", "previous.h5", "best.h5")
"""In the order in which a resumed run tries them, where several are of the same step."""

LOCK, CONFIG, ABOUT, RESULT, BATCH = ".lock", "config.toml", "env.json", "result.json", "not_a_number.npz"
DAMAGED = "damaged.h5"

FILES = (*CHECKPOINTS, DAMAGED, CONFIG, ABOUT, JSONL, CSV, STEPS, RESULT, BATCH, EVENTS)
"""All that a run writes, next to its lock."""

REMEDY = "add --resume auto to go on, or choose another --output"

RUNS = Path("runs")
"""Where run folders are made, below the current folder."""


class Position(NamedTuple):
    """Where in a run a checkpoint is."""

    step: int
    epoch: int

    def __str__(self) -> str:
        return f"epoch {self.epoch}, step {self.step}"


class RunDirectory(ExitStack):
    """Open for one process, until ``close`` or the end of a ``with`` block (or of the process).

    Args:
        path: made where it does not exist.
        position: of the checkpoint in it from which its run goes on; without it the run is a new one.
        again: a new run may replace what one that ended before its first checkpoint has left.

    Raises:
        UsageError: a run would replace files of something else, or a checkpoint that is newer than ``position``.
        GpucnnError: another process works in it, or it cannot be made.
    """

    def __init__(self, path: str | Path, *, position: Position | None = None, again: bool = False) -> None:
        super().__init__()
        self.path = Path(path)
        self.log = RunLog(self.path)
        locked = os.path.lexists(self.path / LOCK)
        self._abandoned = locked and os.path.lexists(self.path / ABOUT)  # which is what a run writes first
        if position is None and not locked:  # not even a lock is left in a folder of other files
            self._refuse_new(again)
        self._open_lock()
        try:
            self._claim()
            if position is None:
                self._refuse_new(again)
            for name in FILES:
                clean_leftovers(self.path / name)
            self.saved = survey(self.path)[0]
            self._refuse_old(position)
        except BaseException:
            self.close()
            raise

    def _refuse_new(self, again: bool) -> None:
        """Raises UsageError where a new run would replace something."""
        if not (found := held(self.path)):
            return
        if found.name in CHECKPOINTS:
            raise UsageError(f"{found}: {self.path} already holds a run: {REMEDY}")
        if not (again and self._abandoned):
            hint = "add --resume auto to start again" if self._abandoned else "move it away"
            raise UsageError(f"{found} is there, and a run would replace it: choose another --output, or {hint}")

    def _refuse_old(self, position: Position | None) -> None:
        """Raises UsageError where a checkpoint is newer than the one to go on from."""
        for path, saved in self.saved.items():
            if position is not None and saved.step > position.step:
                raise UsageError(
                    f"{path} is newer ({saved}) than the checkpoint to go on from ({position}): go on from {path}, or "
                    "choose another --output"
                )

    def _open_lock(self) -> None:
        """Open the file of the lock, and make it where it is missing."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.path / LOCK, flags, 0o666)
        except OSError as error:
            raise GpucnnError(f"cannot use {self.path} as a run folder: {error.strerror}") from None
        self.callback(os.close, self._lock)
        self.callback(self.log.close)

    def _claim(self) -> None:
        """Lock the folder; the system releases the lock when the process ends."""
        try:
            flock(self._lock, LOCK_EX | LOCK_NB)
            if not re.fullmatch(rb"\d*\n?", os.pread(self._lock, 99, 0)):
                raise UsageError(
                    f"{self.path / LOCK} is not the lock of a run: choose another --output, or move it away"
                )
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)
        except BlockingIOError:
            owner = os.pread(self._lock, 20, 0).decode(errors="replace").strip() or "unknown"
            refusal = f"process {owner} is working in {self.path}: wait for it, or choose another --output"
            raise GpucnnError(refusal) from None
        except OSError as error:
            raise GpucnnError(f"cannot lock {self.path}: {error.strerror}; choose another --output") from None

    def begin(
        self, config: str, about: Mapping[str, Any], history: Sequence[Row] = (), *logs: Path, tensorboard: bool = False
    ) -> None:
        """Write settings and environment; the log gets a row for each epoch of ``history``, the checkpoint's.

        Args:
            logs: other logs that may have these rows, with timings.
        """
        replace_file(self.path / ABOUT, [json.dumps(about, indent=2).encode() + b"\n"])
        replace_file(self.path / CONFIG, [config.encode()])
        self.log.restore(history, *logs)
        if tensorboard:
            self.log.open_events(len(history))

    def catch_up(self, checkpoint: Checkpoint, *, best: bool) -> None:
        """Save the state that a run goes on from, where the folder does not have it as last.h5 (and best.h5)."""
        step = position_of(checkpoint.progress).step
        current = {path.name for path, saved in self.saved.items() if saved.step >= step}
        if "last.h5" not in current:
            self.save_last(checkpoint)
        if best and "best.h5" not in current:
            self.save_best(checkpoint)

    def append_metrics(self, row: Mapping[str, Any]) -> None:
        """Add an epoch to the log.  Do it before ``save_last``, so that a resumed run finds its row."""
        self.log.append(row)

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Write what was measured once, after training."""
        replace_file(self.path / RESULT, [json.dumps(result, indent=2).encode() + b"\n"])

    def save_last(self, checkpoint: Checkpoint) -> None:
        """The newest state; the one before stays as previous.h5."""
        path = self.path / "last.h5"
        # one that cannot be loaded must not replace a good previous.h5, and may be newer
        save_checkpoint(path, checkpoint, keep=self.path / ("previous.h5" if path in self.saved else DAMAGED))
        self.saved[path] = position_of(checkpoint.progress)
        self.log.settle()

    def save_best(self, checkpoint: Checkpoint) -> None:
        """The most accurate state so far.  Do it after ``save_last``: ``catch_up`` mends what is stopped in between."""
        save_checkpoint(self.path / "best.h5", checkpoint)

    def save_batch(self, batch: tuple[Any, ...]) -> Path:
        """The batch, images and labels, that led to NaN or infinity: a file for ``numpy.load``."""
        path, file = self.path / BATCH, io.BytesIO()
        np.savez(file, **dict(zip(("images", "labels"), batch, strict=False)))
        replace_file(path, [file.getvalue()])
        return path


def new_path(root: str | Path, name: str) -> Path:
    """root/YYYYMMDD-HHMMSS-NAME, made here; a number is added where the name is taken."""
    word = re.sub(r"[^A-Za-z0-9._+-]+", "-", name).strip("-.") or "run"
    stamp = f"{datetime.now():%Y%m%d-%H%M%S}-{word}"
    for number in range(1, 1000):
        path = Path(root) / (stamp if number == 1 else f"{stamp}-{number}")
        try:
            path.mkdir(parents=True)
            return path
        except FileExistsError:
            if not Path(root).is_dir():
                raise UsageError(f"{root} is not a folder: choose another place for runs") from None
        except OSError as error:
            raise GpucnnError(f"cannot make {path}: {error.strerror}: choose another --output") from None
    raise GpucnnError(f"a thousand runs named {stamp}: choose another --output")


def natural_order(name: str) -> list[tuple[int, int, str]]:
    """A sorting key by which step-9 comes before step-10."""
    return [(0, int(word), "") if word.isdecimal() else (1, 0, word) for word in re.split(r"(\d+)", name)]


def find_latest(root: str | Path, tell: Callable[[str], None] | None = None) -> Path | None:
    """The checkpoint to go on from: of ``root`` itself where it is a run, else of the run in it that saved last.

    It is the newest of the run.  Damaged ones are passed over, for those of the run before where none is left, and
    ``tell`` is told so (standard error, where not given).

    Returns:
        None where no run has a checkpoint yet.

    Raises:
        CheckpointError: there are checkpoints, and all are damaged.
    """
    root = Path(root)
    tell = tell or (lambda line: terminal.tell(f"WARNING: {line}"))
    runs = [root]
    if not checkpoints(root) and root.is_dir():
        saved = {run: [path.stat().st_mtime_ns for path in checkpoints(run)] for run in root.iterdir() if run.is_dir()}
        runs = sorted(saved, key=lambda run: (max(saved[run], default=0), natural_order(run.name)), reverse=True)
    damaged: list[str] = []
    for run in runs:
        found, reasons = survey(run)
        damaged += reasons
        if found:
            newest = max(found, key=lambda path: found[path].step)
            for line in damaged:
                tell(f"{line}; going on from {newest}")
            return newest
    if damaged:
        raise CheckpointError(f"none of {len(damaged)} checkpoints can be loaded: {damaged[0]}")
    return None


def checkpoints(run: Path) -> list[Path]:
    """The checkpoints in a run directory."""
    return [run / name for name in CHECKPOINTS if (run / name).exists()]


def survey(run: Path) -> tuple[dict[Path, Position], list[str]]:
    """The checkpoints in a run directory that can be loaded, and what is wrong with each of the others."""
    found, reasons = {}, []
    for path in checkpoints(run):
        try:
            found[path] = position_of(open_checkpoint(path).read().progress)
        except CheckpointError as error:
            reasons.append(str(error))
    return found, reasons


def position_of(progress: Mapping[str, Number]) -> Position:
    """Where a checkpoint is, by its progress."""
    return Position(int(progress.get("step", 0)), int(progress.get("epoch", 0)))


def held(folder: Path, names: Sequence[str] = FILES) -> Path | None:
    """The first of these files that a folder has, by default of those that a run writes; a link counts as well."""
    return next((folder / name for name in names if os.path.lexists(folder / name)), None)
