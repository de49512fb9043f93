"""The log of a run: one row per epoch, in JSON lines and in CSV, on the disk before training goes on."""

import csv
import io
import json
import os
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any

from gpucnn.checkpoint.durable import replace_file
from gpucnn.errors import GpucnnError

Row = Mapping[str, Any]


class RunLog:
    """``metrics.jsonl`` and ``metrics.csv`` in a folder; both hold the same rows, each with its "epoch"."""

    def __init__(self, folder: Path) -> None:
        self.jsonl, self.csv = folder / "metrics.jsonl", folder / "metrics.csv"
        self.columns: list[str] = []

    def rows(self) -> list[dict[str, Any]]:
        """The rows so far; a last one that was cut off by a crash is left out."""
        if not self.jsonl.exists():
            return []
        rows = []
        for line in self.jsonl.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict) and isinstance(row.get("epoch"), int):
                rows.append(row)
        return rows

    def keep_until(self, epoch: int) -> None:
        """Drop what comes after an epoch: a resumed run writes it again."""
        rows = [row for row in self.rows() if row["epoch"] <= epoch]
        self.columns = list(rows[0]) if rows else []
        replace_file(self.jsonl, [b"".join(map(_json_line, rows))])
        header = self._csv_line(dict(zip(self.columns, self.columns, strict=True))) if rows else b""
        replace_file(self.csv, [header, *map(self._csv_line, rows)])

    def append(self, row: Row) -> None:
        """Add a row to both files; when this returns it is on the disk."""
        header = b""
        if not self.columns:
            self.columns = list(row)
            header = self._csv_line(dict(zip(self.columns, self.columns, strict=True)))
        _append(self.jsonl, _json_line(row))
        _append(self.csv, header + self._csv_line(row))

    def _csv_line(self, row: Row) -> bytes:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow([row.get(column, "") for column in self.columns])
        return text.getvalue().encode()


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
