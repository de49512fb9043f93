"""Layer normalisation (Ba, Kiros and Hinton, arXiv 1607.06450) over the last axis.

    (LN)  mu = mean(x),   sigma^2 = mean((x - mu)^2),   s = sqrt(sigma^2 + eps),   xhat = (x - mu) / s
          y_c = scale_c xhat_c + shift_c

with means over the C values of a row: a pixel of an image, or a vector.  It is ``groupnorm.py`` with each row an
example of one group, and runs on its functions:

    dx_c = 1/s (dxhat_c - mean(dxhat) - xhat_c mean(dxhat xhat)),   dxhat_c = scale_c dy_c

The last axis is what PyTorch's LayerNorm(C) and Keras's layer norm take, and what ConvNeXt's does to an image.  Over
all of (H, W, C), with a scale for each channel, it is ``GroupNorm(1, C)``.
"""

from math import prod
from typing import Any

from gpucnn.errors import ShapeError
from gpucnn.layers.base import Layer
from gpucnn.layers.groupnorm import groupnorm, groupnorm_grad
from gpucnn.layers.initializers import ones, zeros
from gpucnn.layers.parameter import Parameter
from gpucnn.types import Array, Shape


class LayerNorm(Layer):
    """Normalise each row of ``channels`` values, then scale and shift each channel.

    Args:
        channels: C, the size of the last axis.
        eps: added to the variance.
        affine: whether scale and shift are learned; without, they stay 1 and 0.
    """

    equations = (
        "mean[...] = mean[k](x[...,k])  # (LN) groupnorm",
        "var[...] = mean[k]((x[...,k] - mean[...])**2)  # (LN) groupnorm",
        "s[...] = sqrt(var[...] + eps)  # (LN) groupnorm",
        "xhat[...,c] = (x[...,c] - mean[...]) / s[...]  # (LN) normalised",
        "y[...,c] = scale[c] * xhat[...,c] + shift[c]  # (LN) groupnorm",
        "dxhat[...,c] = scale[c] * dy[...,c]  # (LN) groupnorm_grad",
        "mean_dxhat[...] = mean[k](scale[k] * dy[...,k])  # (LN) groupnorm_grad",
        "mean_product[...] = mean[k](scale[k] * dy[...,k] * xhat[...,k])  # (LN) groupnorm_grad",
        "dx[...,c] = dxhat[...,c] / s[...] - mean_dxhat[...] / s[...] - xhat[...,c] * mean_product[...] / s[...]"
        "  # (LN) groupnorm_grad",
        "dscale[c] = sum[...](dy[...,c] * xhat[...,c])  # (LN) groupnorm_grad",
        "dshift[c] = sum[...](dy[...,c])  # (LN) groupnorm_grad",
    )

    def __init__(self, channels: int, *, eps: float = 1e-5, affine: bool = True) -> None:
        self.channels, self.eps = channels, eps
        group = "norm" if affine else "frozen"
        self.scale = Parameter((channels,), ones, group)
        self.shift = Parameter((channels,), zeros, group)

    def forward(self, x: Array) -> Array:
        rows = x.reshape(-1, self.channels)
        y, mean, var = self.run(groupnorm, rows, self.scale.data, self.shift.data, 1, self.eps)
        self.keep(rows, mean, var)
        return y.reshape(x.shape)

    def backward(self, dy: Array) -> Array | None:
        rows, mean, var = self.kept()
        grads = self.run(groupnorm_grad, dy.reshape(rows.shape), rows, self.scale.data, mean, var, 1, self.eps)
        dx, self.scale.grad[...], self.shift.grad[...] = grads
        return dx.reshape(dy.shape)

    def symbols(self) -> dict[str, Any]:
        return {"scale": self.scale, "shift": self.shift, "eps": self.eps}

    def output_shape(self, shape: Shape) -> Shape:
        if not shape or shape[-1] != self.channels:
            raise ShapeError(
                f"LayerNorm({self.channels}) got x of shape {shape}: its last axis must have {self.channels} channels"
            )
        return shape

    def flops(self, shape: Shape) -> int:
        return 7 * prod(shape)
