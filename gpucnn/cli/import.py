"""``gpucnn import``: weights of other programs as a checkpoint that evaluates, predicts and can be fine-tuned."""

import argparse
from pathlib import Path
from typing import Any

from gpucnn.checkpoint import save_checkpoint
from gpucnn.errors import UsageError, shown
from gpucnn.exchange.safetensors_file import refuse_pickle
from gpucnn.runs.imported import import_safetensors
from gpucnn.terminal import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="weights, as NAME.safetensors")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the new checkpoint, NAME.h5")
    parser.add_argument("--model", metavar="NAME", help="the network; files of gpucnn export say it themselves")
    spec = "instead of --model: a config with [[model.layers]], or with a model's name and options"
    parser.add_argument("--spec", type=Path, metavar="FILE", help=spec)
    parser.add_argument("--input-shape", metavar="HxWxC", help="height, width and channels of its images")
    parser.add_argument("--classes", nargs="+", metavar="NAMES", help="the number of classes, or their names")
    for flag in ("--mean", "--std"):
        help = "of images on a 0..1 scale, one number a channel with commas"
        parser.add_argument(flag, metavar="NUMBERS", help=help)
    parser.add_argument("--dataset", metavar="NAME", help="the data set that it is for, where gpucnn evaluate looks")


def run(args: argparse.Namespace) -> int:
    """Write a checkpoint at epoch 0."""
    refuse_pickle(args.file)
    if args.file.suffix != ".safetensors":
        raise UsageError(f"{args.file}: the name must end in .safetensors")
    if args.out.suffix != ".h5":
        raise UsageError(f"--out {args.out}: the name must end in .h5")
    if args.out.exists():
        raise UsageError(f"--out {args.out} exists: choose another name, or remove it first")
    if args.spec and args.model:
        raise UsageError(f"--spec {args.spec} and --model {args.model}: give one of the two")
    checkpoint, config = import_safetensors(args.file, given(args), args.spec)
    save_checkpoint(args.out, checkpoint)
    tensors, m = {**checkpoint.parameters, **checkpoint.buffers}, config.model
    shape = " x ".join(map(str, m.input_shape))
    say(
        f"read   {args.file}: {len(tensors):,} tensors, {sum(a.size for a in tensors.values()):,} numbers",
        f"saved  {args.out}: {m.name} for images {shape} in {m.num_classes:,} classes",
    )
    return 0


def given(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """The settings whose flags were given, by table."""
    data: dict[str, Any] = {"dataset": args.dataset} if args.dataset else {}
    model: dict[str, Any] = {"name": args.model} if args.model else {}
    if args.input_shape:
        model["input_shape"] = numbers("--input-shape", args.input_shape.lower().replace("x", ","), int, "224x224x3")
    for key in ("mean", "std"):
        if text := getattr(args, key):
            data[key] = numbers(f"--{key}", text, float, "0.5,0.5,0.5")
    if args.classes:
        (first, *more) = args.classes
        count = first.isascii() and first.isdigit() and len(first) < 10 and not more
        model["num_classes"] = int(first) if count else len(args.classes)
        data["classes"] = [] if count else args.classes
    return {"data": data, "model": model}


def numbers(flag: str, text: str, kind: type, example: str) -> list[Any]:
    """Numbers with commas between them."""
    try:
        return [kind(word) for word in text.split(",")]
    except ValueError:
        raise UsageError(f"{flag} {shown(text)}: give numbers, as {example}") from None
