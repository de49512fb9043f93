"""``gpucnn export``: a trained model without the state that only a resumed run needs, or for other programs."""

import argparse
import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from gpucnn.checkpoint import Checkpoint, save_checkpoint
from gpucnn.checkpoint.durable import replace_file
from gpucnn.cli.options import TRAINED, check_number
from gpucnn.errors import UsageError
from gpucnn.exchange import onnx_out
from gpucnn.exchange.torch_module import module_text
from gpucnn.inference.predict import class_names
from gpucnn.layers import Layer
from gpucnn.runs.config import Config
from gpucnn.runs.imported import safetensors_image
from gpucnn.runs.state import load_trained
from gpucnn.terminal import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    bounds = f"{onnx_out.OLDEST} to {onnx_out.NEWEST}; default: {onnx_out.DEFAULT}"
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="PATH", help=TRAINED)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help=f"the new file: {', '.join(WRITERS)}")
    parser.add_argument("--half", action="store_true", help="weights in float16 on disk: half the size")
    parser.add_argument("--opset", type=int, metavar="N", help=f".onnx: version of its operators, {bounds}")
    parser.add_argument("--no-fold", action="store_true", help=".onnx: leave batch norm a layer of its own")


def run(args: argparse.Namespace) -> int:
    """Write the weights that evaluation uses, with the config and the history, or what other programs take of it."""
    if args.out.suffix not in WRITERS:
        raise UsageError(f"--out {args.out}: the name must end in {' or '.join(WRITERS)}")
    if args.out.exists():
        raise UsageError(f"--out {args.out} exists: choose another name, or remove it first")
    for flag, given in (("--opset", args.opset is not None), ("--no-fold", args.no_fold)):
        if given and args.out.suffix != ".onnx":
            raise UsageError(f"{flag} with --out {args.out}: it is for files that end in .onnx")
    model, config, checkpoint = load_trained(args.checkpoint)
    what = WRITERS[args.out.suffix](args, model, config, checkpoint)
    data = args.out.read_bytes()
    say(f"saved  {args.out}, {len(data):,} bytes, {what}", f"sha256 {hashlib.sha256(data).hexdigest()}")
    return 0


def write_checkpoint(args: argparse.Namespace, model: Layer, config: Config, checkpoint: Checkpoint) -> str:
    """A checkpoint without the state that only a resumed run needs; returns what it holds."""
    state, kind = model.state_dict(), "float16" if args.half else "float32"
    with np.errstate(over="ignore"):  # save_checkpoint names a tensor that overflows
        parameters = {name: state[name].astype(kind) for name in model.parameters()}
    buffers = {name: state[name] for name in model.buffers()}
    save_checkpoint(args.out, replace(checkpoint, parameters=parameters, buffers=buffers, optimizer={}, averages={}))
    return f"weights in {kind}"


def export_onnx(args: argparse.Namespace, model: Layer, config: Config, checkpoint: Checkpoint) -> str:
    """The net as an ONNX graph from pixels to probabilities."""
    if args.half:
        raise UsageError(f"--half with --out {args.out}: ONNX files have float32 weights, leave it out")
    opset = onnx_out.DEFAULT if args.opset is None else args.opset
    check_number("--opset", opset, onnx_out.OLDEST, onnx_out.NEWEST)
    d, m = config.data, config.model
    onnx_out.save_onnx(
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


def write_safetensors(args: argparse.Namespace, model: Layer, config: Config, checkpoint: Checkpoint) -> str:
    """Tensors under PyTorch's names."""
    replace_file(args.out, [safetensors_image(model, config, half=args.half)])
    return f"weights in {'float16' if args.half else 'float32'} for PyTorch"


def write_module(args: argparse.Namespace, model: Layer, config: Config, checkpoint: Checkpoint) -> str:
    """The net as a PyTorch module; its weights are another file."""
    if args.half:
        raise UsageError(f"--half and --out {args.out}: a module has no weights: leave out --half")
    d, m = config.data, config.model
    text = module_text(
        model,
        m.input_shape,
        m.name,
        mean=d.mean,
        std=d.std,
        classes=d.classes,
        scale=255 if d.pixels == "uint8" else 1,
    )
    replace_file(args.out, [text.encode()])
    return "a PyTorch module; its weights: --out NAME.safetensors"


WRITERS = {
    ".h5": write_checkpoint,
    ".onnx": export_onnx,
    ".safetensors": write_safetensors,
    ".py": write_module,
}
"""Suffix -> what writes such a file of (arguments, model, its settings, its checkpoint), and says what is in it."""
