"""``gpucnn features``: feature maps of the lecture's demo 1 (L25) or of a trained model, as grey images."""

import argparse
from collections.abc import Callable
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from gpucnn.cli.options import add_data_options, writing
from gpucnn.data import load_dataset
from gpucnn.errors import UsageError
from gpucnn.inference.activations import trace
from gpucnn.inference.image_files import fit, grey, open_image
from gpucnn.inference.predict import class_names, normalise, probabilities
from gpucnn.layers import Dropout, Flatten, Residual
from gpucnn.plots import feature_maps, lecture_demo
from gpucnn.plots.feature_maps import Stage
from gpucnn.plots.index import write_index
from gpucnn.runs.build import check_data
from gpucnn.runs.config import Config
from gpucnn.runs.state import load_trained
from gpucnn.types import Array

LARGEST = 1024  # pixels on the long side of a photograph


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", nargs="?", type=Path, help="PNG or JPEG (default: a photograph of scikit-learn)")
    parser.add_argument("--out", type=Path, default=Path("features"), metavar="DIR", help="folder for the pictures")
    parser.add_argument("--checkpoint", type=Path, metavar="PATH", help="look inside this trained model instead")
    parser.add_argument("--index", type=int, metavar="N", help="with --checkpoint: an image of the test set")
    parser.add_argument("--dataset", metavar="NAME", help="with --index: another data set than the model's")
    add_data_options(parser)


def run(args: argparse.Namespace) -> int:
    """Write the images and print what each shows."""
    if args.dataset is not None and args.index is None:
        raise UsageError(f"--dataset {args.dataset} chooses where --index N looks: add --index and --checkpoint PATH")
    if args.index is not None and args.checkpoint is None:
        raise UsageError(f"--index {args.index} chooses an image for a trained model: add --checkpoint PATH")
    if args.checkpoint is not None:
        return look_inside(args)
    photo, title = photograph(args.image)
    print(title)
    print(f"8 random filters: np.random.seed({lecture_demo.SLIDES_SEED}), times He's sqrt(2 / fan_in), fan_in = 3*3*1")
    kernels, stages = lecture_demo.run(photo)
    with writing(args.out):
        args.out.mkdir(parents=True, exist_ok=True)
    for stage in stages:
        save(args.out / f"{stage.name}.png", stage, feature_maps.save_grid)
    overview = args.out / "overview.png"
    feature_maps.save_overview(overview, photo, kernels, stages, lecture_demo.SHOWN)
    print(f"{overview}   all stages on one page")
    return 0


def photograph(path: Path | None) -> tuple[Array, str]:
    """A photograph as (H,W), 0..1, and a line about it."""
    sample = files("sklearn.datasets.images") / "china.jpg"
    image, name = open_image(path or Path(str(sample))), str(path or "china.jpg of scikit-learn")
    if max(image.size) > LARGEST:
        name += f" (made smaller, from {image.height} x {image.width})"
        image.thumbnail((LARGEST, LARGEST))
    return grey(image), f"{name}: {image.height} x {image.width} in grey"


def look_inside(args: argparse.Namespace) -> int:
    """One image per layer of a trained model."""
    if (args.image is None) == (args.index is None):
        raise UsageError("--checkpoint needs one image: a file, or --index N of the test set")
    model, config, _ = load_trained(args.checkpoint)
    image, title = chosen_image(args, config)
    print(f"{title}, through {config.model.name} of {args.checkpoint}")
    with writing(args.out):
        args.out.mkdir(parents=True, exist_ok=True)
    x = normalise(image[np.newaxis], config.data.mean, config.data.std, model.backend)  # (1,H,W,C)
    stages = [Stage("input", "normalised", x[0])]
    same = []
    for name, layer, y in trace(model, x):
        if isinstance(layer, Dropout | Flatten):
            same.append(f"{name} {type(layer).__name__}")
        else:
            kind = "sum with the shortcut" if isinstance(layer, Residual) else type(layer).__name__
            stages.append(Stage(name, kind, y[0]))
    paths = [args.out / f"{i:02d}_{stage.name}_{stage.kind.split()[0]}.png" for i, stage in enumerate(stages)]
    save(paths[0], stages[0], feature_maps.save_image, image)
    for path, stage in zip(paths[1:-1], stages[1:-1], strict=True):
        if max(stage.values.shape[:-1], default=1) == 1:
            save(path, stage, feature_maps.save_units)
        else:
            save(path, stage, partial(feature_maps.save_grid, one_scale=True), "channel")
    names = class_names(config.data.classes, config.model.num_classes)
    save(paths[-1], stages[-1], feature_maps.save_bars, names, probabilities(y, model.backend)[0])
    pictures = [
        (path.name, f"{stage.name}: {stage.kind}, {stage.shape}") for path, stage in zip(paths, stages, strict=True)
    ]
    with writing(args.out):
        index = write_index(args.out, f"{title}, through {config.model.name}", [], pictures)
    print(f"{index}   all of them on one page")
    if same:
        print(f"no picture of {', '.join(same)}: the numbers are those of the layer before")
    return 0


def chosen_image(args: argparse.Namespace, config: Config) -> tuple[Array, str]:
    """The image for a trained model, uint8 (H,W,C), and a line about it."""
    if args.image is not None:
        image, done = fit(open_image(args.image), config.model.input_shape)
        return image, f"{args.image} ({done})" if done else str(args.image)
    name = args.dataset or config.data.dataset
    _, test = load_dataset(name, args.data_dir, download=not args.no_download)
    check_data(config, test)
    if not 0 <= args.index < len(test.images):
        raise UsageError(f"--index {args.index}: the test set of {name} has images 0 to {len(test.images) - 1}")
    label = test.classes[int(test.labels[args.index])]
    return test.images[args.index], f"image {args.index} of {name}'s test set (a {label})"


def save(path: Path, stage: Stage, draw: Callable[..., None], *labels: Any) -> None:
    """Draw a stage, and print a line about the picture."""
    draw(path, stage, *labels)
    channels = stage.values.shape[-1] if stage.values.ndim == 3 else 0
    hidden = f", {channels - feature_maps.LIMIT} channels not shown" if channels > feature_maps.LIMIT else ""
    print(f"{path}   {stage.shape}, {feature_maps.span(stage.values)}{hidden}")
