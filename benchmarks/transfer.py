"""What fine-tuning is worth with few images: ``python benchmarks/transfer.py --data-dir DATA``.

    digits   the pretrained mnist_lenet, from MNIST, on 20 images of each class of scikit-learn's digits at 28 x 28
    cifar10  a net trained on the first six classes of CIFAR-10, on 50 images of each of the other four

Each seed draws its images, weights and shuffles anew, and for ``cifar10`` trains its own first net.  The same net on
the same images, for as many steps, starts from new weights ("from scratch"), from the file ("all layers"), and from the
file with its features frozen.  The rate of each way is the best of ``--rates`` on other images of the training set, as
many as it trains on, with seed 0.  All test images of the classes are tested, once, after the last step.
"""

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from time import perf_counter

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from gpucnn.backend import Backend
from gpucnn.checkpoint import save_checkpoint
from gpucnn.data import Dataset, load_dataset
from gpucnn.data.reading import fit_pictures
from gpucnn.devices import get_backend
from gpucnn.errors import GpucnnError
from gpucnn.runs.build import build_trainer
from gpucnn.runs.config import Config
from gpucnn.runs.fine_tuning import read_source, resolve_start
from gpucnn.runs.state import capture
from gpucnn.training.trainer import Trainer

LENET = "mnist_lenet"
FIRST, SECOND = (0, 1, 2, 3, 4, 5), (6, 7, 8, 9)
WAYS = {"from scratch": {}, "all layers": {}, "features frozen": {"freeze": ["features.*"]}}
CIFAR = {"data": {"augmentation": {"flip": True, "crop": 4}}, "schedule": {"name": "one_cycle"}}
SMALL = {"train": {"batch_size": 20}, "schedule": {"name": "one_cycle"}}


def chosen(dataset: Dataset, classes: tuple[int, ...]) -> Dataset:
    """The images of these classes, which are labelled 0, 1, ..."""
    mine = np.isin(dataset.labels, classes)
    labels = np.searchsorted(classes, dataset.labels[mine]).astype(np.uint8)
    names = tuple(dataset.classes[c] for c in classes)
    return Dataset(f"{dataset.name}, {len(names)} classes", dataset.images[mine], labels, names)


def few(dataset: Dataset, each: int, seed: int) -> tuple[Dataset, Dataset]:
    """So many random images of each class, and as many others."""
    rng = np.random.default_rng(seed)
    places = [rng.permutation(np.flatnonzero(dataset.labels == c))[: 2 * each] for c in range(dataset.num_classes)]
    parts = [np.sort(np.concatenate([place[part] for place in places])) for part in (slice(each), slice(each, None))]
    first, second = (replace(dataset, images=dataset.images[p], labels=dataset.labels[p]) for p in parts)
    return first, second


def trained(config: Config, train: Dataset, backend: Backend, init: str = "") -> tuple[Trainer, Config]:
    """A trainer after its last epoch; it tests on one image between them, which costs nothing."""
    source = read_source(init) if init else None
    config = resolve_start(config.updated({"train": {"init": init}}), train, source)
    trainer = build_trainer(config, train, backend)
    if source:
        trainer.start_from(source.state)
    for _ in trainer.fit(train, train.split_off(np.arange(1))[1], epochs=config.train.epochs):
        pass
    return trainer, config


def accuracy(config: Config, images: Dataset, tested: Dataset, backend: Backend, init: str) -> float:
    """Of a net that was trained on these images, in percent."""
    return 100 * trained(config, images, backend, init)[0].evaluate(tested).accuracy


def race(
    config: Config, train: Dataset, test: Dataset, each: int, files: list[str], backend: Backend, rates: list[float]
) -> None:
    """Train in all ways, with a seed for each file to start from, and print a line for each way."""
    for way, settings in WAYS.items():
        start = perf_counter()
        init = [""] * len(files) if way == "from scratch" else files
        tuned = config.updated({"train": settings})
        tries = {rate: tuned.updated({"optimizer": {"lr": rate}}) for rate in rates}
        scores = {rate: accuracy(one, *few(train, each, 0), backend, init[0]) for rate, one in tries.items()}
        rate = max(scores, key=scores.__getitem__)
        seeds = [tries[rate].updated({"train": {"seed": seed}}) for seed in range(len(files))]
        found = [accuracy(one, few(train, each, k)[0], test, backend, init[k]) for k, one in enumerate(seeds)]
        spread, every = stdev(found) if len(found) > 1 else 0, ", ".join(f"{x:.1f}" for x in found)
        line = f"{way:<16} {mean(found):5.1f} % ± {spread:3.1f}   n = {len(found)} ({every})   lr {rate:g}"
        print(f"{line}, {perf_counter() - start:.0f} s", flush=True)


def digits(args: argparse.Namespace, backend: Backend) -> None:
    """LeNet from MNIST to scikit-learn's digits."""
    config = read_source(LENET).defaults().updated({**SMALL, "train": {"batch_size": 20, "epochs": args.epochs}})
    train, test = (fit_pictures(part, config.data.size, 1, "crop") for part in load_dataset("digits"))
    print(f"digits at 28 x 28, 20 images of each class, {args.epochs} epochs: test accuracy on {len(test)} images")
    race(config, train, test, 20, [LENET] * args.seeds, backend, args.rates)


def cifar10(args: argparse.Namespace, backend: Backend) -> None:
    """Six classes of CIFAR-10, then the other four."""
    train, test = load_dataset("cifar10", args.data_dir, download=False)
    with tempfile.TemporaryDirectory() as folder:
        files = []
        net = Config().updated({**CIFAR, "model": {"name": args.model}})
        six, tested = chosen(train, FIRST), chosen(test, FIRST)
        for seed in range(args.seeds):
            start, setting = perf_counter(), {"epochs": args.first_epochs, "batch_size": 128, "seed": seed}
            trainer, config = trained(net.updated({"train": setting, "optimizer": {"lr": 0.1}}), six, backend)
            files.append(str(Path(folder) / f"{seed}.h5"))
            save_checkpoint(files[-1], capture(trainer, config, {}, six.digest))
            line = f"{args.model} on six classes, seed {seed}: {100 * trainer.evaluate(tested).accuracy:.1f} %"
            print(f"{line} of {len(tested)} images, {perf_counter() - start:.0f} s", flush=True)
        config = net.updated({"train": {"batch_size": 20, "epochs": args.epochs}})
        last = chosen(test, SECOND)
        print(f"four other classes, 50 images of each, {args.epochs} epochs: test accuracy on {len(last)} images")
        race(config, chosen(train, SECOND), last, 50, files, backend, args.rates)


def main() -> int:
    """Print a line for each way to train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("digits", "cifar10"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=30, help="with few images")
    parser.add_argument("--rates", type=float, nargs="+", default=[0.003, 0.01, 0.03, 0.1])
    parser.add_argument("--model", default="mnist_cnn", help="for cifar10")
    parser.add_argument("--first-epochs", type=int, default=4, help="of the first training, for cifar10")
    parser.add_argument("--data-dir", metavar="DIR")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    try:
        for name, task in (("digits", digits), ("cifar10", cifar10)):
            if args.only in (None, name):
                task(args, get_backend(args.device))
    except GpucnnError as error:
        print(f"transfer.py: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
