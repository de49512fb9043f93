"""Learning curves: the logs of runs, read and drawn."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from itertools import cycle
from math import inf, nan
from pathlib import Path
from typing import Any

from gpucnn.checkpoint import open_checkpoint
from gpucnn.checkpoint.durable import replace_atomically
from gpucnn.errors import CheckpointError, GpucnnError, UsageError, cut
from gpucnn.files import check_target
from gpucnn.plots.feature_maps import DPI, INK, PALE, Sheet, literal_text
from gpucnn.runs.log import HISTORY, STEPS, check_history, read_rows
from gpucnn.terminal import harmless
from gpucnn.training.lr_finder import LRFinderResult

COLORS = ("#0969da", "#bc4c00", "#1a7f37", "#8250df", "#bf3989", "#9a6700", "#57606a", "#0a3069")
GRID = "#eaeef2"
AXES = {"loss": "loss, mean per image", "accuracy": "error, 1 - accuracy"}
STYLES = {"train": ":", "test": "-"}
NAME = 60  # characters of a run's name
PLAIN = "{x:.3g}"  # labels without powers of ten


@dataclass(frozen=True)
class Curves:
    """A run's name and its columns: "epoch", "train_loss", "test_accuracy", ... -> one number per epoch."""

    name: str
    columns: Mapping[str, Sequence[float]]
    steps: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """The same columns of training, one number per interval within epochs; empty where they are not asked for."""


def read_curves(path: Path) -> Curves:
    """The history of a run: of a run folder (metrics.jsonl), of such a file, or of a checkpoint.

    Raises:
        UsageError: there is none, or no epoch in it yet.
        CheckpointError: a checkpoint that is damaged.
    """
    log = path / "metrics.jsonl" if path.is_dir() else path
    name = cut(path.name if path.is_dir() else f"{path.parent.name}/{path.name}", 60)
    error: type[GpucnnError] = UsageError
    if path.suffix == ".h5":
        columns: Mapping[str, Sequence[float]] = open_checkpoint(path).history()
        error = CheckpointError
    else:
        if not log.exists():
            raise UsageError(f"{path} is no run: give a run folder, its metrics.jsonl or a checkpoint")
        rows = list({row["epoch"]: row for row in read_rows(log)}.values())  # a later row of an epoch stands for it
        columns = {key: [_number(row.get(key)) for row in rows] for key in (rows[0] if rows else ())}
    if not columns.get("epoch"):
        raise UsageError(f"{path} has no epoch in its log yet: wait for the first one to end")
    if missing := sorted({f"{part}_{kind}" for part in STYLES for kind in AXES} - columns.keys()):
        raise UsageError(f"{path} has no column {missing[0]!r}: give a run folder, its metrics.jsonl or a checkpoint")
    wanted = {name: columns[name] for name in HISTORY if name in columns}
    check_history(wanted, error, str(path))
    return Curves(harmless(name, NAME), wanted)


def read_steps(path: Path, curves: Curves) -> Curves:
    """The curves of a run folder with the intervals within its epochs.

    Raises:
        UsageError: its run has not logged them.
    """
    rows = read_rows(path / STEPS, "step") if path.is_dir() else []
    wanted = ("epoch", "train_loss", "train_accuracy")
    columns = {name: [row.get(name) for row in rows] for name in wanted}
    numbers = all(isinstance(value, int | float) for column in columns.values() for value in column)
    if not rows or not numbers:
        raise UsageError(f"{path} has no log of intervals ({STEPS}): train with --log-steps, or leave out --steps")
    return replace(
        curves, steps={name: [float(v) for v in column if v is not None] for name, column in columns.items()}
    )


def _number(value: Any) -> float:
    """NaN for null, which a log has in place of NaN and infinity."""
    return nan if value is None else value


def save_curves(path: Path, runs: Sequence[Curves]) -> None:
    """Loss and error over epochs, of training (dotted) and test (solid), one colour per run, as PNG or SVG.

    Intervals within epochs are thin lines behind them.

    Both scales are logarithmic: from 98 to 99 % accuracy is as far as from 96 to 98.
    """
    figure = Sheet(1200, 460).figure
    for place, (kind, label) in enumerate(AXES.items()):
        axes = figure.add_axes((0.06 + 0.5 * place, 0.13, 0.42, 0.72))
        for color, run in zip(cycle(COLORS), runs, strict=False):
            if inner := _points(run.steps, f"train_{kind}", kind):
                axes.plot(*zip(*inner, strict=True), color=color, alpha=0.35, linewidth=0.8)
            for part, style in STYLES.items():
                if points := _points(run.columns, f"{part}_{kind}", kind):
                    dots = {"marker": "o" if len(points) < 3 else "", "markersize": 4}
                    axes.plot(*zip(*points, strict=True), style, color=color, linewidth=1.6, **dots)
        _dress(axes, label, "epoch")
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(PLAIN)
        low, high = axes.get_ylim()
        axes.yaxis.set_minor_formatter(PLAIN if high < 10 * low else _plain_if_many)
        axes.grid(which="both", color=GRID, linewidth=0.8)
        axes.xaxis.get_major_locator().set_params(integer=True)
    for color, run in zip(cycle(COLORS), runs, strict=False):
        axes.plot([], [], color=color, label=f"{run.name}: {100 * run.columns['test_accuracy'][-1]:.2f} %")
    for part, style in STYLES.items():
        axes.plot([], [], style, color=PALE, label=part)
    look = {"ncols": min(len(runs) + len(STYLES), 5), "frameon": False, "fontsize": 9, "labelcolor": INK}
    with literal_text():
        figure.legend(loc="upper left", bbox_to_anchor=(0.05, 0.99), **look)
        _save(figure, path)


def _dress(axes: Any, title: str, label: str) -> None:
    """The common style of all plots: title, label of the horizontal axis, ticks, no frame at the top and the right."""
    axes.set_title(title, loc="left", fontsize=11, color=INK)
    axes.set_xlabel(label, fontsize=9, color=PALE)
    axes.tick_params(which="both", labelsize=8, colors=PALE)
    axes.spines[["top", "right"]].set_visible(False)


def _points(columns: Mapping[str, Sequence[float]], name: str, kind: str) -> list[tuple[float, float]]:
    """The points (epoch, value) of a column with a finite logarithm, which leaves out NaN and 0."""
    values = (v if kind == "loss" else 1.0 - v for v in columns.get(name, ()))
    return [(e, v) for e, v in zip(columns.get("epoch", ()), values, strict=True) if 0.0 < v < inf]


def _plain_if_many(value: float, position: int) -> str:
    """Labels for 2 and 5 only among the lines between powers of ten."""
    return f"{value:.3g}" if f"{value:.0e}"[0] in "25" else ""


def save_range_test(path: Path, found: LRFinderResult, title: str) -> None:
    """The loss over the learning rate, raw and smoothed, with the steepest descent marked."""
    figure = Sheet(760, 460).figure
    axes = figure.add_axes((0.09, 0.12, 0.87, 0.76))
    axes.plot(found.rates, found.losses, color="#b6e3ff", linewidth=1.0, label="loss of a batch")
    axes.plot(found.rates, found.smoothed, color=COLORS[0], linewidth=1.8, label="smoothed")
    axes.axvline(found.steepest, color=COLORS[1], linewidth=1.2, label=f"falls fastest: {found.steepest:.2g}")
    axes.axvline(found.lowest, color=PALE, linewidth=1.2, linestyle="--", label=f"lowest: {found.lowest:.2g}")
    axes.axvline(found.lowest / 10, color=PALE, linewidth=1.2, linestyle=":", label="a tenth of that")
    axes.set_xscale("log")
    low, high = min(found.smoothed), found.smoothed[0]
    axes.set_ylim(max(0.0, low - 0.15 * (high - low)), high + 0.5 * (high - low) + 1e-9)
    _dress(axes, title, "learning rate")
    axes.set_ylabel(AXES["loss"], fontsize=9, color=PALE)
    axes.grid(color=GRID, linewidth=0.8)
    axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    """In the format of the name; what was there is replaced as a whole."""
    check_target(path)
    file = BytesIO()
    with literal_text():
        figure.savefig(file, format=path.suffix[1:].lower(), dpi=DPI)
    replace_atomically(path, [file.getvalue()])
