"""Group normalisation (Wu and He, arXiv 1803.08494): batch norm's equation, within each example.

The C channels of an example are G groups of C / G neighbours.  Over the m values of a group (m = H W C/G for images),

    (GN)  mu = mean(x),   sigma^2 = mean((x - mu)^2),   s = sqrt(sigma^2 + eps),   xhat = (x - mu) / s
          y_i = scale_c xhat_i + shift_c,   c the channel of i

No example knows of the others: there are no running statistics, and evaluation computes the same as training.

Backward.  scale and shift belong to a channel, so with sums over the examples and pixels of a channel,

    dshift_c = sum dy,   dscale_c = sum dy xhat,   dxhat_i = scale_c dy_i

From xhat to x the derivation is that of ``batchnorm.py``, over a group in place of a channel: x_i acts directly,
through mu and through sigma^2, and the three ways add up to

    dx_i = 1/s (dxhat_i - mean(dxhat) - xhat_i mean(dxhat xhat))

Here it stops: in batch norm all of the mean's terms have one scale, which moves in front of the bracket.  A group has
many, so the means are those of scale dy, not of dy.
"""

from math import prod
from typing import Any

from gpucnn.backend import accumulator_dtype, array_module
from gpucnn.errors import ShapeError, UsageError
from gpucnn.layers.base import Layer
from gpucnn.layers.initializers import ones, zeros
from gpucnn.layers.parameter import Parameter
from gpucnn.types import Array, Shape


def in_groups(x: Array, groups: int) -> Array:
    """x (N, ..., C) -> (N, P, G, C/G), where P is the number of pixels."""
    n, c = x.shape[0], x.shape[-1]
    return x.reshape(n, prod(x.shape[1:-1]), groups, c // groups)


def group_mean(x: Array) -> Array:
    """(N, P, G, C/G) -> (N, 1, G, 1), in float64, as ``batchnorm.channel_mean``."""
    return x.mean(axis=(1, 3), keepdims=True, dtype="float64")


def groupnorm(x: Array, scale: Array, shift: Array, groups: int, eps: float) -> tuple[Array, Array, Array]:
    """(GN)  x (N, ..., C), scale and shift (C,) -> y (N, ..., C), mean and biased variance (N, G), in float64."""
    values = in_groups(x, groups)
    mean = group_mean(values)
    centred = values - mean
    var = group_mean(centred * centred)
    xhat, _ = normalised(values, mean, var, eps)
    y = xhat.reshape(x.shape) * scale + shift
    return y.astype(x.dtype, copy=False), mean[:, 0, :, 0], var[:, 0, :, 0]


def normalised(values: Array, mean: Array, var: Array, eps: float) -> tuple[Array, Array]:
    """(GN)  (N, P, G, C/G), mean and variance (N, 1, G, 1) -> xhat and 1/s, in the dtype of the sums over x."""
    wide = accumulator_dtype(values)
    inv = (1.0 / array_module(values).sqrt(var + eps)).astype(wide)
    return (values - mean).astype(wide, copy=False) * inv, inv


def groupnorm_grad(
    dy: Array, x: Array, scale: Array, mean: Array, var: Array, groups: int, eps: float
) -> tuple[Array, Array, Array]:
    """(GN)  dy, x (N, ..., C), mean and variance (N, G) -> dx (N, ..., C), dscale (C,), dshift (C,)."""
    wide = accumulator_dtype(x)
    values = in_groups(x, groups)
    xhat, inv = normalised(values, mean[:, None, :, None], var[:, None, :, None], eps)
    dxhat = in_groups(dy * scale, groups)
    mean_dxhat, mean_product = group_mean(dxhat), group_mean(dxhat * xhat)
    dx = inv * (dxhat - mean_dxhat.astype(wide) - xhat * mean_product.astype(wide))
    examples = tuple(range(x.ndim - 1))
    dscale = (dy * xhat.reshape(x.shape)).sum(axis=examples, dtype="float64").astype(wide)
    dshift = dy.sum(axis=examples, dtype="float64").astype(wide)
    return dx.reshape(x.shape).astype(x.dtype, copy=False), dscale, dshift


class GroupNorm(Layer):
    """Normalise each group of channels of each example, then scale and shift each channel.

    Args:
        groups: G, which divides the channels; 1 normalises over all of (H, W, C), C each channel alone (instance norm).
        channels: C, the size of the last axis.
        eps: added to the variance.
        affine: whether scale and shift are learned; without, they stay 1 and 0.

    Raises:
        UsageError: groups that do not divide the channels.
    """

    equations = (
        "mean[e,g] = mean[p,q,k:size](x[e,p,q,g*size+k])  # (GN) groupnorm",
        "var[e,g] = mean[p,q,k:size]((x[e,p,q,g*size+k] - mean[e,g])**2)  # (GN) groupnorm",
        "s[e,g] = sqrt(var[e,g] + eps)  # (GN) groupnorm",
        "xhat[e,p,q,c] = (x[e,p,q,c] - mean[e,c//size]) / s[e,c//size]  # (GN) normalised",
        "y[e,p,q,c] = scale[c] * xhat[e,p,q,c] + shift[c]  # (GN) groupnorm",
        "dxhat[e,p,q,c] = scale[c] * dy[e,p,q,c]  # (GN) groupnorm_grad",
        "mean_dxhat[e,g] = mean[p,q,k:size](dy[e,p,q,g*size+k] * scale[g*size+k])  # (GN) groupnorm_grad",
        "mean_product[e,g] = mean[p,q,k:size](dy[e,p,q,g*size+k] * scale[g*size+k] * xhat[e,p,q,g*size+k])"
        "  # (GN) groupnorm_grad",
        "dx[e,p,q,c] = dxhat[e,p,q,c] / s[e,c//size] - mean_dxhat[e,c//size] / s[e,c//size]"
        " - xhat[e,p,q,c] * mean_product[e,c//size] / s[e,c//size]  # (GN) groupnorm_grad",
        "dscale[c] = sum[e,p,q](dy[e,p,q,c] * xhat[e,p,q,c])  # (GN) groupnorm_grad",
        "dshift[c] = sum[e,p,q](dy[e,p,q,c])  # (GN) groupnorm_grad",
    )

    def __init__(self, groups: int, channels: int, *, eps: float = 1e-5, affine: bool = True) -> None:
        if groups < 1 or channels % groups:
            raise UsageError(f"GroupNorm({groups}, {channels}): give a number of groups that divides the channels")
        self.groups, self.channels, self.eps = groups, channels, eps
        group = "norm" if affine else "frozen"
        self.scale = Parameter((channels,), ones, group)
        self.shift = Parameter((channels,), zeros, group)

    def forward(self, x: Array) -> Array:
        y, mean, var = self.run(groupnorm, x, self.scale.data, self.shift.data, self.groups, self.eps)
        self.keep(x, mean, var)
        return y

    def backward(self, dy: Array) -> Array | None:
        x, mean, var = self.kept()
        grads = self.run(groupnorm_grad, dy, x, self.scale.data, mean, var, self.groups, self.eps)
        dx, self.scale.grad[...], self.shift.grad[...] = grads
        return dx

    def symbols(self) -> dict[str, Any]:
        size = self.channels // self.groups
        return {"scale": self.scale, "shift": self.shift, "eps": self.eps, "size": size}

    def output_shape(self, shape: Shape) -> Shape:
        if len(shape) != 3 or shape[-1] != self.channels:
            raise ShapeError(
                f"GroupNorm({self.groups}, {self.channels}) got x of shape {shape}: "
                f"give images (H, W, {self.channels}), and vectors to LayerNorm"
            )
        return shape

    def flops(self, shape: Shape) -> int:
        return 7 * prod(shape)
