"""A second process that compiles as well: ``python -m gpucnn.kernels.cpu.precompile``.

Numba compiles one function at a time and holds Python's lock while it does.  A first step calls the kernels from the
entrance of a network to its end and back; this process calls the same ones in the opposite order, on arrays just large
enough for several threads.  They meet about half way, and the second to reach a kernel finds its code on disk.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from gpucnn.kernels.cpu import augment, dropout, elementwise, fused, linear, loss, optim, pooling
from gpucnn.kernels.cpu.batchnorm import batchnorm_relu, batchnorm_relu_grad
from gpucnn.kernels.cpu.conv import conv2d
from gpucnn.kernels.cpu.engine.threads import TEAM
from gpucnn.types import Array

ONE, SAME = (1, 1), ((1, 1), (1, 1))
TWO, NONE = (2, 2), ((0, 0), (0, 0))
EPS = 1e-5

Call = tuple[Callable[..., object], tuple[Any, ...]]


def some(*shape: int) -> Array:
    """Numbers that are all alike: only their type matters."""
    return np.full(shape, 0.5, np.float32)


def last_first() -> Iterator[Call]:
    """The kernels of a small net's training step, from the update back to the batch, each with its arguments."""
    w, grey, x, y = some(32_768), some(16, 28, 28, 1), some(16, 16, 16, 16), some(16, 16, 16, 32)
    few, many, rows, lines = some(32, 3, 3, 1), some(32, 3, 3, 16), some(256, 128), [some(32) for _ in range(4)]
    yield optim.momentum_update, (w, some(w.size), some(w.size), 0.1, 0.9, 0.0, True)
    yield conv2d.conv2d_weight_grad, (some(16, 28, 28, 32), grey, few.shape, ONE, SAME)
    yield batchnorm_relu_grad, (y, y, *lines, EPS)
    yield conv2d.conv2d_weight_grad, (y, x, many.shape, ONE, SAME)
    yield conv2d.conv2d_input_grad, (y, many, x.shape, ONE, SAME)
    yield fused.batchnorm_relu_max_pool2d_grad, (some(16, 8, 8, 32), y, *lines, EPS, TWO, TWO, NONE)
    yield linear.bias_grad, (rows,)
    yield linear.linear_weight_grad, (rows, rows)
    yield linear.linear_input_grad, (rows, some(128, 128))
    yield elementwise.relu_grad, (rows, rows)
    yield loss.softmax_cross_entropy, (some(2048, 10), np.zeros(2048, np.int64))
    yield loss.count_correct, (some(2048, 10), np.zeros(2048, np.int64))
    yield dropout.dropout, (rows, 0.5, 0, 0, 0)
    yield elementwise.relu, (rows,)
    yield linear.linear, (rows, some(128, 128), some(128))
    yield fused.batchnorm_relu_max_pool2d, (y, *lines[:2], EPS, TWO, TWO, NONE)
    yield conv2d.conv2d, (x, many, None, ONE, SAME)
    yield batchnorm_relu, (y, *lines[:2], EPS)
    yield conv2d.conv2d, (grey, few, None, ONE, SAME)
    yield pooling.max_pool2d, (y, TWO, TWO, NONE)
    yield pooling.max_pool2d_grad, (some(16, 8, 8, 32), y, TWO, TWO, NONE)
    yield augment.gather_normalize, (np.zeros((64, 28, 28, 1), np.uint8), np.arange(64), some(1), some(1))


if __name__ == "__main__":
    TEAM.resize(2)
    for kernel, arguments in last_first():
        kernel(*arguments)
