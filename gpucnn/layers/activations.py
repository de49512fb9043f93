"""Elementwise activation functions, each beside its derivative.

    (L4)   relu(x) = max(0, x)                    (L17)  dx = dy where x > 0, else 0
    (L5)   tanh(x)                                       dx = dy (1 - y^2)
    (L5)   sigmoid(x) = 1 / (1 + e^-x)                   dx = dy y (1 - y)
           relu6(x) = min(max(0, x), 6)                  dx = dy where 0 < x < 6, else 0
           leaky_relu(x) = x where x > 0, else a x       dx = dy where x > 0, else a dy     (a: the slope)
           silu(x) = x sigmoid(x)                        dx = dy (s + x s (1 - s)),  s = sigmoid(x)
           elu(x) = x where x > 0, else a (e^x - 1)      dx = dy where x > 0, else dy a e^x
           hardsigmoid(x) = min(max(x + 3, 0), 6) / 6    dx = dy / 6 where -3 < x < 3, else 0
           hardswish(x) = x hardsigmoid(x)               dx = 0 where x <= -3, dy where x >= 3, else dy (2 x + 3) / 6

Where the derivative can be computed from y, a layer keeps y; elsewhere it keeps x.
"""

from collections.abc import Callable
from math import prod
from typing import Any

from gpucnn.backend import array_module
from gpucnn.layers.base import Layer
from gpucnn.types import Array, Shape


def relu(x: Array) -> Array:
    """(L4)"""
    return array_module(x).maximum(x, 0)


def relu_grad(dy: Array, x: Array) -> Array:
    """(L17)"""
    return array_module(x).where(x > 0, dy, 0)  # a product would turn an infinite dy at a dropped place into NaN


def relu6(x: Array) -> Array:
    """(L4), no larger than 6, so that few bits after the point are lost in float16 (arXiv 1704.04861)."""
    return array_module(x).clip(x, 0, 6)


def relu6_grad(dy: Array, x: Array) -> Array:
    """(L17), and 0 where x >= 6."""
    return array_module(x).where((x > 0) & (x < 6), dy, 0)


def leaky_relu(x: Array, slope: float) -> Array:
    """(L4), with a slope for x <= 0 (Maas et al., ICML 2013)."""
    return array_module(x).where(x > 0, x, slope * x)


def leaky_relu_grad(dy: Array, x: Array, slope: float) -> Array:
    """(L17), with a slope for x <= 0."""
    return array_module(x).where(x > 0, dy, slope * dy)


def tanh(x: Array) -> Array:
    """(L5)"""
    return array_module(x).tanh(x)


def tanh_grad(dy: Array, y: Array) -> Array:
    """(L5)  y = tanh(x)."""
    return dy * (1 - y * y)


def sigmoid(x: Array) -> Array:
    """(L5)  as e^x / (1 + e^x) for x < 0: nothing overflows, and small values keep their digits."""
    xp = array_module(x)
    e = xp.exp(-abs(x))
    return xp.where(x < 0, e, 1) / (1 + e)


def sigmoid_grad(dy: Array, y: Array) -> Array:
    """(L5)  y = sigmoid(x)."""
    return dy * y * (1 - y)


def sigmoid_and_slope(x: Array) -> tuple[Array, Array]:
    """(L5)  y = sigmoid(x) and y (1 - y), which loses no digits where y is close to 1."""
    xp = array_module(x)
    e = xp.exp(-abs(x))
    part = 1 / (1 + e)
    return xp.where(x < 0, e, 1) * part, e * part * part


def silu(x: Array) -> Array:
    """x sigmoid(x) (arXiv 1702.03118), also called swish."""
    return x * sigmoid(x)


def silu_grad(dy: Array, x: Array) -> Array:
    """dx = dy (s + x s (1 - s)),  s = sigmoid(x)."""
    s, slope = sigmoid_and_slope(x)
    return dy * (s + x * slope)


def elu(x: Array, alpha: float) -> Array:
    """x where x > 0, else alpha (e^x - 1) (arXiv 1511.07289)."""
    xp = array_module(x)
    return xp.where(x > 0, x, alpha * xp.expm1(xp.minimum(x, 0)))


def elu_grad(dy: Array, x: Array, alpha: float) -> Array:
    """dx = dy where x > 0, else dy alpha e^x."""
    xp = array_module(x)
    return xp.where(x > 0, dy, dy * (alpha * xp.exp(xp.minimum(x, 0))))


def hardsigmoid(x: Array) -> Array:
    """min(max(x + 3, 0), 6) / 6: sigmoid by three lines (arXiv 1905.02244)."""
    return array_module(x).clip(x + 3, 0, 6) * (1 / 6)


def hardsigmoid_grad(dy: Array, x: Array) -> Array:
    """dx = dy / 6 where -3 < x < 3, else 0."""
    return array_module(x).where((x > -3) & (x < 3), dy * (1 / 6), 0)


def hardswish(x: Array) -> Array:
    """x hardsigmoid(x): SiLU without an exponential (arXiv 1905.02244)."""
    return x * hardsigmoid(x)


def hardswish_grad(dy: Array, x: Array) -> Array:
    """dx = 0 where x <= -3, dy where x >= 3, else dy (2 x + 3) / 6."""
    xp = array_module(x)
    inside = dy * (xp.clip(x, -3, 3) * (1 / 3) + 0.5)
    return xp.where(x <= -3, 0, xp.where(x >= 3, dy, inside))


class Activation(Layer):
    """y = op(x); backward is ``grad_op`` of dy and of what forward kept: x, or y where ``keeps_output``."""

    op: Callable[..., Array]
    grad_op: Callable[..., Array]
    keeps_output = False
    numbers: tuple[float, ...] = ()  # what both ops take besides
    cost = 1  # floating-point operations of an element, forward

    def forward(self, x: Array) -> Array:
        y = self.run(self.op, x, *self.numbers)
        self.keep(y if self.keeps_output else x)
        return y

    def backward(self, dy: Array) -> Array | None:
        (kept,) = self.kept()
        return self.run(self.grad_op, dy, kept, *self.numbers)

    def flops(self, shape: Shape) -> int:
        return self.cost * prod(shape)


class ReLU(Activation):
    """(L4, L17)"""

    op, grad_op = staticmethod(relu), staticmethod(relu_grad)
    equations = "y[...] = max(0, x[...])  # (L4) relu", "dx[...] = dy[...] * (x[...] > 0)  # (L17) relu_grad"


class ReLU6(Activation):
    """ReLU that ends at 6 (arXiv 1704.04861)."""

    op, grad_op, cost = staticmethod(relu6), staticmethod(relu6_grad), 2
    equations = (
        "y[...] = where(x[...] < 6, max(0, x[...]), 6)  # (L4) relu6",
        "dx[...] = dy[...] * (x[...] > 0) * (x[...] < 6)  # (L17) relu6_grad",
    )


class LeakyReLU(Activation):
    """x where x > 0, else ``slope`` times x."""

    op, grad_op, cost = staticmethod(leaky_relu), staticmethod(leaky_relu_grad), 2
    equations = (
        "y[...] = where(x[...] > 0, x[...], slope * x[...])  # (L4) leaky_relu",
        "dx[...] = dy[...] * where(x[...] > 0, 1, slope)  # (L17) leaky_relu_grad",
    )

    def __init__(self, slope: float = 0.01) -> None:
        self.slope, self.numbers = slope, (slope,)

    def symbols(self) -> dict[str, Any]:
        return {"slope": self.slope}


class Tanh(Activation):
    """(L5)"""

    op, grad_op, keeps_output = staticmethod(tanh), staticmethod(tanh_grad), True
    equations = "y[...] = tanh(x[...])  # (L5) tanh", "dx[...] = dy[...] * (1 - y[...]**2)  # (L5) tanh_grad"


class Sigmoid(Activation):
    """(L5)"""

    op, grad_op, keeps_output, cost = staticmethod(sigmoid), staticmethod(sigmoid_grad), True, 4
    equations = (
        "y[...] = 1 / (1 + exp(-x[...]))  # (L5) sigmoid",
        "dx[...] = dy[...] * y[...] * (1 - y[...])  # (L5) sigmoid_grad",
    )


class SiLU(Activation):
    """x sigmoid(x)."""

    op, grad_op, cost = staticmethod(silu), staticmethod(silu_grad), 5
    equations = (
        "s[...] = 1 / (1 + exp(-x[...]))  # sigmoid",
        "y[...] = x[...] * s[...]  # silu",
        "dx[...] = dy[...] * s[...] * (1 + x[...] * (1 - s[...]))  # silu_grad",
    )


class ELU(Activation):
    """x where x > 0, else ``alpha`` (e^x - 1)."""

    op, grad_op, cost = staticmethod(elu), staticmethod(elu_grad), 3
    equations = (
        "y[...] = where(x[...] > 0, x[...], alpha * (exp(x[...]) - 1))  # elu",
        "dx[...] = dy[...] * where(x[...] > 0, 1, alpha * exp(x[...]))  # elu_grad",
    )

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha, self.numbers = alpha, (alpha,)

    def symbols(self) -> dict[str, Any]:
        return {"alpha": self.alpha}


class Hardsigmoid(Activation):
    """Three lines in place of ``Sigmoid``."""

    op, grad_op, cost = staticmethod(hardsigmoid), staticmethod(hardsigmoid_grad), 4
    equations = (
        "y[...] = where(x[...] > -3, where(x[...] < 3, (x[...] + 3) / 6, 1), 0)  # hardsigmoid",
        "dx[...] = dy[...] / 6 * (x[...] > -3) * (x[...] < 3)  # hardsigmoid_grad",
    )


class Hardswish(Activation):
    """x ``Hardsigmoid``(x)."""

    op, grad_op, cost = staticmethod(hardswish), staticmethod(hardswish_grad), 5
    equations = (
        "y[...] = x[...] * where(x[...] > -3, where(x[...] < 3, (x[...] + 3) / 6, 1), 0)  # hardswish",
        "dx[...] = dy[...] * where(x[...] > -3, where(x[...] < 3, (2 * x[...] + 3) / 6, 1), 0)  # hardswish_grad",
    )
