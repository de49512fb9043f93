"""The fully connected layer and its gradients.

    (L8)   Z = W A + b
    (L13)  dA = W^T dZ,   dW = dZ A^T,   db = sum dZ

The lecture's examples are columns; here a batch has its examples in rows, so every product is transposed:
Z = X W^T + b.
"""

from typing import Any

from gpucnn.errors import ShapeError
from gpucnn.layers.base import Layer
from gpucnn.layers.conv2d import bias_grad
from gpucnn.layers.initializers import he_normal, zeros
from gpucnn.layers.parameter import Initializer, Parameter
from gpucnn.types import Array, Shape


def linear(x: Array, w: Array, b: Array | None) -> Array:
    """(L8)  x (N,C), w (F,C), b (F,) or None -> y (N,F)."""
    y = x @ w.T
    if b is not None:
        y += b
    return y


def linear_input_grad(dy: Array, w: Array) -> Array:
    """(L13)  dy (N,F), w (F,C) -> dx (N,C)."""
    return dy @ w


def linear_weight_grad(dy: Array, x: Array) -> Array:
    """(L13)  dy (N,F), x (N,C) -> dw (F,C)."""
    return dy.T @ x


class Linear(Layer):
    """Every output is a weighted sum of all inputs: (N,C) -> (N,F).

    Args:
        in_features, out_features: C and F.
        bias: whether each output has one.
        weight_init: He et al. (arXiv 1502.01852) by default.
        weight_group, bias_group: their parameter groups (``parameter.GROUPS``).
    """

    equations = (
        "y[e,f] = sum[c](x[e,c] * w[f,c]) + b[f]  # (L8) linear",
        "dx[e,c] = sum[f](dy[e,f] * w[f,c])  # (L13) linear_input_grad",
        "dw[f,c] = sum[e](dy[e,f] * x[e,c])  # (L13) linear_weight_grad",
        "db[f] = sum[e](dy[e,f])  # (L13) bias_grad",
    )

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool = True,
        weight_init: Initializer = he_normal,
        weight_group: str = "weight",
        bias_group: str = "bias",
    ) -> None:
        self.in_features, self.out_features = in_features, out_features
        self.weight = Parameter((out_features, in_features), weight_init, weight_group)
        self.bias = Parameter((out_features,), zeros, bias_group) if bias else None

    def forward(self, x: Array) -> Array:
        self.keep(x)
        return self.run(linear, x, self.weight.value, self.bias.value if self.bias else None)

    def backward(self, dy: Array) -> Array | None:
        (x,) = self.kept()
        if self.weight.trainable:
            self.weight.grad[...] = self.run(linear_weight_grad, dy, x)
        if self.bias and self.bias.trainable:
            self.bias.grad[...] = self.run(bias_grad, dy)
        if not self.needs_input_grad:
            return None
        return self.run(linear_input_grad, dy, self.weight.value)

    def symbols(self) -> dict[str, Any]:
        return {"w": self.weight, "b": self.bias}

    def output_shape(self, shape: Shape) -> Shape:
        if shape != (self.in_features,):
            raise ShapeError(
                f"Linear(in_features={self.in_features}) got x of shape {shape}: "
                f"give vectors ({self.in_features},), after Flatten or GlobalAvgPool2D"
            )
        return (self.out_features,)

    def flops(self, shape: Shape) -> int:
        return 2 * self.in_features * self.out_features
