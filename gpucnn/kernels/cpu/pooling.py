"""Pooling: channels are the vector, windows are loops, and nothing is laid out.

The maximum's place is found again in backward instead of being stored; on a tie it is the first one, by a strict >.
NaN is larger than any number, forward and backward.
"""

import numpy as np

from gpucnn.kernels.cpu.arguments import float32_arrays, float32_where, windows_fit
from gpucnn.kernels.cpu.elementwise import relu, relu_grad
from gpucnn.kernels.cpu.engine.allocator import empty, streams
from gpucnn.kernels.cpu.engine.compile import jit
from gpucnn.kernels.cpu.engine.simd import LANES, above_zero, fill, first_of, larger, load, positive, put, store
from gpucnn.kernels.cpu.engine.threads import SHARDS, parallel
from gpucnn.types import Array, Padding, Pair, Shape


@jit
def _larger(a, b):
    """max(a, b), and NaN where either is: ``max`` would take the number."""
    return a if a > b or a != a else b


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
                            y[one, i, j, k] = _larger(y[one, i, j, k], x[one, row, column, k])


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
                            more = (v > best[k]) | (place[k] < 0) | ((v != v) & (best[k] == best[k]))
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
    weight, total = 1.0 / (kh * kw), np.empty(c)  # in float64: a window may be the whole image
    for line in range(n * down * first // SHARDS, n * down * last // SHARDS):
        one, i = line // down, line % down
        for j in range(across):
            total[:] = 0
            for row in range(max(i * sh - top, 0), min(i * sh - top + kh, h)):
                for column in range(max(j * sw - left, 0), min(j * sw - left + kw, w)):
                    for k in range(c):
                        total[k] += x[one, row, column, k]
            for k in range(c):
                y[one, i, j, k] = total[k] * weight


@jit
def _avg_pool_grad(first, last, dy, kh, kw, sh, sw, top, left, dx):
    n, down, across, c = dy.shape
    _, h, w, _ = dx.shape
    weight = np.float32(1.0 / (kh * kw))
    for one in range(n * first // SHARDS, n * last // SHARDS):
        dx[one] = 0
        for i in range(down):
            for j in range(across):
                for row in range(max(i * sh - top, 0), min(i * sh - top + kh, h)):
                    for column in range(max(j * sw - left, 0), min(j * sw - left + kw, w)):
                        for k in range(c):
                            dx[one, row, column, k] += dy[one, i, j, k] * weight


@jit
def _max_line(across, c, upper, lower, relu, out):
    """A line of 2x2 windows: addresses of two lines of x and one of y.

    Whole vectors, in ascending order: lanes beyond the channels are overwritten by the next pixel's, and what the
    last pixel leaves behind the line is for the caller to see to.
    """
    for j in range(across):
        for k in range(0, c, LANES):
            at = 2 * j * c + k
            high = larger(load(upper, at), load(upper, at + c))
            low = larger(load(lower, at), load(lower, at + c))
            most = larger(high, low)
            store(out, j * c + k, positive(most) if relu else most)


@jit
def _max_pool_2x2(first, last, x, relu, y):
    """Windows of 2x2 that tile the image: one pass over both lines; ``relu``: of max(x, 0)."""
    n, down, across, c = y.shape
    end = n * down * last // SHARDS
    for line in range(n * down * first // SHARDS, end):
        one, i = line // down, line % down
        upper, lower = x[one, 2 * i].reshape(-1), x[one, 2 * i + 1].reshape(-1)
        out = y[one, i].reshape(-1)
        if c % LANES == 0 or line < end - 1 - LANES // (across * c):
            _max_line(across, c, upper.ctypes.data, lower.ctypes.data, relu, out.ctypes.data)
            continue
        for j in range(across):
            at, p = j * c, 2 * j * c
            for k in range(c):
                top = _larger(upper[p + k], upper[p + c + k])
                most = _larger(top, _larger(lower[p + k], lower[p + c + k]))
                out[at + k] = np.float32(0) if relu and most < 0 else most


@jit
def _window_gradients(upper, lower, grad, k, c, at, relu):
    """What the four pixels of sixteen windows' channels get: the first maximum takes the gradient, the others 0.

    ``relu``: it takes it only where it is above 0.
    """
    a, b = load(upper, k), load(upper, k + c)
    d, e = load(lower, k), load(lower, k + c)
    g = load(grad, at)
    none = fill(np.float32(0))
    high, low = first_of(a, b, a, b), first_of(d, e, d, e)
    if relu:
        g = above_zero(first_of(high, low, high, low), g)
    above, below = first_of(high, low, g, none), first_of(high, low, none, g)
    return (
        first_of(a, b, above, none),
        first_of(a, b, none, above),
        first_of(d, e, below, none),
        first_of(d, e, none, below),
    )


@jit
def _gradient_lines(across, c, upper, lower, grad, relu, dupper, dlower, past):
    """A line of 2x2 windows, written past the caches where ``past``.

    All arguments but the sizes are addresses: two lines of x, one of dy, two of dx.
    """
    for j in range(across):
        for k in range(2 * j * c, 2 * j * c + c, LANES):
            r = _window_gradients(upper, lower, grad, k, c, k - j * c, relu)
            put(dupper, k, r[0], past)
            put(dupper, k + c, r[1], past)
            put(dlower, k, r[2], past)
            put(dlower, k + c, r[3], past)


@jit
def _gradient_line(across, c, upper, lower, grad, relu, target, top):
    """The same for channels that fill no vector: one of the two lines of dx, in ascending order as ``_max_line``."""
    for j in range(across):
        for k in range(2 * j * c, 2 * j * c + c, LANES):
            r = _window_gradients(upper, lower, grad, k, c, k - j * c, relu)
            store(target, k, r[0] if top else r[2])
            store(target, k + c, r[1] if top else r[3])


@jit
def _max_pool_2x2_grad(first, last, dy, x, relu, past, dx):
    """The first maximum of each window takes its gradient; pixels in no window get 0."""
    n, down, across, c = dy.shape
    _, h, w, _ = x.shape
    none = np.float32(0)
    whole = down - 1 - LANES // (across * c)  # lines behind which there is room for a vector
    for one in range(n * first // SHARDS, n * last // SHARDS):
        for i in range(down):
            upper, lower = x[one, 2 * i].reshape(-1), x[one, 2 * i + 1].reshape(-1)
            dupper, dlower = dx[one, 2 * i].reshape(-1), dx[one, 2 * i + 1].reshape(-1)
            grad = dy[one, i].reshape(-1)
            lines = (upper.ctypes.data, lower.ctypes.data, grad.ctypes.data, relu)
            if c % LANES == 0:
                _gradient_lines(across, c, *lines, dupper.ctypes.data, dlower.ctypes.data, past)
                continue
            # with more channels the left pixel's last vector would reach into the right one's first
            if i < whole and c < LANES:
                _gradient_line(across, c, *lines, dupper.ctypes.data, True)
                _gradient_line(across, c, *lines, dlower.ctypes.data, False)
                continue
            for j in range(across):
                at, p = j * c, 2 * j * c
                for k in range(c):
                    a, b = upper[p + k], upper[p + c + k]
                    d, e = lower[p + k], lower[p + c + k]
                    left, above = (a >= b) | (a != a), (d >= e) | (d != d)
                    high, low = a if left else b, d if above else e
                    first = (high >= low) | (high != high)
                    g = grad[at + k] if not relu or (high if first else low) > 0 else none
                    dupper[p + k] = g if first & left else none
                    dupper[p + c + k] = none if left | (not first) else g
                    dlower[p + k] = none if first | (not above) else g
                    dlower[p + c + k] = none if first | above else g
        if h % 2:
            dx[one, h - 1] = 0
        if w % 2:
            dx[one, :, w - 1] = 0


def tiled(x: Array, kernel: Pair, stride: Pair, padding: Padding) -> bool:
    """Whether the windows are those of the usual pooling: 2, 2, 0."""
    return kernel == stride == (2, 2) and padding == ((0, 0), (0, 0)) and min(x.shape[1:3]) >= 2


def _output(x: Array, kernel: Pair, stride: Pair, padding: Padding) -> Array:
    sizes = [
        (size + before + after - k) // s + 1
        for size, k, s, (before, after) in zip(x.shape[1:3], kernel, stride, padding, strict=True)
    ]
    return empty((x.shape[0], sizes[0], sizes[1], x.shape[3]))


accepts = float32_arrays
accepts_max_grad = float32_where(windows_fit)


def max_pool2d(x: Array, kernel: Pair, stride: Pair, padding: Padding) -> Array:
    """x (N,H,W,C) -> y (N,H',W',C)."""
    x = np.ascontiguousarray(x)
    y = _output(x, kernel, stride, padding)
    if tiled(x, kernel, stride, padding):
        parallel(_max_pool_2x2, x, False, y, work=x.size)
        return y
    parallel(_max_pool, x, *kernel, *stride, padding[0][0], padding[1][0], y, work=x.size)
    return y


def max_pool2d_grad(dy: Array, x: Array, kernel: Pair, stride: Pair, padding: Padding) -> Array:
    """dy (N,H',W',C), x (N,H,W,C) -> dx (N,H,W,C)."""
    dy, x = np.ascontiguousarray(dy), np.ascontiguousarray(x)
    dx = empty(x.shape)
    if tiled(x, kernel, stride, padding):
        parallel(_max_pool_2x2_grad, dy, x, False, streams(dx), dx, work=x.size)
        return dx
    parallel(_max_pool_grad, dy, x, *kernel, *stride, padding[0][0], padding[1][0], dx, work=x.size)
    return dx


def relu_max_pool2d(x: Array, kernel: Pair, stride: Pair, padding: Padding) -> Array:
    """The maximum of each window of max(x, 0)."""
    if not tiled(x, kernel, stride, padding):
        return max_pool2d(relu(x), kernel, stride, padding)
    x = np.ascontiguousarray(x)
    y = _output(x, kernel, stride, padding)
    parallel(_max_pool_2x2, x, True, y, work=x.size)
    return y


def relu_max_pool2d_grad(dy: Array, x: Array, kernel: Pair, stride: Pair, padding: Padding) -> Array:
    """dy (N,H',W',C), x (N,H,W,C) -> dx (N,H,W,C)."""
    if not tiled(x, kernel, stride, padding):
        return relu_grad(max_pool2d_grad(dy, relu(x), kernel, stride, padding), x)
    dy, x = np.ascontiguousarray(dy), np.ascontiguousarray(x)
    dx = empty(x.shape)
    parallel(_max_pool_2x2_grad, dy, x, True, streams(dx), dx, work=x.size)
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
