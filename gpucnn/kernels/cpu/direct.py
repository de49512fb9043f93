"""Convolutions with few filters or few taps, directly: sixteen filters are the lanes of a vector.

One tap is a pixel in all lanes times the tap's weight of each filter.  Eight output pixels (or, for the kernel's
gradient, eight taps) have their sums in registers at a time.  LeNet's layers, and the first layer of any net, are too
small for a matrix product, which would spend its time on laying out windows.
"""

import numpy as np

from gpucnn.kernels.cpu.compile import jit
from gpucnn.kernels.cpu.pool import empty
from gpucnn.kernels.cpu.simd import LANES, fill, load, store
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
    pixels = image.reshape(-1)
    line, step = image.shape[1] * c, sw * c
    out = results[first]
    at = out.ctypes.data
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
                            a0 = a0 + fill(pixels[p + q]) * w
                            a1 = a1 + fill(pixels[p + q + step]) * w
                            a2 = a2 + fill(pixels[p + q + 2 * step]) * w
                            a3 = a3 + fill(pixels[p + q + 3 * step]) * w
                            a4 = a4 + fill(pixels[p + q + 4 * step]) * w
                            a5 = a5 + fill(pixels[p + q + 5 * step]) * w
                            a6 = a6 + fill(pixels[p + q + 6 * step]) * w
                            a7 = a7 + fill(pixels[p + q + 7 * step]) * w
                    store(at, 0, a0)
                    store(at, 16, a1)
                    store(at, 32, a2)
                    store(at, 48, a3)
                    store(at, 64, a4)
                    store(at, 80, a5)
                    store(at, 96, a6)
                    store(at, 112, a7)
                    target = y[one, i]
                    for k in range(min(8, across - j)):
                        if lanes == LANES:
                            store(target[j + k].ctypes.data, block * LANES, load(at, k * LANES))
                        else:
                            for q in range(lanes):
                                target[j + k, block * LANES + q] = out[k * LANES + q]


@jit
def _weight_grad(first, last, dy, x, offsets, sh, sw, top, left, padded, wide, parts):
    """Dy (N,H',W',F), x (N,H,W,C), offsets of the taps in a padded image -> parts (SHARDS,F/16,taps,16)."""
    n, down, across, f = dy.shape
    c = x.shape[3]
    image = padded[first]
    image[:] = 0
    pixels = image.reshape(-1)
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
            source = dy[one].reshape(-1, f)
            for r in range(down * across):
                for q in range(min(LANES, f - block * LANES)):
                    lanes[r, q] = source[r, block * LANES + q]
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
                        d = load(lanes.ctypes.data, (i * across + j) * LANES)
                        a0 = a0 + fill(pixels[p + o0]) * d
                        a1 = a1 + fill(pixels[p + o1]) * d
                        a2 = a2 + fill(pixels[p + o2]) * d
                        a3 = a3 + fill(pixels[p + o3]) * d
                        a4 = a4 + fill(pixels[p + o4]) * d
                        a5 = a5 + fill(pixels[p + o5]) * d
                        a6 = a6 + fill(pixels[p + o6]) * d
                        a7 = a7 + fill(pixels[p + o7]) * d
                store(sums, t * LANES, a0)
                store(sums, (t + 1) * LANES, a1)
                store(sums, (t + 2) * LANES, a2)
                store(sums, (t + 3) * LANES, a3)
                store(sums, (t + 4) * LANES, a4)
                store(sums, (t + 5) * LANES, a5)
                store(sums, (t + 6) * LANES, a6)
                store(sums, (t + 7) * LANES, a7)


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
