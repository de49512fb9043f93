"""Warped images: the noise behind elastic distortion, and the look-up of pixels, image by image.

Both are the ops' to the bit: every product and sum is rounded by itself, in the op's order.
"""

import numpy as np

from gpucnn.kernels.cpu.arguments import within
from gpucnn.kernels.cpu.engine.allocator import empty
from gpucnn.kernels.cpu.engine.compile import jit, jit_exact
from gpucnn.kernels.cpu.engine.threads import SHARDS, parallel
from gpucnn.kernels.cpu.philox import key_of, philox
from gpucnn.types import Array, Shape

NOWHERE = np.zeros((1, 1, 1, 1), np.float32)
"""Stands in for displacements where there are none."""


@jit_exact
def _noise(first, last, index, stream, step, key0, key1, y):
    n, size = y.shape
    for b in range(n * first // SHARDS, n * last // SHARDS):
        for block in range((size + 3) // 4):
            i = 4 * block
            for word in philox(np.uint64(block), stream, step, np.uint64(index[b]), key0, key1):
                if i < size:
                    y[b, i] = np.float32(word >> np.uint64(8)) * np.float32(2.0**-23) - np.float32(1)
                i += 1


def accepts_noise(index: Array, shape: Shape, seed: int, stream: int, step: int) -> bool:
    """Numbers of some images, and a step that leaves the upper half of the counter to them."""
    return isinstance(index, np.ndarray) and within(index, (index.size,), 2**32) and 0 <= step < 2**32


def noise_planes(index: Array, shape: Shape, seed: int, stream: int, step: int) -> Array:
    """Numbers of [-1, 1) that belong to images ``index`` (B,), of the shape (H,W,...): float32 (B,2,H,W)."""
    h, w, *_ = shape
    y = empty((len(index), 2, h, w))
    words = (np.uint64(stream), np.uint64(step), *key_of(seed))
    parallel(_noise, index.astype(np.int64), *words, y.reshape(len(index), -1), work=10 * y.size)
    return y


@jit
def _folded(place, size):
    """A place on a line that is mirrored at both ends, again and again."""
    if size == 1:
        return 0
    period = 2 * (size - 1)
    place %= period
    return min(place, period - place)


@jit_exact
def _pixel(image, row, column, channel, c, reflect):
    """A value of an image (H,W*C) at a place that may lie outside."""
    h, w = image.shape[0], image.shape[1] // c
    if reflect:
        row, column = _folded(row, h), _folded(column, w)
    elif not (0 <= row < h and 0 <= column < w):
        return np.float32(0)
    return np.float32(image[row, c * column + channel])


@jit_exact
def _warp(first, last, images, index, c, matrix, field, moved, reflect, y):
    n, h, size = y.shape
    w = size // c
    one, half = np.float32(1), np.float32(0.5)
    down, across = np.float32(0.5 * (h - 1)), np.float32(0.5 * (w - 1))
    for b in range(n * first // SHARDS, n * last // SHARDS):
        image, m = images[index[b]], matrix[b]
        for row in range(h):
            i = np.float32(row) - down
            for column in range(w):
                j = np.float32(column) - across
                u = m[0, 0] * i + m[0, 1] * j + down
                v = m[1, 0] * i + m[1, 1] * j + across
                if moved:
                    u += field[b, 0, row, column]
                    v += field[b, 1, row, column]
                top, left = np.floor(u), np.floor(v)
                f, g = u - top, v - left
                r, s = np.int64(top), np.int64(left)
                inside = r >= 0 and r < h - 1 and s >= 0 and s < w - 1
                for k in range(c):
                    if inside:
                        e = c * s + k
                        p00, p01 = np.float32(image[r, e]), np.float32(image[r, e + c])
                        p10, p11 = np.float32(image[r + 1, e]), np.float32(image[r + 1, e + c])
                    else:
                        p00, p01 = _pixel(image, r, s, k, c, reflect), _pixel(image, r, s + 1, k, c, reflect)
                        p10, p11 = _pixel(image, r + 1, s, k, c, reflect), _pixel(image, r + 1, s + 1, k, c, reflect)
                    upper = p00 * (one - g) + p01 * g
                    lower = p10 * (one - g) + p11 * g
                    y[b, row, c * column + k] = np.uint8(upper * (one - f) + lower * f + half)


def accepts_warp(images: Array, index: Array, matrix: Array, field: Array | None, border: str) -> bool:
    """Bytes, indices of some images that exist, a float32 matrix for each, and displacements of each pixel."""
    if not (isinstance(images, np.ndarray) and images.dtype == np.uint8 and images.ndim == 4 and images.size):
        return False
    shapes = {"matrix": (len(index), 2, 2), "field": (len(index), 2, *images.shape[1:3])}
    return within(index, (index.size,), len(images)) and all(
        isinstance(part, np.ndarray) and part.dtype == np.float32 and part.shape == shapes[name]
        for name, part in (("matrix", matrix), ("field", field))
        if name == "matrix" or part is not None
    )


def warp(images: Array, index: Array, matrix: Array, field: Array | None, border: str) -> Array:
    """images u8 (N,H,W,C), index (B,), matrices (B,2,2), displacements (B,2,H,W) or none -> u8 (B,H,W,C)."""
    if images.flags.c_contiguous:
        index = index.astype(np.int64)
    else:  # the batch is copied, not the whole set
        images, index = np.ascontiguousarray(images[index]), np.arange(len(index))
    n, h, w, c = images.shape
    lines = images.reshape(n, h, w * c)
    lines.setflags(write=False)  # compiled once for sets that may be written to and for those that may not
    matrix, displaced = (np.ascontiguousarray(part).view() for part in (matrix, NOWHERE if field is None else field))
    matrix.setflags(write=False)
    displaced.setflags(write=False)
    y = empty((len(index), h, w * c), "uint8")
    parallel(_warp, lines, index, c, matrix, displaced, field is not None, border == "reflect", y, work=20 * y.size)
    return y.reshape(len(index), h, w, c)
