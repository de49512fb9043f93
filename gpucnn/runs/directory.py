"""The run directory: settings, environment, log and checkpoints of one run, and one process at a time in it.

runs/20250131-174500-mnist_cnn/
  config.toml  env.json            settings; versions and hardware
  metrics.jsonl  metrics.csv       one row per epoch
  result.json                      accuracy with test-time augmentation, where asked for
  last.h5  previous.h5  best.h5    checkpoints: the newest, the one before, the most accurate
"""

import io
import json
import os
import re
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import datetime
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from typing import Any

import numpy as np

from gpucnn import terminal
from gpucnn.checkpoint import Checkpoint, open_checkpoint, save_checkpoint
from gpucnn.checkpoint.durable import clean_leftovers, replace_file
from gpucnn.errors import CheckpointError, GpucnnError, UsageError
from gpucnn.runs.log import RunLog

CHECKPOINTS = ("last.h5", "previous.h5", "best.h5")
"""In the order in which a resumed run tries them."""

LOCK, RESULT = ".lock", "result.json"

RUNS = Path("runs")
"""Where run folders are made, below the current folder."""


class RunDirectory(ExitStack):
    """Open for one process, until ``close`` or the end of a ``with`` block (or of the process).

    Args:
        path: made where it does not exist.
        resume: go on with the run in it; without it a folder that holds a run is refused.

    Raises:
        UsageError: the folder already holds a run.
        GpucnnError: another process works in it, or it cannot be made.
    """

    def __init__(self, path: str | Path, *, resume: bool = False) -> None:
        super().__init__()
        self.path = Path(path)
        self.log = RunLog(self.path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise GpucnnError(f"cannot use {self.path} as a run folder: {error.strerror}") from None
        self.callback(os.close, self._lock)
        self.callback(self.log.close)
        try:
            self._claim()
            if not resume and any((self.path / name).exists() for name in CHECKPOINTS):
                refusal = f"{self.path} already holds a run: add --resume auto to go on, or choose another --output"
                raise UsageError(refusal)
            for name in CHECKPOINTS:
                clean_leftovers(self.path / name)
            # a damaged last.h5 must not replace a good previous.h5
            self._last_is_sound = problem(self.path / "last.h5") is None
        except BaseException:
            self.close()
            raise

    def _claim(self) -> None:
        """Lock the folder; the system releases the lock when the process ends."""
        try:
            flock(self._lock, LOCK_EX | LOCK_NB)
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)
        except BlockingIOError:
            owner = os.pread(self._lock, 20, 0).decode(errors="replace").strip() or "unknown"
            refusal = f"process {owner} is working in {self.path}: wait for it, or choose another --output"
            raise GpucnnError(refusal) from None
        except OSError as error:
            raise GpucnnError(f"cannot lock {self.path}: {error.strerror}; choose another --output") from None

    def begin(self, config: str, about: Mapping[str, Any], epoch: int = 0, *, tensorboard: bool = False) -> None:
        """Write settings and environment; the log keeps its rows up to ``epoch``, the checkpoint's."""
        replace_file(self.path / "config.toml", [config.encode()])
        replace_file(self.path / "env.json", [json.dumps(about, indent=2).encode() + b"\n"])
        self.log.keep_until(epoch)
        if tensorboard:
            self.log.open_events(epoch)

    def append_metrics(self, row: Mapping[str, Any]) -> None:
        """Add an epoch to the log.  Do it before ``save_last``, so that a resumed run finds its row."""
        self.log.append(row)

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Write what was measured once, after training."""
        replace_file(self.path / RESULT, [json.dumps(result, indent=2).encode() + b"\n"])

    def save_last(self, checkpoint: Checkpoint) -> None:
        """The newest state; the one before stays as previous.h5."""
        keep = self.path / "previous.h5" if self._last_is_sound else None
        save_checkpoint(self.path / "last.h5", checkpoint, keep=keep)
        self._last_is_sound = True

    def save_best(self, checkpoint: Checkpoint) -> None:
        """The most accurate state so far."""
        save_checkpoint(self.path / "best.h5", checkpoint)

    def save_batch(self, batch: tuple[Any, ...]) -> Path:
        """The batch, images and labels, that led to NaN or infinity: a file for ``numpy.load``."""
        path, file = self.path / "not_a_number.npz", io.BytesIO()
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

    A damaged last.h5 is passed over for previous.h5, then best.h5, then the run before, and ``tell`` is told
    so (standard error, where not given).

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
    for path in (path for run in runs for path in checkpoints(run)):
        if reason := problem(path):
            damaged.append(reason)
            continue
        for line in damaged:
            tell(f"{line}; going on from {path}")
        return path
    if damaged:
        raise CheckpointError(f"none of {len(damaged)} checkpoints can be loaded: {damaged[0]}")
    return None


def checkpoints(run: Path) -> list[Path]:
    """The checkpoints in a run directory, the one to go on from first."""
    return [run / name for name in CHECKPOINTS if (run / name).exists()]


def problem(path: Path) -> str | None:
    """Why a checkpoint cannot be loaded; None where it can."""
    try:
        open_checkpoint(path).read()
    except CheckpointError as error:
        return str(error)
    return None
