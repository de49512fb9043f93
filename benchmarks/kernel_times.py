"""The time of each kernel of a training step on a GPU: ``python benchmarks/kernel_times.py speedrun94 -b 1024``.

Needs PyTorch and CuPy: PyTorch's profiler measures all kernels on the card, CuPy's too.  Steps run without a CUDA
graph, so that kernels have names.
"""

import argparse
import sys
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from gpucnn.bench.contender import batch, our_trainer
from gpucnn.bench.task import Task
from gpucnn.devices import get_backend
from gpucnn.errors import GpucnnError

WARMUP, STEPS = 5, 3


def kernel_times(task: Task) -> dict[str, tuple[float, float]]:
    """Kernel -> (launches, microseconds) in one step."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    torch.cuda.init()  # first: the profiler must be active when kernels are loaded
    backend = get_backend("gpu")
    trainer = our_trainer(task, backend)
    x, labels = (backend.to_device(array) for array in batch(task))
    device = backend.xp.cuda.Device()
    for _ in range(WARMUP):
        trainer.train_step(x, labels)
    device.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        for _ in range(STEPS):
            trainer.train_step(x, labels)
        device.synchronize()
    found: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for event in profiler.events():
        if event.device_type == torch.autograd.DeviceType.CUDA:
            found[event.name][0] += 1.0 / STEPS
            found[event.name][1] += event.time_range.elapsed_us() / STEPS
    return {name: (launches, time) for name, (launches, time) in found.items()}


def main() -> int:
    """Print kernels, the slowest first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("-b", "--batch-size", type=int, default=128)
    parser.add_argument("--input-shape", default="32x32x3", metavar="HxWxC")
    parser.add_argument("--amp", choices=("off", "fp16"), default="fp16")
    parser.add_argument("--most", type=int, default=40, help="number of kernels to print")
    args = parser.parse_args()
    shape = tuple(map(int, args.input_shape.split("x")))
    precision = "float16" if args.amp == "fp16" else "float32"
    task = Task("gpu", args.model, shape, args.batch_size, precision=precision, cuda_graph="off")
    try:
        found = kernel_times(task)
    except GpucnnError as error:
        print(f"kernel_times.py: error: {error}", file=sys.stderr)
        return error.exit_code
    launches, total = map(sum, zip(*found.values(), strict=True))
    print(f"{args.model}, batch {args.batch_size}, {precision}: {total:,.0f} us in {launches:.0f} launches a step")
    for name, (count, time) in sorted(found.items(), key=lambda item: -item[1][1])[: args.most]:
        print(f"{time:9.1f} us {count:5.1f} x  {name[:120]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
