"""``gpucnn features``: feature maps of the lecture's demo 1 (L25) or of a trained model, as grey images."""

import argparse
import os
from collections.abc import Callable, Sequence
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from gpucnn.cli.columns import counted, sentence
from gpucnn.cli.options import add_data_options, load_fitted, writing
from gpucnn.data.image_files import fit, grey, open_image, titled, visible
from gpucnn.errors import UsageError, closest, shown
from gpucnn.inference.activations import trace
from gpucnn.inference.attribution import attribute
from gpucnn.inference.predict import class_names, normalise, probabilities
from gpucnn.layers import Dropout, Flatten, Residual
from gpucnn.plots import feature_maps, lecture_demo
from gpucnn.plots.feature_maps import Stage
from gpucnn.plots.index import write_index
from gpucnn.plots.report import Example, save_attention
from gpucnn.runs.build import check_data, check_files, split
from gpucnn.runs.config import Config
from gpucnn.runs.state import load_trained
from gpucnn.terminal import say
from gpucnn.types import Array

LARGEST = 1024  # pixels on the long side of a photograph


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", nargs="?", type=Path, help="an image file (default: a photograph of scikit-learn)")
    parser.add_argument("--out", type=Path, default=Path("features"), metavar="DIR", help="folder for the pictures")
    parser.add_argument("--checkpoint", type=Path, metavar="PATH", help="look inside this trained model instead")
    label = "with --checkpoint: the class whose traces are shown (default: its answer)"
    parser.add_argument("--label", metavar="NAME", help=label)
    parser.add_argument("--index", type=int, metavar="N", help="with --checkpoint: an image of the test set")
    parser.add_argument("--dataset", metavar="NAME", help="with --index: another data set than the model's")
    add_data_options(parser)


def run(args: argparse.Namespace) -> int:
    """Write the images and print what each shows."""
    if args.dataset is not None and args.index is None:
        raise UsageError(f"--dataset {args.dataset} chooses where --index N looks: add --index and --checkpoint PATH")
    if args.data_dir is not None and args.index is None:
        raise UsageError(f"--data-dir {args.data_dir} is where --index N looks: add --index and --checkpoint PATH")
    if args.index is not None and args.checkpoint is None:
        raise UsageError(f"--index {shown(args.index)} chooses an image for a trained model: add --checkpoint PATH")
    if args.label is not None and args.checkpoint is None:
        raise UsageError(f"--label {args.label} is a class of a trained model: add --checkpoint PATH")
    if args.checkpoint is not None:
        return look_inside(args)
    photo, title = photograph(args.image)
    drawn = f"np.random.seed({lecture_demo.SLIDES_SEED}), times He's sqrt(2 / fan_in), fan_in = 3*3*1"
    say(title, *sentence("", f"8 random filters: {drawn}", 0))
    kernels, stages = lecture_demo.run(photo)
    paths, overview = [args.out / f"{stage.name}.png" for stage in stages], args.out / "overview.png"
    make_room(args.out, [*paths, overview])
    for path, stage in zip(paths, stages, strict=True):
        save(path, stage, feature_maps.save_grid)
    feature_maps.save_overview(overview, photo, kernels, stages, lecture_demo.SHOWN)
    say(f"{overview}   all stages on one page")
    return 0


def make_room(out: Path, pictures: list[Path], flag: str = "--out") -> None:
    """Make the folder; raises UsageError where one of the pictures would replace a file that is none of ours."""
    for path in pictures:
        if os.path.lexists(path) and not feature_maps.drawn_here(path):
            raise UsageError(f"{path} is there, and is no picture of gpucnn: choose another {flag}")
    with writing(out, flag):
        out.mkdir(parents=True, exist_ok=True)


def photograph(path: Path | None) -> tuple[Array, str]:
    """A photograph as (H,W), 0..1, and a line about it."""
    sample = files("sklearn.datasets.images") / "china.jpg"
    image, notes = open_image(path or Path(str(sample)))
    if max(image.size) > LARGEST:
        notes.append(f"made smaller, from {image.height} x {image.width}")
        image.thumbnail((LARGEST, LARGEST))
    title = titled(path or "china.jpg of scikit-learn", notes)
    return grey(image), f"{title}: {image.height} x {image.width} in grey"


def look_inside(args: argparse.Namespace) -> int:
    """One image per layer of a trained model."""
    if (args.image is None) == (args.index is None):
        raise UsageError("--checkpoint needs one image: a file, or --index N of the test set")
    model, config, _ = load_trained(args.checkpoint)
    image, title, _ = chosen_image(args, config)
    say(f"{title}, through {config.model.name} of {args.checkpoint}")
    x = normalise(image[np.newaxis], config.data.mean, config.data.std, model.backend)  # (1,H,W,C)
    stages, seen = [Stage("input", "normalised", x[0])], visible(image[np.newaxis])[0]
    same = []
    for name, layer, y in trace(model, x):
        if isinstance(layer, Dropout | Flatten):
            same.append(f"{name} {type(layer).__name__}")
        else:
            kind = "sum with the shortcut" if isinstance(layer, Residual) else type(layer).__name__
            stages.append(Stage(name, kind, y[0]))
    answer = probabilities(y, model.backend)[0]
    paths = [args.out / f"{i:02d}_{stage.name}_{stage.kind.split()[0]}.png" for i, stage in enumerate(stages)]
    names = class_names(config.data.classes, config.model.num_classes)
    wanted = class_number(args.label, names, int(answer.argmax()))
    attention = args.out / "attention.png"
    make_room(args.out, [*paths, attention, args.out / "index.html"])
    save(paths[0], stages[0], feature_maps.save_image, seen)
    for path, stage in zip(paths[1:-1], stages[1:-1], strict=True):
        if max(stage.values.shape[:-1], default=1) == 1:
            save(path, stage, feature_maps.save_units)
        else:
            save(path, stage, partial(feature_maps.save_grid, one_scale=True), "channel")
    save(paths[-1], stages[-1], feature_maps.save_bars, names, answer)
    saliency, cam, where = attribute(model, x, np.array([wanted]))
    example = Example(seen, names[wanted], names[wanted], float(answer[wanted]))
    save_attention(attention, [example], saliency, cam, where)
    say(f"{attention}   where it looks for {names[wanted]}")
    pictures = [
        (path.name, f"{stage.name}: {stage.kind}, {stage.shape}") for path, stage in zip(paths, stages, strict=True)
    ]
    pictures.append((attention.name, f"where it looks for {names[wanted]}"))
    with writing(args.out):
        index = write_index(args.out, f"{title}, through {config.model.name}", [], pictures)
    say(f"{index}   all of them on one page")
    if same:
        say(f"no picture of {', '.join(same)}: the numbers are those of the layer before")
    return 0


def class_number(name: str | None, names: Sequence[str], known: int) -> int:
    """The number of the class of this name; without a name, ``known``."""
    if name is None:
        return known
    if name not in names:
        raise UsageError(f"--label {name}: the model has no such class{closest(name, names)}")
    return names.index(name)


def chosen_image(args: argparse.Namespace, config: Config) -> tuple[Array, str, int | None]:
    """The image for a trained model, uint8 (H,W,C), a line about it, and its label where that is known."""
    if args.image is not None:
        check_files(config.data.pixels)
        image, opened = open_image(args.image)
        pixels, fitted = fit(image, config.model.input_shape, config.data.fit)
        return pixels, titled(args.image, opened + fitted), None
    name = args.dataset or config.data.dataset
    train, validation, test = load_fitted(name, args, config, trained=True)
    test = test or split(config, train, test, validation)[1]
    check_data(config, test)
    if not 0 <= args.index < len(test.images):
        raise UsageError(f"--index {shown(args.index)}: the test set of {name} has images 0 to {len(test.images) - 1}")
    label = int(test.labels[args.index])
    return test.images[args.index], f"image {args.index} of {name}'s test set ({test.classes[label]})", label


def save(path: Path, stage: Stage, draw: Callable[..., None], *labels: Any) -> None:
    """Draw a stage, and print a line about the picture."""
    draw(path, stage, *labels)
    channels = stage.values.shape[-1] if stage.values.ndim == 3 else 0
    hidden = f", {counted(channels - feature_maps.LIMIT, 'channel')} not shown" if channels > feature_maps.LIMIT else ""
    say(f"{path}   {stage.shape}, {feature_maps.span(stage.values)}{hidden}")
