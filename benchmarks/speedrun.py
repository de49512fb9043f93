"""The time of a whole recipe: ``python benchmarks/speedrun.py --config FILE --runs 5``, FILE as in gpucnn/recipes.

Counts what the published speed records count: whitening, all training steps and the last evaluation with the recipe's
test-time augmentation.  It does not count copying the images to the device, the evaluations between epochs, and a
first run, which compiles kernels and chooses engines.  Each run has its own seed and a new trainer.
"""

import argparse
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from time import perf_counter

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from gpucnn.backend import Backend
from gpucnn.data import Dataset, load_dataset
from gpucnn.devices import get_backend
from gpucnn.errors import GpucnnError
from gpucnn.runs.build import build_trainer, resolve, split
from gpucnn.runs.config import Config
from gpucnn.training.trainer import IntervalReport


@dataclass(frozen=True)
class Run:
    """The result of one run; ``accuracy`` is of one view, ``final`` of all views, both after the last step."""

    accuracy: float
    final: float
    whitening: float
    training: float
    views: float

    @property
    def seconds(self) -> float:
        return self.whitening + self.training + self.views


def timed_run(config: Config, train: Dataset, test: Dataset, backend: Backend) -> Run:
    """One run from new weights; each part ends by reading a number on the host, so the device has finished it."""
    trainer = build_trainer(config, train, backend)
    start = perf_counter()
    trainer.prepare(train)
    float(trainer.model.flat.data[0])  # sync
    whitening = perf_counter() - start
    accuracy, seconds = 0.0, {}  # epoch -> seconds of its steps

    def watch(report: IntervalReport) -> None:
        seconds[report.epoch] = trainer.metrics.examples / report.images_per_second

    for report in trainer.fit(train, test, epochs=config.train.epochs, watch=watch):
        accuracy = report.test_accuracy
    batches = trainer.loader(test, training=False)
    start = perf_counter()
    final = trainer.evaluate_batches(batches, config.train.tta).accuracy
    return Run(accuracy, final, whitening, sum(seconds.values()), perf_counter() - start)


def main() -> int:
    """Print a line for each run, then mean and standard deviation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, metavar="FILE")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="any setting of the config")
    parser.add_argument("--runs", type=int, default=5, help="timed runs, after a first one that is not counted")
    parser.add_argument("--data-dir", metavar="DIR")
    parser.add_argument("--device", default="gpu")
    args = parser.parse_args()
    if args.runs < 1:
        parser.error("--runs: give at least 1")
    try:
        config = Config.from_file(args.config)
        for assignment in args.set:
            config = config.with_setting(assignment)
        backend = get_backend(args.device)
        train, test = split(config, *load_dataset(config.data.dataset, args.data_dir, download=False))
        config = resolve(config, train)
        runs = []
        for number in range(-1, args.runs):
            seeded = replace(config, train=replace(config.train, seed=config.train.seed + max(number, 0)))
            found = timed_run(seeded, train, test, backend)
            parts = f"{found.whitening:.3f} + {found.training:.3f} + {found.views:.3f}"
            label = f"seed {seeded.train.seed}" if number >= 0 else "first "
            print(f"{label}   {found.final:.4f} ({found.accuracy:.4f})   {found.seconds:.3f} s = {parts}", flush=True)
            runs += [found] if number >= 0 else []
    except GpucnnError as error:
        print(f"speedrun.py: error: {error}", file=sys.stderr)
        return error.exit_code
    for name, values in (("accuracy", [run.final for run in runs]), ("seconds", [run.seconds for run in runs])):
        spread = stdev(values) if len(values) > 1 else 0.0
        print(f"{name:10}{mean(values):.4f} (standard deviation {spread:.4f}, n = {len(values)})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
