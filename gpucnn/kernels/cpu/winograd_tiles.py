"""Winograd's transforms, F(4x4, 3x3): a column of six, four or three at a time, then whole tiles of an image.

Tiles are numbered through the batch; those that reach over the border are copied into a small patch first, zeros
outside.  What a tile becomes goes to 36 positions, each a matrix (tiles, channels), ``step`` floats apart.
"""

import numpy as np

from gpucnn.kernels.cpu.compile import jit
from gpucnn.kernels.cpu.simd import LANES, fill, load, put, store


@jit
def input_transform(d0, d1, d2, d3, d4, d5):
    """B^T of a column of six."""
    four, five, two = fill(np.float32(4)), fill(np.float32(5)), fill(np.float32(2))
    a = d4 - four * d2
    b = d3 - four * d1
    c = d4 - d2
    e = two * (d3 - d1)
    return (
        four * d0 - five * d2 + d4,
        a + b,
        a - b,
        c + e,
        c - e,
        four * d1 - five * d3 + d5,
    )


@jit
def output_transform(m0, m1, m2, m3, m4, m5):
    """A^T of a column of six."""
    two, four, eight = fill(np.float32(2)), fill(np.float32(4)), fill(np.float32(8))
    s, d = m1 + m2, m1 - m2
    t, e = m3 + m4, m3 - m4
    return m0 + s + t, d + two * e, s + four * t, d + eight * e + m5


@jit
def output_adjoint(y0, y1, y2, y3):
    """A of a column of four."""
    two, four, eight = fill(np.float32(2)), fill(np.float32(4)), fill(np.float32(8))
    even, odd = y0 + y2, y1 + y3
    far, skew = y0 + four * y2, two * y1 + eight * y3
    return y0, even + odd, even - odd, far + skew, far - skew, y3


@jit
def kernel_transform(g0, g1, g2):
    """G of a column of three."""
    sixth, quarter = fill(np.float32(1 / 6)), fill(np.float32(0.25))
    small, twelfth = fill(np.float32(1 / 24)), fill(np.float32(1 / 12))
    outer = sixth * (g0 + g2)
    middle = sixth * g1
    far = small * g0 + sixth * g2
    near = twelfth * g1
    zero = g0 - g0
    return quarter * g0, zero - outer - middle, middle - outer, far + near, far - near, g2


@jit
def kernel_adjoint(u0, u1, u2, u3, u4, u5):
    """G^T of a column of six."""
    sixth, quarter = fill(np.float32(1 / 6)), fill(np.float32(0.25))
    small, twelfth = fill(np.float32(1 / 24)), fill(np.float32(1 / 12))
    s, d = u1 + u2, u2 - u1
    t, e = u3 + u4, u3 - u4
    return (
        quarter * u0 - sixth * s + small * t,
        sixth * d + twelfth * e,
        sixth * (t - s) + u5,
    )


@jit
def column3(address, at, step):
    """Three vectors, ``step`` floats apart."""
    return load(address, at), load(address, at + step), load(address, at + 2 * step)


@jit
def column4(address, at, step):
    """Four vectors, ``step`` floats apart."""
    return *column3(address, at, step), load(address, at + 3 * step)


@jit
def column6(address, at, step):
    """Six vectors, ``step`` floats apart."""
    return *column3(address, at, step), *column3(address, at + 3 * step, step)


@jit
def put3(address, at, step, v):
    """Three vectors, ``step`` floats apart."""
    store(address, at, v[0])
    store(address, at + step, v[1])
    store(address, at + 2 * step, v[2])


@jit
def put6(address, at, step, v):
    """Six vectors, ``step`` floats apart."""
    put3(address, at, step, v[:3])
    put3(address, at + 3 * step, step, v[3:])


@jit
def put4(address, at, step, v, past):
    """Four vectors, ``step`` floats apart, past the caches where ``past``."""
    put(address, at, v[0], past)
    put(address, at + step, v[1], past)
    put(address, at + 2 * step, v[2], past)
    put(address, at + 3 * step, v[3], past)


@jit
def transform_tile(source, row_step, c, scratch, target, position_step):
    """V = B^T d B of one tile: source (6 rows of 6 pixels of c channels) -> 36 positions at target."""
    for k in range(0, c, LANES):
        for j in range(6):
            v = input_transform(*column6(source, j * c + k, row_step))
            put6(scratch, j * LANES, 6 * LANES, v)
        for i in range(6):
            v = input_transform(*column6(scratch, 6 * i * LANES, LANES))
            put6(target, 6 * i * position_step + k, position_step, v)


@jit
def copy_patch(x, n, top, left, size, patch):
    """The size x size pixels of image n from (top, left) on into patch, zeros beyond the border."""
    _, h, w, c = x.shape
    for i in range(size):
        row = top + i
        for j in range(size):
            column = left + j
            if 0 <= row < h and 0 <= column < w:
                for k in range(c):
                    patch[i, j, k] = x[n, row, column, k]
            else:
                for k in range(c):
                    patch[i, j, k] = 0


@jit
def transform_inputs(x, first, last, across, down, top, left, patch, scratch, v, step):
    """Tiles first .. last-1 of x -> V (36, tiles, C) at address v, positions ``step`` floats apart."""
    _, h, w, c = x.shape
    for tile in range(first, last):
        n, rest = tile // (across * down), tile % (across * down)
        row, column = 4 * (rest // across) - top, 4 * (rest % across) - left
        target = v + 4 * (tile - first) * c
        if row >= 0 and column >= 0 and row + 6 <= h and column + 6 <= w:
            source = x.ctypes.data + 4 * (((n * h + row) * w + column) * c)
            transform_tile(source, w * c, c, scratch.ctypes.data, target, step)
        else:
            copy_patch(x, n, row, column, 6, patch)
            transform_tile(patch.ctypes.data, 6 * c, c, scratch.ctypes.data, target, step)


@jit
def transform_outputs(y, first, last, across, down, patch, scratch, m, step, past):
    """M (36, tiles, F) at address m -> tiles first .. last-1 of y."""
    _, h, w, f = y.shape
    area = scratch.ctypes.data
    for tile in range(first, last):
        n, rest = tile // (across * down), tile % (across * down)
        row, column = 4 * (rest // across), 4 * (rest % across)
        whole = row + 4 <= h and column + 4 <= w
        source = m + 4 * (tile - first) * f
        target = y.ctypes.data + 4 * (((n * h + row) * w + column) * f) if whole else patch.ctypes.data
        row_step = w * f if whole else 4 * f
        for k in range(0, f, LANES):
            for j in range(6):
                r = output_transform(*column6(source, j * step + k, 6 * step))
                put4(area, j * LANES, 6 * LANES, r, False)
            for i in range(4):
                r = output_transform(*column6(area, 6 * i * LANES, LANES))
                put4(target, i * row_step + k, f, r, past and whole)
        if not whole:
            for i in range(min(4, h - row)):
                for j in range(min(4, w - column)):
                    for k in range(f):
                        y[n, row + i, column + j, k] = patch[i, j, k]


@jit
def transform_gradients(dy, first, last, across, down, patch, scratch, m, step):
    """Tiles of dy -> dM = A dy A^T (36, tiles, F) at address m."""
    _, h, w, f = dy.shape
    area = scratch.ctypes.data
    for tile in range(first, last):
        n, rest = tile // (across * down), tile % (across * down)
        row, column = 4 * (rest // across), 4 * (rest % across)
        if row + 4 <= h and column + 4 <= w:
            source, row_step = dy.ctypes.data + 4 * (((n * h + row) * w + column) * f), w * f
        else:
            copy_patch(dy, n, row, column, 4, patch)
            source, row_step = patch.ctypes.data, 4 * f
        target = m + 4 * (tile - first) * f
        for k in range(0, f, LANES):
            for j in range(4):
                r = output_adjoint(*column4(source, j * f + k, row_step))
                put6(area, j * LANES, 4 * LANES, r)
            for i in range(6):
                r = output_adjoint(*column4(area, 4 * i * LANES, LANES))
                put6(target, 6 * i * step + k, step, r)
