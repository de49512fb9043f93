"""Which of several candidates is fastest, by timing them."""

from collections.abc import Callable, Iterable
from math import inf

HOPELESS = 1.5  # times the best time so far: a candidate that starts like this is not timed any further
ROUNDS, BUDGET, MOST = 3, 2.0, 20  # rounds of a candidate, milliseconds of a round, executions in a round


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
