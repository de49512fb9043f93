"""Winograd's transforms, F(4x4, 3x3): a column of six, four or three at a time, then whole tiles of an image.

Tiles are numbered through the batch.  What lies outside an image is read from a line of zeros.  What a tile becomes
goes to 36 positions, ``step`` floats apart, each a matrix (``rows``, channels) in panels of sixteen channels; a tile is
a row.
"""

import numpy as np

from gpucnn.kernels.cpu.engine.compile import jit
from gpucnn.kernels.cpu.engine.simd import LANES, fill, load, put, store


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
def transform_inputs(x, first, last, across, down, top, left, zeros, scratch, v, step, rows):
    """Tiles first .. last-1 of x -> V = B^T d B at address v."""
    _, h, w, c = x.shape
    area, nothing = scratch.ctypes.data, zeros.ctypes.data
    outside = fill(np.float32(0))
    for tile in range(first, last):
        n, rest = tile // (across * down), tile % (across * down)
        row, column = 4 * (rest // across) - top, 4 * (rest % across) - left
        low, high = max(0, -column), min(6, w - column)
        source, line = x.ctypes.data + 4 * ((n * h + row) * w + column) * c, 4 * w * c
        r0 = source if 0 <= row < h else nothing
        r1 = source + line if 0 <= row + 1 < h else nothing
        r2 = source + 2 * line if 0 <= row + 2 < h else nothing
        r3 = source + 3 * line if 0 <= row + 3 < h else nothing
        r4 = source + 4 * line if 0 <= row + 4 < h else nothing
        r5 = source + 5 * line if 0 <= row + 5 < h else nothing
        target = v + 4 * LANES * (tile - first)
        for k in range(0, c, LANES):
            for j in range(6):
                if low <= j < high:
                    q = j * c + k
                    column0 = load(r0, q), load(r1, q), load(r2, q), load(r3, q), load(r4, q), load(r5, q)
                    put6(area, j * LANES, 6 * LANES, input_transform(*column0))
                else:
                    put6(area, j * LANES, 6 * LANES, (outside, outside, outside, outside, outside, outside))
            for i in range(6):
                line6 = input_transform(*column6(area, 6 * i * LANES, LANES))
                put6(target, 6 * i * step + k * rows, step, line6)


@jit
def transform_outputs(y, first, last, across, down, scratch, m, step, rows, past):
    """M at address m -> tiles first .. last-1 of y = A^T M A."""
    _, h, w, f = y.shape
    area = scratch.ctypes.data
    for tile in range(first, last):
        n, rest = tile // (across * down), tile % (across * down)
        row, column = 4 * (rest // across), 4 * (rest % across)
        high, wide = min(4, h - row), min(4, w - column)
        source = m + 4 * LANES * (tile - first)
        target = y.ctypes.data + 4 * (((n * h + row) * w + column) * f)
        for k in range(0, f, LANES):
            for j in range(6):
                r = output_transform(*column6(source, k * rows + j * step, 6 * step))
                put4(area, j * LANES, 6 * LANES, r, False)
            for i in range(high):
                r = output_transform(*column6(area, 6 * i * LANES, LANES))
                at = i * w * f + k
                if wide == 4:
                    put4(target, at, f, r, past)
                else:
                    store(target, at, r[0])
                    if wide > 1:
                        store(target, at + f, r[1])
                    if wide > 2:
                        store(target, at + 2 * f, r[2])


@jit
def transform_gradients(dy, first, last, across, down, zeros, scratch, m, step, rows):
    """Tiles first .. last-1 of dy -> dM = A dy A^T at address m."""
    _, h, w, f = dy.shape
    area, nothing = scratch.ctypes.data, zeros.ctypes.data
    outside = fill(np.float32(0))
    for tile in range(first, last):
        n, rest = tile // (across * down), tile % (across * down)
        row, column = 4 * (rest // across), 4 * (rest % across)
        wide = min(4, w - column)
        r0, line = dy.ctypes.data + 4 * (((n * h + row) * w + column) * f), 4 * w * f
        r1 = r0 + line if row + 1 < h else nothing
        r2 = r0 + 2 * line if row + 2 < h else nothing
        r3 = r0 + 3 * line if row + 3 < h else nothing
        target = m + 4 * LANES * (tile - first)
        for k in range(0, f, LANES):
            for j in range(4):
                if j < wide:
                    q = j * f + k
                    r = output_adjoint(load(r0, q), load(r1, q), load(r2, q), load(r3, q))
                    put6(area, j * LANES, 4 * LANES, r)
                else:
                    put6(area, j * LANES, 4 * LANES, (outside, outside, outside, outside, outside, outside))
            for i in range(6):
                r = output_adjoint(*column4(area, 4 * i * LANES, LANES))
                put6(target, 6 * i * step + k * rows, step, r)
