"""The loss scale against Python's own numbers."""

import numpy as np
import pytest

from gpucnn.optim.loss_scale import adapt, keep, unscale


@pytest.mark.parametrize("bad", [None, np.inf, -np.inf, np.nan])
def test_a_gradient_is_divided_where_all_of_it_is_finite_and_else_zero(bad, backend) -> None:
    values = np.array([1.0, -6.0, 0.5, 3e4], np.float32)
    if bad is not None:
        values[2] = bad
    g, finite = backend.to_device(values), backend.to_device(np.array(bad is not None))
    backend.run(unscale, g, finite, backend.to_device(np.array(4.0, np.float32)))
    assert bool(backend.to_host(finite)) is (bad is None)
    assert backend.to_host(g).tolist() == ([0.25, -1.5, 0.125, 7500.0] if bad is None else [0.0] * 4)


def next_scale(scale: float, good: int, finite: bool, interval: int) -> tuple[float, int]:
    """The rule in words: halve on a bad gradient, double after so many good ones, stay from 1 to 2^24."""
    if not finite:
        return max(scale / 2, 1.0), 0
    if good + 1 >= interval:
        return min(scale * 2, 2.0**24), 0
    return scale, good + 1


@pytest.mark.parametrize("interval", [1, 2, 3])
@pytest.mark.parametrize("scale", [1.0, 2.0, 2.0**16, 2.0**23, 2.0**24])
def test_the_scale_follows_its_rule(scale, interval, backend) -> None:
    for good in range(interval):
        for finite in (True, False):
            s, g = (backend.to_device(np.array(v)) for v in (np.float32(scale), np.int64(good)))
            backend.run(adapt, s, g, backend.to_device(np.array(finite)), interval)
            assert (float(backend.to_host(s)), int(backend.to_host(g))) == next_scale(scale, good, finite, interval)


@pytest.mark.parametrize("finite", [True, False])
def test_a_step_is_kept_or_taken_back(finite, backend) -> None:
    now, before = (backend.to_device(np.array(v, np.float32)) for v in ([1.0, np.nan], [3.0, 4.0]))
    backend.run(keep, now, before, backend.to_device(np.array(finite)))
    np.testing.assert_array_equal(backend.to_host(now), [1.0, np.nan] if finite else [3.0, 4.0])
    assert backend.to_host(before).tolist() == [3.0, 4.0]
