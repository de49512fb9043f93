"""``gpucnn export``: a trained model without the state that only a resumed run needs, or for other programs."""

import argparse
import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from gpucnn.checkpoint import Checkpoint, save_checkpoint
from gpucnn.checkpoint.durable import replace_file
from gpucnn.cli.options import TRAINED
from gpucnn.errors import UsageError
from gpucnn.exchange.torch_module import module_text
from gpucnn.layers import Layer
from gpucnn.runs.config import Config
from gpucnn.runs.imported import safetensors_image
from gpucnn.runs.state import load_trained
from gpucnn.terminal import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="PATH", help=TRAINED)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help=f"the new file: {', '.join(WRITERS)}")
    parser.add_argument("--half", action="store_true", help="weights in float16 on disk: half the size")


def run(args: argparse.Namespace) -> int:
    """Write the weights that evaluation uses, with the config and the history, or what other programs take of it."""
    if args.out.suffix not in WRITERS:
        raise UsageError(f"--out {args.out}: the name must end in {' or '.join(WRITERS)}")
    if args.out.exists():
        raise UsageError(f"--out {args.out} exists: choose another name, or remove it first")
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


WRITERS = {".h5": write_checkpoint, ".safetensors": write_safetensors, ".py": write_module}
"""Suffix -> what writes such a file of (arguments, model, its settings, its checkpoint), and says what is in it."""
