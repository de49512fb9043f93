"""Convolutions with few filters or few taps, directly: sixteen filters are the lanes of a vector.

One tap is a pixel in all lanes times the tap's weight of each filter.  Eight output pixels (or, for the kernel's
gradient, eight taps) have their sums in registers at a time.  LeNet's layers, and the first layer of any net, are too
small for a matrix product, which would spend its time on laying out windows.
"""

import numpy as np

from gpucnn.kernels.cpu.compile import jit
from gpucnn.kernels.cpu.pool import empty
from gpucnn.kernels.cpu.simd import LANES, load, spread, store
from gpucnn.kernels.cpu.threads import SHARDS, parallel
from gpucnn.typing import Array, Padding, Pair, Shape


@jit
def pad_image(x, n, top, left, padded):
    """Image n of x with its border, as padded (H+, W+, C); the border is zero already."""
    _, h, w, c = x.shape
    for i in range(h):
        source = x[n, i].reshape(-1)
        target = padded[i + top].reshape(-1)[left * c : (left + w) * c]
        for k in range(w * c):
            target[k] = source[k]


@jit
def _forward(first, last, x, wide, b, kh, kw, sh, sw, top, left, padded, results, y):
    """x (N,H,W,C), wide (F/16,KH*KW*C,16) weights, b (F/16,16) -> y (N,H',W',F)."""
    n, down, across, f = y.shape
    c = x.shape[3]
    width = kw * c
    image = padded[first]
    image[:] = 0
    pixels = image.ctypes.data
    line, step = image.shape[1] * c, sw * c
    out = results[first]
    at = out.ctypes.data
    tail = 1 + LANES // (across * f)  # lines whose garbage could reach the next image
    for one in range(n * first // SHARDS, n * last // SHARDS):
        pad_image(x, one, top, left, image)
        for block in range(wide.shape[0]):
            weights = wide[block].ctypes.data
            bias = load(b[block].ctypes.data, 0)
            lanes = min(LANES, f - block * LANES)
            for i in range(down):
                for j in range(0, across, 8):
                    a0 = a1 = a2 = a3 = a4 = a5 = a6 = a7 = bias
                    for m in range(kh):
                        # the last group of a line reads up to seven pixels too far: there is room for that
                        p = (i * sh + m) * line + j * step
                        for q in range(width):
                            w = load(weights, (m * width + q) * LANES)
                            a0 = a0 + spread(pixels, p + q) * w
                            a1 = a1 + spread(pixels, p + q + step) * w
                            a2 = a2 + spread(pixels, p + q + 2 * step) * w
                            a3 = a3 + spread(pixels, p + q + 3 * step) * w
                            a4 = a4 + spread(pixels, p + q + 4 * step) * w
                            a5 = a5 + spread(pixels, p + q + 5 * step) * w
                            a6 = a6 + spread(pixels, p + q + 6 * step) * w
                            a7 = a7 + spread(pixels, p + q + 7 * step) * w
                    store(at, 0, a0)
                    store(at, 16, a1)
                    store(at, 32, a2)
                    store(at, 48, a3)
                    store(at, 64, a4)
                    store(at, 80, a5)
                    store(at, 96, a6)
                    store(at, 112, a7)
                    # whole vectors, in ascending order: lanes beyond the filters are overwritten by the next
                    # pixel's; only the last lines of an image, with nobody's pixels behind them, go one by one
                    target = y.ctypes.data + 4 * (((one * down + i) * across + j) * f + block * LANES)
                    some = min(8, across - j)
                    if lanes == LANES or (f < LANES and i < down - tail):
                        for k in range(some):
                            store(target, k * f, load(at, k * LANES))
                    else:
                        row = y[one, i]
                        for k in range(some):
                            for q in range(lanes):
                                row[j + k, block * LANES + q] = out[k * LANES + q]


@jit
def _weight_grad(first, last, dy, x, offsets, sh, sw, top, left, padded, wide, parts):
    """Dy (N,H',W',F), x (N,H,W,C), offsets of the taps in a padded image -> parts (SHARDS,F/16,taps,16)."""
    n, down, across, f = dy.shape
    c = x.shape[3]
    image = padded[first]
    image[:] = 0
    pixels = image.ctypes.data
    line = image.shape[1] * c
    lanes = wide[first]
    lanes[:] = 0
    taps = offsets.size
    blocks = parts.shape[1]
    for shard in range(first, last):
        parts[shard] = 0
        for item in range(blocks * (n * shard // SHARDS), blocks * (n * (shard + 1) // SHARDS)):
            one, block = item // blocks, item % blocks
            if block == 0:
                pad_image(x, one, top, left, image)
            # sixteen floats from each pixel on: those beyond the filters make sums that nobody reads
            grads, step = dy.ctypes.data + 4 * (one * down * across * f + block * LANES), f
            if one == n - 1:  # behind the last image there is nothing to read
                source = dy[one].reshape(-1, f)
                for r in range(down * across):
                    for q in range(min(LANES, f - block * LANES)):
                        lanes[r, q] = source[r, block * LANES + q]
                grads, step = lanes.ctypes.data, LANES
            sums = parts[shard, block].ctypes.data
            for t in range(0, taps, 8):
                a0, a1 = load(sums, t * LANES), load(sums, (t + 1) * LANES)
                a2, a3 = load(sums, (t + 2) * LANES), load(sums, (t + 3) * LANES)
                a4, a5 = load(sums, (t + 4) * LANES), load(sums, (t + 5) * LANES)
                a6, a7 = load(sums, (t + 6) * LANES), load(sums, (t + 7) * LANES)
                o0, o1, o2, o3 = offsets[t], offsets[t + 1], offsets[t + 2], offsets[t + 3]
                o4, o5, o6, o7 = offsets[t + 4], offsets[t + 5], offsets[t + 6], offsets[t + 7]
                for i in range(down):
                    for j in range(across):
                        p = i * sh * line + j * sw * c
                        d = load(grads, (i * across + j) * step)
                        a0 = a0 + spread(pixels, p + o0) * d
                        a1 = a1 + spread(pixels, p + o1) * d
                        a2 = a2 + spread(pixels, p + o2) * d
                        a3 = a3 + spread(pixels, p + o3) * d
                        a4 = a4 + spread(pixels, p + o4) * d
                        a5 = a5 + spread(pixels, p + o5) * d
                        a6 = a6 + spread(pixels, p + o6) * d
                        a7 = a7 + spread(pixels, p + o7) * d
                store(sums, t * LANES, a0)
                store(sums, (t + 1) * LANES, a1)
                store(sums, (t + 2) * LANES, a2)
                store(sums, (t + 3) * LANES, a3)
                store(sums, (t + 4) * LANES, a4)
                store(sums, (t + 5) * LANES, a5)
                store(sums, (t + 6) * LANES, a6)
                store(sums, (t + 7) * LANES, a7)


@jit
def _input_grad(first, last, dy, wide, c, sh, sw, top, left, padded, dx):
    """Dy (N,H',W',F), wide (KH,F,32): a line of the kernel, KW*C weights and zeros -> dx (N,H,W,C).

    A pixel of dy adds a line of the kernel to each of KH lines of the padded image: two vectors.  Four pixels'
    sums over the filters are in registers at a time.
    """
    n, down, across, f = dy.shape
    kh = wide.shape[0]
    _, h, w, _ = dx.shape
    image = padded[first]
    line = image.shape[1] * c
    step = sw * c
    for one in range(n * first // SHARDS, n * last // SHARDS):
        image[:] = 0
        for i in range(down):
            for m in range(kh):
                weights = wide[m].ctypes.data
                target = image.ctypes.data + 4 * (i * sh + m) * line
                for j in range(0, across, 4):
                    some = min(4, across - j)
                    grad = dy.ctypes.data + 4 * (((one * down + i) * across + j) * f)
                    # a group that is not whole works on its first pixel again and adds nothing of it
                    at1, at2, at3 = f if some > 1 else 0, 2 * f if some > 2 else 0, 3 * f if some > 3 else 0
                    zero = load(weights, 0) - load(weights, 0)
                    a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = zero
                    for q in range(f):
                        u, v = load(weights, q * 2 * LANES), load(weights, q * 2 * LANES + LANES)
                        g0, g1 = spread(grad, q), spread(grad, at1 + q)
                        g2, g3 = spread(grad, at2 + q), spread(grad, at3 + q)
                        a0, b0 = a0 + g0 * u, b0 + g0 * v
                        a1, b1 = a1 + g1 * u, b1 + g1 * v
                        a2, b2 = a2 + g2 * u, b2 + g2 * v
                        a3, b3 = a3 + g3 * u, b3 + g3 * v
                    t = j * step
                    store(target, t, load(target, t) + a0)
                    store(target, t + LANES, load(target, t + LANES) + b0)
                    if some > 1:
                        t += step
                        store(target, t, load(target, t) + a1)
                        store(target, t + LANES, load(target, t + LANES) + b1)
                    if some > 2:
                        t += step
                        store(target, t, load(target, t) + a2)
                        store(target, t + LANES, load(target, t + LANES) + b2)
                    if some > 3:
                        t += step
                        store(target, t, load(target, t) + a3)
                        store(target, t + LANES, load(target, t + LANES) + b3)
        for i in range(h):
            source = image[top + i].reshape(-1)[left * c : (left + w) * c]
            out = dx[one, i].reshape(-1)
            for k in range(w * c):
                out[k] = source[k]


def _padded(x_shape: Shape, padding: Padding, stride: Pair) -> Array:
    """Room for one image with its border per shard, and for eight pixels more behind the last line."""
    _, h, w, c = x_shape
    (top, bottom), (left, right) = padding
    lines = h + top + bottom + 1 + 8 * stride[1] // (w + left + right)
    return empty((SHARDS, lines, w + left + right, c))


def forward(x: Array, w: Array, b: Array | None, stride: Pair, padding: Padding, size: Pair) -> Array:
    """x (N,H,W,C), w (F,KH,KW,C) -> y (N,*size,F)."""
    f, kh, kw, _ = w.shape
    blocks = -(-f // LANES)
    wide = np.zeros((blocks * LANES, w[0].size), np.float32)
    wide[:f] = w.reshape(f, -1)
    wide = np.ascontiguousarray(wide.reshape(blocks, LANES, -1).transpose(0, 2, 1))
    bias = np.zeros(blocks * LANES, np.float32)
    if b is not None:
        bias[:f] = b
    y = empty((x.shape[0], *size, f))
    padded, results = _padded(x.shape, padding, stride), empty((SHARDS, 8 * LANES))
    top, left = padding[0][0], padding[1][0]
    bias = bias.reshape(blocks, LANES)
    parallel(_forward, x, wide, bias, kh, kw, *stride, top, left, padded, results, y)
    return y


def weight_grad(dy: Array, x: Array, w_shape: Shape, stride: Pair, padding: Padding) -> Array:
    """dy (N,H',W',F), x (N,H,W,C) -> dw (F,KH,KW,C)."""
    f, kh, kw, c = w_shape
    _, down, across, _ = dy.shape
    padded = _padded(x.shape, padding, stride)
    line = padded.shape[2] * c
    taps = (np.arange(kh)[:, None] * line + np.arange(kw * c)).reshape(-1)
    offsets = np.zeros(-(-taps.size // 8) * 8, np.int64)
    offsets[: taps.size] = taps
    blocks = -(-f // LANES)
    parts = empty((SHARDS, blocks, offsets.size, LANES))
    wide = empty((SHARDS, down * across, LANES))
    top, left = padding[0][0], padding[1][0]
    parallel(_weight_grad, dy, x, offsets, *stride, top, left, padded, wide, parts)
    dw = parts.sum(axis=0)[:, : taps.size].transpose(0, 2, 1).reshape(-1, taps.size)
    return np.ascontiguousarray(dw[:f]).reshape(w_shape)


def input_grad(dy: Array, w: Array, x_shape: Shape, stride: Pair, padding: Padding) -> Array:
    """dy (N,H',W',F), w (F,KH,KW,C) with KW*C <= 32 -> dx of ``x_shape``."""
    f, kh, kw, c = w.shape
    wide = np.zeros((kh, f, 2 * LANES), np.float32)
    wide[:, :, : kw * c] = w.reshape(f, kh, kw * c).transpose(1, 0, 2)
    _, h, width, _ = x_shape
    (top, bottom), (left, right) = padding
    lines = h + top + bottom + 1 + 2 * LANES // ((width + left + right) * c)  # room for the zeros' lanes
    padded = empty((SHARDS, lines, width + left + right, c))
    dx = empty(x_shape)
    parallel(_input_grad, dy, wide, c, *stride, top, left, padded, dx)
    return dx
