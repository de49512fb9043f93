"""``gpucnn inspect``: what a checkpoint holds."""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from gpucnn.checkpoint import CheckpointFile, open_checkpoint
from gpucnn.checkpoint.contents import read_array
from gpucnn.typing import Array

HELP = "what a checkpoint holds"

WIDTH = 80


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``gpucnn inspect``."""
    parser.add_argument(
        "path", type=Path, metavar="PATH", help="a checkpoint, or a run folder for its last.h5"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a page")


def run(args: argparse.Namespace) -> int:
    """Show a checkpoint; a damaged one is a CheckpointError (exit 4)."""
    path = args.path / "last.h5" if args.path.is_dir() else args.path
    found = describe(open_checkpoint(path))
    print(json.dumps(found, indent=2) if args.json else page(found))
    return 0


def describe(file: CheckpointFile) -> dict[str, Any]:
    """Everything but the numbers themselves."""
    groups = {"model": "parameters", "buffers": "buffers"}
    groups |= {f"optimizer/{state}": f"optimizer state {state!r}" for state in file.states()}
    tensors = {
        title: {name: statistics(read_array(entry)) for name, entry in file.members(group).items()}
        for group, title in groups.items()
    }
    return {
        "path": str(file.path),
        "bytes": file.size,
        "digest": "SHA-256 verified",  # or open_checkpoint would have raised
        "attributes": dict(file.attributes),
        "progress": file.progress(),
        "history": file.history(),
        "config": file.config,
        "environment": _parsed(file.environment),
        "tensors": tensors,
        "total_parameters": sum(row["count"] for row in tensors["parameters"].values()),
    }


def statistics(array: Array) -> dict[str, Any]:
    """Shape, dtype, number of values and their distribution."""
    row: dict[str, Any] = {"shape": list(array.shape), "dtype": str(array.dtype), "count": int(array.size)}
    wide = array.astype("float64")
    for name in ("min", "mean", "max", "std"):
        number = float(getattr(wide, name)()) if array.size else None
        row[name] = number if number is None or np.isfinite(number) else str(number)
    return row


def page(found: dict[str, Any]) -> str:
    """For an 80-column terminal."""
    about, environment = found["attributes"], found["environment"]
    lines = [
        f"{found['path']}",
        f"  {found['bytes']:,} bytes, {found['digest']}",
        f"  {about['format']}, version {about['format_version']}, written by gpucnn {about['gpucnn_version']}",
        f"  epoch {about['epoch']}, step {about['step']:,}, seed {about['seed']}",
        f"  data set {about['dataset_digest'][:32] or 'unknown'}",
    ]
    parts = [
        f"{name} {environment[name]}" for name in ("python", "numpy", "h5py", "cupy") if environment.get(name)
    ]
    if parts:
        lines.append(f"  trained on {environment.get('device_used', '?')} with {', '.join(parts)}")
    lines += ["", "Config", *_config_lines(found["config"])]
    if any(found["history"].values()):
        lines += ["", "History", *_history_lines(found["history"])]
    for title, rows in found["tensors"].items():
        if rows:
            lines += ["", title.capitalize(), *_tensor_lines(rows)]
    return "\n".join([*lines, "", f"{found['total_parameters']:,} parameters in all"])


def _config_lines(text: str) -> list[str]:
    """The settings as they stand in the file, long lines cut off."""
    lines = [line for line in text.splitlines() if line.strip()]
    return [f"  {line}" if len(line) <= WIDTH - 2 else f"  {line[: WIDTH - 6]} ..." for line in lines] or [
        "  none"
    ]


def _history_lines(history: dict[str, list[float]]) -> list[str]:
    """One row per epoch; a long run shows its first and last ones."""
    columns = sorted(history, key=lambda name: (name != "epoch", name))
    cells = [[f"{v}" if isinstance(v, int) else f"{v:.5g}" for v in history[name]] for name in columns]
    rows = [list(row) for row in zip(*cells, strict=True)]
    if len(rows) > 24:
        rows = [*rows[:4], ["..."] * len(columns), *rows[-18:]]
    short = [
        name.replace("accuracy", "acc").replace("learning_rate", "lr").replace("_", " ") for name in columns
    ]
    return _table([short, *rows], left=0)


def _tensor_lines(rows: dict[str, dict[str, Any]]) -> list[str]:
    table = [["tensor", "shape", "dtype", "count", "min", "mean", "max", "std"]]
    for name, row in rows.items():
        numbers = [_short(row[key]) for key in ("min", "mean", "max", "std")]
        shape = "x".join(map(str, row["shape"])) or "scalar"
        table.append([name, shape, row["dtype"].replace("float", "f"), f"{row['count']:,}", *numbers])
    return _table(table, left=2)


def _short(value: Any) -> str:
    """A number in at most eight characters."""
    if value is None or isinstance(value, str):
        return value or "-"
    return f"{value:.3g}"


def _table(rows: list[list[str]], left: int) -> list[str]:
    """Columns under each other, the first ``left`` of them flush left; the first gives way to 80 columns."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    spare = WIDTH - 2 - 2 * (len(widths) - 1) - sum(widths)
    if spare < 0 and left:
        widths[0] = max(12, widths[0] + spare)
    lines = []
    for row in rows:
        first = row[0] if len(row[0]) <= widths[0] else "..." + row[0][3 - widths[0] :]
        cells = [
            f"{c:<{w}}" if i < left else f"{c:>{w}}"
            for i, (c, w) in enumerate(zip([first, *row[1:]], widths))
        ]
        lines.append(("  " + "  ".join(cells)).rstrip())
    return lines


def _parsed(text: str) -> Any:
    """The environment, if it is JSON as gpucnn writes it."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
