"""``gpucnn predict``: the classes of image files by a trained model."""

import argparse
import sys
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from gpucnn.cli.columns import columns, sentence
from gpucnn.cli.options import add_model_options, backend_from, check_number
from gpucnn.data.image_files import fit, grey, open_image
from gpucnn.errors import DataError, UsageError
from gpucnn.inference.digit_preparation import MNIST_SHAPE, prepare_digit
from gpucnn.inference.predict import class_names, normalise, probabilities, top_k
from gpucnn.inference.tta import VIEWS, mean_over_views
from gpucnn.runs.config import Config
from gpucnn.runs.state import load_trained
from gpucnn.terminal import harmless, room, say, say_json, tell
from gpucnn.types import Array

BAR = 40  # characters of a bar for probability 1
NAME = 40  # characters of a class name
BATCH = 64
DETAIL = 4096  # pixels of a photograph's longer side in which a digit is searched


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="PNG, JPEG, GIF, TIFF, BMP or WebP files")
    parser.add_argument("--top", type=int, default=3, metavar="K", help="classes to show (default: 3)")
    parser.add_argument("--invert", action="store_true", help="for dark digits on white paper")
    prepare = "find the digit in a photograph, and prepare it as MNIST's were; paper may be dark or light"
    parser.add_argument("--prepare", choices=["digit"], help=prepare)
    add_model_options(parser)


def run(args: argparse.Namespace) -> int:
    """Predict, then print: a bad file ends the command before any output."""
    check_number("--top", args.top, 1, 1000)
    backend, _ = backend_from(args)
    model, config, _ = load_trained(args.checkpoint, backend)
    names = class_names(config.data.classes, config.model.num_classes)
    check_preparation(args, config)
    answers = []
    for start in range(0, len(args.images), BATCH):
        paths = args.images[start : start + BATCH]
        prepared = [prepare(path, config, args) for path in paths]
        images = np.stack([image for image, _ in prepared])
        x = normalise(images, config.data.mean, config.data.std, backend)
        rows = probabilities(mean_over_views(model, x, VIEWS[args.tta]), backend)
        for path, (_, notes), row in zip(paths, prepared, rows, strict=True):
            classes = [{"class": name, "probability": p} for name, p in top_k(row, names, args.top)]
            answers.append({"image": str(path), "note": ", ".join(notes), "classes": classes})
    if args.json:
        say_json({"checkpoint": str(args.checkpoint), "device": backend.name, "predictions": answers})
    else:
        say(*chain.from_iterable(map(as_lines, answers)))
    return 0


def check_preparation(args: argparse.Namespace, config: Config) -> None:
    """Raises UsageError where --prepare does not go with the model or with --invert."""
    if args.prepare and config.model.input_shape != MNIST_SHAPE:
        size = " x ".join(map(str, config.model.input_shape))
        raise UsageError(f"--prepare digit makes images of 28 x 28 x 1, the model takes {size}: leave it out")
    if args.prepare and args.invert:
        raise UsageError("--prepare digit finds out which side the paper is on: leave --invert out")


def prepare(path: Path, config: Config, args: argparse.Namespace) -> tuple[Array, list[str]]:
    """An image file -> (uint8 (H,W,C) that fits the model, what was changed)."""
    picture, notes = open_image(path)
    if args.prepare:
        picture.thumbnail((DETAIL, DETAIL))
        try:
            image, done = prepare_digit(grey(picture))
        except DataError as error:
            raise DataError(f"{path}: {error}") from None
        return image[..., np.newaxis], notes + done
    image, done = fit(picture, config.model.input_shape)
    if args.invert:
        return 255 - image, [*notes, *done, "inverted"]
    if looks_inverted(image, config):
        ways = "--prepare digit or --invert" if config.model.input_shape == MNIST_SHAPE else "--invert"
        tell(f"hint: {path} is mostly white, the model learned from light on dark: try {ways}")
    return image, notes + done


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
