"""The log of a run: one row per epoch, in JSON lines and in CSV, on disk before training continues.

TensorBoard gets the same numbers where asked, and so does a log of the intervals within epochs.
"""

import csv
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from math import inf, isfinite
from pathlib import Path
from typing import Any

from gpucnn.checkpoint.durable import replace_file
from gpucnn.errors import GpucnnError, UsageError, shown
from gpucnn.files import read_text
from gpucnn.optim.optimizer import MOST_EPOCHS
from gpucnn.training.trainer import EpochReport, IntervalReport

Row = Mapping[str, Any]

JSONL, CSV, STEPS, EVENTS = "metrics.jsonl", "metrics.csv", "steps.jsonl", "tensorboard"
COLUMNS = [field.name for field in fields(EpochReport)]

LONGEST = 2**26  # bytes of a log; a row has 250

HISTORY: dict[str, tuple[float, float, tuple[type, ...]]] = {
    "epoch": (1, MOST_EPOCHS, (int,)),
    **dict.fromkeys(("train_loss", "test_loss"), (-1e40, 1e40, (int, float))),
    **dict.fromkeys(("train_accuracy", "test_accuracy"), (0, 1, (int, float))),
    "learning_rate": (0, 1e300, (int, float)),
}
"""Column of a run's history -> the least and the most that a number in it is, where it is finite, and its type."""


class RunLog:
    """``metrics.jsonl`` and ``metrics.csv`` in a folder; both hold the same rows, each with its "epoch".

    Rows only leave the files once a checkpoint that does without them is on the disk, so at any moment the log has at
    least the epochs of the folder's newest checkpoint.

    Attributes:
        rows: of the run so far; the files may have more, of a state that was lost, until ``settle``.
    """

    def __init__(self, folder: Path) -> None:
        self.jsonl, self.csv = folder / JSONL, folder / CSV
        self.rows: list[Row] = []
        self.settled = True
        self.columns: list[str] = []
        self.events: Any = None

    def restore(self, history: Sequence[Row], *others: Path) -> None:
        """Begin with a row for each epoch of a checkpoint's history: the one in this log, or in others, with timings.

        Rows of later epochs stay for now.  What a crash cut off is mended.
        """
        found = read_rows(self.jsonl)
        known: dict[int, list[Row]] = {}
        for row in (*found, *(row for path in others for row in read_rows(path))):
            known.setdefault(row["epoch"], []).append(row)
        order = found[0] if found else COLUMNS
        self.rows = [_row_of(_clean(epoch), known.get(int(epoch["epoch"]), ()), order) for epoch in history]
        last = self.rows[-1]["epoch"] if self.rows else 0
        newer = [row for row in found if row["epoch"] > last]
        self.settled = not newer
        self._write([*self.rows, *newer])

    def append(self, row: Row) -> None:
        """Add a row, in place of those of its epoch and later ones, to both files; it is on disk when this returns."""
        before = [earlier for earlier in self.rows if earlier["epoch"] < row["epoch"]]
        self.settled = self.settled and len(before) == len(self.rows)
        self.rows = [*before, _clean(row)]
        _append(self.jsonl, _json_line(self.rows[-1]))
        _append(self.csv, self._csv_lines(self.rows[-1:]))
        if self.events:
            for name, value in row.items():
                if name != "epoch" and isfinite(value):
                    part, _, kind = name.partition("_")
                    tag = f"{kind}/{part}" if part in ("train", "test") else name
                    self.events.add_scalar(tag, value, row["epoch"])
            self.events.flush()

    def settle(self) -> None:
        """Drop the rows that ``rows`` does without; the checkpoint that has their place is on the disk."""
        if not self.settled:
            self._write(self.rows)
            self.settled = True

    def _write(self, rows: Sequence[Row]) -> None:
        """Replace the files where they differ from these rows."""
        self.columns = []
        for path, text in ((self.jsonl, b"".join(map(_json_line, rows))), (self.csv, self._csv_lines(rows))):
            if not path.is_file() or path.is_symlink() or path.read_bytes() != text:
                replace_file(path, [text])

    def open_events(self, epoch: int) -> None:
        """Write TensorBoard events as well, from ``epoch`` on; those of later epochs no longer count."""
        self.events = event_writer()(str(self.jsonl.parent / EVENTS), purge_step=epoch + 1)

    def close(self) -> None:
        """End the events' file."""
        if self.events:
            self.events.close()

    def _csv_lines(self, rows: Sequence[Row]) -> bytes:
        """Rows in CSV; a header is above the first, whose columns are those of all."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if rows and not self.columns:
            self.columns = list(dict.fromkeys(name for row in rows for name in row))
            writer.writerow(self.columns)
        writer.writerows([row.get(column, "") for column in self.columns] for row in rows)
        return text.getvalue().encode()


class StepLog:
    """``steps.jsonl`` in a folder: loss and accuracy of each interval alone, where the log has them of whole epochs.

    Args:
        path: of the file.  Its rows up to ``step`` stay, or those of the first of ``others`` that has any.
        step: of the checkpoint that the run goes on from.
        sums: of loss, right answers and examples in the epoch so far.
    """

    def __init__(self, path: Path, *others: Path, step: int, sums: tuple[float, int, int]) -> None:
        self.path, self.sums, self.epoch = path, sums, 0
        logs = (read_rows(log, "step") for log in (path, *others))
        kept = [row for row in next(filter(None, logs), []) if row["step"] <= step]
        replace_file(path, [b"".join(map(_json_line, kept))])

    def append(self, report: IntervalReport) -> None:
        """Add the examples since the last report."""
        if report.epoch != self.epoch:
            self.sums, self.epoch = self.sums if self.epoch == 0 else (0.0, 0, 0), report.epoch
        n = report.examples
        before, self.sums = self.sums, (report.loss * n, round(report.accuracy * n), n)
        loss, correct, examples = (after - earlier for after, earlier in zip(self.sums, before, strict=True))
        if examples > 0:
            row = {"step": report.step, "epoch": report.epoch - 1 + report.batch / report.batches}
            row |= {"train_loss": loss / examples, "train_accuracy": correct / examples}
            _append(self.path, _json_line(row | {"learning_rate": report.learning_rate}), sync=False)


def event_writer() -> Any:
    """The class that writes TensorBoard's events; raises UsageError where tensorboardX is not installed."""
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise UsageError(f"--tensorboard needs tensorboardX ({error}): pip install 'gpucnn[tensorboard]'") from None
    return SummaryWriter


def read_rows(path: Path, counter: str = "epoch") -> list[dict[str, Any]]:
    """The rows of a log that have an integer of this name, none where it is missing.

    A row that was cut off by a crash is left out.
    """
    rows = []
    try:
        lines = read_text(path, LONGEST, errors="replace").splitlines() if path.exists() else []
    except OSError as error:
        raise UsageError(f"cannot read the log {path}: {error.strerror}") from None
    for line in lines:
        with suppress(ValueError, RecursionError):
            row = json.loads(line)
            if isinstance(row, dict) and type(row.get(counter)) is int:
                rows.append(row)
    return rows


def check_history(columns: Mapping[str, Sequence[Any]], error: type[GpucnnError], path: str) -> None:
    """Raises the error for numbers in these columns that no run's log has; ``path`` is where they are from."""
    for name, values in columns.items():
        low, high, kinds = HISTORY[name]
        for value in values:
            if type(value) not in kinds or (abs(value) < inf and not low <= value <= high):
                raise error(f"{path}: {name} = {shown(value)} is none of a run, which are numbers from {low} to {high}")


def _row_of(epoch: Row, candidates: Sequence[Row], order: Iterable[str]) -> Row:
    """The row that has the numbers of an epoch of the history; where there is none, a new one without timings."""
    same = (row for row in candidates if all(row.get(name) == value for name, value in epoch.items()))
    return next(same, {name: epoch.get(name) for name in dict.fromkeys([*order, *epoch])})


def _clean(row: Row) -> Row:
    """JSON knows no NaN and no infinity: they become null."""
    return {k: None if isinstance(v, float) and not isfinite(v) else v for k, v in row.items()}


def _json_line(row: Row) -> bytes:
    return json.dumps(row).encode() + b"\n"


def _append(path: Path, line: bytes, *, sync: bool = True) -> None:
    try:
        with path.open("ab") as file:
            file.write(line)
            file.flush()
            if sync:
                os.fsync(file.fileno())
    except OSError as error:
        raise GpucnnError(f"could not write {path}: {error.strerror}: free some space") from None
