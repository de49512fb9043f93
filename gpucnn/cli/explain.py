"""``gpucnn explain``: a page on which every number of one training step can be clicked."""

import argparse
import webbrowser
from pathlib import Path

import numpy as np

from gpucnn.checkpoint.durable import replace_atomically
from gpucnn.cli.columns import counted, sentence
from gpucnn.cli.features import chosen_image, class_number
from gpucnn.cli.options import add_data_options, check_number, check_place, writing
from gpucnn.data.digits import load_digits
from gpucnn.errors import UsageError, shown
from gpucnn.explain import record
from gpucnn.explain.page import Subject, build
from gpucnn.inference.predict import class_names, normalise
from gpucnn.plots.feature_maps import drawn_here
from gpucnn.runs.catalogue import pretrained
from gpucnn.runs.config import Config
from gpucnn.runs.state import load_trained
from gpucnn.terminal import say
from gpucnn.types import Array, Shape

DIGIT = 36  # of scikit-learn's test images: a 5 that the LeNet-5 is not sure of, so that its gradients are large
MOST_STEPS = 50  # a page of more would be too large for a browser


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", nargs="?", type=Path, help="an image file (default: a digit of scikit-learn)")
    parser.add_argument("--checkpoint", type=Path, metavar="PATH", help="best.h5 of a run, say (default: a LeNet-5)")
    parser.add_argument("--label", metavar="NAME", help="the true class (default: the network's own answer)")
    parser.add_argument("--index", type=int, metavar="N", help="an image of the test set, with its label")
    parser.add_argument("--dataset", metavar="NAME", help="with --index: another data set than the model's")
    parser.add_argument("--steps", type=int, default=1, metavar="N", help="steps on this image (default: 1)")
    parser.add_argument("--lr", type=float, default=0.001, metavar="LR", help="learning rate (default: 0.001)")
    parser.add_argument("--out", type=Path, default=Path("explain.html"), metavar="FILE", help="default: explain.html")
    parser.add_argument("--open", action="store_true", help="open the page in a browser")
    add_data_options(parser)


def run(args: argparse.Namespace) -> int:
    """Write the page and say what it shows."""
    check(args)
    model, config, _ = load_trained(args.checkpoint or pretrained("mnist_lenet"))
    image, title, known = subject_of(args, config)
    x = normalise(image[np.newaxis], config.data.mean, config.data.std, model.backend)  # (1,H,W,C)
    answer = int(np.argmax(model.backend.to_host(model(x))))
    names = class_names(config.data.classes, config.model.num_classes)
    label = class_number(args.label, names, answer if known is None else known)
    steps = record(model, x, np.array([label]), lr=args.lr, steps=args.steps)
    shape = config.model.input_shape
    scale = (config.data.mean, config.data.std) if config.data.pixels == "uint8" else ((), ())
    facts = Subject(config.model.name, title, *scale, names, label, model.flops(shape))
    page = build(steps, facts)
    with writing(args.out):
        replace_atomically(args.out, [page.encode()])
    say(*sentence("", f"{title}, through {config.model.name}: it says {names[answer]}, and learns {names[label]}", 0))
    say(f"{args.out}   {len(page) / 1e6:.1f} MB, {counted(len(steps[0].layers), 'layer')}: open it in a browser")
    if args.open:
        webbrowser.open(args.out.resolve().as_uri())
    return 0


def check(args: argparse.Namespace) -> None:
    """Refuse what cannot be meant.

    Raises:
        UsageError: flags that contradict each other, or numbers out of their range.
    """
    if args.image is not None and args.index is not None:
        raise UsageError(f"{args.image} and --index {shown(args.index)}: give one image")
    if args.dataset is not None and args.index is None:
        raise UsageError(f"--dataset {args.dataset} chooses where --index N looks: add --index")
    if args.label is not None and args.index is not None:
        raise UsageError(f"--label {args.label}: image {shown(args.index)} of the test set has its label; leave it out")
    check_number("--steps", args.steps, 1, MOST_STEPS)  # the page holds every tensor of every step
    check_number("--lr", args.lr, 0, 1e6)
    check_place(args.out)
    if args.out.exists() and not drawn_here(args.out):
        raise UsageError(f"--out {args.out}: this file is no page of gpucnn: choose another name, or move it away")


def subject_of(args: argparse.Namespace, config: Config) -> tuple[Array, str, int | None]:
    """The image, uint8 (H,W,C), a few words about it, and the number of its class where that is known."""
    if args.image is None and args.index is None:
        names = class_names(config.data.classes, config.model.num_classes)
        if names != tuple("0123456789") or config.data.pixels != "uint8":
            raise UsageError("the model knows no grey digits: name an image, or --index N of its test set")
        digit, label = enlarged_digit(config.model.input_shape)
        return digit, f"Digit {DIGIT} of scikit-learn's test images", label
    return chosen_image(args, config)


def enlarged_digit(shape: Shape) -> tuple[Array, int]:
    """A digit of 8 x 8 pixels, as large in an image of this shape (H,W,1) as MNIST's are (20 of 28), and its class.

    Raises:
        UsageError: a model of other images.
    """
    height, width, channels = shape
    if channels != 1 or min(height, width) < 8:
        raise UsageError(f"the model takes images {shape}, no grey digits: name an image, or --index N of its test set")
    _, test = load_digits()
    size = max(8, round(min(height, width) * 20 / 28)) if min(height, width) > 8 else 8
    places = np.clip((np.arange(size) + 0.5) * 8 / size - 0.5, 0, 7)
    low = np.minimum(places.astype(int), 6)
    weights = np.zeros((size, 8))  # linear interpolation
    weights[np.arange(size), low], weights[np.arange(size), low + 1] = 1 - (places - low), places - low
    digit = np.rint(weights @ test.images[DIGIT, :, :, 0] @ weights.T).astype(np.uint8)
    top, left = (height - size) // 2, (width - size) // 2
    image = np.pad(digit, ((top, height - size - top), (left, width - size - left)))
    return image[:, :, np.newaxis], int(test.labels[DIGIT])
