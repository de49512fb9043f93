"""Depthwise convolution: each channel by itself, so channels are the lanes of a vector and taps are a loop.

    forward   y[o]  = b + sum over taps of   x[o s + t d - p] w[t]
    input     dx[o] =     sum over taps of   dy[(o + p - t d) / s] w[t]     where s divides
    kernel    dw[t] =     sum over pixels of x[o s + t d - p] dy[o]

There are as few products as two for a number that is read, so what counts is memory: every array is read once from it
(a line of windows finds its other lines in the caches) and written once, and nothing is laid out.  Forward and input are
one kernel.  Results whose number leaves the same remainder by the stride have the same taps, at the same distances, so
four of them are computed together and a tap's weights are loaded once for the four.  (Forward there is one remainder.)
Where channels fill no vector, the last one begins earlier and computes some channels again.
"""

from functools import lru_cache

import numpy as np

from gpucnn.kernels.cpu.engine.allocator import empty, streams
from gpucnn.kernels.cpu.engine.compile import jit
from gpucnn.kernels.cpu.engine.simd import LANES, fill, load, put, store
from gpucnn.kernels.cpu.engine.threads import SHARDS, parallel
from gpucnn.types import Array, Padding, Pair, Shape

BLOCK = 4  # results beside each other that are computed together
NOWHERE = -(1 << 40)  # the place of a tap that a result does not have


@lru_cache(maxsize=512)
def axis_taps(size: int, results: int, k: int, s: int, before: int, d: int, back: bool) -> tuple[Array, Array, int]:
    """The taps of results along one axis of an image with ``size`` pixels, by the remainder of the result's number.

    Returns:
        places: (remainders, k): the pixel under tap t of result r + remainders * b is ``step`` b + places[r, t], or
            ``NOWHERE``.
        inside: (remainders, 2): first b, and first b behind, whose taps are all inside of the image.
        step: pixels from one b to the next.
    """
    remainders, step = (s, 1) if back else (1, s)
    places = np.full((remainders, k), NOWHERE, np.int64)
    inside = np.zeros((remainders, 2), np.int64)
    for r in range(remainders):
        for t in range(k):
            if not back:
                places[r, t] = t * d - before
            elif (r + before - t * d) % s == 0:
                places[r, t] = (r + before - t * d) // s
        there = places[r][places[r] != NOWHERE]
        count = max(0, -(-(results - r) // remainders))
        low, high = (there.min(), there.max()) if there.size else (0, 0)
        first = min(count, max(0, -(low // step)))
        inside[r] = first, max(first, min(count, (size - 1 - high) // step + 1))
    return places, inside, step


@jit
def _gather(first, last, x, w, bias, rows, row_step, columns, column_step, inside, past, y):
    """x (N,H,W,C), w (taps,C), bias (C,) -> y (N,H',W',C); rows and columns are as ``axis_taps`` makes them."""
    n, down, across, c = y.shape
    _, h, wide, _ = x.shape
    row_kinds, kh = rows.shape
    kinds, kw = columns.shape
    factors, places, at_column = np.empty(kh * kw, np.int64), np.empty(kh * kw, np.int64), np.empty(kh * kw, np.int64)
    w_at, bias_at = w.ctypes.data, bias.ctypes.data
    for line in range(n * down * first // SHARDS, n * down * last // SHARDS):
        one, i = line // down, line % down
        x_at, y_at = x[one].ctypes.data, y[one, i].ctypes.data
        for kind in range(kinds):
            taps = 0
            for m in range(kh):
                row = i // row_kinds * row_step + rows[i % row_kinds, m]
                if 0 <= row < h:
                    for tap in range(kw):
                        if columns[kind, tap] != NOWHERE:
                            factors[taps] = (m * kw + tap) * c
                            at_column[taps] = columns[kind, tap]
                            places[taps] = (row * wide + columns[kind, tap]) * c
                            taps += 1
            count = (across - kind + kinds - 1) // kinds
            start, stop = inside[kind, 0], inside[kind, 1]
            b = 0
            while b < count:
                at, to, step, next_ = b * column_step * c, (kind + kinds * b) * c, column_step * c, kinds * c
                if c < LANES:
                    for k in range(c):
                        total = bias[k]
                        for t in range(taps):
                            column = b * column_step + at_column[t]
                            if 0 <= column < wide:
                                row = (places[t] // c - at_column[t]) // wide
                                total += x[one, row, column, k] * w[factors[t] // c, k]
                        y[one, i, kind + kinds * b, k] = total
                    b += 1
                elif start <= b and b + BLOCK <= stop:
                    for v in range(0, c, LANES):
                        k = min(v, c - LANES)
                        y0 = load(bias_at, k)
                        y1, y2, y3 = y0, y0, y0
                        for t in range(taps):
                            factor, here = load(w_at, factors[t] + k), places[t] + at + k
                            y0 = y0 + factor * load(x_at, here)
                            y1 = y1 + factor * load(x_at, here + step)
                            y2 = y2 + factor * load(x_at, here + 2 * step)
                            y3 = y3 + factor * load(x_at, here + 3 * step)
                        put(y_at, to + k, y0, past)
                        put(y_at, to + next_ + k, y1, past)
                        put(y_at, to + 2 * next_ + k, y2, past)
                        put(y_at, to + 3 * next_ + k, y3, past)
                    b += BLOCK
                else:
                    for v in range(0, c, LANES):
                        k = min(v, c - LANES)
                        y0 = load(bias_at, k)
                        for t in range(taps):
                            column = b * column_step + at_column[t]
                            if 0 <= column < wide:
                                y0 = y0 + load(w_at, factors[t] + k) * load(x_at, places[t] + at + k)
                        put(y_at, to + k, y0, past)
                    b += 1


@jit
def _weight_grad(first, last, dy, x, rows, row_step, columns, column_step, parts):
    """dy (N,H',W',C), x (N,H,W,C) -> parts (SHARDS,taps,C+), each shard's sums; the last vector begins where it fits.

    A line's sums are added to those of the lines before it: float32 adds as few numbers one after the other as it can.
    """
    n, down, across, c = dy.shape
    _, h, wide, _ = x.shape
    kh, kw = rows.shape[1], columns.shape[1]
    low, high = np.empty(kw, np.int64), np.empty(kw, np.int64)
    for tap in range(kw):
        low[tap] = min(across, max(0, -(columns[0, tap] // column_step)))
        high[tap] = max(low[tap], min(across, (wide - 1 - columns[0, tap]) // column_step + 1))
    step, none = column_step * c, fill(np.float32(0))
    for shard in range(first, last):
        sums = parts[shard]
        sums[:] = 0
        sums_at, lanes = sums.ctypes.data, sums.shape[1]
        for line in range(n * down * shard // SHARDS, n * down * (shard + 1) // SHARDS):
            one, i = line // down, line % down
            for m in range(kh):
                row = i * row_step + rows[0, m]
                if row < 0 or row >= h:
                    continue
                if c < LANES:
                    for tap in range(kw):
                        for j in range(low[tap], high[tap]):
                            for k in range(c):
                                sums[m * kw + tap, k] += (
                                    dy[one, i, j, k] * x[one, row, j * column_step + columns[0, tap], k]
                                )
                    continue
                x_at, dy_at = x[one, row].ctypes.data, dy[one, i].ctypes.data
                for v in range(0, c, LANES):
                    k = min(v, c - LANES)
                    tap = 0
                    while tap < kw:
                        start = stop = low[tap]
                        three = tap + 2 < kw
                        if three:
                            start = max(low[tap], low[tap + 1], low[tap + 2])
                            stop = max(start, min(high[tap], high[tap + 1], high[tap + 2]))
                            a0, a1, a2, b0, b1, b2 = none, none, none, none, none, none
                            p0 = columns[0, tap] * c + k
                            p1, p2 = columns[0, tap + 1] * c + k, columns[0, tap + 2] * c + k
                            pairs = start + (stop - start) // 2 * 2
                            for j in range(start, pairs, 2):
                                d, e, at = load(dy_at, j * c + k), load(dy_at, j * c + c + k), j * step
                                a0 = a0 + d * load(x_at, at + p0)
                                a1 = a1 + d * load(x_at, at + p1)
                                a2 = a2 + d * load(x_at, at + p2)
                                b0 = b0 + e * load(x_at, at + step + p0)
                                b1 = b1 + e * load(x_at, at + step + p1)
                                b2 = b2 + e * load(x_at, at + step + p2)
                            a0, a1, a2 = a0 + b0, a1 + b1, a2 + b2
                            if pairs < stop:
                                d, at = load(dy_at, pairs * c + k), pairs * step
                                a0 = a0 + d * load(x_at, at + p0)
                                a1 = a1 + d * load(x_at, at + p1)
                                a2 = a2 + d * load(x_at, at + p2)
                            place = (m * kw + tap) * lanes + v
                            store(sums_at, place, load(sums_at, place) + a0)
                            store(sums_at, place + lanes, load(sums_at, place + lanes) + a1)
                            store(sums_at, place + 2 * lanes, load(sums_at, place + 2 * lanes) + a2)
                        for single in range(tap, tap + 3 if three else tap + 1):
                            total, p = none, columns[0, single] * c + k
                            for j in range(low[single], min(start, high[single])):
                                total = total + load(dy_at, j * c + k) * load(x_at, j * step + p)
                            for j in range(max(stop, low[single]), high[single]):
                                total = total + load(dy_at, j * c + k) * load(x_at, j * step + p)
                            place = (m * kw + single) * lanes + v
                            store(sums_at, place, load(sums_at, place) + total)
                        tap += 3 if three else 1


@jit
def _finish(parts, dw):
    """Parts (SHARDS,taps,C+), added in order -> dw (C,taps)."""
    c, taps = dw.shape
    for k in range(c):
        start = k // LANES * LANES
        lane = k - start + max(0, start + LANES - c) if c >= LANES else k
        for t in range(taps):
            total = np.float32(0)
            for shard in range(SHARDS):
                total += parts[shard, t, start + lane if c >= LANES else k]
            dw[k, t] = total


def _run(
    x: Array, w: Array, b: Array | None, y_shape: Shape, stride: Pair, padding: Padding, dilation: Pair, back: bool
) -> Array:
    """x (N,H,W,C), w (C,KH,KW,1) -> y of ``y_shape``: the convolution, or where ``back`` its transpose."""
    c, kh, kw, _ = w.shape
    sizes = zip(x.shape[1:3], y_shape[1:3], (kh, kw), stride, padding, dilation, strict=True)
    along = [axis_taps(size, results, k, s, before, d, back) for size, results, k, s, (before, _), d in sizes]
    (rows, _, row_step), (columns, inside, column_step) = along
    taps = np.ascontiguousarray(w.reshape(c, -1).T)  # (KH*KW, C)
    bias = np.zeros(c, np.float32) if b is None else np.ascontiguousarray(b)
    y = empty(y_shape)
    past = streams(y) and c % LANES == 0
    where = (rows, row_step, columns, column_step, inside)
    parallel(_gather, np.ascontiguousarray(x), taps, bias, *where, past, y, work=kh * kw * max(x.size, y.size))
    return y


def forward(
    x: Array, w: Array, b: Array | None, size: Pair, stride: Pair, padding: Padding, dilation: Pair
) -> Array:  # fmt: skip
    """x (N,H,W,C), w (C,KH,KW,1), b (C,) or None -> y (N,*size,C)."""
    return _run(x, w, b, (x.shape[0], *size, x.shape[3]), stride, padding, dilation, False)


def input_grad(dy: Array, w: Array, x_shape: Shape, stride: Pair, padding: Padding, dilation: Pair) -> Array:
    """dy (N,H',W',C), w (C,KH,KW,1) -> dx of ``x_shape``."""
    return _run(dy, w, None, x_shape, stride, padding, dilation, True)


def weight_grad(dy: Array, x: Array, w_shape: Shape, stride: Pair, padding: Padding, dilation: Pair) -> Array:
    """dy (N,H',W',C), x (N,H,W,C) -> dw of ``w_shape`` (C,KH,KW,1)."""
    c, kh, kw, _ = w_shape
    sizes = zip(x.shape[1:3], dy.shape[1:3], (kh, kw), stride, padding, dilation, strict=True)
    along = [axis_taps(size, results, k, s, before, d, False) for size, results, k, s, (before, _), d in sizes]
    (rows, _, row_step), (columns, _, column_step) = along
    parts = empty((SHARDS, kh * kw, -(-c // LANES) * LANES))
    dy, x = np.ascontiguousarray(dy), np.ascontiguousarray(x)
    parallel(_weight_grad, dy, x, rows, row_step, columns, column_step, parts, work=kh * kw * dy.size)
    dw = np.empty((c, kh * kw), np.float32)
    _finish(parts, dw)
    return dw.reshape(w_shape)
