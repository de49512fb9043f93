"""The time to make a batch of images, by the reference op and by the kernel: ``python benchmarks/batches.py``.

As in training, each batch is another part of a shuffled set of 50,000 images (noise).  Op and kernel take turns of a
few batches.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from gpucnn.data import Augmentation, Dataset, Loader
from gpucnn.devices import get_backend
from gpucnn.devices.cores import usable_cores
from gpucnn.devices.select import set_threads
from gpucnn.runs.environment import environment

TURN = 10  # batches
SHAPES = {"CIFAR": (32, 32, 3), "MNIST": (28, 28, 1)}
WAYS = {
    "normalised": None,
    "mirrored and shifted by up to 4, black border": Augmentation(flip=True, crop=4),
    "the same, reflected border": Augmentation(flip=True, crop=4, crop_mode="reflect"),
}


def noise(shape: tuple[int, ...], images: int) -> Dataset:
    """A set of this many images of noise."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, images).astype(np.uint8)
    return Dataset("noise", rng.integers(0, 256, (images, *shape), dtype=np.uint8), labels, tuple("0123456789"))


def batches(data: Dataset, device: str, batch_size: int, augmentation: Augmentation | None) -> Iterator[float]:
    """Milliseconds of each batch, epoch after epoch; the first batch of an epoch is not counted."""
    options = {"mean": data.mean, "std": data.std, "shuffle": True, "augmentation": augmentation}
    loader = Loader(data, batch_size, backend=get_backend(device), **options)
    epoch = 0
    while True:
        making = loader.epoch(epoch)
        next(making)
        while True:
            start = perf_counter()
            if next(making, None) is None:
                break
            yield 1e3 * (perf_counter() - start)
        epoch += 1


def main() -> int:
    """Time all ways to make a batch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", "-b", type=int, default=128)
    parser.add_argument("--images", type=int, default=50_000, help="in the set")
    parser.add_argument("--rounds", type=int, default=20, help=f"of {TURN} batches of op and kernel each")
    parser.add_argument("--threads", type=int, default=0, help="of the kernel (default: all usable cores)")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    args = parser.parse_args()
    if args.images < 3 * args.batch_size:
        parser.error("--images: give at least three batches")
    threads = args.threads or usable_cores()
    set_threads(threads)
    found = []
    for name, shape in SHAPES.items():
        data = noise(shape, args.images)
        for way, augmentation in WAYS.items():
            makers = {device: batches(data, device, args.batch_size, augmentation) for device in ("reference", "cpu")}
            times: dict[str, list[float]] = {device: [] for device in makers}
            for _ in range(args.rounds):
                for device, maker in makers.items():
                    times[device] += islice(maker, TURN)
            spread = {device: (min(each), median(each), max(each)) for device, each in times.items()}
            found.append({"images": name, "way": way, "milliseconds": spread})
            if not args.json:
                op, kernel = (f"{t[1]:7.3f} ({t[0]:.3f} to {t[2]:.3f})" for t in spread.values())
                print(f"{name} {way:<46} op {op} ms   kernel {kernel} ms", flush=True)
    if args.json:
        head = {"machine": environment("cpu", "cpu"), "batch_size": args.batch_size, "threads": threads}
        print(json.dumps({**head, "batches": args.rounds * TURN, "found": found}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
