"""The loss scale S of mixed precision (Micikevicius et al., arXiv 1710.03740), computed on the device.

S is halved when a gradient is not finite, and doubled after a number of finite gradients in a row.
"""

from gpucnn.backend import array_module
from gpucnn.types import Array

SMALLEST, LARGEST = 1.0, 2.0**24
"""Bounds of S."""


def unscale(g: Array, finite: Array, scale: Array) -> None:
    """In place: finite () <- whether all of g (n,) is finite; g <- g / scale () if so, else 0."""
    xp = array_module(g)
    finite[...] = xp.isfinite(g).all()
    g[...] = xp.where(finite, g * (1.0 / scale), 0.0)


def adapt(scale: Array, good: Array, finite: Array, interval: int) -> None:
    """In place: the next S (), and the number () of finite gradients in a row since it was set."""
    xp = array_module(scale)
    counted = xp.where(finite, good + 1, 0)
    enough = counted >= interval
    factor = xp.where(finite, xp.where(enough, 2.0, 1.0), 0.5)
    scale[...] = xp.minimum(xp.maximum(scale * factor, SMALLEST), LARGEST)
    good[...] = xp.where(enough, 0, counted)


def keep(now: Array, before: Array, finite: Array) -> None:
    """In place: restore the values before a step unless its gradient was finite ()."""
    now[...] = array_module(now).where(finite, now, before)
