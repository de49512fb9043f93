"""Batch normalisation (Ioffe and Szegedy, arXiv 1502.03167), for images and vectors.

Over the m values that a channel has in a batch (m = N H W for images, N for vectors):

    (L23)  mu = mean(x),   sigma^2 = mean((x - mu)^2),   s = sqrt(sigma^2 + eps),   xhat = (x - mu) / s
           y = scale * xhat + shift

    running mean     = (1 - momentum) * running mean     + momentum * mu
    running variance = (1 - momentum) * running variance + momentum * sigma^2 * m / (m - 1)

Evaluation uses the running statistics in place of mu and sigma^2, and so does a layer that is ``fixed`` in training.

Backward, with dy = dL/dy and so on.  From y = scale * xhat + shift, with sums over the m values of a channel,

    dshift = sum dy,   dscale = sum dy xhat,   dxhat = scale * dy

x_i changes the loss in three ways: directly through xhat_i, and through mu and sigma^2, which enter every xhat_j:

    directly          ∂xhat_i/∂x_i = 1/s
    through mu        ∂mu/∂x_i = 1/m                           ∂xhat_j/∂mu = -1/s
    through sigma^2   ∂sigma^2/∂x_i = 2/m (x_i - mu)           ∂xhat_j/∂sigma^2 = -1/2 (x_j - mu) / s^3
                                    = 2/m s xhat_i                              = -1/2 xhat_j / s^2

(That sigma^2 contains mu adds nothing: ∂sigma^2/∂mu = -2 mean(x - mu) = 0.)  First the gradients of the statistics,

    dmu      = sum_j dxhat_j ∂xhat_j/∂mu       = -m/s mean(dxhat)
    dsigma^2 = sum_j dxhat_j ∂xhat_j/∂sigma^2  = -m/2 mean(dxhat xhat) / s^2

then the sum of the three ways:

    dx_i = dxhat_i ∂xhat_i/∂x_i + dmu ∂mu/∂x_i + dsigma^2 ∂sigma^2/∂x_i
         = 1/s (dxhat_i - mean(dxhat) - xhat_i mean(dxhat xhat))
         = scale/s (dy_i - mean(dy) - xhat_i mean(dy xhat))
"""

from math import prod
from typing import Any

from gpucnn.backend import accumulator_dtype, array_module
from gpucnn.errors import ShapeError
from gpucnn.layers.activations import relu, relu_grad
from gpucnn.layers.base import Layer
from gpucnn.layers.initializers import ones, zeros
from gpucnn.layers.parameter import Buffer, Parameter
from gpucnn.types import Array, Shape


def channel_mean(x: Array) -> Array:
    """x (..., C) -> (C,), in float64: float32 over 10^5 values loses three digits."""
    return x.reshape(-1, x.shape[-1]).mean(axis=0, dtype="float64")


def batchnorm(x: Array, scale: Array, shift: Array, eps: float) -> tuple[Array, Array, Array]:
    """(L23)  x (..., C), scale and shift (C,) -> y (..., C), mean (C,), biased variance (C,).

    Mean and variance are float64: in float32 a mean far from 0 is rounded by more than x differs from it, and the
    variance of values beyond 1e19 is infinite.
    """
    mean = channel_mean(x)
    centred = x - mean  # E[x^2] - E[x]^2 would cancel where |mean| >> std
    var = channel_mean(centred * centred)
    return batchnorm_eval(x, scale, shift, mean, var, eps), mean, var


def normalised(x: Array, mean: Array, var: Array, eps: float) -> tuple[Array, Array]:
    """(L23)  xhat (..., C) and 1/s (C,), in the dtype of the sums over x."""
    wide = accumulator_dtype(x)
    inv = (1.0 / array_module(x).sqrt(var + eps)).astype(wide)
    return (x - mean).astype(wide, copy=False) * inv, inv


def batchnorm_eval(x: Array, scale: Array, shift: Array, mean: Array, var: Array, eps: float) -> Array:
    """(L23)  y (..., C) with given statistics (C,)."""
    y = normalised(x, mean, var, eps)[0] * scale + shift
    return y.astype(x.dtype, copy=False)  # of float16 images: the statistics, and so y up to here, are float32


def batchnorm_grad(
    dy: Array, x: Array, scale: Array, mean: Array, var: Array, eps: float
) -> tuple[Array, Array, Array]:
    """(L23)  dy, x (..., C), the batch's mean and variance (C,) -> dx (..., C), dscale (C,), dshift (C,)."""
    m = prod(x.shape[:-1])
    wide = accumulator_dtype(x)
    xhat, inv = normalised(x, mean, var, eps)
    mean_dy, mean_dy_xhat = channel_mean(dy), channel_mean(dy * xhat)
    dx = (scale * inv) * (dy - mean_dy.astype(wide) - xhat * mean_dy_xhat.astype(wide))
    return dx.astype(x.dtype, copy=False), (mean_dy_xhat * m).astype(wide), (mean_dy * m).astype(wide)


def batchnorm_relu(x: Array, scale: Array, shift: Array, eps: float) -> tuple[Array, Array, Array]:
    """Batch norm, then ReLU: y (..., C), mean (C,), biased variance (C,)."""
    y, mean, var = batchnorm(x, scale, shift, eps)
    return relu(y), mean, var


def batchnorm_relu_eval(x: Array, scale: Array, shift: Array, mean: Array, var: Array, eps: float) -> Array:
    """Batch norm with given statistics, then ReLU: y (..., C)."""
    return relu(batchnorm_eval(x, scale, shift, mean, var, eps))


def batchnorm_relu_grad(
    dy: Array, x: Array, scale: Array, shift: Array, mean: Array, var: Array, eps: float
) -> tuple[Array, Array, Array]:
    """Back through ReLU, then through batch norm, whose output is computed again for the mask."""
    z = batchnorm_eval(x, scale, shift, mean, var, eps)
    return batchnorm_grad(relu_grad(dy, z), x, scale, mean, var, eps)


def move_running(
    running_mean: Array, running_var: Array, mean: Array, var: Array, momentum: float, correction: float
) -> None:
    """Move the running statistics (C,) in place towards a batch's; ``correction`` is m / (m - 1)."""
    running_mean[...] = (1 - momentum) * running_mean + momentum * mean
    running_var[...] = (1 - momentum) * running_var + momentum * correction * var


class BatchNorm(Layer):
    """Normalise each channel over the batch, then scale and shift it.

    Args:
        channels: C, the size of the last axis.
        eps: added to the variance.
        momentum: weight of the newest batch in the running statistics (equation above).
        scale_group, shift_group: their parameter groups (``parameter.GROUPS``); "frozen" keeps the scale at 1.
    """

    equations: tuple[str, ...] = (
        "mean[c] = mean[...](x[...,c])  # (L23) batchnorm",
        "var[c] = mean[...]((x[...,c] - mean[c])**2)  # (L23) batchnorm",
        "s[c] = sqrt(var[c] + eps)  # (L23) batchnorm",
        "xhat[...,c] = (x[...,c] - mean[c]) / s[c]  # (L23) batchnorm",
        "y[...,c] = scale[c] * xhat[...,c] + shift[c]  # (L23) batchnorm",
        "mean_dy[c] = mean[...](dy[...,c])  # (L23) batchnorm_grad",
        "mean_dy_xhat[c] = mean[...](dy[...,c] * xhat[...,c])  # (L23) batchnorm_grad",
        "dx[...,c] = (scale[c] / s[c]) * dy[...,c] - (scale[c] / s[c]) * mean_dy[c]"
        " - (scale[c] / s[c]) * xhat[...,c] * mean_dy_xhat[c]  # (L23) batchnorm_grad",
        "dscale[c] = sum[...](dy[...,c] * xhat[...,c])  # (L23) batchnorm_grad",
        "dshift[c] = sum[...](dy[...,c])  # (L23) batchnorm_grad",
    )

    def __init__(
        self,
        channels: int,
        *,
        eps: float = 1e-5,
        momentum: float = 0.1,
        scale_group: str = "norm",
        shift_group: str = "norm",
    ) -> None:
        self.channels, self.eps, self.momentum = channels, eps, momentum
        self.scale = Parameter((channels,), ones, scale_group)
        self.shift = Parameter((channels,), zeros, shift_group)
        self.running_mean = Buffer((channels,), 0.0)
        self.running_var = Buffer((channels,), 1.0)

    def forward(self, x: Array) -> Array:
        scale, shift = self.scale.data, self.shift.data
        if self.fixed or not self.training:
            mean, var = self.running_mean.data, self.running_var.data
            self.keep()
            return self.run(batchnorm_eval, x, scale, shift, mean, var, self.eps)
        y, mean, var = self.run(batchnorm, x, scale, shift, self.eps)
        self.update_running(mean, var, prod(x.shape[:-1]))
        self.keep(x, mean, var)
        return y

    def backward(self, dy: Array) -> Array | None:
        if self.fixed:
            self.kept()
            return self.through(dy)
        x, mean, var = self.kept()
        grads = self.run(batchnorm_grad, dy, x, self.scale.data, mean, var, self.eps)
        dx, self.scale.grad[...], self.shift.grad[...] = grads
        return dx

    def through(self, dy: Array) -> Array:
        """dL/dy -> dL/dx of a fixed one, which is linear: dx = scale/s dy, as y is of x but for the shifts."""
        none = self.backend.xp.zeros_like(self.shift.data)
        dx: Array = self.run(batchnorm_eval, dy, self.scale.data, none, none, self.running_var.data, self.eps)
        return dx

    def update_running(self, mean: Array, var: Array, m: int) -> None:
        """Move the running statistics towards those of a batch with m values per channel."""
        if m < 2:
            raise ShapeError(
                f"BatchNorm({self.channels}) cannot train on a batch with one value per channel: "
                "its variance is zero; use a larger batch or drop the last partial one"
            )
        running = self.running_mean.data, self.running_var.data
        self.run(move_running, *running, mean, var, self.momentum, m / (m - 1))

    def symbols(self) -> dict[str, Any]:
        return {"scale": self.scale, "shift": self.shift, "eps": self.eps}

    def output_shape(self, shape: Shape) -> Shape:
        if shape[-1] != self.channels:
            raise ShapeError(
                f"BatchNorm({self.channels}) got x of shape {shape}: its last axis must have {self.channels} channels"
            )
        return shape

    def flops(self, shape: Shape) -> int:
        return 4 * prod(shape)
