"""Elementwise activation functions, each beside its derivative.

    (L4)   relu(x) = max(0, x)                    (L17)  dx = dy where x > 0, else 0
    (L5)   tanh(x)                                       dx = dy (1 - y^2)
    (L5)   sigmoid(x) = 1 / (1 + e^-x)                   dx = dy y (1 - y)
           leaky_relu(x) = x where x > 0, else a x       dx = dy where x > 0, else a dy     (a: the slope)
           silu(x) = x sigmoid(x)                        dx = dy s (1 + x (1 - s)),  s = sigmoid(x)

Where the derivative can be computed from y, a layer saves y; elsewhere it saves x.
"""

from math import prod

from gpucnn.backend import array_module
from gpucnn.layers.base import Layer
from gpucnn.types import Array, Shape


def relu(x: Array) -> Array:
    """(L4)"""
    return array_module(x).maximum(x, 0)


def relu_grad(dy: Array, x: Array) -> Array:
    """(L17)"""
    return dy * (x > 0)


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
    """(L5)  as (1 + tanh(x / 2)) / 2, which cannot overflow."""
    return 0.5 + 0.5 * array_module(x).tanh(0.5 * x)


def sigmoid_grad(dy: Array, y: Array) -> Array:
    """(L5)  y = sigmoid(x)."""
    return dy * y * (1 - y)


def silu(x: Array) -> Array:
    """x sigmoid(x) (arXiv 1702.03118), also called swish."""
    return x * sigmoid(x)


def silu_grad(dy: Array, x: Array) -> Array:
    """dx = dy s (1 + x (1 - s)),  s = sigmoid(x)."""
    s = sigmoid(x)
    return dy * s * (1 + x * (1 - s))


class ReLU(Layer):
    """(L4, L17)"""

    def forward(self, x: Array) -> Array:
        self.save(x)
        return self.run(relu, x)

    def backward(self, dy: Array) -> Array | None:
        (x,) = self.saved()
        return self.run(relu_grad, dy, x)

    def flops(self, shape: Shape) -> int:
        return prod(shape)


class LeakyReLU(Layer):
    """x where x > 0, else ``slope`` times x."""

    def __init__(self, slope: float = 0.01) -> None:
        self.slope = slope

    def forward(self, x: Array) -> Array:
        self.save(x)
        return self.run(leaky_relu, x, self.slope)

    def backward(self, dy: Array) -> Array | None:
        (x,) = self.saved()
        return self.run(leaky_relu_grad, dy, x, self.slope)

    def flops(self, shape: Shape) -> int:
        return 2 * prod(shape)


class Tanh(Layer):
    """(L5)"""

    def forward(self, x: Array) -> Array:
        y = self.run(tanh, x)
        self.save(y)
        return y

    def backward(self, dy: Array) -> Array | None:
        (y,) = self.saved()
        return self.run(tanh_grad, dy, y)

    def flops(self, shape: Shape) -> int:
        return prod(shape)


class Sigmoid(Layer):
    """(L5)"""

    def forward(self, x: Array) -> Array:
        y = self.run(sigmoid, x)
        self.save(y)
        return y

    def backward(self, dy: Array) -> Array | None:
        (y,) = self.saved()
        return self.run(sigmoid_grad, dy, y)

    def flops(self, shape: Shape) -> int:
        return 4 * prod(shape)


class SiLU(Layer):
    """x sigmoid(x)."""

    def forward(self, x: Array) -> Array:
        self.save(x)
        return self.run(silu, x)

    def backward(self, dy: Array) -> Array | None:
        (x,) = self.saved()
        return self.run(silu_grad, dy, x)

    def flops(self, shape: Shape) -> int:
        return 5 * prod(shape)
