"""The two measures on values worked out by hand."""

from math import inf, nan

import numpy as np
import pytest

from gpucnn.checks.parity.distance import relative, ulps

ULP = 2.0**-23  # of float32 from 1 to 2


@pytest.mark.parametrize(
    ("a", "b", "fraction", "count"),
    [
        ([1.0 + ULP], [1.0], ULP, 1),
        ([-1.0 - 3 * ULP], [-1.0], 3 * ULP, 3),
        ([2.0 + 2 * ULP], [2.0], ULP, 1),  # the ulp doubles where the exponent does ...
        ([1.9990234375 + ULP], [1.9990234375], ULP / 1.9990234375, 1),  # ... and not before
        ([0.1 + 2.0**-27], [0.1], 2.0**-27 / 0.1, 1),  # 0.1 lies from 2**-4 to 2**-3
        ([4.0, 1e-9], [4.0, 0.0], 0.25e-9, 0.25e-9 / ULP),  # near zero: in ulps of 4, not of 0
        ([100.0, 0.5], [100.0, 1.0], 0.005, 0.5 / 2.0**-17),
        ([3.0, 5.0], [3.0, 5.0], 0, 0),
        ([0.0, -0.0], [0.0, 0.0], 0, 0),
        ([1e-30], [0.0], inf, inf),  # from nothing, anything is infinitely far
        ([nan], [1.0], inf, inf),
        ([1.0], [nan], inf, inf),
        ([inf], [inf], inf, inf),  # the difference is not a number
        ([1.0, 2.0], [1.0], inf, inf),
        ([], [], 0, 0),
    ],
)
def test_known_distances(a, b, fraction, count) -> None:
    a, b = np.array(a), np.array(b)
    assert relative(a, b) == pytest.approx(fraction, rel=1e-12)
    assert ulps(a, b) == pytest.approx(count, rel=1e-12)


def test_float32_is_subtracted_in_float64() -> None:
    a = np.array([1.0, np.float32(1.0 + ULP)], np.float32)
    assert relative(a, np.array([1.0, 1.0 + ULP - 2.0**-40])) == pytest.approx(2.0**-40 / (1 + ULP))


def test_an_ulp_is_between_6e_8_and_12e_8_of_the_largest_value() -> None:
    for largest in np.random.default_rng(0).uniform(1e-20, 1e20, 200):
        b = np.array([largest])
        ulp = relative(1.5 * b, b) / ulps(1.5 * b, b)
        assert 2.0**-24 < ulp <= 2.0**-23


def test_a_scalar_is_an_array() -> None:
    assert relative(np.float32(1.5), np.asarray(1.0)) == 0.5
