"""Dropout (Srivastava et al., JMLR 2014), inverted so that evaluation needs nothing.

    (L24)  training:    y = x keep / (1 - p),   keep = 1 with probability 1 - p, else 0
           evaluation:  y = x

Dropout2D drops whole channels of an image (Tompson et al., arXiv 1411.4280), whose neighbouring pixels say much the
same; stochastic depth drops all of an example, at the end of a residual branch (Huang et al., arXiv 1603.09382).  They
are (L24) with one keep for each channel, or example.

The mask is a pure function of (seed, stream, step, element), so backward computes it again instead of saving it.
Dropout is linear in x: the same function maps x to y and dy to dx.
"""

from math import prod
from typing import Any

from gpucnn import random
from gpucnn.backend import array_module
from gpucnn.errors import ShapeError, UsageError
from gpucnn.layers.base import Layer
from gpucnn.types import Array, Shape


def dropout(x: Array, rate: float, seed: int, stream: int, step: int) -> Array:
    """(L24)  x of any shape -> x keep / (1 - rate)."""
    xp = array_module(x)
    keep = random.uniform(x.shape, seed=seed, stream=stream, step=step, xp=xp) >= rate
    return xp.where(keep, x * (1.0 / (1.0 - rate)), 0)


def masked(x: Array, mask: Array) -> Array:
    """(L24)  x times mask, which broadcasts to it; 0 where mask is 0, whatever x is."""
    return array_module(x).where(mask != 0, x, 0) * mask


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
            raise UsageError(f"{self.kind}(rate={rate}): give a probability in [0, 1)")
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


class Dropout2D(Dropout):
    """Set whole channels of an image to zero with probability ``rate`` in training; do nothing in evaluation."""

    equations = (
        "y[...] = x[...] * keep[...]  # (L24) masked",
        "dx[...] = dy[...] * keep[...]  # (L24) masked",
    )

    def forward(self, x: Array) -> Array:
        if not self.training:
            return x
        mask = self.drawn(x)
        self.keep(mask)
        return self.run(masked, x, mask)

    def backward(self, dy: Array) -> Array | None:
        (mask,) = self.kept()
        return self.run(masked, dy, mask)

    def drawn(self, x: Array) -> Array:
        """The factors of x (N,H,W,C): (N,1,1,C)."""
        ones = self.backend.xp.ones(self.shared(x.shape), dtype=x.dtype)
        return self.run(dropout, ones, self.rate, *self.mask())

    def shared(self, shape: Shape) -> Shape:
        """The shape of the mask for x of this shape."""
        return shape[0], 1, 1, shape[3]

    def symbols(self) -> dict[str, Any]:
        return {"keep": lambda x: self.backend.xp.broadcast_to(self.drawn(x), x.shape).copy()}

    def output_shape(self, shape: Shape) -> Shape:
        if len(shape) != 3:
            raise ShapeError(f"Dropout2D got x of shape {shape}: give images (H, W, C), and vectors to Dropout")
        return shape


class StochasticDepth(Dropout2D):
    """Set all of an example to zero with probability ``rate`` in training: the last layer of a residual branch.

    Kept examples are divided by 1 - rate, so evaluation does nothing.
    """

    def shared(self, shape: Shape) -> Shape:
        return shape[0], *(1 for _ in shape[1:])

    def output_shape(self, shape: Shape) -> Shape:
        return shape
