"""``gpucnn plot``: the learning curves of one run, or of several beside each other."""

import argparse
from pathlib import Path

from gpucnn.cli.options import check_picture, writing
from gpucnn.plots.learning_curves import read_curves, save_curves


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folders, metrics.jsonl or checkpoints")
    out = Path("curves.png")
    parser.add_argument("--out", type=Path, default=out, metavar="FILE", help=f"PNG, SVG or PDF (default: {out})")


def run(args: argparse.Namespace) -> int:
    """Draw, and say for each run where it ended."""
    check_picture(args.out)
    runs = [read_curves(path) for path in args.runs]
    with writing(args.out):
        save_curves(args.out, runs)
    for curves in runs:
        last = {name.replace("_", " "): values[-1] for name, values in curves.columns.items()}
        numbers = "   ".join(f"{name} {last[name]:.4f}" for name in ("train loss", "test loss", "test accuracy"))
        print(f"{curves.name}   {last['epoch']} epochs   {numbers}")
    print(f"saved  {args.out}")
    return 0
