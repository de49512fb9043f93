"""The process that times one contender: ``python -m gpucnn.bench.contender '{"framework": ...}'``.

It builds its model and answers after its first step and again after its warm-up.  Then, for each number on a line of
standard input, it runs as many steps and answers with their median time and the page faults of a step.  A line with
another task makes it start over with that.  Between two rounds it only waits, so that the cores are free for the other
contender.  An error is an answer too; the process then waits for another task.
"""

import gc
import os
import resource
import sys
from collections.abc import Callable, Mapping
from itertools import chain
from statistics import median
from typing import Any

import numpy as np

from gpucnn import devices, models
from gpucnn.backend import Backend
from gpucnn.bench.profiler import stepper
from gpucnn.bench.task import Task
from gpucnn.bench.timers import Clock, Work, clock_of, times
from gpucnn.devices.select import set_threads
from gpucnn.optim.optimizer import SGD
from gpucnn.terminal import say_json
from gpucnn.training.cuda_graph import GraphRunner
from gpucnn.training.precision import FLOAT16, FLOAT32
from gpucnn.training.trainer import Trainer, TrainerOptions
from gpucnn.types import Array

WARMUP = 3


def batch(task: Task) -> tuple[Array, Array]:
    """A batch of noise: x (B,H,W,C) float32 and labels (B,) int64, the same for all contenders."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((task.batch_size, *task.input_shape), dtype=np.float32)
    return x, rng.integers(0, 10, task.batch_size)


def our_trainer(task: Task, backend: Backend) -> Trainer:
    """The trainer whose steps are timed: SGD with momentum and weight decay."""
    optimizer = SGD(0.01, momentum=0.9, weight_decay=5e-4)
    policy = FLOAT16 if task.precision == "float16" else FLOAT32
    model = models.build(task.model, task.input_shape, **task.options)
    options = TrainerOptions(cuda_graph=task.cuda_graph)
    return Trainer(model, optimizer, backend=backend, batch_size=task.batch_size, policy=policy, options=options)


def our_work(task: Task) -> Work:
    """Steps of gpucnn: forward, loss, backward, update; or forward alone.  The batch is on the device."""
    set_threads(task.threads)
    backend = devices.get_backend(task.framework)
    pools = [] if backend.synchronous else [backend.xp.get_default_memory_pool()]
    for pool in pools:
        pool.free_all_blocks()  # of the task before
    trainer = our_trainer(task, backend)
    captured: Mapping[Any, Any] = {}
    if isinstance(trainer.compute, GraphRunner):
        pools.append(trainer.compute.pool)
        captured = trainer.compute.steps
    x, labels = map(backend.to_device, batch(task))
    return Work(
        stepper(trainer, x, labels, task.mode),
        clock_of(backend),
        memory=lambda: sum(pool.total_bytes() for pool in pools) / 2**20,
        graphs=lambda: sum(step.graph is not None for step in captured.values()),
        on_gpu=not backend.synchronous,
    )


def work(task: Task) -> Work:
    """Build what the task asks for."""
    if task.framework != "pytorch":
        return our_work(task)
    from gpucnn.bench.pytorch import torch_work

    return torch_work(task, *batch(task))


def main(argument: str) -> None:
    """Serve tasks and rounds until standard input ends."""
    current: Work | None = None
    for line in chain([argument], sys.stdin):
        try:
            if line.startswith("{"):
                current = None
                gc.collect()  # memory of the last task is in reference cycles
                current = work(Task.from_json(line))
                warm_up(current)
            elif current is not None:
                answer({**timed(current.step, int(line), current.clock), "device_mib": current.memory()})
        except Exception as error:
            current = None
            answer({"error": " ".join(f"{type(error).__name__}: {error}".split())[:500]})


def warm_up(current: Work) -> None:
    """A first step and some more, until CUDA graphs are captured; answers when the device has finished them."""
    times(current.step, 1, current.clock)
    answer({"steps": 1, "versions": current.versions})
    times(current.step, WARMUP, current.clock)
    launches = 0
    if current.on_gpu:
        from gpucnn.bench.launches import counted

        with counted() as found:
            times(current.step, 1, current.clock)
        launches = found.total()
    answer({"steps": 1 + WARMUP, "launches": launches, "graphs": current.graphs()})


def timed(step: Callable[[], Any], steps: int, clock: Clock | None = None) -> dict[str, float]:
    """Median seconds of a step, minor page faults of one (memory new to the process), and peak memory so far."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    seconds = median(times(step, steps, clock or Clock()))
    after = resource.getrusage(resource.RUSAGE_SELF)
    peak = after.ru_maxrss / 1024  # MiB on Linux
    return {"seconds": seconds, "page_faults": (after.ru_minflt - before) / steps, "peak_mib": peak}


def answer(message: Mapping[str, object]) -> None:
    """One line of JSON; without anybody to read it the process ends."""
    try:
        say_json(message)
    except BrokenPipeError:
        os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1])
