"""Convolutions of any shape: a block of windows is laid out as rows, and one matrix product does the rest.

    forward   y    = cols w^T          blocks of whole output lines
    kernel    dw  += dy^T cols         the same blocks, in PARTIALS sums that are added in order
    input     dcols = dy w, added back to the pixels they came from, image by image

A block's product stays below the size at which OpenBLAS starts to pack its operands, and its rows in the
second-level cache.  For a 1x1 kernel of stride 1 the image itself is the matrix.
"""

import numpy as np

from gpucnn.kernels.cpu.compile import jit
from gpucnn.kernels.cpu.gemm import PLAIN, ROW_MAJOR, TRANSPOSED, sgemm
from gpucnn.kernels.cpu.pool import empty
from gpucnn.kernels.cpu.threads import SHARDS, parallel
from gpucnn.typing import Array, Padding, Pair, Shape

PIXELS = 512  # rows of a block, about
PARTIALS = 4


@jit
def fill_line(x, n, i, across, kh, kw, sh, sw, top, left, cols, start):
    """The windows of output line i of image n as rows start .. start + across - 1 of cols (.., KH*KW*C)."""
    _, h, w, c = x.shape
    width = kw * c
    for j in range(across):
        column = j * sw - left
        inside = column >= 0 and column + kw <= w
        for m in range(kh):
            row = i * sh + m - top
            at = m * width
            if row < 0 or row >= h:
                for k in range(width):
                    cols[start + j, at + k] = 0
            elif inside:
                source = x[n, row].reshape(-1)[column * c : column * c + width]
                for k in range(width):
                    cols[start + j, at + k] = source[k]
            else:
                for q in range(kw):
                    seen = 0 <= column + q < w
                    for k in range(c):
                        cols[start + j, at + q * c + k] = x[n, row, column + q, k] if seen else np.float32(0)


@jit
def add_line(dcols, start, dx, n, i, across, kh, kw, sh, sw, top, left):
    """The transpose of ``fill_line``: add rows of dcols to the pixels of dx they came from."""
    _, h, w, c = dx.shape
    width = kw * c
    for j in range(across):
        column = j * sw - left
        inside = column >= 0 and column + kw <= w
        for m in range(kh):
            row = i * sh + m - top
            at = m * width
            if row < 0 or row >= h:
                continue
            if inside:
                target = dx[n, row].reshape(-1)[column * c : column * c + width]
                for k in range(width):
                    target[k] += dcols[start + j, at + k]
            else:
                for q in range(kw):
                    if 0 <= column + q < w:
                        for k in range(c):
                            dx[n, row, column + q, k] += dcols[start + j, at + q * c + k]


@jit
def _forward(first, last, x, wt, b, kh, kw, sh, sw, top, left, lines, cols, y):
    """x (N,H,W,C), wt (KH*KW*C,F), b (F,) or (0,) -> y (N,H',W',F)."""
    n, down, across, f = y.shape
    k = wt.shape[0]
    rows = cols[first].reshape(-1, k)
    blocks = -(-n * down // lines)
    for block in range(blocks * first // SHARDS, blocks * last // SHARDS):
        start, stop = block * lines, min(block * lines + lines, n * down)
        for line in range(start, stop):
            fill_line(x, line // down, line % down, across, kh, kw, sh, sw, top, left, rows, (line - start) * across)
        count = (stop - start) * across
        beta = np.float32(0)
        if b.size:
            out = y.reshape(-1, f)[start * across : stop * across]
            for r in range(count):
                for q in range(f):
                    out[r, q] = b[q]
            beta = np.float32(1)
        sgemm(
            ROW_MAJOR, PLAIN, PLAIN, count, f, k, np.float32(1), rows.ctypes.data, k,
            wt.ctypes.data, f, beta, y.ctypes.data + 4 * start * across * f, f,
        )  # fmt: skip


@jit
def _weight_grad(first, last, dy, x, kh, kw, sh, sw, top, left, lines, cols, parts):
    """Dy (N,H',W',F), x (N,H,W,C) -> parts (PARTIALS,F,KH*KW*C)."""
    n, down, across, f = dy.shape
    k = parts.shape[2]
    rows = cols[first].reshape(-1, k)
    blocks = -(-n * down // lines)
    for part in range(PARTIALS * first // SHARDS, PARTIALS * last // SHARDS):
        parts[part] = 0
        for block in range(blocks * part // PARTIALS, blocks * (part + 1) // PARTIALS):
            start, stop = block * lines, min(block * lines + lines, n * down)
            for line in range(start, stop):
                fill_line(
                    x,
                    line // down,
                    line % down,
                    across,
                    kh,
                    kw,
                    sh,
                    sw,
                    top,
                    left,
                    rows,
                    (line - start) * across,
                )
            sgemm(
                ROW_MAJOR, TRANSPOSED, PLAIN, f, k, (stop - start) * across, np.float32(1),
                dy.ctypes.data + 4 * start * across * f, f, rows.ctypes.data, k, np.float32(1),
                parts[part].ctypes.data, k,
            )  # fmt: skip


@jit
def _input_grad(first, last, dy, w, kh, kw, sh, sw, top, left, lines, cols, dx):
    """Dy (N,H',W',F), w (F,KH*KW*C) -> dx (N,H,W,C)."""
    n, down, across, f = dy.shape
    k = w.shape[1]
    rows = cols[first].reshape(-1, k)
    for image in range(n * first // SHARDS, n * last // SHARDS):
        dx[image] = 0
        for start in range(0, down, lines):
            stop = min(start + lines, down)
            sgemm(
                ROW_MAJOR, PLAIN, PLAIN, (stop - start) * across, k, f, np.float32(1),
                dy.ctypes.data + 4 * (image * down + start) * across * f, f, w.ctypes.data, k,
                np.float32(0), rows.ctypes.data, k,
            )  # fmt: skip
            for i in range(start, stop):
                add_line(rows, (i - start) * across, dx, image, i, across, kh, kw, sh, sw, top, left)


@jit
def _product(first, last, a, b, block, c):
    """C (M,Q) = a (M,P) b (P,Q), in blocks of rows."""
    m, p = a.shape
    q = b.shape[1]
    blocks = -(-m // block)
    for one in range(blocks * first // SHARDS, blocks * last // SHARDS):
        start, stop = one * block, min(one * block + block, m)
        sgemm(
            ROW_MAJOR, PLAIN, PLAIN, stop - start, q, p, np.float32(1), a.ctypes.data + 4 * start * p, p,
            b.ctypes.data, q, np.float32(0), c.ctypes.data + 4 * start * q, q,
        )  # fmt: skip


def _room(lines: int, across: int, k: int) -> Array:
    """Rows for each shard that starts a thread's part."""
    return empty((SHARDS, lines * across * k))


def forward(x: Array, w: Array, b: Array | None, stride: Pair, padding: Padding, size: Pair) -> Array:
    """x (N,H,W,C), w (F,KH,KW,C) -> y (N,*size,F)."""
    f, kh, kw, c = w.shape
    y = empty((x.shape[0], *size, f))
    wt = np.ascontiguousarray(w.reshape(f, -1).T)
    if b is None and (kh, kw) == stride == (1, 1) and padding == ((0, 0), (0, 0)):
        parallel(_product, x.reshape(-1, c), wt, PIXELS, y.reshape(-1, f))
        return y
    lines = max(1, PIXELS // size[1])
    bias = np.empty(0, np.float32) if b is None else b
    top, left = padding[0][0], padding[1][0]
    cols = _room(lines, size[1], wt.shape[0])
    parallel(_forward, x, wt, bias, kh, kw, *stride, top, left, lines, cols, y)
    return y


def weight_grad(dy: Array, x: Array, w_shape: Shape, stride: Pair, padding: Padding) -> Array:
    """dy (N,H',W',F), x (N,H,W,C) -> dw (F,KH,KW,C)."""
    f, kh, kw, c = w_shape
    across = dy.shape[2]
    lines = max(1, PIXELS // across)
    parts = empty((PARTIALS, f, kh * kw * c))
    cols = _room(lines, across, kh * kw * c)
    parallel(_weight_grad, dy, x, kh, kw, *stride, padding[0][0], padding[1][0], lines, cols, parts)
    return parts.sum(axis=0).reshape(w_shape)


def input_grad(dy: Array, w: Array, x_shape: Shape, stride: Pair, padding: Padding) -> Array:
    """dy (N,H',W',F), w (F,KH,KW,C) -> dx of ``x_shape``."""
    f, kh, kw, c = w.shape
    dx = empty(x_shape)
    if (kh, kw) == stride == (1, 1) and padding == ((0, 0), (0, 0)):
        parallel(_product, dy.reshape(-1, f), w.reshape(f, c), PIXELS, dx.reshape(-1, c))
        return dx
    across = dy.shape[2]
    lines = max(1, min(dy.shape[1], PIXELS // across))
    cols = _room(lines, across, kh * kw * c)
    parallel(_input_grad, dy, w.reshape(f, -1), kh, kw, *stride, padding[0][0], padding[1][0], lines, cols, dx)
    return dx
