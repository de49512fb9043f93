"""Schedules at the points where their formulas are known."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpucnn.schedules import constant, cosine, one_cycle, step_decay, warmup


def test_constant_and_steps() -> None:
    assert constant(0.3)(10**6) == 0.3
    rates = [step_decay(1.0, [20, 10], 0.1)(step) for step in (0, 9, 10, 19, 20, 99)]
    assert rates == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_cosine() -> None:
    rate = cosine(2.0, 100, final=0.1)
    assert [rate(s) for s in (0, 50, 100, 1000)] == pytest.approx([2.0, 1.1, 0.2, 0.2])
    assert rate(25) == pytest.approx(2 * (0.1 + 0.9 * (1 + 0.5**0.5) / 2))


def test_one_cycle_is_a_triangle() -> None:
    rate = one_cycle(1.0, 100, peak=0.25, start=0.2, final=0.05)
    points = [rate(s) for s in (0, 10, 25, 50, 100, 200)]
    assert points == pytest.approx([0.2, 0.2 + 0.8 * 0.4, 1.0, 1 - 0.95 / 3, 0.05, 0.05])


def test_warm_up_comes_before_and_the_schedule_starts_after_it() -> None:
    rate = warmup(step_decay(1.0, [5]), 4)
    assert [rate(s) for s in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert (rate(8), rate(9)) == pytest.approx((1.0, 0.1))
    plain = constant(1.0)
    assert warmup(plain, 0) is plain


@given(total=st.integers(1, 500), step=st.integers(0, 1000), lr=st.floats(1e-6, 10))
def test_rates_stay_between_zero_and_lr(total: int, step: int, lr: float) -> None:
    for schedule in (cosine(lr, total), one_cycle(lr, total), warmup(cosine(lr, total), 7)):
        assert 0.0 <= schedule(step) <= lr * (1 + 1e-9)
