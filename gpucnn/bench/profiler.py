"""Where a step's time goes: op -> kernel -> algorithm, with count, median time and fraction of the step.

A ``Stopwatch`` is a backend that runs what another one runs and notes how long each op took: on a GPU by events on its
stream, so that the host runs ahead as in training.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import partial
from statistics import median
from typing import Any

import numpy as np

from gpucnn.backend import Backend, Kernel, Op
from gpucnn.bench.timers import Clock, clock_of, times
from gpucnn.training.trainer import Trainer
from gpucnn.types import Array, Shape

WARMUP, STEPS = 2, 5


@dataclass(frozen=True)
class Call:
    """One op that ran."""

    op: str
    kernel: str
    algorithm: str
    seconds: float


@dataclass(frozen=True)
class Row:
    """All calls of an op that took the same way, per step; ``share`` is the fraction of the step's wall time."""

    op: str
    kernel: str
    algorithm: str
    count: float
    milliseconds: float  # median of one call
    share: float


@dataclass(frozen=True)
class Stopwatch(Backend):
    """A backend that times its ops; ``marks`` are (op, kernel and algorithm, start, end) of each that ran."""

    clock: Clock = field(default_factory=Clock)
    marks: list[tuple[tuple[str, str, str], Any, Any]] = field(default_factory=list)

    @property
    def calls(self) -> list[Call]:
        """All calls since ``marks`` were last cleared.  # sync"""
        return [Call(*way, *self.clock.seconds([start, stop])) for way, start, stop in self.marks]

    def run(self, op: Op, *args: Any, **kwargs: Any) -> Any:
        """Run op as the backend would, and note it."""
        start = self.clock.mark()
        result = super().run(op, *args, **kwargs)
        stop = self.clock.mark()
        kernel = self.kernels.get(op)
        self.marks.append(((op.__name__, place(kernel), algorithm(kernel, args)), start, stop))
        return result


def stopwatch(backend: Backend) -> Stopwatch:
    """The same backend with a clock."""
    parts = {part.name: getattr(backend, part.name) for part in fields(Backend)}
    parts["uncapturable_ops"] = None  # it waits, which nothing may while a CUDA graph is recorded
    return Stopwatch(**parts, clock=clock_of(backend))


def place(kernel: Op | None) -> str:
    """Where a kernel is written, as ``kernels/cpu/pooling.py``; "reference" where an op has none."""
    return kernel.__module__.removeprefix("gpucnn.").replace(".", "/") + ".py" if kernel else "reference"


def algorithm(kernel: Op | None, args: tuple[Any, ...]) -> str:
    """Which way a kernel goes with these arguments, where it has a choice; else ""."""
    row: Kernel | None = getattr(kernel, "kernel", None)
    return row.plan(*args) if row and row.plan else ""


def explain(trainer: Trainer, shape: Shape, classes: int, *, mode: str = "train") -> list[Row]:
    """Rows for a step on a batch of noise, the longest first; the last one is what no op accounts for.

    The trainer is on a ``Stopwatch``, and for this purpose only: its weights move.  ``mode`` is as for ``stepper``.
    """
    watch = trainer.backend
    assert isinstance(watch, Stopwatch)
    rng = np.random.default_rng(0)
    x = watch.to_device(rng.standard_normal((trainer.batch_size, *shape), dtype=np.float32))
    labels = watch.to_device(rng.integers(0, classes, trainer.batch_size))
    step = stepper(trainer, x, labels, mode)
    times(step, WARMUP, watch.clock)
    watch.marks.clear()
    seconds = sum(times(step, STEPS, watch.clock))
    return rows(watch.calls, seconds, STEPS)


def stepper(trainer: Trainer, x: Array, labels: Array, mode: str) -> Callable[[], Any]:
    """A step on this batch: a whole one where ``mode`` is "train", a forward pass alone where it is "eval"."""
    if mode == "eval":
        return partial(trainer.precision.forward, trainer.model.eval(), x)
    return partial(trainer.train_step, x, labels)


def rows(calls: list[Call], seconds: float, steps: int) -> list[Row]:
    """Calls of so many steps, which took ``seconds`` in all, by op and way."""
    groups: dict[tuple[str, str, str], list[float]] = {}
    for call in calls:
        groups.setdefault((call.op, call.kernel, call.algorithm), []).append(call.seconds)
    found = [Row(*way, len(times) / steps, 1e3 * median(times), sum(times) / seconds) for way, times in groups.items()]
    found.sort(key=lambda row: -row.share)
    rest = seconds - sum(call.seconds for call in calls)
    return [*found, Row("(between ops)", "Python", "", 1, 1e3 * rest / steps, rest / seconds)]


def table(found: list[Row]) -> list[tuple[str, ...]]:
    """The rows as text, below a head."""
    cells: list[tuple[str, ...]] = [("op", "kernel", "algorithm", "calls", "ms a call", "share")]
    for row in found:
        numbers = f"{row.count:.0f}", f"{row.milliseconds:.3f}", f"{100 * row.share:.1f} %"
        cells.append((row.op, row.kernel, row.algorithm, *numbers))
    return cells
