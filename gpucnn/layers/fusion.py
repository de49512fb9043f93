"""Neighbouring layers that a backend runs as one op: fewer passes over the image, the same numbers.

Batch norm is a linear function per channel, and ReLU and max pooling commute, so one pass can do all three.  Each op
here is the composition of the plain ones, which is its reference.  A model names the plain layers; ``Sequential`` fuses
those of ``FUSIONS`` where its backend has a kernel for them, and runs them one by one elsewhere.
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

from gpucnn.layers.activations import ReLU, ReLU6, relu, relu6, relu6_grad, relu_grad
from gpucnn.layers.base import Layer
from gpucnn.layers.batchnorm import (
    BatchNorm,
    batchnorm,
    batchnorm_eval,
    batchnorm_grad,
    batchnorm_relu,
    batchnorm_relu_eval,
    batchnorm_relu_grad,
)
from gpucnn.layers.pooling import MaxPool2D, max_pool2d, max_pool2d_grad
from gpucnn.types import Array, Padding, Pair, Shape


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
    z = batchnorm_relu_eval(x, scale, shift, mean, var, eps)  # (N,H,W,C)
    dz = max_pool2d_grad(dy, z, kernel, stride, padding)
    return batchnorm_relu_grad(dz, x, scale, shift, mean, var, eps)


def batchnorm_relu6(x: Array, scale: Array, shift: Array, eps: float) -> tuple[Array, Array, Array]:
    """Batch norm, then ReLU6: y (..., C), mean (C,), biased variance (C,)."""
    y, mean, var = batchnorm(x, scale, shift, eps)
    return relu6(y), mean, var


def batchnorm_relu6_eval(x: Array, scale: Array, shift: Array, mean: Array, var: Array, eps: float) -> Array:
    """Batch norm with given statistics, then ReLU6: y (..., C)."""
    return relu6(batchnorm_eval(x, scale, shift, mean, var, eps))


def batchnorm_relu6_grad(
    dy: Array, x: Array, scale: Array, shift: Array, mean: Array, var: Array, eps: float
) -> tuple[Array, Array, Array]:
    """Back through ReLU6, then through batch norm, whose output is computed again for the mask."""
    z = batchnorm_eval(x, scale, shift, mean, var, eps)
    return batchnorm_grad(relu6_grad(dy, z), x, scale, mean, var, eps)


def of_the_first(attribute: str) -> Any:
    """A property of a fused step that is read from the first of its layers."""
    return property(lambda step: getattr(step.layers[0], attribute))


class Fused(Layer):
    """Neighbours as one step of a ``Sequential``.

    Parameters, statistics, name, mode and backend are those of the layers; what backward needs is kept here.

    Attributes:
        layers: the neighbours, first to last.
        window: kernel, stride and padding of a ``MaxPool2D`` at the end.
        ops: what runs in place of the layers' own ops; a backend needs a kernel for the first one.
    """

    ops: tuple[Callable[..., Any], ...] = ()
    name, backend, clock, training = map(of_the_first, ("name", "backend", "clock", "training"))
    needs_input_grad, learned = map(of_the_first, ("needs_input_grad", "learned"))

    def __init__(self, *layers: Any) -> None:
        self.layers, pool = layers, layers[-1]
        self.window = pool.window(()) if isinstance(pool, MaxPool2D) else ()

    @property
    def kind(self) -> str:
        return " + ".join(layer.kind for layer in self.layers)

    def children(self) -> dict[str, Layer]:
        return {str(i or ""): layer for i, layer in enumerate(self.layers)}  # parameters keep their names

    def _enter_mode(self, training: bool) -> None:
        self._kept = None  # the mode is the layers'


class FusedReLUMaxPool2D(Fused):
    """``ReLU`` and ``MaxPool2D``."""

    ops = relu_max_pool2d, relu_max_pool2d_grad

    def forward(self, x: Array) -> Array:
        self.keep(x)
        return self.run(relu_max_pool2d, x, *self.window)

    def backward(self, dy: Array) -> Array | None:
        (x,) = self.kept()
        return self.run(relu_max_pool2d_grad, dy, x, *self.window)


class NormOps(Layer):
    """Forward and backward of ops that start with the batch norm ``layers[0]``."""

    ops: tuple[Callable[..., Any], ...] = (batchnorm_relu, batchnorm_relu_eval, batchnorm_relu_grad)
    window: tuple[Any, ...] = ()
    layers: Any

    def forward(self, x: Array) -> Array:
        norm, (op, eval_op, _) = self.layers[0], self.ops
        scale, shift = norm.scale.data, norm.shift.data
        if norm.fixed or not self.training:
            mean, var = norm.running_mean.data, norm.running_var.data
            self.keep(x)
            return self.run(eval_op, x, scale, shift, mean, var, norm.eps, *self.window)
        y, mean, var = self.run(op, x, scale, shift, norm.eps, *self.window)
        norm.update_running(mean, var, prod(x.shape[:-1]))
        self.keep(x, mean, var)
        return y

    def backward(self, dy: Array) -> Array | None:
        norm, (_, _, grad_op) = self.layers[0], self.ops
        if norm.fixed:
            return self.fixed_grad(norm, dy, *self.kept())
        x, mean, var = self.kept()
        grads = self.run(grad_op, dy, x, norm.scale.data, norm.shift.data, mean, var, norm.eps, *self.window)
        dx, norm.scale.grad[...], norm.shift.grad[...] = grads
        return dx

    def fixed_grad(self, norm: BatchNorm, dy: Array, x: Array) -> Array:
        """Back through all of it where batch norm is fixed: dL/dy, x -> dL/dx."""
        stats = norm.running_mean.data, norm.running_var.data
        y = self.run(batchnorm_relu_eval, x, norm.scale.data, norm.shift.data, *stats, norm.eps)
        if self.window:
            dy = self.run(max_pool2d_grad, dy, y, *self.window)
        return norm.through(self.run(relu_grad, dy, y))


class FusedBatchNormReLU(NormOps, Fused):
    """``BatchNorm`` and ``ReLU``."""


class FusedBatchNormReLU6(NormOps, Fused):
    """``BatchNorm`` and ``ReLU6``."""

    ops = batchnorm_relu6, batchnorm_relu6_eval, batchnorm_relu6_grad


class FusedBatchNormReLUMaxPool2D(NormOps, Fused):
    """``BatchNorm``, ``ReLU`` and ``MaxPool2D``."""

    ops = batchnorm_relu_max_pool2d, batchnorm_relu_max_pool2d_eval, batchnorm_relu_max_pool2d_grad


class BatchNormReLU(NormOps, BatchNorm):
    """``BatchNorm`` and ``ReLU`` as one layer, with the arguments and the parameter names of ``BatchNorm``.

    For nets that were written with it; new ones name the two layers, and ``Sequential`` fuses them.
    """

    equations = (
        *(
            text.replace("y[...,c] = s", "z[...,c] = s").replace("dy[...,c]", "dy[...,c] * (z[...,c] > 0)")
            for text in BatchNorm.equations
        ),
        "y[...,c] = max(0, z[...,c])  # (L4) relu",
    )

    @property
    def layers(self) -> tuple[BatchNorm]:
        return (self,)

    def flops(self, shape: Shape) -> int:
        return 5 * prod(shape)


FUSIONS: dict[tuple[type[Layer], ...], type[Fused]] = {
    (BatchNorm, ReLU, MaxPool2D): FusedBatchNormReLUMaxPool2D,
    (BatchNormReLU, MaxPool2D): FusedBatchNormReLUMaxPool2D,
    (BatchNorm, ReLU): FusedBatchNormReLU,
    (BatchNorm, ReLU6): FusedBatchNormReLU6,
    (ReLU, MaxPool2D): FusedReLUMaxPool2D,
}
"""Classes of neighbours -> the step that runs them; the first row that matches is used, so longer rows come first.

A subclass is not fused: it may compute something else; nor is a pooling whose border depends on the image."""


def fuse(layers: Sequence[Layer]) -> list[Layer]:
    """The same computation, with neighbours fused where their backend has a kernel for it."""
    steps: list[Layer] = []
    while layers:
        step, size = layers[0], 1
        for row, fused in FUSIONS.items():
            fits = tuple(map(type, layers[: len(row)])) == row and not getattr(layers[len(row) - 1], "ceil_mode", False)
            if fits and fused.ops[0] in step.backend.kernels:
                step, size = fused(*layers[: len(row)]), len(row)
                break
        steps.append(step)
        layers = layers[size:]
    return steps
