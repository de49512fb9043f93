"""What ``gpucnn train --live`` costs while a browser watches: epochs with and without, in turn.

    python benchmarks/live_view.py --data-dir DIR --rounds 25

A process of its own asks for the state once a second, as the page does.  Prints the median and the quartiles of the
time with a watcher over the time without, of LeNet-5 on MNIST on the CPU.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from statistics import quantiles
from tempfile import TemporaryDirectory

from gpucnn import Trainer, get_backend, load_dataset, models, optim
from gpucnn.explain.live import LiveView
from gpucnn.training.trainer import IntervalReport

WATCHER = """
import os, sys, time, urllib.request
while True:
    if os.path.exists(sys.argv[2]):
        urllib.request.urlopen(sys.argv[1] + "state.json").read()
    time.sleep(1)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--model", default="lenet5")
    parser.add_argument("--rounds", type=int, default=25)
    args = parser.parse_args()
    train, test = load_dataset("mnist", data_dir=args.data_dir)
    test = test.split_off(range(100))[1]
    model = models.build(args.model, train.image_shape, train.num_classes)
    trainer = Trainer(model, optim.SGD(lr=0.01), backend=get_backend("cpu"), batch_size=64)
    view = LiveView(model, "cost")
    ratios: list[float] = []
    with TemporaryDirectory() as folder, view.serve() as address:
        watched = Path(folder) / "watched"
        watcher = subprocess.Popen([sys.executable, "-S", "-c", WATCHER, address, str(watched)])

        def watch(report: IntervalReport) -> None:
            if watched.exists():
                view.at_interval(report)

        def rate(live: bool) -> float:
            """Images per second of the next epoch."""
            watched.touch() if live else watched.unlink(missing_ok=True)
            (report,) = trainer.fit(train, test, epochs=trainer.progress.epoch + 1, watch=watch)
            return report.images_per_second

        try:
            rate(False)
            for number in range(args.rounds):
                rates = {live: rate(live) for live in ((False, True) if number % 2 else (True, False))}
                ratios.append(rates[False] / rates[True])
        finally:
            watcher.kill()
    low, middle, high = quantiles(ratios, n=4)
    print(f"{args.model}: watched / unwatched {middle:.3f} ({low:.3f} to {high:.3f}), n = {len(ratios)}")


if __name__ == "__main__":
    main()
