"""``gpucnn export``: a trained model without the state that only a resumed run needs."""

import argparse
import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from gpucnn.checkpoint import save_checkpoint
from gpucnn.cli.options import TRAINED
from gpucnn.errors import UsageError
from gpucnn.runs.state import load_trained
from gpucnn.terminal import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="PATH", help=TRAINED)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the new file, NAME.h5")
    parser.add_argument("--half", action="store_true", help="weights in float16 on disk: half the size")


def run(args: argparse.Namespace) -> int:
    """Write the weights that evaluation uses, with the config and the history."""
    if args.out.suffix != ".h5":
        raise UsageError(f"--out {args.out}: the name must end in .h5")
    if args.out.exists():
        raise UsageError(f"--out {args.out} exists: choose another name, or remove it first")
    model, _, checkpoint = load_trained(args.checkpoint)
    state = model.state_dict()
    kind = "float16" if args.half else "float32"
    with np.errstate(over="ignore"):  # save_checkpoint names a tensor that overflows
        parameters = {name: state[name].astype(kind) for name in model.parameters()}
    buffers = {name: state[name] for name in model.buffers()}
    save_checkpoint(args.out, replace(checkpoint, parameters=parameters, buffers=buffers, optimizer={}, averages={}))
    data = args.out.read_bytes()
    say(f"saved  {args.out}, {len(data):,} bytes, weights in {kind}", f"sha256 {hashlib.sha256(data).hexdigest()}")
    return 0
