"""Multiplication by a constant: y = a x, dx = a dy.

In front of a softmax it sets how sharp the probabilities are at first, and how far the gradients reach.
"""

from math import prod
from typing import Any

from gpucnn.layers.base import Layer
from gpucnn.types import Array, Shape


def scaled(x: Array, factor: float) -> Array:
    """y = a x, of any shape."""
    return x * factor


class Scale(Layer):
    """Multiply by ``factor``, which is not learned."""

    equations = "y[...] = factor * x[...]  # scaled", "dx[...] = factor * dy[...]  # scaled"

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def forward(self, x: Array) -> Array:
        return self.run(scaled, x, self.factor)

    def backward(self, dy: Array) -> Array | None:
        return self.run(scaled, dy, self.factor)

    def symbols(self) -> dict[str, Any]:
        return {"factor": self.factor}

    def flops(self, shape: Shape) -> int:
        return prod(shape)
