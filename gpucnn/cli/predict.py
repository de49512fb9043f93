"""``gpucnn predict``: the classes of image files by a trained model."""

import argparse
import csv
import io
import json
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from gpucnn.checkpoint.durable import replace_file
from gpucnn.cli.columns import columns, counted, sentence
from gpucnn.cli.options import add_model_options, backend_from, check_number
from gpucnn.data.folders import images_below
from gpucnn.data.image_files import decode, fit, grey, without_warnings
from gpucnn.devices.cores import thread_count
from gpucnn.errors import DataError, UsageError
from gpucnn.inference.digit_preparation import MNIST_SHAPE, prepare_digit
from gpucnn.inference.predict import class_names, normalise, probabilities, top_k
from gpucnn.inference.tta import VIEWS, mean_over_views
from gpucnn.runs.build import check_files
from gpucnn.runs.config import Config
from gpucnn.runs.state import load_trained
from gpucnn.terminal import harmless, room, say, say_json, show, tell
from gpucnn.types import Array

BAR = 40  # characters of a bar for probability 1
NAME = 40  # characters of a class name
BATCH = 64
DETAIL = 4096  # pixels of a photograph's longer side in which a digit is searched


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = "PNG, JPEG, GIF, TIFF, BMP or WebP files, and folders of such"
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help=kinds)
    parser.add_argument("--top", type=int, default=3, metavar="K", help="classes to show (default: 3)")
    parser.add_argument("--invert", action="store_true", help="for dark digits on white paper")
    prepare = "find the digit in a photograph, and prepare it as MNIST's were; paper may be dark or light"
    parser.add_argument("--prepare", choices=["digit"], help=prepare)
    table = "write the predictions into this file, a line per image: .csv, or .jsonl (JSON lines)"
    parser.add_argument("--output", type=Path, metavar="FILE", help=table)
    add_model_options(parser)


def run(args: argparse.Namespace) -> int:
    """Predict, then print or write: a bad file ends the command before any output."""
    check_number("--top", args.top, 1, 1000)
    if args.output and args.output.suffix.lower() not in WRITERS:
        raise UsageError(f"--output {args.output}: the name must end in {' or '.join(WRITERS)}")
    backend, _ = backend_from(args)
    model, config, _ = load_trained(args.checkpoint, backend)
    names = class_names(config.data.classes, config.model.num_classes)
    check_preparation(args, config)
    paths = listed(args.images)
    answers: list[dict[str, Any]] = []
    broken: list[str] = []
    for start in range(0, len(paths), BATCH):
        if len(paths) > BATCH:
            show(f"{start:,} of {len(paths):,} images")
        prepared = prepare_all(paths[start : start + BATCH], config, args, broken)
        if not prepared:
            continue
        x = normalise(np.stack([image for _, image, _ in prepared]), config.data.mean, config.data.std, backend)
        rows = probabilities(mean_over_views(model, x, VIEWS[args.tta]), backend)
        for (path, _, notes), row in zip(prepared, rows, strict=True):
            classes = [{"class": name, "probability": p} for name, p in top_k(row, names, args.top)]
            answers.append({"image": str(path), "note": ", ".join(notes), "classes": classes})
    show("")
    if broken:
        tell(f"left out {len(broken):,} of {len(paths):,} images that cannot be read: {'; '.join(broken[:3])}")
    if args.output:
        replace_file(args.output, [WRITERS[args.output.suffix.lower()](answers)])
    if args.json:
        say_json({"checkpoint": str(args.checkpoint), "device": backend.name, "predictions": answers})
    elif args.output:
        say(f"{args.output}   {counted(len(answers), 'image')}")
    else:
        say(*chain.from_iterable(map(as_lines, answers)))
    return 0


def listed(paths: Sequence[Path]) -> list[Path]:
    """These files, and those in these folders; raises DataError for a folder without images."""
    found: list[Path] = []
    for path in paths:
        inside = images_below(path) if path.is_dir() else [path]
        if not inside:
            raise DataError(f"{path} has no images: name a folder that has some, or image files")
        found += inside
    return found


def prepare_all(
    paths: Sequence[Path], config: Config, args: argparse.Namespace, broken: list[str]
) -> list[tuple[Path, Array, list[str]]]:
    """(path, image uint8 (H,W,C), what was changed) of some files, by threads.

    Args:
        broken: with --skip-broken it gets what is wrong with files that cannot be read.
    """

    def one(path: Path) -> tuple[Path, Array, list[str]] | DataError:
        try:
            return path, *prepare(path, config, args)
        except DataError as error:
            return error

    with without_warnings(), ThreadPoolExecutor(thread_count(args.threads or 0)) as pool:
        found = list(pool.map(one, paths))
    for error in found:
        if isinstance(error, DataError):
            if not args.skip_broken:
                raise error
            broken.append(str(error))
    prepared = [one for one in found if not isinstance(one, DataError)]
    white = [path for path, image, _ in prepared if not (args.prepare or args.invert) and looks_inverted(image, config)]
    if white:
        ways = "--prepare digit or --invert" if config.model.input_shape == MNIST_SHAPE else "--invert"
        what = f"{white[0]} is" if len(white) == 1 else f"{white[0]} and {len(white) - 1} more are"
        tell(f"hint: {what} mostly white, the model learned from light on dark: try {ways}")
    return prepared


def as_csv(answers: Sequence[dict[str, Any]]) -> bytes:
    """A line per image: its name, then class and probability, the most probable first."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    most = max((len(answer["classes"]) for answer in answers), default=1)
    numbers = ["", *(f"_{rank}" for rank in range(2, most + 1))]
    writer.writerow(["image", *(f"{name}{number}" for number in numbers for name in ("class", "probability"))])
    for answer in answers:
        cells = (cell for row in answer["classes"] for cell in (row["class"], f"{row['probability']:.6g}"))
        writer.writerow([answer["image"], *cells])
    return text.getvalue().encode(errors="surrogateescape")


def as_json_lines(answers: Sequence[dict[str, Any]]) -> bytes:
    """An object per image."""
    return "".join(f"{json.dumps(answer)}\n" for answer in answers).encode()


WRITERS = {".csv": as_csv, ".jsonl": as_json_lines}
"""Ending of a file's name -> what is written into it."""


def check_preparation(args: argparse.Namespace, config: Config) -> None:
    """Raises UsageError where --prepare does not go with the model or with --invert, or no image file does."""
    check_files(config.data.pixels)
    if args.prepare and config.model.input_shape != MNIST_SHAPE:
        size = " x ".join(map(str, config.model.input_shape))
        raise UsageError(f"--prepare digit makes images of 28 x 28 x 1, the model takes {size}: leave it out")
    if args.prepare and args.invert:
        raise UsageError("--prepare digit finds out which side the paper is on: leave --invert out")


def prepare(path: Path, config: Config, args: argparse.Namespace) -> tuple[Array, list[str]]:
    """An image file -> (uint8 (H,W,C) that fits the model, what was changed)."""
    picture, notes = decode(path)
    if args.prepare:
        picture.thumbnail((DETAIL, DETAIL))
        try:
            image, done = prepare_digit(grey(picture))
        except DataError as error:
            raise DataError(f"{path}: {error}") from None
        return image[..., np.newaxis], notes + done
    image, done = fit(picture, config.model.input_shape, config.data.fit)
    if args.invert:
        return 255 - image, [*notes, *done, "inverted"]
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
