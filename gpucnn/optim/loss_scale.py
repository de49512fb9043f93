"""The loss scale S of mixed precision (Micikevicius et al., arXiv 1710.03740): device arithmetic without the host.

S is halved where a gradient is not finite, and doubled after so many finite ones in a row.
"""

from gpucnn.backend import array_module
from gpucnn.types import Array

SMALLEST, LARGEST = 1.0, 2.0**24
"""Bounds of S."""


def unscale(g: Array, finite: Array, scale: Array) -> None:
    """Divide g (n,) by scale () and note whether all of it is finite, bool (), both in place; else g becomes 0."""
    xp = array_module(g)
    finite[...] = xp.isfinite(g).all()
    g[...] = xp.where(finite, g * (1.0 / scale), 0.0)


def adapt(scale: Array, good: Array, finite: Array, interval: int) -> None:
    """The next S (), and how many finite gradients () have come in a row since it was set; both in place."""
    xp = array_module(scale)
    counted = xp.where(finite, good + 1, 0)
    enough = counted >= interval
    factor = xp.where(finite, xp.where(enough, 2.0, 1.0), 0.5)
    scale[...] = xp.minimum(xp.maximum(scale * factor, SMALLEST), LARGEST)
    good[...] = xp.where(enough, 0, counted)


def keep(now: Array, before: Array, finite: Array) -> None:
    """Put back what was there before, in place, unless finite ()."""
    now[...] = array_module(now).where(finite, now, before)
