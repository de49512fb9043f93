"""``gpucnn inspect``: the contents of a checkpoint."""

import argparse
import json
import re
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gpucnn.checkpoint import CheckpointFile, open_checkpoint
from gpucnn.checkpoint.contents import read_array
from gpucnn.cli.columns import columns, paragraph
from gpucnn.cli.options import shape_from
from gpucnn.errors import UsageError
from gpucnn.models import to_spec
from gpucnn.models.spec import general
from gpucnn.runs.build import build_model
from gpucnn.runs.catalogue import checkpoint_file
from gpucnn.runs.config import Config, ModelConfig, as_toml
from gpucnn.runs.directory import natural_order
from gpucnn.runs.state import load_run
from gpucnn.terminal import say, say_json
from gpucnn.types import Array, Shape


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", type=Path, nargs="?", help="a checkpoint, a pretrained model's name, or a run folder")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a page")
    parser.add_argument("--architecture", action="store_true", help="the net as the [[model.layers]] of a config")
    parser.add_argument("--model", metavar="NAME", help="with --architecture: a model by its name, not of a checkpoint")
    parser.add_argument("--input-shape", metavar="HxWxC", help="with --model: of an image (default: 32x32x3)")


def run(args: argparse.Namespace) -> int:
    """Show a checkpoint; a damaged one is a CheckpointError (exit 4)."""
    if (args.path is None) == (args.model is None):
        raise UsageError("name a checkpoint, or with --architecture a --model")
    if (args.model and not args.architecture) or (args.input_shape and not args.model):
        raise UsageError("--model is for --architecture, and --input-shape for --model: add them, or leave it out")
    if args.model:
        return show_architecture(by_name(args.model, shape_from(args.input_shape or "32x32x3")), args.json)
    path = args.path / "last.h5" if args.path.is_dir() else checkpoint_file(args.path)
    if args.architecture:
        return show_architecture(load_run(path)[1].model, args.json)
    found = describe(open_checkpoint(path))
    if args.json:
        say_json(found, indent=2)
    else:
        say(*page(found))
    return 0


def by_name(name: str, shape: Shape) -> ModelConfig:
    """The settings of a model for such images in ten classes."""
    return replace(Config().with_value("model.name", name).model, input_shape=shape, num_classes=10)


def show_architecture(model: ModelConfig, as_json: bool) -> int:
    """A net as layers, without the numbers that follow from its images and classes."""
    spec = json.loads(json.dumps(model.layers)) or to_spec(build_model(Config(model=model)))
    layers = general(spec, model.input_shape, model.num_classes)
    if as_json:
        say_json(layers, indent=2)
    else:
        say("[model]", *f"layers = {as_toml(layers)}".splitlines())
    return 0


def describe(file: CheckpointFile) -> dict[str, Any]:
    """Everything but the values of the tensors."""
    groups = {"model": "parameters", "buffers": "buffers"}
    groups |= {f"optimizer/{state}": f"optimizer state {state!r}" for state in file.states()}
    groups |= {f"averages/{name}": f"average {name!r}" for name in file.averages()}
    tensors = {}
    for group, title in groups.items():
        entries = file.members(group)
        names = sorted(entries, key=natural_order)  # layer 9 before layer 10
        tensors[title] = {name: statistics(read_array(entries[name])) for name in names}
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


def page(found: dict[str, Any]) -> list[str]:
    """The description, line by line."""
    about, environment, line = found["attributes"], found["environment"], partial(paragraph, "", indent=2)
    lines = [
        f"{found['path']}",
        f"  {found['bytes']:,} bytes, {found['digest']}",
        *line(f"{about['format']} {about['format_version']}, written by gpucnn {about['gpucnn_version']}"),
        *line(f"epoch {about['epoch']}, step {about['step']:,}, seed {about['seed']}"),
        *line(f"data set {about['dataset_digest'][:32] or 'unknown'}"),
    ]
    parts = [f"{name} {environment[name]}" for name in ("python", "numpy", "h5py", "cupy") if environment.get(name)]
    if parts:
        lines += line(f"trained on {environment.get('device_used', '?')} with {', '.join(parts)}")
    lines += ["", "Config", *_config_lines(found["config"])]
    if any(found["history"].values()):
        lines += ["", "History", *_history_lines(found["history"])]
    for title, rows in found["tensors"].items():
        if rows:
            kinds = sorted({row["dtype"] for row in rows.values()})
            lines += ["", f"{title.capitalize()} ({', '.join(kinds)})", *_tensor_lines(rows)]
    return [*lines, "", f"{found['total_parameters']:,} parameters in all"]


def _config_lines(text: str) -> list[str]:
    """The settings, one paragraph per table."""
    lines: list[str] = []
    for section in re.split(r"^(?=\[)", re.sub(r"\n +|\n(?=])", " ", text), flags=re.MULTILINE):
        head, _, settings = section.partition("\n") if section.startswith("[") else ("", "", section)
        words = ", ".join(filter(str.strip, settings.splitlines()))
        lines += paragraph(f"  {head:<11} ", words, 14)
    return lines or ["  none"]


def _history_lines(history: dict[str, list[float]]) -> list[str]:
    """One row per epoch; of a long run the first and the last ones."""
    names = sorted(history, key=lambda name: (name != "epoch", name))
    epochs = zip(*(history[name] for name in names), strict=True)
    rows = [[f"{v}" if isinstance(v, int) else f"{v:.5g}" for v in epoch] for epoch in epochs]
    if len(rows) > 24:
        rows = [*rows[:4], ["..."] * len(names), *rows[-18:]]
    short = [name.replace("accuracy", "acc").replace("learning_rate", "lr").replace("_", " ") for name in names]
    return columns([short, *rows], ">", "  ")


def _tensor_lines(rows: dict[str, dict[str, Any]]) -> list[str]:
    """One row per tensor."""
    table = [["name", "shape", "count", "min", "mean", "max", "std"]]
    kinds = {row["dtype"] for row in rows.values()}
    for name, row in rows.items():
        shape = "x".join(map(str, row["shape"])) or "scalar"
        shape += "" if len(kinds) == 1 else f" {row['dtype']}"
        table.append([name, shape, f"{row['count']:,}", *(_short(row[k]) for k in ("min", "mean", "max", "std"))])
    return columns(table, "<<>", "  ")


def _short(value: Any) -> str:
    """A number in at most seven characters."""
    if value is None or isinstance(value, str):
        return value or "-"
    if value == 0 or 1e-3 <= abs(value) < 1e3:
        return f"{value:.3f}".rstrip("0").rstrip(".")
    return f"{value:.0e}"


def _parsed(text: str) -> dict[str, Any]:
    """The environment, or {} where it is not a JSON object."""
    with suppress(ValueError, RecursionError):
        if isinstance(found := json.loads(text), dict):
            return found
    return {}
