"""Softmax: scores -> probabilities.

    (L9)  y_i = e^{z_i} / sum_j e^{z_j}

The maximum is subtracted first: the quotient stays the same and nothing overflows.  With the Jacobian
dy_i/dz_k = y_i (delta_ik - y_k), the chain rule gives dz_k = sum_i dy_i dy_i/dz_k = y_k (dy_k - sum_i dy_i y_i).
"""

from gpucnn.backend import accumulator_dtype, array_module
from gpucnn.layers.activations import Activation
from gpucnn.types import Array


def softmax(z: Array) -> Array:
    """(L9)  z (..., K) -> y (..., K), rows that sum to 1."""
    e = array_module(z).exp(z - z.max(axis=-1, keepdims=True))
    return (e / e.sum(axis=-1, keepdims=True, dtype=accumulator_dtype(z))).astype(z.dtype, copy=False)


def softmax_grad(dy: Array, y: Array) -> Array:
    """dy and y = softmax(z), both (..., K) -> dz (..., K)."""
    along = (dy * y).sum(axis=-1, keepdims=True, dtype=accumulator_dtype(y))
    return (y * (dy - along)).astype(y.dtype, copy=False)


class Softmax(Activation):
    """(L9), for the lecture's two steps; ``softmax_cross_entropy`` does both at once and more exactly."""

    op, grad_op, keeps_output, cost = staticmethod(softmax), staticmethod(softmax_grad), True, 5
    equations = (
        "top[...] = max[k](x[...,k])  # softmax",
        "total[...] = sum[k](exp(x[...,k] - top[...]))  # (L9) softmax",
        "y[...,k] = exp(x[...,k] - top[...]) / total[...]  # (L9) softmax",
        "along[...] = sum[k](dy[...,k] * y[...,k])  # softmax_grad",
        "dx[...,k] = y[...,k] * (dy[...,k] - along[...])  # softmax_grad",
    )
