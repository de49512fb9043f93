"""Learning-rate schedules: each makes a pure function step -> learning rate, steps counted from 0."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from inspect import signature
from math import cos, pi

from gpucnn.errors import UsageError
from gpucnn.settings import checked, named

Schedule = Callable[[int], float]


@checked
def constant(lr: float) -> Schedule:
    """The same rate at every step."""
    return lambda step: lr


@checked
def step_decay(lr: float, milestones: Sequence[int], gamma: float = 0.1) -> Schedule:
    """The rate times gamma at each milestone (in steps)."""
    ordered = sorted(milestones)
    return lambda step: lr * gamma ** bisect_right(ordered, step)


@checked
def cosine(lr: float, total: int, final: float = 0.0) -> Schedule:
    """Half a cosine from lr down to final * lr over ``total`` steps (arXiv 1608.03983)."""

    def rate(step: int) -> float:
        progress = min(step / max(total, 1), 1.0)
        return lr * (final + (1.0 - final) * 0.5 * (1.0 + cos(pi * progress)))

    return rate


@checked
def one_cycle(lr: float, total: int, peak: float = 0.3, start: float = 0.04, final: float = 0.0) -> Schedule:
    """Straight up from start * lr to lr in the first fraction ``peak`` of ``total``, then down to final * lr.

    The triangle of super-convergence (arXiv 1708.07120).
    """
    top = max(1.0, peak * total)

    def rate(step: int) -> float:
        if step < top:
            return lr * (start + (1.0 - start) * step / top)
        down = min((step - top) / max(total - top, 1.0), 1.0)
        return lr * (1.0 + (final - 1.0) * down)

    return rate


@checked
def piecewise_linear(lr: float, knots: Sequence[tuple[float, float]]) -> Schedule:
    """Straight lines between knots (step, fraction of lr), sorted by step; constant before and after them."""
    steps, fractions = [step for step, _ in knots], [fraction for _, fraction in knots]

    def rate(step: int) -> float:
        right = bisect_right(steps, step)
        if right in (0, len(steps)):
            return lr * fractions[max(right - 1, 0)]
        (s0, y0), (s1, y1) = knots[right - 1 : right + 1]
        return lr * (y0 + (y1 - y0) * (step - s0) / (s1 - s0))

    return rate


@checked
def triangular(lr: float, total: int, peak: float = 0.23, start: float = 0.2, final: float = 0.07) -> Schedule:
    """``one_cycle`` with its top at a whole step, the last one within the first fraction ``peak`` of ``total``.

    The defaults are those of arXiv 2404.00498.
    """
    top = int(peak * total)
    return piecewise_linear(lr, [(0, start), (top, 1.0), (total, final)] if top else [(0, 1.0), (total, final)])


@checked
def warmup(schedule: Schedule, steps: int) -> Schedule:
    """A straight line up to the schedule's first rate in ``steps`` steps, then the schedule itself."""
    if steps <= 0:
        return schedule
    return lambda step: schedule(0) * (step + 1) / (steps + 1) if step < steps else schedule(step - steps)


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "constant": constant,
    "step": step_decay,
    "cosine": cosine,
    "one_cycle": one_cycle,
    "triangular": triangular,
    "piecewise": piecewise_linear,
}


@checked
def schedule_named(name: str, lr: float, total: int) -> Schedule:
    """The schedule of this name over ``total`` steps, with its defaults.

    Raises:
        UsageError: no such name, or a schedule that needs more than the rate and the number of steps.
    """
    kind = named("schedule", name, SCHEDULES)
    given = {"lr": lr, "total": total}
    needed = {key: p.default is p.empty for key, p in signature(kind).parameters.items()}
    if missing := [key for key, needs in needed.items() if needs and key not in given]:
        how = f"schedules.{kind.__name__}({lr}, {missing[0]})"
        raise UsageError(f"schedule = {name!r} needs {missing[0]}: give the function, as {how}")
    return kind(**{key: value for key, value in given.items() if key in needed})
