"""Flat arrays: views, alignment, one slice per group."""

import numpy as np
import pytest

from gpucnn.backend import REFERENCE
from gpucnn.errors import UsageError
from gpucnn.layers import BatchNorm, Conv2D, Linear, Sequential
from gpucnn.parameter import ALIGNMENT, GROUPS, Buffer, FlatParameters, Parameter


def test_parameters_are_views_and_groups_are_slices() -> None:
    model = Sequential(Conv2D(3, 5, 3), BatchNorm(5), Linear(7, 2)).initialize(1)
    flat = model.flat
    assert flat.data.flags.c_contiguous
    covered = np.zeros(flat.data.size, dtype=int)
    for name, parameter in model.parameters().items():
        part = flat.segments[name]
        assert part.start % ALIGNMENT == 0
        assert np.shares_memory(parameter.data, flat.data)
        assert np.shares_memory(parameter.grad, flat.grad)
        group = flat.groups[parameter.group]
        assert group.start <= part.start < part.stop <= group.stop
        covered[part] += 1
        flat.data[part] = 3.0
        assert (parameter.data == 3.0).all()
    assert covered.max() == 1
    assert [flat.groups[g].start for g in GROUPS[1:]] == [flat.groups[g].stop for g in GROUPS[:-1]]


def test_gaps_hold_zeros() -> None:
    model = Sequential(Linear(3, 3), Linear(3, 3)).initialize(1)
    gaps = np.ones(model.flat.data.size, dtype=bool)
    for part in model.flat.segments.values():
        gaps[part] = False
    assert gaps.any()
    assert not model.flat.data[gaps].any()


def test_values_before_initialize_are_an_error_that_says_so() -> None:
    parameter = Parameter((2,), lambda shape, seed, stream: np.zeros(shape))
    for read in (lambda: parameter.data, lambda: parameter.grad, lambda: Buffer((1,), 0.0).data):
        with pytest.raises(UsageError, match="initialize"):
            read()
    assert FlatParameters({"p": parameter}, REFERENCE, "float32").data.dtype == np.float32
