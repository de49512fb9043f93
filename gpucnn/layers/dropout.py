"""Dropout (Srivastava et al., JMLR 2014), inverted so that evaluation needs nothing.

    (L24)  training:    y = x keep / (1 - p),   keep = 1 with probability 1 - p, else 0
           evaluation:  y = x

The mask is a pure function of (seed, stream, step, element), so backward computes it again instead of saving it.
Dropout is linear in x: the same function maps x to y and dy to dx.
"""

from math import prod
from typing import Any

from gpucnn import random
from gpucnn.backend import array_module
from gpucnn.errors import UsageError
from gpucnn.layers.base import Layer
from gpucnn.types import Array, Shape


def dropout(x: Array, rate: float, seed: int, stream: int, step: int) -> Array:
    """(L24)  x of any shape -> x keep / (1 - rate)."""
    xp = array_module(x)
    keep = random.uniform(x.shape, seed=seed, stream=stream, step=step, xp=xp) >= rate
    return xp.where(keep, x * (1.0 / (1.0 - rate)), 0)


class Dropout(Layer):
    """Set values to zero with probability ``rate`` in training; do nothing in evaluation.

    Raises:
        UsageError: a rate outside [0, 1).
    """

    equations = (
        "y[...] = x[...] * keep[...]  # (L24) dropout",
        "dx[...] = dy[...] * keep[...]  # (L24) dropout",
    )

    def __init__(self, rate: float = 0.5) -> None:
        if not 0.0 <= rate < 1.0:
            raise UsageError(f"Dropout(rate={rate}): give a probability in [0, 1)")
        self.rate = rate

    def forward(self, x: Array) -> Array:
        if not self.training:
            return x
        mask = self.mask()
        self.keep(mask)
        return self.run(dropout, x, self.rate, *mask)

    def backward(self, dy: Array) -> Array | None:
        (mask,) = self.kept()
        return self.run(dropout, dy, self.rate, *mask)

    def mask(self) -> tuple[int, int, Any]:
        """Which mask it is: seed, stream and step."""
        return self.clock.seed, random.stream_id(f"dropout {self.name}"), self.clock.now

    def symbols(self) -> dict[str, Any]:
        return {"keep": lambda x: self.run(dropout, self.backend.xp.ones_like(x), self.rate, *self.mask())}

    def flops(self, shape: Shape) -> int:
        return 2 * prod(shape)
