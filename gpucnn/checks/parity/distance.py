"""The distance of one array from another, as one number.

    relative = max_i |a_i - b_i| / max_i |b_i|
    ulps     = max_i |a_i - b_i| / ulp(max_i |b_i|)

ulp(v) is the distance from v to the next larger float32.  It is taken at the largest magnitude of b, not at each b_i:
an element near 0 is most often a sum whose terms cancelled, which is exact to the ulp of those terms at best; in units
of its own ulp the best of kernels would be thousands away.  So one ulp is between 6.0e-8 and 1.2e-7 of the largest
value, and the two numbers measure the same: ``ulps`` in roundings, ``relative`` as a fraction.
"""

from math import inf, isfinite

import numpy as np

from gpucnn.types import Array


def relative(a: Array, b: Array) -> float:
    """The first number; 0 for equal arrays, infinite for different shapes, NaN, or any difference from all zeros."""
    error, largest = spread(a, b)
    return error / largest if error and largest else error and inf


def ulps(a: Array, b: Array) -> float:
    """The second number, with the same 0 and infinity."""
    error, largest = spread(a, b)
    return error / float(np.spacing(np.float32(largest))) if error and largest else error and inf


def spread(a: Array, b: Array) -> tuple[float, float]:
    """(max |a - b|, max |b|) in float64; the first is infinite where shapes differ or something is not finite."""
    if a.shape != b.shape:
        return inf, 0.0
    a, b = a.astype(np.float64), b.astype(np.float64)
    with np.errstate(invalid="ignore"):  # infinity minus infinity
        error = float(np.abs(a - b).max(initial=0.0))
    largest = float(np.abs(b).max(initial=0.0))
    return (error, largest) if isfinite(error) and isfinite(largest) else (inf, 0.0)
