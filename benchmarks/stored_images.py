"""Steps on images that stay in a file against steps on the same in memory: ``python benchmarks/stored_images.py``.

Two trainers of one seed take turns; each turn goes on where its trainer's last one ended, and its first step is not
counted.  In the end their weights must have the same bits.  ``--cold`` lets the system forget the file before each
turn, so that it comes from the disk.
"""

import argparse
import json
import os
import sys
import tempfile
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from gpucnn import models
from gpucnn.data import Augmentation, Dataset, load_dataset
from gpucnn.data.stored import StoredImages, spill
from gpucnn.devices.cores import usable_cores
from gpucnn.devices.select import get_backend, set_threads
from gpucnn.optim import SGD
from gpucnn.runs.environment import environment
from gpucnn.training.trainer import Trainer

AUGMENTATION = Augmentation(flip=True, crop=4)


def turn(trainer: Trainer, train: Dataset, steps: int) -> float:
    """Milliseconds per step of the next ``steps`` steps, after one that is not counted."""
    loader = trainer.loader(train, training=True)
    epoch, place = divmod(trainer.clock.step, len(loader) - steps)  # the last batches of an epoch are left out
    trainer.model.train()
    with closing(loader.epoch(epoch, place)) as batches:
        trainer.train_step(*next(batches))
        trainer.metrics.read()  # sync
        start = perf_counter()
        for _ in range(steps):
            trainer.train_step(*next(batches))
        trainer.metrics.read()  # sync
        return 1e3 * (perf_counter() - start) / steps


def forget(images: StoredImages) -> None:
    """Let the system drop what it has of the file in memory."""
    file = os.open(images.path, os.O_RDONLY)
    try:
        os.fsync(file)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(file)


def main() -> int:
    """Time both in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vgg_small")
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch-size", "-b", type=int, default=128)
    parser.add_argument("--steps", type=int, default=10, help="of a turn")
    parser.add_argument("--rounds", type=int, default=7, help="of one turn in memory and one from the file")
    parser.add_argument("--threads", type=int, default=0, help="default: all usable cores")
    parser.add_argument("--folder", help="where the file is written (default: the system's place for such)")
    parser.add_argument("--cold", action="store_true", help="read from the disk in each turn")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    args = parser.parse_args()
    threads = args.threads or usable_cores()
    set_threads(threads)
    train, _ = load_dataset(args.dataset)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        stored = spill(train.images, Path(folder) / "images.h5")
        sets = {"memory": train, "file": replace(train, images=stored)}
        trainers = {}
        for name, data in sets.items():
            model = models.build(args.model, train.image_shape, train.num_classes)
            how = {"backend": get_backend(args.device), "batch_size": args.batch_size, "augmentation": AUGMENTATION}
            trainers[name] = Trainer(model, SGD(lr=0.01), **how)
            trainers[name].prepare(data)
        times: dict[str, list[float]] = {name: [] for name in sets}
        for number in range(args.rounds + 1):
            for name, trainer in trainers.items():
                if args.cold:
                    forget(stored)
                took = turn(trainer, sets[name], args.steps)
                if number:  # the first round compiles
                    times[name].append(took)
    weights = [b"".join(np.asarray(v).tobytes() for v in t.model.state_dict().values()) for t in trainers.values()]
    ratios = [file / memory for memory, file in zip(*times.values(), strict=True)]
    found = {
        "same_bits": weights[0] == weights[1],
        "milliseconds": {name: (min(t), median(t), max(t)) for name, t in times.items()},
        "ratio": (min(ratios), median(ratios), max(ratios)),
    }
    if args.json:
        about = vars(args) | {"threads": threads, "machine": environment("cpu", args.device)}
        print(json.dumps(about | found))
    else:
        for name, (least, middle, most) in found["milliseconds"].items():
            print(f"{name:<7} {middle:8.2f} ms per step ({least:.2f} to {most:.2f})")
        least, middle, most = found["ratio"]
        print(f"ratio   {middle:8.3f} ({least:.3f} to {most:.3f}), {args.rounds} rounds of {args.steps} steps")
        print(f"weights {'have the same bits' if found['same_bits'] else 'DIFFER'}")
    return 0 if found["same_bits"] else 1


if __name__ == "__main__":
    sys.exit(main())
