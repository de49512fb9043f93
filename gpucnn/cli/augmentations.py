"""``gpucnn augmentations``: a contact sheet of training images, augmented as the model sees them."""

import argparse
from pathlib import Path

import numpy as np

from gpucnn.backend import REFERENCE
from gpucnn.cli.columns import counted, sentence
from gpucnn.cli.options import check_number, writing
from gpucnn.cli.train import add_recipe_arguments, load_data, settings
from gpucnn.data import Augmentation, Dataset, Loader
from gpucnn.data.image_files import visible
from gpucnn.errors import UsageError
from gpucnn.plots import feature_maps
from gpucnn.plots.feature_maps import Column
from gpucnn.runs.config import Config, stated_settings
from gpucnn.terminal import say
from gpucnn.types import Array

MOST = 40  # rows and columns


READS = ("data.dataset", "data.validation", "train.seed")
"""The settings that it uses, with those of the augmentation."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``gpucnn augmentations``: those of a recipe, and how many images and epochs to show."""
    add_recipe_arguments(parser, READS)
    parser.add_argument("--images", type=int, default=8, metavar="N", help="rows: training images (default: 8)")
    parser.add_argument("--columns", type=int, default=7, metavar="N", help="the first epochs (default: 7)")
    out = Path("augmentations.png")
    parser.add_argument("--out", type=Path, default=out, metavar="PATH", help=f"a PNG file ({out})")


def run(args: argparse.Namespace) -> int:
    """Write the contact sheet and print what it shows."""
    check_number("--images", args.images, 1, MOST)
    check_number("--columns", args.columns, 1, MOST)
    if args.out.suffix.lower() != ".png":
        raise UsageError(f"--out {args.out}: give the name of a PNG file, as augmentations.png")
    known = {name for name, *_ in stated_settings() if not name.startswith("data.augmentation.")}
    config = settings(args, unread=known.difference(READS))
    how = config.data.augmentation
    if not how:
        raise UsageError("this recipe has no augmentation: add for instance --set data.augmentation.crop=4")
    train, _ = load_data(args, config)
    index = some_of_each_class(train, args.images)
    columns = [
        Column("image", "", visible(train.images[index])),
        *augmented(config, train, how, index, args.columns),
    ]
    names = [train.classes[label] for label in train.labels[index]]
    with writing(args.out):
        args.out.parent.mkdir(parents=True, exist_ok=True)
        feature_maps.save_columns(args.out, f"{train.name}, augmented", how.summary(), names, columns)
    epochs = counted(args.columns, "epoch")
    say(f"{args.out}   {counted(len(index), 'training image')} of {train.name} in the first {epochs}")
    say(*sentence("", how.summary(), 0))
    return 0


def some_of_each_class(dataset: Dataset, count: int) -> Array:
    """Indices of the first image of each class, then of the second, and so on: at most ``count`` of them."""
    order = np.argsort(dataset.labels, kind="stable")  # class by class, each in the order of the set
    place = np.empty(len(order), dtype=np.int64)  # of an image within its class
    place[order] = np.arange(len(order)) - np.searchsorted(dataset.labels[order], dataset.labels[order])
    return np.lexsort((dataset.labels, place))[:count]


def augmented(config: Config, train: Dataset, how: Augmentation, index: Array, epochs: int) -> list[Column]:
    """The images ``index`` (B,) in each epoch, with the parameters that a run with this seed samples for them.

    Mixed images are those of the sheet in reverse, by the weights of each epoch's first batch.
    """
    loader = Loader(
        train, len(index), backend=REFERENCE, mean=train.mean, std=train.std, seed=config.train.seed, augmentation=how
    )
    columns, some = [], train.images[index]
    ends = (0.0, 1.0) if some.dtype == np.uint8 else (some.min(), some.max())
    for epoch in range(epochs):
        _, params, mixes = loader.sample_epoch(epoch)
        x, note = loader.gather(index, params, epoch), ""
        if mixes:
            x, _ = loader.mix(x, train.labels[index].astype(np.int64), mixes[0])
            kind, weight = "cutmix" if mixes[0].box else "mixup", mixes[0].weight
            note = "not mixed" if weight == 1.0 else f"{kind} {weight:.2f}"
        pixels = x * np.array(train.std) + np.array(train.mean)  # no longer normalised: of bytes 0..1
        images = visible(pixels, *ends)
        columns.append(Column(f"epoch {epoch + 1}", note, images))
    return columns
