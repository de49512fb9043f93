"""Schedules at the points where their formulas are known."""

import inspect

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpucnn.optim.schedules import constant, cosine, one_cycle, piecewise_linear, step_decay, triangular, warmup


@pytest.mark.torch
def test_defaults_are_pytorchs() -> None:
    """The start of one cycle is 1/25 of its top; all end at 0."""
    import torch

    known = inspect.signature(torch.optim.lr_scheduler.OneCycleLR).parameters
    assert one_cycle(1.0, 1000)(0) == pytest.approx(1 / known["div_factor"].default)
    top = round(1000 * known["pct_start"].default)
    assert one_cycle(1.0, 1000)(top) == 1.0
    assert one_cycle(1.0, 1000)(top - 1) < 1.0 > one_cycle(1.0, 1000)(top + 1)
    assert one_cycle(1.0, 1000)(1000) == cosine(1.0, 1000)(1000) == 0.0
    gamma = inspect.signature(torch.optim.lr_scheduler.MultiStepLR).parameters["gamma"].default
    assert step_decay(1.0, [3])(3) == gamma


def test_runs_of_a_step_or_none() -> None:
    assert cosine(2.0, 1)(0) == cosine(2.0, 0)(0) == 2.0
    assert cosine(2.0, 0)(1) == 0.0
    assert one_cycle(2.0, 1, start=0.5)(0) == 1.0
    assert [one_cycle(2.0, 2, peak=1.0)(step) for step in (2, 3)] == [2.0, 0.0]
    rates = [one_cycle(1.0, 4, peak=0.75, start=0.25, final=0.5)(step) for step in range(6)]
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1.0, 0.5, 0.5])
    assert triangular(1.0, 3)(0) == 1.0  # a peak before the first step
    assert triangular(1.0, 100)(0) == 0.2
    assert triangular(1.0, 100)(100) == 0.07


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


def test_piecewise_linear_is_constant_outside_its_knots() -> None:
    rate = piecewise_linear(2.0, [(2, 0.5), (4, 1.0), (8, 0.25)])
    wanted = [1.0, 1.0, 1.0, 1.5, 2.0, 1.625, 1.25, 0.875, 0.5, 0.5]
    assert [rate(step) for step in range(10)] == pytest.approx(wanted)
    assert piecewise_linear(2.0, [(5, 0.5)])(0) == piecewise_linear(2.0, [(5, 0.5)])(9) == 1.0


def test_the_triangle_of_the_speedrun() -> None:
    rate = triangular(11.5, 476)  # 0.23 of 476 steps are 109.48: the top is at step 109
    wanted = {0: 0.2, 50: 0.2 + 0.8 * 50 / 109, 109: 1.0, 300: 1 - 0.93 * 191 / 367, 475: 0.07 + 0.93 / 367, 476: 0.07}
    assert [rate(step) / 11.5 for step in wanted] == pytest.approx(list(wanted.values()))
    assert max(rate(step) for step in range(476)) == rate(109) == 11.5


def test_a_triangle_with_its_peak_at_0_is_a_line_down() -> None:
    rate = triangular(1.0, 200, peak=0.0, final=0.0)
    assert [rate(step) for step in (0, 50, 199, 200)] == pytest.approx([1.0, 0.75, 0.005, 0.0])


@given(total=st.integers(2, 300), peak=st.floats(0.02, 0.98))
def test_triangular_and_one_cycle_differ_only_in_where_the_top_is(total: int, peak: float) -> None:
    top = int(peak * total)
    made = triangular(1.0, total, peak, 0.1, 0.2)
    assert made(top) == 1.0
    if top:
        theirs = one_cycle(1.0, total, top / total, 0.1, 0.2)
        assert [made(step) for step in range(total)] == pytest.approx([theirs(step) for step in range(total)])
