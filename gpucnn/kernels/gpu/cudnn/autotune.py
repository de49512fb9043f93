"""Which of several candidates are right, by their agreement, and which is fastest, by timing them."""

from collections.abc import Callable, Iterable
from math import inf

import numpy as np

from gpucnn.types import Array

HOPELESS = 1.5  # times the best time so far: a candidate that starts like this is not timed any further
ROUNDS, BUDGET, MOST = 3, 2.0, 20  # rounds of a candidate, milliseconds of a round, executions in a round


def agreeing(
    candidates: Iterable[int], compute: Callable[[int], Array | None], tolerance: float
) -> tuple[list[int], list[int]]:
    """The candidates whose results are alike, where those are more than half or else the most; and the others.

    A library may list an engine that computes something else for some shape.  Where results are zeros, too small to
    have all their digits, or not finite, there is nothing to compare.  Those that cannot be executed, or not again
    beside a copy of another result, are in neither list.

    Args:
        compute: a candidate's result, valid until the next call; None where it cannot be executed.  # sync
        tolerance: largest difference, as a fraction of the largest value.
    """
    running = [candidate for candidate in candidates if compute(candidate) is not None]
    best: list[int] = []
    lost: set[int] = set()  # for whose scratch memory there is no more room
    for pivot in running:
        result = compute(pivot)
        if result is None:
            lost.add(pivot)
            continue
        kept = result.copy()
        largest = float(abs(kept).max())  # sync
        if not np.finfo(kept.dtype).tiny <= largest < inf:
            continue
        same = []
        for one in running:
            result = compute(one)
            if result is None:
                lost.add(one)
            elif distance(result, kept) <= tolerance * largest:
                same.append(one)
        best = max(best, same, key=len)
        if 2 * len(best) > len(running):
            break
    return best or running, [one for one in running if best and one not in best and one not in lost]


def distance(result: Array, kept: Array) -> float:
    """The largest difference; NaN where one of them has none.  # sync"""
    return float(abs(result - kept).max())


def fastest(candidates: Iterable[int], measure: Callable[[int, int], float]) -> tuple[int, float]:
    """The candidate of the shortest time, and that time; (-1, inf) where none can be measured.

    A candidate's time is the least mean of a few rounds.  Executions shorter than their launch by the host look alike:
    the host is then what is timed.

    Args:
        measure: (candidate, executions) -> milliseconds of one, inf where it cannot be executed.
    """
    winner, record = -1, inf
    for candidate in candidates:
        measure(candidate, 1)  # loads its code
        once = measure(candidate, 1)
        if once > HOPELESS * record or once == inf:
            continue
        executions = max(1, min(MOST, int(BUDGET / max(once, 1e-6))))
        time = min(measure(candidate, executions) for _ in range(ROUNDS))
        if time < record:
            winner, record = candidate, time
    return winner, record
