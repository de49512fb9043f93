"""``gpucnn predict``: the classes of image files by a trained model."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from gpucnn.cli.options import add_model_options, backend_from, check_number
from gpucnn.inference.image_files import fit, open_image
from gpucnn.inference.predict import class_names, normalise, probabilities, top_k
from gpucnn.inference.tta import VIEWS, mean_over_views
from gpucnn.runs.config import Config
from gpucnn.runs.state import load_trained
from gpucnn.types import Array

BAR = 40  # characters of a bar for probability 1
BATCH = 64


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="PNG or JPEG files")
    parser.add_argument("--top", type=int, default=3, metavar="K", help="classes to show (default: 3)")
    parser.add_argument("--invert", action="store_true", help="for dark digits on white paper")
    add_model_options(parser)


def run(args: argparse.Namespace) -> int:
    """Predict, then print: a bad file ends the command before any output."""
    check_number("--top", args.top, 1, 1000)
    backend, _ = backend_from(args)
    model, config, _ = load_trained(args.checkpoint, backend)
    names = class_names(config.data.classes, config.model.num_classes)
    answers = []
    for start in range(0, len(args.images), BATCH):
        paths = args.images[start : start + BATCH]
        prepared = [prepare(path, config, args.invert) for path in paths]
        images = np.stack([image for image, _ in prepared])
        x = normalise(images, config.data.mean, config.data.std, backend)
        rows = probabilities(mean_over_views(model, x, VIEWS[args.tta]), backend)
        for path, (_, note), row in zip(paths, prepared, rows, strict=True):
            classes = [{"class": name, "probability": p} for name, p in top_k(row, names, args.top)]
            answers.append({"image": str(path), "note": note, "classes": classes})
    if args.json:
        print(json.dumps({"checkpoint": str(args.checkpoint), "device": backend.name, "predictions": answers}))
    else:
        print("\n\n".join(map(as_text, answers)))
    return 0


def prepare(path: Path, config: Config, invert: bool) -> tuple[Array, str]:
    """An image file -> (uint8 (H,W,C) that fits the model, what was changed)."""
    image, note = fit(open_image(path), config.model.input_shape)
    if invert:
        return 255 - image, ", ".join(filter(None, [note, "inverted"]))
    if looks_inverted(image, config):
        hint = f"{path} is mostly white, the model learned from light on dark: try --invert"
        print(f"gpucnn: hint: {hint}", file=sys.stderr)
    return image, note


def looks_inverted(image: Array, config: Config) -> bool:
    """Whether a grey image is mostly white and the model's training images were mostly black."""
    return config.model.input_shape[2] == 1 and bool(image.mean() > 127.5 and max(config.data.mean, default=1.0) < 0.5)


def as_text(answer: dict[str, Any]) -> str:
    """One image's classes as bars."""
    lines = [answer["image"] + (f" ({answer['note']})" if answer["note"] else "")]
    for row in answer["classes"]:
        bar = "#" * round(row["probability"] * BAR)
        lines.append(f"  {row['class'][:20]:<20} {row['probability']:>7.2%}  {bar}".rstrip())
    return "\n".join(lines)
