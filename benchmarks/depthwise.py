"""Depthwise convolutions and a copy of the same bytes: ``python benchmarks/depthwise.py``, on a quiet machine.

For each depthwise layer of ``mobilenet_v2`` on CIFAR-10's images: the time of forward, input gradient and kernel
gradient, and in brackets the fraction of a copy's bandwidth that they reach, by the bytes that have to be read and
written once.  The copy (``numpy.copyto``, each thread a part) moves as many bytes; all four take turns, and the median
of paired rounds counts.
"""

import argparse
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from gpucnn import models
from gpucnn.devices import get_backend
from gpucnn.devices.cores import usable_cores
from gpucnn.devices.select import set_threads
from gpucnn.layers import Conv2D
from gpucnn.layers.conv2d import grouped_conv2d, grouped_conv2d_input_grad, grouped_conv2d_weight_grad
from gpucnn.models.summary import walk


def depthwise_layers(width: float) -> dict[tuple[Any, ...], int]:
    """(H, W, C, stride) of the layers, and how many there are of each."""
    model, found = models.build("mobilenet_v2", (32, 32, 3), width=width), {}
    for _, layer, shape, _ in walk(model, (32, 32, 3), lambda layer, shape: layer.output_shape(shape)):
        if isinstance(layer, Conv2D) and layer.groups > 1:
            found[(*shape, layer.stride[0])] = found.get((*shape, layer.stride[0]), 0) + 1
    return found


def seconds(run: Callable[[], Any]) -> float:
    start = perf_counter()
    run()
    return perf_counter() - start


def copier(size: int, threads: int) -> Callable[[], None]:
    """Copies so many bytes' worth of floats, half of them read and half written."""
    source = np.ones(max(1, size // 8), np.float32)
    target = np.empty_like(source)
    parts = list(zip(np.array_split(target, threads), np.array_split(source, threads), strict=True))

    def copy() -> None:
        team = [threading.Thread(target=np.copyto, args=part) for part in parts[1:]]
        for thread in team:
            thread.start()
        np.copyto(*parts[0])
        for thread in team:
            thread.join()

    return copy


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=float, default=0.5)
    parser.add_argument("--batch-size", "-b", type=int, default=128)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    threads = args.threads or usable_cores()
    backend, rng = get_backend("cpu"), np.random.default_rng(0)
    set_threads(threads)
    print(f"{threads} threads, batch {args.batch_size}; ms, and the fraction of a copy's bandwidth")
    for (h, w, c, s), count in depthwise_layers(args.width).items():
        layer = Conv2D(c, c, 3, stride=s, padding=1, groups=c, bias=False)
        size = layer.output_shape((h, w, c))
        shapes = (args.batch_size, h, w, c), (c, 3, 3, 1), (args.batch_size, *size)
        x, weight, dy = (rng.standard_normal(shape, dtype=np.float32) for shape in shapes)
        how = layer.stride, layer.padding, layer.dilation, layer.groups
        runs: dict[str, Callable[[], Any]] = {
            "copy": copier(x.nbytes + dy.nbytes, threads),
            "forward": lambda x=x, w=weight, how=how: backend.run(grouped_conv2d, x, w, None, *how),
            "dx": lambda a=dy, w=weight, x=x, how=how: backend.run(grouped_conv2d_input_grad, a, w, x.shape, *how),
            "dw": lambda a=dy, x=x, w=weight, how=how: backend.run(grouped_conv2d_weight_grad, a, x, w.shape, *how),
        }
        for run in runs.values():
            run()
        rounds = [{name: seconds(run) for name, run in runs.items()} for _ in range(args.rounds)]
        texts = []
        for name in runs:
            part = median(times["copy"] / times[name] for times in rounds)
            texts.append(f"{name} {1e3 * median(times[name] for times in rounds):7.3f} ({part:4.2f})")
        print(f"{count} x {h}x{w}x{c} stride {s}: {'  '.join(texts)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
