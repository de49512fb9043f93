"""Averages of the weights over the steps of a run; batch norm's statistics are averaged with them.

With w after step t (counted from 1) and T steps in all:

    EMA        a <- a + (1 - d_t) (w - a),   d_t = min(d, (t - 1) / (t + 8))
               Evaluation puts a in the place of w; training goes on with w.

    Lookahead  every k steps, with alpha_t = d^k (t / T)^3:         arXiv 1907.08610, schedule of arXiv 2404.00498
               a <- a + (1 - alpha_t) (w - a);   w <- a
               and after step T, w <- a once more

d_t climbs, so that the first weights, which are random, are soon forgotten (d_1 = 0: the average starts as w).
Frozen parameters do not change and have no average.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from gpucnn.errors import UsageError
from gpucnn.layers import Layer
from gpucnn.types import Array


def lerp(a: Array, w: Array, share: float) -> None:
    """Move a (n,) in place by this share of the way to w (n,)."""
    a += share * (w - a)


@dataclass(frozen=True)
class Turn:
    """What an average does after a step.

    Attributes:
        share: how far it moves to the weights, a number or float64 () on the device; None where it stays.
        pull: whether the weights are put in its place then.
    """

    share: Any = None
    pull: bool = False


class Average:
    """Owns two flat arrays: one for the trained parameters, one for the buffers.

    Attributes:
        name: what it is called in checkpoints.
        evaluated: whether evaluation uses the average.
    """

    name = ""
    evaluated = False

    def bind(self, model: Layer) -> None:
        """Follow this model, from the values that it has now."""
        self.model, self.backend = model, model.backend
        self.followed = (model.flat.data[model.flat.trained], model.flat_buffers.data)
        self.arrays = tuple(w.copy() for w in self.followed)

    def update(self, step: int) -> None:
        """Take in the weights after this step, counted from 0."""
        self.take(self.turn(step))

    def turn(self, step: int) -> Turn:
        """What is to be done after this step, counted from 0."""
        raise NotImplementedError

    def take(self, turn: Turn) -> None:
        """Do it."""
        if turn.share is not None:
            for a, w in zip(self.arrays, self.followed, strict=True):
                self.backend.run(lerp, a, w, turn.share)
        if turn.pull:
            self.pull()

    def pull(self) -> None:
        """Put the average in the place of the weights."""
        for a, w in zip(self.arrays, self.followed, strict=True):
            w[...] = a

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The model has the averaged weights for as long as a ``with`` block lasts."""
        before = [w.copy() for w in self.followed]
        try:
            self.pull()
            yield
        finally:
            for w, kept in zip(self.followed, before, strict=True):
                w[...] = kept

    def views(self) -> dict[str, Array]:
        """Name of a trained parameter or a buffer -> its average, in its shape."""
        flat, buffers, (weights, rest) = self.model.flat, self.model.flat_buffers, self.arrays
        trained = {name: flat.view(weights, name) for name, p in flat.parameters.items() if p.group != "frozen"}
        return trained | {name: buffers.view(rest, name) for name in buffers.segments}

    def state_dict(self) -> dict[str, Array]:
        """Name -> host copy of its average.  # sync"""
        return {name: self.backend.to_host(view).copy() for name, view in self.views().items()}

    def load_state_dict(self, state: Mapping[str, Array]) -> None:
        """Replace the averages; names and shapes have been checked by whoever read them."""
        for name, view in self.views().items():
            view[...] = self.backend.to_device(state[name])


class EMA(Average):
    """The exponential moving average of all steps, used by evaluation.

    Args:
        decay: d, the weight of the past; it remembers about 1 / (1 - d) steps.

    Raises:
        UsageError: it is not in (0, 1).
    """

    name = "ema"
    evaluated = True

    def __init__(self, decay: float) -> None:
        if not 0.0 < decay < 1.0:
            raise UsageError(f"the decay of a moving average is {decay}: give a number in (0, 1), as 0.999")
        self.decay = decay

    def turn(self, step: int) -> Turn:
        return Turn(1.0 - min(self.decay, step / (step + 9)))


class Lookahead(Average):
    """Slow weights, to which the fast ones return every few steps; they trust the fast ones less and less.

    Args:
        every: k, steps between two returns.
        total: T, all steps of the run.
        decay: d.

    Raises:
        UsageError: one of them is out of its range.
    """

    name = "lookahead"

    def __init__(self, every: int, total: int, decay: float = 0.95) -> None:
        if not (every >= 1 and total >= 1):
            raise UsageError(f"Lookahead returns every {every} of {total} steps: give numbers >= 1")
        if not 0.0 <= decay < 1.0:
            raise UsageError(f"the decay of Lookahead is {decay}: give a number in [0, 1)")
        self.every, self.total, self.decay = every, total, decay

    def alpha(self, t: int) -> float:
        """The weight of the slow weights after step t, counted from 1."""
        return float(self.decay**self.every * min(t / self.total, 1.0) ** 3)

    def turn(self, step: int) -> Turn:
        t = step + 1
        due = t % self.every == 0
        return Turn(1.0 - self.alpha(t) if due else None, pull=due or t == self.total)


@contextmanager
def averaged(averages: Sequence[Average]) -> Iterator[None]:
    """The model as evaluation is to see it: with averaged weights, where there are some for that."""
    with ExitStack() as stack:
        for average in averages:
            if average.evaluated:
                stack.enter_context(average.in_place())
        yield
