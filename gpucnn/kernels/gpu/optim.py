"""Optimizer steps and averages over the flat float32 buffers: one kernel each, in place.

The learning rate, the weight of an average and Adam's step are numbers, or 0-d arrays on the device (float64 and int64)
that the kernel reads when it runs; so a captured step can be replayed with other values, and the host never waits.
"""

from typing import Any

import numpy as np

from gpucnn.kernels.gpu.arguments import flat, on_host, scalar
from gpucnn.kernels.gpu.compile import Module
from gpucnn.kernels.gpu.launch import Grid, ceil_div, contiguous, launch, line_of, number, vectors
from gpucnn.types import Array

WIDTHS = (4, 1)

MODULE = Module(
    "optim.cu",
    [
        *(f"sgd<{wide}>" for wide in WIDTHS),
        *(f"momentum<{wide}, {nesterov}>" for wide in WIDTHS for nesterov in ("false", "true")),
        *(f"adam<{wide}>" for wide in WIDTHS),
        *(f"lerp<{wide}>" for wide in WIDTHS),
    ],
)


def _plan(*arrays: Array) -> tuple[int, Grid]:
    """Values a load, and a thread for each vector."""
    _, wide = vectors(0, *arrays)
    return wide, line_of(ceil_div(arrays[0].size, wide))


def accepts_sgd(w: Array, g: Array, lr: Any, *numbers: Any) -> bool:
    """Flat buffers; the rate may lie on the device."""
    return flat(w, g) and scalar(lr, np.float64) and on_host(*numbers)


def accepts_momentum(w: Array, g: Array, velocity: Array, lr: Any, *numbers: Any) -> bool:
    """Flat buffers; the rate may lie on the device."""
    return flat(w, g, velocity) and scalar(lr, np.float64) and on_host(*numbers)


def accepts_adam(w: Array, g: Array, m: Array, v: Array, lr: Any, *numbers: Any) -> bool:
    """Flat buffers; the rate and the step, the last number, may lie on the device."""
    return flat(w, g, m, v) and scalar(lr, np.float64) and on_host(*numbers[:-1]) and scalar(numbers[-1], np.int64)


def accepts_lerp(a: Array, w: Array, weight: Any) -> bool:
    """Flat buffers; the weight may lie on the device."""
    return flat(a, w) and scalar(weight, np.float64)


def sgd_update(w: Array, g: Array, lr: Any, weight_decay: float) -> None:
    """Plain gradient descent."""
    g = contiguous(g)
    wide, grid = _plan(w, g)
    numbers = (np.int64(w.size), *number(lr, np.float64), np.float32(weight_decay))
    launch(MODULE, f"sgd<{wide}>", grid, w, g, *numbers)


def momentum_update(
    w: Array, g: Array, velocity: Array, lr: Any, momentum: float, weight_decay: float, nesterov: bool
) -> None:
    """With momentum, Nesterov's or the plain one."""
    g = contiguous(g)
    wide, grid = _plan(w, g, velocity)
    numbers = (np.int64(w.size), *number(lr, np.float64), np.float32(momentum), np.float32(weight_decay))
    launch(MODULE, f"momentum<{wide}, {'true' if nesterov else 'false'}>", grid, w, g, velocity, *numbers)


def adam_update(
    w: Array,
    g: Array,
    m: Array,
    v: Array,
    lr: Any,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    decoupled: bool,
    step: Any,
) -> None:
    """Adam and AdamW; ``step`` counts from 1."""
    g = contiguous(g)
    wide, grid = _plan(w, g, m, v)
    constants = (np.float64(constant) for constant in (beta1, beta2, eps, weight_decay))
    numbers = (np.int64(w.size), *number(lr, np.float64), *constants, np.bool_(decoupled), *number(step, np.int64))
    launch(MODULE, f"adam<{wide}>", grid, w, g, m, v, *numbers)


def lerp(a: Array, w: Array, weight: Any) -> None:
    """Move a by this fraction of the way to w, in place."""
    w = contiguous(w)
    wide, grid = _plan(a, w)
    launch(MODULE, f"lerp<{wide}>", grid, a, w, np.int64(a.size), *number(weight, np.float64))
