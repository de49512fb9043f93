"""Flat arrays: views, alignment, one slice per group."""

from dataclasses import replace

import numpy as np
import pytest

from gpucnn.backend import REFERENCE
from gpucnn.errors import UsageError
from gpucnn.layers import BatchNorm, Conv2D, Linear, Sequential
from gpucnn.layers.conv2d import conv2d_weight_grad
from gpucnn.layers.linear import linear_weight_grad
from gpucnn.layers.parameter import ALIGNMENT, GROUPS, Buffer, FlatParameters, Parameter
from gpucnn.optim.averages import EMA

WEIGHT_GRADS = (conv2d_weight_grad, linear_weight_grad)


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


def test_each_parameter_is_in_its_group_and_a_layer_can_say_another() -> None:
    model = Sequential(
        Conv2D(3, 5, 2, weight_group="frozen", bias_group="whiten"),
        BatchNorm(5, scale_group="frozen"),
        Conv2D(5, 2, 1),
        Linear(7, 2),
        Linear(2, 2, weight_group="bias", bias_group="norm"),
    )
    assert {name: p.group for name, p in model.parameters().items()} == {
        "0.weight": "frozen", "0.bias": "whiten", "1.scale": "frozen", "1.shift": "norm", "2.weight": "filter",
        "2.bias": "bias", "3.weight": "weight", "3.bias": "bias", "4.weight": "bias", "4.bias": "norm",
    }  # fmt: skip
    with pytest.raises(UsageError, match=r"'filters' does not exist: did you mean 'filter'\?"):
        Conv2D(1, 1, 1, weight_group="filters")


@pytest.mark.parametrize("make", [lambda **how: Conv2D(3, 4, 1, **how), lambda **how: Linear(3, 4, **how)])
def test_a_frozen_weight_has_no_gradient_and_is_no_part_of_the_flat_one(make, backend) -> None:
    ops = []
    counted = replace(backend, kernels={op: lambda *a, op=op: ops.append(op) or op(*a) for op in WEIGHT_GRADS})
    for group in ("frozen", "bias"):
        model = Sequential(make(weight_group=group)).initialize(1, counted)
        x = counted.to_device(np.ones((2, 1, 1, 3) if make().weight.shape[1:] != (3,) else (2, 3), np.float32))
        model.backward(model.forward(x))
        assert len(model.flat.grad) == model.flat.trained.stop == len(model.flat.data) - ALIGNMENT * (group == "frozen")
        assert len(ops) == (group == "bias")
        assert bool(abs(model.parameters()["0.weight"].grad).max() > 0) == (group == "bias")


def test_a_parameter_is_frozen_by_its_group_or_later_and_trainable_otherwise() -> None:
    model = Sequential(Conv2D(3, 4, 1, weight_group="frozen", bias_group="whiten"), BatchNorm(4)).initialize(1)
    entries = model.parameters()
    assert {name: p.trainable for name, p in entries.items()} == {
        "0.weight": False, "0.bias": True, "1.scale": True, "1.shift": True,
    }  # fmt: skip
    entries["0.bias"].grad[...] = 2.0
    assert model.freeze(["whiten", "frozen"])
    assert entries["0.bias"].frozen
    assert not entries["0.bias"].grad.any()
    assert not model.freeze(["whiten", "frozen"])  # there is nothing left to freeze
    assert model.learns()
    assert model.freeze(["norm"])
    assert not model.learns()
    model.initialize(1)
    assert [name for name, p in entries.items() if p.frozen] == ["0.weight"]


def test_a_parameter_frozen_at_a_step_keeps_its_place_in_the_flat_gradient_and_in_averages() -> None:
    model = Sequential(Conv2D(3, 4, 1, weight_group="frozen", bias_group="whiten"), BatchNorm(4)).initialize(1)
    average = EMA(0.9)
    average.bind(model)
    before = {name: a.shape for name, a in average.views().items()}
    model.freeze(["whiten"])
    assert {name: a.shape for name, a in average.views().items()} == before
    assert "0.bias" in before
    assert "0.weight" not in before
    assert np.shares_memory(model.layers["0"].bias.grad, model.flat.grad)


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
