"""Optimizer steps and averages over the flat buffers: one pass each, in place."""

import numpy as np

from gpucnn.kernels.arguments import same_shape
from gpucnn.kernels.cpu.arguments import float32_where
from gpucnn.kernels.cpu.engine.compile import jit
from gpucnn.kernels.cpu.engine.threads import SHARDS, parallel
from gpucnn.types import Array


@jit
def _sgd(first, last, w, g, lr, decay):
    for i in range(w.size * first // SHARDS, w.size * last // SHARDS):
        w[i] -= lr * (g[i] + decay * w[i])


@jit
def _momentum(first, last, w, g, v, lr, mu, decay, nesterov):
    for i in range(w.size * first // SHARDS, w.size * last // SHARDS):
        d = g[i] + decay * w[i]
        u = mu * v[i] + d
        v[i] = u
        w[i] -= lr * (d + mu * u if nesterov else u)


@jit
def _adam(first, last, w, g, m, v, beta1, beta2, rest1, rest2, eps, decay, keep, scale, correction, decoupled):
    for i in range(w.size * first // SHARDS, w.size * last // SHARDS):
        d = g[i] if decoupled else g[i] + decay * w[i]
        m[i] = beta1 * m[i] + rest1 * d
        v[i] = beta2 * v[i] + rest2 * d * d
        w[i] = keep * w[i] - scale * m[i] / (np.sqrt(v[i]) * correction + eps)


@jit
def _lerp(first, last, a, w, near, weight):
    for i in range(a.size * first // SHARDS, a.size * last // SHARDS):
        apart = w[i] - a[i]
        a[i] = a[i] + weight * apart if near else w[i] - weight * apart


accepts = float32_where(same_shape)


def sgd_update(w: Array, g: Array, lr: float, weight_decay: float) -> None:
    """Plain gradient descent."""
    parallel(_sgd, w, g, np.float32(lr), np.float32(weight_decay), work=2 * w.size)


def momentum_update(
    w: Array, g: Array, velocity: Array, lr: float, momentum: float, weight_decay: float, nesterov: bool
) -> None:
    """With momentum, Nesterov's or the plain one."""
    numbers = (np.float32(lr), np.float32(momentum), np.float32(weight_decay), bool(nesterov))
    parallel(_momentum, w, g, velocity, *numbers, work=3 * w.size)


def adam_update(
    w: Array,
    g: Array,
    m: Array,
    v: Array,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    decoupled: bool,
    step: int,
) -> None:
    """Adam and AdamW; ``step`` counts from 1."""
    keep = 1.0 - lr * weight_decay if decoupled else 1.0
    rest = (1.0 - beta1, 1.0 - beta2)  # before rounding: 1 - 0.999 in float32 is 1.3e-5 off
    numbers = (beta1, beta2, *rest, eps, weight_decay, keep, lr / (1.0 - beta1**step), (1.0 - beta2**step) ** -0.5)
    parallel(_adam, w, g, m, v, *map(np.float32, numbers), bool(decoupled), work=4 * w.size)


def lerp(a: Array, w: Array, weight: float) -> None:
    """Move a by this fraction of the way to w, in place; computed from the nearer end."""
    near = bool(weight < 0.5)
    parallel(_lerp, a, w, near, np.float32(weight if near else 1.0 - weight), work=2 * a.size)
