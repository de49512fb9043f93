"""Neighbours that a backend runs as one: fewer passes over the image, the same numbers.

ReLU and max pooling commute, and batch norm is a line per channel, so one pass can do all three.  An op here is the
composition of the plain ones, and that is its reference.  A model does not name these layers: ``Sequential`` joins
neighbours where its backend has a kernel for the pair (``JOINS``), and runs them one by one where it has none.
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

from gpucnn.layers.activations import ReLU, relu, relu_grad
from gpucnn.layers.base import Layer
from gpucnn.layers.batchnorm import BatchNormReLU, batchnorm_relu, batchnorm_relu_eval, batchnorm_relu_grad
from gpucnn.layers.pooling import MaxPool2D, max_pool2d, max_pool2d_grad
from gpucnn.types import Array, Padding, Pair


def relu_max_pool2d(x: Array, kernel: Pair, stride: Pair, padding: Padding) -> Array:
    """(L4, L6)  x (N,H,W,C) -> y (N,H',W',C)."""
    return max_pool2d(relu(x), kernel, stride, padding)


def relu_max_pool2d_grad(dy: Array, x: Array, kernel: Pair, stride: Pair, padding: Padding) -> Array:
    """(L15, L17)  dy (N,H',W',C), x (N,H,W,C) -> dx (N,H,W,C)."""
    return relu_grad(max_pool2d_grad(dy, relu(x), kernel, stride, padding), x)


def batchnorm_relu_max_pool2d(
    x: Array, scale: Array, shift: Array, eps: float, kernel: Pair, stride: Pair, padding: Padding
) -> tuple[Array, Array, Array]:
    """(L23, L4, L6)  x (N,H,W,C), scale and shift (C,) -> y (N,H',W',C), mean (C,), biased variance (C,)."""
    y, mean, var = batchnorm_relu(x, scale, shift, eps)
    return max_pool2d(y, kernel, stride, padding), mean, var


def batchnorm_relu_max_pool2d_eval(
    x: Array, scale: Array, shift: Array, mean: Array, var: Array, eps: float,
    kernel: Pair, stride: Pair, padding: Padding,
) -> Array:  # fmt: skip
    """The same with given statistics: x (N,H,W,C) -> y (N,H',W',C)."""
    return max_pool2d(batchnorm_relu_eval(x, scale, shift, mean, var, eps), kernel, stride, padding)


def batchnorm_relu_max_pool2d_grad(
    dy: Array, x: Array, scale: Array, shift: Array, mean: Array, var: Array, eps: float,
    kernel: Pair, stride: Pair, padding: Padding,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """Back through all three: dy (N,H',W',C), x (N,H,W,C) -> dx (N,H,W,C), dscale (C,), dshift (C,)."""
    pooled = batchnorm_relu_eval(x, scale, shift, mean, var, eps)
    dz = max_pool2d_grad(dy, pooled, kernel, stride, padding)
    return batchnorm_relu_grad(dz, x, scale, shift, mean, var, eps)


class ReLUMaxPool2D(Layer):
    """A ``ReLU`` and the ``MaxPool2D`` behind it; state, mode and backend are theirs."""

    op: Callable[..., Any] = staticmethod(relu_max_pool2d)

    def __init__(self, relu: ReLU, pool: MaxPool2D) -> None:
        self.pool = pool
        self.window = (pool.kernel, pool.stride, pool.padding)

    def forward(self, x: Array) -> Array:
        self.pool.save(x)
        return self.pool.run(relu_max_pool2d, x, *self.window)

    def backward(self, dy: Array) -> Array | None:
        (x,) = self.pool.saved()
        return self.pool.run(relu_max_pool2d_grad, dy, x, *self.window)


class BatchNormReLUMaxPool2D(Layer):
    """A ``BatchNormReLU`` and the ``MaxPool2D`` behind it; state, mode and backend are theirs."""

    op: Callable[..., Any] = staticmethod(batchnorm_relu_max_pool2d)

    def __init__(self, norm: BatchNormReLU, pool: MaxPool2D) -> None:
        self.norm = norm
        self.window = (pool.kernel, pool.stride, pool.padding)

    def forward(self, x: Array) -> Array:
        norm = self.norm
        scale, shift = norm.scale.data, norm.shift.data
        if not norm.training:
            mean, var = norm.running_mean.data, norm.running_var.data
            return norm.run(batchnorm_relu_max_pool2d_eval, x, scale, shift, mean, var, norm.eps, *self.window)
        y, mean, var = norm.run(batchnorm_relu_max_pool2d, x, scale, shift, norm.eps, *self.window)
        norm.update_running(mean, var, prod(x.shape[:-1]))
        norm.save(x, mean, var)
        return y

    def backward(self, dy: Array) -> Array | None:
        norm = self.norm
        x, mean, var = norm.saved()
        scale, shift = norm.scale.data, norm.shift.data
        grads = norm.run(batchnorm_relu_max_pool2d_grad, dy, x, scale, shift, mean, var, norm.eps, *self.window)
        dx, norm.scale.grad[...], norm.shift.grad[...] = grads
        return dx


JOINS: dict[tuple[type[Layer], type[Layer]], Any] = {
    (ReLU, MaxPool2D): ReLUMaxPool2D,
    (BatchNormReLU, MaxPool2D): BatchNormReLUMaxPool2D,
}
"""(a layer's class, its successor's) -> the class that runs both, by a kernel for its ``op``."""


def join(layers: Sequence[Layer]) -> list[Layer]:
    """The same computation with neighbours joined, where their backend has a kernel for that."""
    steps: list[Layer] = []
    for layer in layers:
        joined = JOINS.get((type(steps[-1]), type(layer))) if steps else None
        if joined and joined.op in layer.backend.kernels:
            steps[-1] = joined(steps[-1], layer)
        else:
            steps.append(layer)
    return steps
