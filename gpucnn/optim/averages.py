"""Averages of the weights over the steps of a run; batch norm's statistics are averaged with them.

With w after step t (counted from 1) and T steps in all:

    EMA        a <- a + (1 - d_t) (w - a),   d_t = min(d, (t - 1) / (t + 8))
               Evaluation uses a instead of w; training continues with w.

    Lookahead  every k steps, with alpha_t = d^k (t / T)^3:         arXiv 1907.08610, schedule of arXiv 2404.00498
               a <- a + (1 - alpha_t) (w - a);   w <- a
               and after step T, w <- a once more

d_t grows, so that the random first weights are soon forgotten (d_1 = 0: the average starts as w).
Frozen parameters do not change and have no average.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from gpucnn.backend import array_module
from gpucnn.errors import UsageError
from gpucnn.layers import Layer
from gpucnn.settings import Checked
from gpucnn.types import Array


def lerp(a: Array, w: Array, weight: float) -> None:
    """Linear interpolation in place: a <- a + weight (w - a) = w - (1 - weight) (w - a), both (n,)."""
    xp, apart = array_module(a), w - a
    near = xp.zeros((), dtype=bool) | (weight < 0.5)  # from the nearer end: of two sizes the larger one loses no digits
    a[...] = xp.where(near, a + weight * apart, w - (1 - weight) * apart)


@dataclass(frozen=True)
class AverageUpdate:
    """How an average changes after a step.

    Attributes:
        weight: of the current weights in the average, a number or float64 () on the device; None leaves the average
            as it is.
        copy_to_model: whether the model then gets the average as its weights.
    """

    weight: Any = None
    copy_to_model: bool = False


class Average(Checked):
    """An average of a model's weights: two flat arrays, of the trained parameters and of the buffers.

    Attributes:
        name: its name in checkpoints.
        evaluated: whether evaluation uses the average.
    """

    name = ""
    evaluated = False

    def bind(self, model: Layer) -> None:
        """Average the weights of this model, starting from their current values."""
        self.model, self.backend = model, model.backend
        self.followed = (model.flat.data[model.flat.trained], model.flat_buffers.data)
        self.arrays = tuple(w.copy() for w in self.followed)

    def update_at(self, step: int) -> AverageUpdate:
        """The update that is due after this step, counted from 0."""
        raise NotImplementedError

    def apply(self, update: AverageUpdate) -> None:
        """Carry out an update on the model's current weights."""
        if update.weight is not None:
            for a, w in zip(self.arrays, self.followed, strict=True):
                self.backend.run(lerp, a, w, update.weight)
        if update.copy_to_model:
            self.copy_to_model()

    def copy_to_model(self) -> None:
        """Replace the model's weights by the average."""
        for a, w in zip(self.arrays, self.followed, strict=True):
            w[...] = a

    def views(self) -> dict[str, Array]:
        """Name of a trained parameter or a buffer -> its average, in its shape."""
        flat, buffers, (weights, rest) = self.model.flat, self.model.flat_buffers, self.arrays
        trained = {name: flat.view(weights, name) for name, p in flat.parameters.items() if p.group != "frozen"}
        return trained | {name: buffers.view(rest, name) for name in buffers.segments}

    def state_dict(self) -> dict[str, Array]:
        """Name -> host copy of its average.  # sync"""
        return {name: self.backend.to_host(view).copy() for name, view in self.views().items()}

    def load_state_dict(self, state: Mapping[str, Array]) -> None:
        """Replace the averages; the caller has checked names and shapes."""
        for name, view in self.views().items():
            view[...] = self.backend.to_device(state[name])


class EMA(Average):
    """The exponential moving average over all steps, used by evaluation.

    Args:
        decay: d, the weight of the past; the average spans about 1 / (1 - d) steps.

    Raises:
        UsageError: the decay is not in (0, 1).
    """

    name = "ema"
    evaluated = True

    def __init__(self, decay: float) -> None:
        if not 0.0 < decay < 1.0:
            raise UsageError(f"the decay of a moving average is {decay}: give a number in (0, 1), as 0.999")
        self.decay = decay

    def update_at(self, step: int) -> AverageUpdate:
        return AverageUpdate(1.0 - min(self.decay, step / (step + 9)))


class Lookahead(Average):
    """Slow weights, to which the model's fast weights are reset every few steps; they follow less and less closely.

    Args:
        every: k, steps between two resets.
        total: T, all steps of the run.
        decay: d.

    Raises:
        UsageError: a number out of its range.
    """

    name = "lookahead"

    def __init__(self, every: int, total: int, decay: float = 0.95) -> None:
        if not (every >= 1 and total >= 1):
            raise UsageError(f"Lookahead every {every} of {total} steps: give numbers >= 1")
        if not 0.0 <= decay < 1.0:
            raise UsageError(f"the decay of Lookahead is {decay}: give a number in [0, 1)")
        self.every, self.total, self.decay = every, total, decay

    def alpha(self, t: int) -> float:
        """The weight of the slow weights after step t, counted from 1."""
        return float(self.decay**self.every * min(t / self.total, 1.0) ** 3)

    def update_at(self, step: int) -> AverageUpdate:
        t = step + 1
        due = t % self.every == 0
        return AverageUpdate(1.0 - self.alpha(t) if due else None, copy_to_model=due or t == self.total)


@contextmanager
def averaged(averages: Sequence[Average]) -> Iterator[None]:
    """In a ``with`` block the model has the weights that evaluation uses: averaged ones, if an average is for that."""
    evaluated = [average for average in averages if average.evaluated]
    before = [(w, w.copy()) for average in evaluated for w in average.followed]
    try:
        for average in evaluated:
            average.copy_to_model()
        yield
    finally:
        for w, own in before:
            w[...] = own
