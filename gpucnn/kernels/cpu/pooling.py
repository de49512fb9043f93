"""Pooling: channels are the vector, windows are loops, and nothing is laid out.

The maximum's place is found again in backward instead of being stored; on a tie it is the first one, by a strict >.
"""

import numpy as np

from gpucnn.kernels.cpu.compile import jit
from gpucnn.kernels.cpu.pool import empty
from gpucnn.kernels.cpu.threads import SHARDS, parallel
from gpucnn.typing import Array, Padding, Pair, Shape


@jit
def _max_pool(first, last, x, kh, kw, sh, sw, top, left, y):
    n, down, across, c = y.shape
    _, h, w, _ = x.shape
    for line in range(n * down * first // SHARDS, n * down * last // SHARDS):
        one, i = line // down, line % down
        for j in range(across):
            fresh = True
            for row in range(max(i * sh - top, 0), min(i * sh - top + kh, h)):
                for column in range(max(j * sw - left, 0), min(j * sw - left + kw, w)):
                    if fresh:
                        for k in range(c):
                            y[one, i, j, k] = x[one, row, column, k]
                        fresh = False
                    else:
                        for k in range(c):
                            y[one, i, j, k] = max(y[one, i, j, k], x[one, row, column, k])


@jit
def _max_pool_grad(first, last, dy, x, kh, kw, sh, sw, top, left, dx):
    n, down, across, c = dy.shape
    _, h, w, _ = x.shape
    best, place = np.empty(c, np.float32), np.empty(c, np.int32)
    for one in range(n * first // SHARDS, n * last // SHARDS):
        dx[one] = 0
        for i in range(down):
            for j in range(across):
                best[:] = -np.inf
                place[:] = -1
                for row in range(max(i * sh - top, 0), min(i * sh - top + kh, h)):
                    for column in range(max(j * sw - left, 0), min(j * sw - left + kw, w)):
                        here = np.int32(row * w + column)
                        for k in range(c):
                            v = x[one, row, column, k]
                            more = (v > best[k]) | (place[k] < 0)
                            best[k] = v if more else best[k]
                            place[k] = here if more else place[k]
                for row in range(max(i * sh - top, 0), min(i * sh - top + kh, h)):
                    for column in range(max(j * sw - left, 0), min(j * sw - left + kw, w)):
                        here = np.int32(row * w + column)
                        for k in range(c):
                            dx[one, row, column, k] += dy[one, i, j, k] if place[k] == here else np.float32(0)


@jit
def _avg_pool(first, last, x, kh, kw, sh, sw, top, left, y):
    n, down, across, c = y.shape
    _, h, w, _ = x.shape
    share = np.float32(1.0 / (kh * kw))
    for line in range(n * down * first // SHARDS, n * down * last // SHARDS):
        one, i = line // down, line % down
        for j in range(across):
            for k in range(c):
                y[one, i, j, k] = 0
            for row in range(max(i * sh - top, 0), min(i * sh - top + kh, h)):
                for column in range(max(j * sw - left, 0), min(j * sw - left + kw, w)):
                    for k in range(c):
                        y[one, i, j, k] += x[one, row, column, k]
            for k in range(c):
                y[one, i, j, k] *= share


@jit
def _avg_pool_grad(first, last, dy, kh, kw, sh, sw, top, left, dx):
    n, down, across, c = dy.shape
    _, h, w, _ = dx.shape
    share = np.float32(1.0 / (kh * kw))
    for one in range(n * first // SHARDS, n * last // SHARDS):
        dx[one] = 0
        for i in range(down):
            for j in range(across):
                for row in range(max(i * sh - top, 0), min(i * sh - top + kh, h)):
                    for column in range(max(j * sw - left, 0), min(j * sw - left + kw, w)):
                        for k in range(c):
                            dx[one, row, column, k] += dy[one, i, j, k] * share


def _output(x: Array, kernel: Pair, stride: Pair, padding: Padding) -> Array:
    sizes = [
        (size + before + after - k) // s + 1
        for size, k, s, (before, after) in zip(x.shape[1:3], kernel, stride, padding, strict=True)
    ]
    return empty((x.shape[0], sizes[0], sizes[1], x.shape[3]))


def max_pool2d(x: Array, kernel: Pair, stride: Pair, padding: Padding) -> Array:
    """x (N,H,W,C) -> y (N,H',W',C)."""
    x = np.ascontiguousarray(x)
    y = _output(x, kernel, stride, padding)
    parallel(_max_pool, x, *kernel, *stride, padding[0][0], padding[1][0], y, work=x.size)
    return y


def max_pool2d_grad(dy: Array, x: Array, kernel: Pair, stride: Pair, padding: Padding) -> Array:
    """dy (N,H',W',C), x (N,H,W,C) -> dx (N,H,W,C)."""
    dy, x = np.ascontiguousarray(dy), np.ascontiguousarray(x)
    dx = empty(x.shape)
    parallel(_max_pool_grad, dy, x, *kernel, *stride, padding[0][0], padding[1][0], dx, work=x.size)
    return dx


def avg_pool2d(x: Array, kernel: Pair, stride: Pair, padding: Padding) -> Array:
    """x (N,H,W,C) -> y (N,H',W',C); zeros of the border count."""
    x = np.ascontiguousarray(x)
    y = _output(x, kernel, stride, padding)
    parallel(_avg_pool, x, *kernel, *stride, padding[0][0], padding[1][0], y, work=x.size)
    return y


def avg_pool2d_grad(dy: Array, x_shape: Shape, kernel: Pair, stride: Pair, padding: Padding) -> Array:
    """dy (N,H',W',C) -> dx of ``x_shape``."""
    dy, dx = np.ascontiguousarray(dy), empty(x_shape)
    parallel(_avg_pool_grad, dy, *kernel, *stride, padding[0][0], padding[1][0], dx, work=dx.size)
    return dx


def global_avg_pool2d(x: Array) -> Array:
    """x (N,H,W,C) -> y (N,C)."""
    n, h, w, c = x.shape
    return avg_pool2d(x, (h, w), (1, 1), ((0, 0), (0, 0))).reshape(n, c)


def global_avg_pool2d_grad(dy: Array, x_shape: Shape) -> Array:
    """dy (N,C) -> dx of ``x_shape``."""
    n, h, w, c = x_shape
    return avg_pool2d_grad(dy.reshape(n, 1, 1, c), x_shape, (h, w), (1, 1), ((0, 0), (0, 0)))
