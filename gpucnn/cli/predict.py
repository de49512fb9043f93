"""``gpucnn predict``: the classes of image files by a trained model."""

import argparse
import sys
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from gpucnn.cli.columns import columns, sentence
from gpucnn.cli.options import add_model_options, backend_from
from gpucnn.inference.image_files import fit, open_image
from gpucnn.inference.predict import class_names, normalise, probabilities, top_k
from gpucnn.inference.tta import VIEWS, mean_over_views
from gpucnn.runs.config import Config
from gpucnn.runs.state import load_trained
from gpucnn.terminal import harmless, room, say, say_json, tell
from gpucnn.types import Array

BAR = 40  # characters of a bar for probability 1
NAME = 40  # characters of a class name
BATCH = 64


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="PNG or JPEG files")
    parser.add_argument("--top", type=positive, default=3, metavar="K", help="classes to show (default: 3)")
    parser.add_argument("--invert", action="store_true", help="for dark digits on white paper")
    add_model_options(parser)


def positive(text: str) -> int:
    """An integer >= 1."""
    if not text.isdecimal() or not int(text[:9]):
        raise argparse.ArgumentTypeError(f"{text}: give an integer of at least 1")
    return int(text[:9])


def run(args: argparse.Namespace) -> int:
    """Predict, then print: a bad file ends the command before any output."""
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
        say_json({"checkpoint": str(args.checkpoint), "device": backend.name, "predictions": answers})
    else:
        say(*chain.from_iterable(map(as_lines, answers)))
    return 0


def prepare(path: Path, config: Config, invert: bool) -> tuple[Array, str]:
    """An image file -> (uint8 (H,W,C) that fits the model, what was changed)."""
    image, note = fit(open_image(path), config.model.input_shape)
    if invert:
        return 255 - image, ", ".join(filter(None, [note, "inverted"]))
    if looks_inverted(image, config):
        tell(f"hint: {path} is mostly white, the model learned from light on dark: try --invert")
    return image, note


def looks_inverted(image: Array, config: Config) -> bool:
    """Whether a grey image is mostly white and the model's training images were mostly black."""
    return config.model.input_shape[2] == 1 and bool(image.mean() > 127.5 and max(config.data.mean, default=1.0) < 0.5)


def as_lines(answer: dict[str, Any]) -> list[str]:
    """One image's classes as bars."""
    head = answer["image"] + (f" ({answer['note']})" if answer["note"] else "")
    bar = min(BAR, room(sys.stdout) - 34)
    rows = [
        (harmless(row["class"], NAME), f"{100 * row['probability']:.2f} %", "#" * round(row["probability"] * bar))
        for row in answer["classes"]
    ]
    return [*sentence("", head, 0), *columns(rows, "<><", "  ")]
