"""``gpucnn export``: a trained model without the state that only a resumed run needs, or as an ONNX graph."""

import argparse
import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from gpucnn.checkpoint import save_checkpoint
from gpucnn.cli.options import TRAINED, check_number
from gpucnn.errors import UsageError
from gpucnn.inference.predict import class_names
from gpucnn.runs.state import load_trained
from gpucnn.terminal import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="PATH", help=TRAINED)
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help=f"the new file, NAME{' or '.join(WAYS)}"
    )
    parser.add_argument("--half", action="store_true", help="weights in float16 on disk: half the size (.h5)")
    parser.add_argument("--opset", type=int, metavar="N", help="version of ONNX's operators, 13 to 22; default: 17")
    parser.add_argument("--no-fold", action="store_true", help="leave batch norm a layer of its own (.onnx)")


def run(args: argparse.Namespace) -> int:
    """Write the weights that evaluation uses, in the format that the file's name says."""
    if args.out.suffix not in WAYS:
        raise UsageError(f"--out {args.out}: the name must end in {' or '.join(WAYS)}")
    if args.out.exists():
        raise UsageError(f"--out {args.out} exists: choose another name, or remove it first")
    for flag, suffix, given in (
        ("--half", ".h5", args.half),
        ("--opset", ".onnx", args.opset is not None),
        ("--no-fold", ".onnx", args.no_fold),
    ):
        if given and args.out.suffix != suffix:
            raise UsageError(f"{flag} with --out {args.out}: it is for files that end in {suffix}")
    about = WAYS[args.out.suffix](args)
    data = args.out.read_bytes()
    say(f"saved  {args.out}, {len(data):,} bytes, {about}", f"sha256 {hashlib.sha256(data).hexdigest()}")
    return 0


def export_checkpoint(args: argparse.Namespace) -> str:
    """The weights with the config and the history; returns what is to be said of the file."""
    model, _, checkpoint = load_trained(args.checkpoint)
    state = model.state_dict()
    kind = "float16" if args.half else "float32"
    with np.errstate(over="ignore"):  # save_checkpoint names a tensor that overflows
        parameters = {name: state[name].astype(kind) for name in model.parameters()}
    buffers = {name: state[name] for name in model.buffers()}
    save_checkpoint(args.out, replace(checkpoint, parameters=parameters, buffers=buffers, optimizer={}, averages={}))
    return f"weights in {kind}"


def export_onnx(args: argparse.Namespace) -> str:
    """The net as a graph from pixels to probabilities; returns what is to be said of the file."""
    try:
        from gpucnn.exchange.onnx_out import DEFAULT, NEWEST, OLDEST, save_onnx
    except ImportError as error:
        raise UsageError(f"--out {args.out} needs onnx ({error}): pip install 'gpucnn[onnx]'") from None
    opset = DEFAULT if args.opset is None else args.opset
    check_number("--opset", opset, OLDEST, NEWEST)
    model, config, _ = load_trained(args.checkpoint)
    d, m = config.data, config.model
    save_onnx(
        args.out,
        model,
        m.input_shape,
        mean=d.mean,
        std=d.std,
        pixels=d.pixels,
        classes=class_names(d.classes, m.num_classes),
        name=m.name,
        opset=opset,
        fold=not args.no_fold,
    )
    return f"opset {opset}, pixels {d.pixels} (N, {', '.join(map(str, m.input_shape))})"


WAYS: dict[str, Callable[[argparse.Namespace], str]] = {".h5": export_checkpoint, ".onnx": export_onnx}
"""Ending of --out -> what writes such a file."""
