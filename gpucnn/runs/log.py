"""The log of a run: one row per epoch, in JSON lines and in CSV, on disk before training continues.

TensorBoard gets the same numbers where asked.
"""

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from math import inf, isfinite
from pathlib import Path
from typing import Any

from gpucnn.checkpoint.durable import replace_file
from gpucnn.errors import GpucnnError, UsageError, shown
from gpucnn.files import read_text
from gpucnn.optim.optimizer import MOST_EPOCHS

Row = Mapping[str, Any]

LONGEST = 2**26  # bytes of a log; a row has 250

HISTORY: dict[str, tuple[float, float, tuple[type, ...]]] = {
    "epoch": (1, MOST_EPOCHS, (int,)),
    **dict.fromkeys(("train_loss", "test_loss"), (-1e40, 1e40, (int, float))),
    **dict.fromkeys(("train_accuracy", "test_accuracy"), (0, 1, (int, float))),
    "learning_rate": (0, 1e300, (int, float)),
}
"""Column of a run's history -> the least and the most that a number in it is, where it is finite, and its type."""


class RunLog:
    """``metrics.jsonl`` and ``metrics.csv`` in a folder; both hold the same rows, each with its "epoch"."""

    def __init__(self, folder: Path) -> None:
        self.jsonl, self.csv = folder / "metrics.jsonl", folder / "metrics.csv"
        self.columns: list[str] = []
        self.events: Any = None

    def keep_until(self, epoch: int) -> None:
        """Drop what comes after an epoch: a resumed run writes it again."""
        rows = [row for row in read_rows(self.jsonl) if row["epoch"] <= epoch] if self.jsonl.exists() else []
        self.columns = []
        replace_file(self.jsonl, [b"".join(map(_json_line, rows))])
        replace_file(self.csv, [self._csv_lines(rows)])

    def append(self, row: Row) -> None:
        """Add a row to both files; it is on disk when this returns."""
        _append(self.jsonl, _json_line(row))
        _append(self.csv, self._csv_lines([row]))
        if self.events:
            for name, value in row.items():
                if name != "epoch" and isfinite(value):
                    part, _, kind = name.partition("_")
                    tag = f"{kind}/{part}" if part in ("train", "test") else name
                    self.events.add_scalar(tag, value, row["epoch"])
            self.events.flush()

    def open_events(self, epoch: int) -> None:
        """Write TensorBoard events as well, from ``epoch`` on; those of later epochs no longer count."""
        self.events = event_writer()(str(self.jsonl.parent / "tensorboard"), purge_step=epoch + 1)

    def close(self) -> None:
        """End the events' file."""
        if self.events:
            self.events.close()

    def _csv_lines(self, rows: Sequence[Row]) -> bytes:
        """Rows in CSV; a header is above the first, whose columns are those of all."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if rows and not self.columns:
            self.columns = list(rows[0])
            writer.writerow(self.columns)
        writer.writerows([row.get(column, "") for column in self.columns] for row in rows)
        return text.getvalue().encode()


def event_writer() -> Any:
    """The class that writes TensorBoard's events; raises UsageError where tensorboardX is not installed."""
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise UsageError(f"--tensorboard needs tensorboardX ({error}): pip install 'gpucnn[tensorboard]'") from None
    return SummaryWriter


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a ``metrics.jsonl``; a last one that was cut off by a crash is left out."""
    rows = []
    try:
        lines = read_text(path, LONGEST, errors="replace").splitlines()
    except OSError as error:
        raise UsageError(f"cannot read the log {path}: {error.strerror}") from None
    for line in lines:
        with suppress(ValueError, RecursionError):
            row = json.loads(line)
            if isinstance(row, dict) and type(row.get("epoch")) is int:
                rows.append(row)
    return rows


def check_history(columns: Mapping[str, Sequence[Any]], error: type[GpucnnError], path: str) -> None:
    """Raises the error for numbers in these columns that no run's log has; ``path`` is where they are from."""
    for name, values in columns.items():
        low, high, kinds = HISTORY[name]
        for value in values:
            if type(value) not in kinds or (abs(value) < inf and not low <= value <= high):
                raise error(f"{path}: {name} = {shown(value)} is none of a run, which are numbers from {low} to {high}")


def _json_line(row: Row) -> bytes:
    """JSON knows no NaN and no infinity: they become null."""
    clean = {k: None if isinstance(v, float) and not isfinite(v) else v for k, v in row.items()}
    return json.dumps(clean).encode() + b"\n"


def _append(path: Path, line: bytes) -> None:
    try:
        with path.open("ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise GpucnnError(f"could not write {path}: {error.strerror}: free some space") from None
