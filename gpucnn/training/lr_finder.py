"""The learning-rate range test (L. N. Smith, arXiv 1506.01186): raise the rate step by step and watch the loss.

    lr_t = low (high / low)^(t / (T - 1))                                      t = 0 .. T - 1
    m_t  = b m_{t-1} + (1 - b) loss_t;   smoothed_t = m_t / (1 - b^(t+1))

While the rate is too small the loss stays where it is, then it falls, and at last it explodes.  A good rate lies
between where it falls fastest and where it is lowest; a tenth of the latter is a common choice.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from math import inf, log

from gpucnn.data import Dataset
from gpucnn.errors import NotANumberError, UsageError
from gpucnn.training.trainer import Trainer

SMOOTHING = 0.9
EXPLODED = 3.0  # times the lowest smoothed loss, and the test is over
LEAST = 8  # steps without which nothing can be said


@dataclass(frozen=True)
class RangeTest:
    """One rate and loss per step made, and the rates where the smoothed loss falls fastest and where it is lowest."""

    rates: Sequence[float]
    losses: Sequence[float]
    smoothed: Sequence[float]
    steepest: float
    lowest: float


def exponential(low: float, high: float, steps: int) -> list[float]:
    """The rates lr_t from low to high."""
    return [low * (high / low) ** (t / (steps - 1)) for t in range(steps)]


def smooth(losses: Sequence[float], b: float = SMOOTHING) -> list[float]:
    """The running mean of the losses, corrected for its start at 0."""
    mean, made = 0.0, []
    for t, loss in enumerate(losses, 1):
        mean = b * mean + (1.0 - b) * loss
        made.append(mean / (1.0 - b**t))
    return made


def range_test(trainer: Trainer, train: Dataset, *, low: float, high: float, steps: int) -> RangeTest:
    """Run it from where the trainer stands, with its batches and augmentation; afterwards the weights are spoilt.

    Each step's loss is read, so the device is waited for.  # sync

    Raises:
        UsageError: rates out of order, too few steps, or an end before the eighth step.
    """
    if not 0.0 < low < high:
        raise UsageError(f"rates from {low:g} to {high:g}: give 0 < --from < --to")
    if steps < LEAST:
        raise UsageError(f"steps = {steps}: give at least {LEAST}")
    rates = exponential(low, high, steps)
    trainer.schedule = lambda step: rates[min(step, steps - 1)]
    trainer.prepare(train)
    batches = trainer.loader(train, training=True)
    losses: list[float] = []
    lowest, total, seen = inf, 0.0, 0
    trainer.model.train()
    while len(losses) < steps:
        for x, labels in islice(batches.epoch(len(losses) // len(batches)), steps - len(losses)):
            try:
                trainer.train_step(x, labels)
            except NotANumberError:
                return _concluded(rates, losses)
            loss_sum, _, examples = trainer.metrics.sums()
            losses.append((loss_sum - total) / (examples - seen))
            total, seen = loss_sum, examples
            now = smooth(losses)[-1]
            lowest = min(lowest, now)
            if not now < EXPLODED * lowest:
                return _concluded(rates, losses)
    return _concluded(rates, losses)


def _concluded(rates: Sequence[float], losses: Sequence[float]) -> RangeTest:
    if len(losses) < LEAST:
        rate = rates[max(len(losses) - 1, 0)]
        raise UsageError(f"the loss exploded at a rate of {rate:g} already: start lower, with --from")
    rates = rates[: len(losses)]
    smoothed = smooth(losses)
    bottom = min(range(len(smoothed)), key=smoothed.__getitem__)
    slope = [(smoothed[t] - smoothed[t - 1]) / log(rates[t] / rates[t - 1]) for t in range(1, bottom + 1)]
    steepest = 1 + min(range(len(slope)), key=slope.__getitem__) if slope else bottom
    return RangeTest(rates, losses, smoothed, rates[steepest], rates[bottom])
