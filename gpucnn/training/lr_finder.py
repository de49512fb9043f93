"""The learning-rate range test (L. N. Smith, arXiv 1506.01186): raise the rate step by step and watch the loss.

    lr_t = low (high / low)^(t / (T - 1))                                      t = 0 .. T - 1
    m_t  = b m_{t-1} + (1 - b) loss_t;   smoothed_t = m_t / (1 - b^(t+1))

At first the rate is too small and the loss hardly moves, then it falls, and in the end it explodes.  A good rate lies
between where the loss falls fastest and where it is lowest; a tenth of the latter is a common choice.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, count, islice
from math import log

from gpucnn.data import Dataset
from gpucnn.errors import NotANumberError, UsageError
from gpucnn.training.trainer import Trainer

SMOOTHING = 0.9  # b
EXPLODED = 3.0  # the test ends when the smoothed loss is this many times its minimum
MIN_STEPS = 8  # fewer losses say nothing


@dataclass(frozen=True)
class LRFinderResult:
    """Learning rate and loss of each step, and two rates to choose between.

    Attributes:
        rates, losses, smoothed: one number per step.
        steepest: the rate at which the smoothed loss falls fastest.
        lowest: the rate at which it is lowest.
    """

    rates: Sequence[float]
    losses: Sequence[float]
    smoothed: Sequence[float]
    steepest: float
    lowest: float


def exponential(low: float, high: float, steps: int) -> list[float]:
    """The rates lr_t from low to high."""
    return [low * (high / low) ** (t / (steps - 1)) for t in range(steps)]


def smooth(losses: Sequence[float], b: float = SMOOTHING) -> list[float]:
    """The exponential moving average of the losses, corrected for its start at 0."""
    mean, smoothed = 0.0, []
    for t, loss in enumerate(losses, 1):
        mean = b * mean + (1.0 - b) * loss
        smoothed.append(mean / (1.0 - b**t))
    return smoothed


def find_lr(trainer: Trainer, train: Dataset, *, low: float, high: float, steps: int) -> LRFinderResult:
    """Run the range test on a fresh trainer, with its batches and augmentation; its weights are useless afterwards.

    Every step reads its loss from the device.  # sync

    Raises:
        UsageError: rates in the wrong order, too few steps, or a loss that explodes before the eighth step.
    """
    if not 0.0 < low < high:
        raise UsageError(f"rates from {low:g} to {high:g}: give 0 < --from < --to")
    if steps < MIN_STEPS:
        raise UsageError(f"steps = {steps}: give at least {MIN_STEPS}")
    rates = exponential(low, high, steps)
    trainer.schedule = lambda step: rates[min(step, steps - 1)]
    trainer.prepare(train)
    batches = trainer.loader(train, training=True)
    losses: list[float] = []
    trainer.model.train()
    for x, labels in islice(chain.from_iterable(map(batches.epoch, count())), steps):
        trainer.metrics.reset()
        try:
            trainer.train_step(x, labels)
        except NotANumberError:
            break
        losses.append(trainer.metrics.read()[0])
        smoothed = smooth(losses)
        if not smoothed[-1] < EXPLODED * min(smoothed):
            break
    return conclude(rates, losses)


def conclude(rates: Sequence[float], losses: Sequence[float]) -> LRFinderResult:
    """The result of a test that ended with these losses; raises UsageError if there are too few of them."""
    if len(losses) < MIN_STEPS:
        rate = rates[max(len(losses) - 1, 0)]
        raise UsageError(f"the loss exploded already at a rate of {rate:g}: start lower, with --from")
    rates = rates[: len(losses)]
    smoothed = smooth(losses)
    bottom = min(range(len(smoothed)), key=smoothed.__getitem__)
    slope = [(smoothed[t] - smoothed[t - 1]) / log(rates[t] / rates[t - 1]) for t in range(1, bottom + 1)]
    steepest = 1 + min(range(len(slope)), key=slope.__getitem__) if slope else bottom
    return LRFinderResult(rates, losses, smoothed, rates[steepest], rates[bottom])
