"""Activations: values by Python's own maths, gradients by PyTorch, extremes without overflow."""

import math

import numpy as np
import pytest

from gpucnn.errors import UsageError
from gpucnn.layers import ELU, GELU, Hardsigmoid, Hardswish, LeakyReLU, ReLU, ReLU6, Sigmoid, SiLU, Softmax, Tanh
from gpucnn.layers.activations import (
    elu,
    elu_grad,
    hardsigmoid,
    hardsigmoid_grad,
    hardswish,
    hardswish_grad,
    leaky_relu,
    leaky_relu_grad,
    relu,
    relu6,
    relu6_grad,
    relu_grad,
    sigmoid,
    sigmoid_grad,
    silu,
    silu_grad,
    tanh,
    tanh_grad,
)
from gpucnn.layers.gelu import gelu, gelu_grad, gelu_tanh, gelu_tanh_grad, normal_cdf
from gpucnn.layers.softmax import softmax, softmax_grad

X = np.concatenate([np.linspace(-30, 30, 241), [-1e-3, 0.0, 1e-3, 700.0, -700.0]])


def logistic(v: float) -> float:
    return 1 / (1 + math.exp(-v)) if v > 0 else math.exp(v) / (1 + math.exp(v))


ONE_BY_ONE = {
    "relu": (relu, lambda v: max(v, 0.0)),
    "relu6": (relu6, lambda v: min(max(v, 0.0), 6.0)),
    "leaky_relu": (lambda x: leaky_relu(x, 0.2), lambda v: v if v > 0 else 0.2 * v),
    "tanh": (tanh, math.tanh),
    "sigmoid": (sigmoid, logistic),
    "silu": (silu, lambda v: v * logistic(v)),
    "elu": (lambda x: elu(x, 0.7), lambda v: v if v > 0 else 0.7 * math.expm1(v)),
    "hardsigmoid": (hardsigmoid, lambda v: min(max(v + 3, 0), 6) / 6),
    "hardswish": (hardswish, lambda v: v * min(max(v + 3, 0), 6) / 6),
    "gelu": (gelu, lambda v: v * 0.5 * math.erfc(-v / math.sqrt(2))),
    "gelu_tanh": (
        gelu_tanh,
        lambda v: 0.5 * v * (1 + math.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3))),
    ),
}


@pytest.mark.parametrize("name", ONE_BY_ONE)
def test_values_one_by_one(name) -> None:
    op, single = ONE_BY_ONE[name]
    with np.errstate(over="raise", invalid="raise"):
        np.testing.assert_allclose(op(X), [single(v) for v in X], rtol=1e-12, atol=1e-14)


def test_the_normal_distribution_keeps_its_digits_in_both_tails() -> None:
    wanted = [0.5 * math.erfc(-v / math.sqrt(2)) for v in np.linspace(-37, 9, 500)]
    np.testing.assert_allclose(normal_cdf(np.linspace(-37, 9, 500)), wanted, rtol=1e-12)


@pytest.mark.torch
@pytest.mark.parametrize(
    ("name", "gradient"),
    [
        ("relu", lambda dy, x: relu_grad(dy, x)),
        ("relu6", lambda dy, x: relu6_grad(dy, x)),
        ("leaky_relu", lambda dy, x: leaky_relu_grad(dy, x, 0.01)),
        ("tanh", lambda dy, x: tanh_grad(dy, tanh(x))),
        ("sigmoid", lambda dy, x: sigmoid_grad(dy, sigmoid(x))),
        ("silu", silu_grad),
        ("elu", lambda dy, x: elu_grad(dy, x, 1.0)),
        ("hardsigmoid", hardsigmoid_grad),
        ("hardswish", hardswish_grad),
        ("gelu", gelu_grad),
        ("gelu tanh", gelu_tanh_grad),
        ("softmax", lambda dy, x: softmax_grad(dy, softmax(x))),
    ],
)
def test_gradients_against_pytorch(name, gradient) -> None:
    import torch
    import torch.nn.functional as theirs

    ops = {"gelu tanh": lambda t: theirs.gelu(t, approximate="tanh"), "softmax": lambda t: t.softmax(-1)}
    x, dy = 4 * np.random.default_rng(0).standard_normal((2, 40, 7))
    t = torch.from_numpy(x.copy()).requires_grad_()
    ops.get(name, getattr(theirs, name, None))(t).backward(torch.from_numpy(dy))
    rtol = 1e-7 if name == "hardsigmoid" else 1e-10  # PyTorch's 1/6 is a float32
    np.testing.assert_allclose(gradient(dy, x), t.grad, rtol=rtol, atol=1e-12)


def test_softmax_rows_sum_to_one_and_do_not_overflow() -> None:
    z = np.array([[1000.0, 1000.0, -1000.0], [0.0, 1.0, 2.0]])
    y = softmax(z)
    np.testing.assert_allclose(y.sum(axis=1), 1.0, rtol=1e-15)
    np.testing.assert_allclose(y[0], [0.5, 0.5, 0.0])
    np.testing.assert_allclose(y[1], np.exp([0, 1, 2]) / np.exp([0, 1, 2]).sum(), rtol=1e-15)


@pytest.mark.parametrize(
    "layer", [ReLU(), ReLU6(), LeakyReLU(0.1), Tanh(), Sigmoid(), SiLU(), GELU(), GELU("tanh"), ELU(), Hardsigmoid(),
              Hardswish(), Softmax()],
    ids=lambda layer: type(layer).__name__,
)  # fmt: skip
def test_layers_on_every_backend_give_the_references_float32(layer, backend) -> None:
    x, dy = np.random.default_rng(1).standard_normal((2, 6, 5))
    layer.initialize()
    y64 = layer(x)
    dx64 = layer.backward(dy)
    layer.initialize(0, backend)
    y = layer(backend.to_device(x.astype(np.float32)))
    dx = layer.backward(backend.to_device(dy.astype(np.float32)))
    for got, wanted in ((y, y64), (dx, dx64)):
        assert str(got.dtype) == "float32"
        np.testing.assert_allclose(backend.to_host(got), wanted, rtol=1e-4, atol=1e-6)


def test_the_derivative_of_relu_at_zero_is_zero() -> None:
    assert relu_grad(np.ones(3), np.array([-1.0, 0.0, 1.0])).tolist() == [0, 0, 1]


def test_gelu_knows_two_forms() -> None:
    with pytest.raises(UsageError, match="approximate='fast'"):
        GELU("fast")
