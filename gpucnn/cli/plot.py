"""``gpucnn plot``: the learning curves of one run, or of several beside each other."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from gpucnn.cli.columns import counted, sentence
from gpucnn.cli.options import check_picture, writing
from gpucnn.errors import UsageError
from gpucnn.plots.learning_curves import Curves, read_curves, read_steps, save_curves
from gpucnn.terminal import say, tell


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folders, metrics.jsonl or checkpoints")
    steps = "also draw the intervals within epochs, of runs trained with --log-steps"
    parser.add_argument("--steps", action="store_true", help=steps)
    out = Path("curves.png")
    parser.add_argument("--out", type=Path, default=out, metavar="FILE", help=f"PNG, SVG or PDF (default: {out})")


def run(args: argparse.Namespace) -> int:
    """Draw, and say for each run where it ended."""
    check_picture(args.out)
    runs = read_all(args.runs, steps=args.steps)
    with writing(args.out):
        save_curves(args.out, runs)
    for curves in runs:
        last = {name.replace("_", " "): values[-1] for name, values in curves.columns.items()}
        numbers = "   ".join(f"{name} {last[name]:.4f}" for name in ("train loss", "test loss", "test accuracy"))
        say(*sentence("", f"{curves.name}   {counted(int(last['epoch']), 'epoch')}   {numbers}", 0))
    say(f"saved  {args.out}")
    return 0


def read_all(paths: Sequence[Path], *, steps: bool) -> list[Curves]:
    """The curves of all runs; beside others, a folder without an epoch is left out, and a line says so.

    Raises:
        UsageError: none of them has an epoch, or one lacks the log of its ``steps`` that are asked for.
    """
    found, empty = [], []
    for path in paths:
        try:
            curves = read_curves(path)
        except UsageError as error:
            if not path.is_dir():
                raise
            empty.append(error)
        else:
            found.append(read_steps(path, curves) if steps else curves)
    if not found:
        raise empty[0]
    tell(*(f"left out: {reason}" for reason in empty))
    return found
