"""The process that times one contender: ``python -m gpucnn.benchmarking.contender '{"framework": ...}'``.

It builds its model, says so after its first step and again when it is warm; then for each line "steps" on standard
input it runs that many steps and answers with their median time and the page faults of one.  Between two rounds it
only waits: the cores belong to the other one.
"""

import json
import resource
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Self

import numpy as np

from gpucnn import models
from gpucnn.typing import Array, Shape

if TYPE_CHECKING:  # PyTorch's process need not carry our engine
    from gpucnn.backend import Backend
    from gpucnn.trainer import Trainer

WARMUP = 3


@dataclass(frozen=True)
class Task:
    """What is timed: one step of a model at a batch size; ``mode`` is "train" or "eval"."""

    framework: str
    model: str
    input_shape: Shape
    batch_size: int
    mode: str = "train"
    threads: int = 2
    layout: str = "channels_last"  # PyTorch's memory format

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        settings = json.loads(text)
        return cls(**{**settings, "input_shape": tuple(settings["input_shape"])})


def batch(task: Task) -> tuple[Array, Array]:
    """A batch of noise: x (B,H,W,C) float32 and labels (B,) int64, the same for all contenders."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((task.batch_size, *task.input_shape), dtype=np.float32)
    return x, rng.integers(0, 10, task.batch_size)


def our_trainer(task: Task, backend: "Backend") -> "Trainer":
    """The trainer whose steps are timed: SGD with momentum and weight decay."""
    from gpucnn.optim import SGD
    from gpucnn.trainer import Trainer

    optimizer = SGD(0.01, momentum=0.9, weight_decay=5e-4)
    return Trainer(models.build(task.model, task.input_shape), optimizer, backend=backend, batch_size=task.batch_size)


def our_step(task: Task) -> Callable[[], None]:
    """One step of gpucnn: forward, loss, backward, update; or forward alone."""
    from gpucnn.backends import get_backend
    from gpucnn.cli.options import set_threads

    set_threads(task.threads)
    trainer = our_trainer(task, get_backend(task.framework))
    x, labels = batch(task)
    if task.mode == "eval":
        trainer.model.eval()

        def infer() -> None:
            trainer.model.forward(x)

        return infer
    return lambda: trainer.train_step(x, labels)


def main(argument: str) -> None:
    """Serve rounds until standard input ends."""
    task = Task.from_json(argument)
    if task.framework == "pytorch":
        from gpucnn.benchmarking.pytorch import torch_step

        step = torch_step(task, *batch(task))
    else:
        step = our_step(task)
    step()
    say({"steps": 1})
    for _ in range(WARMUP):
        step()
    say({"steps": 1 + WARMUP})
    for line in sys.stdin:
        say(timed(step, int(line)))


def timed(step: Callable[[], None], steps: int) -> dict[str, float]:
    """Median seconds of a step, minor page faults of one (memory new to the process), and peak memory so far."""
    times = []
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(steps):
        start = perf_counter()
        step()
        times.append(perf_counter() - start)
    after = resource.getrusage(resource.RUSAGE_SELF)
    peak = after.ru_maxrss / 1024  # MiB on Linux
    return {"seconds": median(times), "page_faults": (after.ru_minflt - before) / steps, "peak_mib": peak}


def say(message: Mapping[str, object]) -> None:
    print(json.dumps(message), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
