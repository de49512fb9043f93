"""Depthwise convolution: each channel by itself, so channels are the lanes of a vector and taps are a loop.

    forward   y[o]  = b + sum over taps of   x[o s + t d - p] w[t]
    input     dx[o] =     sum over taps of   dy[(o + p - t d) / s] w[t]     where s divides
    kernel    dw[t] =     sum over pixels of x[o s + t d - p] dy[o]

A number that is read has as few as nine products, so memory counts: each array is read from it once and written once.
The lines of an image that a line of results needs lie in a ring with their borders, and with zeros that fill vectors of
channels: a line is copied into it once, and from then on nothing has an edge.

Forward and input are one kernel.  Results whose number leaves the same remainder by the stride have the same taps at
the same distances, so four of them are computed together, and a tap's weights are loaded once for the four.  Forward
there is one remainder, and where there are three columns of taps beside each other, a pixel is loaded once for all
results that it is in.
"""

from functools import lru_cache

import numpy as np

from gpucnn.kernels.cpu.engine.allocator import empty, streams
from gpucnn.kernels.cpu.engine.compile import jit
from gpucnn.kernels.cpu.engine.simd import LANES, load, put, store
from gpucnn.kernels.cpu.engine.threads import SHARDS, parallel
from gpucnn.types import Array, Padding, Pair, Shape

BLOCK = 4  # results beside each other that are computed together
NOWHERE = -(1 << 40)  # the place of a tap that a result does not have
IMAGE = 1 << 32  # more lines than an image has with its borders


@lru_cache(maxsize=512)
def axis_taps(size: int, results: int, k: int, s: int, before: int, d: int, back: bool) -> tuple[Array, int, int, int]:
    """The taps of results along one axis of an image with ``size`` pixels, by the remainder of the result's number.

    Returns:
        places: (remainders, k): the pixel under tap t of result r + remainders * b is ``step`` b + places[r, t], or
            ``NOWHERE``.
        step: pixels from one b to the next.
        border: zeros in front of the image.
        width: of the image with zeros at both ends, as far as a block of results may reach.
    """
    remainders, step = (s, 1) if back else (1, s)
    places = np.full((remainders, k), NOWHERE, np.int64)
    for r in range(remainders):
        for t in range(k):
            if not back:
                places[r, t] = t * d - before
            elif (r + before - t * d) % s == 0:
                places[r, t] = (r + before - t * d) // s
    there = places[places != NOWHERE]
    low, high = (int(there.min()), int(there.max())) if there.size else (0, 0)
    border = max(0, -low)
    reach = high + step * max(-(-results // remainders), BLOCK)
    return places, step, border, border + max(size, reach)


@jit
def _copy_line(x, one, row, border, line):
    """Row ``row`` of image ``one`` of x (N,H,W,C) to a line (W+,C+) behind its border; zeros where there is no row."""
    _, h, w, c = x.shape
    if 0 <= row < h:
        if c == line.shape[1]:
            source, target = x[one, row].ctypes.data, line[border].ctypes.data
            for k in range(0, w * c, LANES):
                store(target, k, load(source, k))
        else:
            for j in range(w):
                for k in range(c):
                    line[border + j, k] = x[one, row, j, k]
    else:
        line[border : border + w] = 0


@jit
def _hold_lines(x, one, i, rows, row_step, border, kw, ring, held, row_places, row_factors):
    """Have the lines under result i's taps in the ring: where they and their weights begin; how many there are."""
    kinds, kh = rows.shape
    there = 0
    for m in range(kh):
        if rows[i % kinds, m] == NOWHERE:
            continue
        row = i // kinds * row_step + rows[i % kinds, m]
        slot, number = row % ring.shape[0], one * IMAGE + row
        if held[slot] != number:
            _copy_line(x, one, row, border, ring[slot])
            held[slot] = number
        row_places[there], row_factors[there] = slot * ring.shape[1] * ring.shape[2], m * kw * ring.shape[2]
        there += 1
    return there


@jit
def _gather(first, last, x, w, bias, rows, row_step, columns, step, border, near, rings, spare, past, y):
    """x (N,H,W,C), w (taps,C+), bias (C+,) -> y (N,H',W',C); rows and columns are as ``axis_taps`` makes them.

    ``near``: there are three columns, beside each other, for results that are beside each other too.
    """
    n, down, across, c = y.shape
    ring, some = rings[first], spare[first]
    ring[:] = 0
    lanes = ring.shape[2]
    kinds, kw = columns.shape
    held, row_places, row_factors = np.full(ring.shape[0], -IMAGE, np.int64), rows[0].copy(), rows[0].copy()
    places, factors = np.empty(rows.shape[1] * kw, np.int64), np.empty(rows.shape[1] * kw, np.int64)
    x_at, w_at, bias_at, some_at = ring.ctypes.data, w.ctypes.data, bias.ctypes.data, some.ctypes.data
    next_, apart = step * lanes, kinds * c
    for line in range(n * down * first // SHARDS, n * down * last // SHARDS):
        one, i = line // down, line % down
        there = _hold_lines(x, one, i, rows, row_step, border, kw, ring, held, row_places, row_factors)
        y_at = y[one, i].ctypes.data
        for kind in range(kinds):
            count, taps = (across - kind + kinds - 1) // kinds, 0
            for r in range(there):
                for tap in range(kw):
                    if columns[kind, tap] != NOWHERE:
                        places[taps] = row_places[r] + (border + columns[kind, tap]) * lanes
                        factors[taps] = row_factors[r] + tap * lanes
                        taps += 1
            for block in range(0, count, BLOCK):
                b = max(0, min(block, count - BLOCK))  # the last block begins earlier and computes some results again
                results, from_, to = min(count, BLOCK), b * next_, (kind + kinds * b) * c
                for k in range(0, lanes, LANES):
                    y0 = load(bias_at, k)
                    y1, y2, y3 = y0, y0, y0
                    if near:
                        for r in range(there):
                            at, factor = places[3 * r] + from_ + k, row_factors[r] + k
                            f0, f1 = load(w_at, factor), load(w_at, factor + lanes)
                            f2 = load(w_at, factor + 2 * lanes)
                            y0 = y0 + f0 * load(x_at, at)
                            p = load(x_at, at + lanes)
                            y0 = y0 + f1 * p
                            y1 = y1 + f0 * p
                            p = load(x_at, at + 2 * lanes)
                            y0 = y0 + f2 * p
                            y1 = y1 + f1 * p
                            y2 = y2 + f0 * p
                            p = load(x_at, at + 3 * lanes)
                            y1 = y1 + f2 * p
                            y2 = y2 + f1 * p
                            y3 = y3 + f0 * p
                            p = load(x_at, at + 4 * lanes)
                            y2 = y2 + f2 * p
                            y3 = y3 + f1 * p
                            y3 = y3 + f2 * load(x_at, at + 5 * lanes)
                    else:
                        for t in range(taps):
                            f, at = load(w_at, factors[t] + k), places[t] + from_ + k
                            y0 = y0 + f * load(x_at, at)
                            y1 = y1 + f * load(x_at, at + next_)
                            y2 = y2 + f * load(x_at, at + 2 * next_)
                            y3 = y3 + f * load(x_at, at + 3 * next_)
                    if results == BLOCK and k + LANES <= c:
                        put(y_at, to + k, y0, past)
                        put(y_at, to + apart + k, y1, past)
                        put(y_at, to + 2 * apart + k, y2, past)
                        put(y_at, to + 3 * apart + k, y3, past)
                    else:  # results or channels that are not there
                        store(some_at, 0, y0)
                        store(some_at, LANES, y1)
                        store(some_at, 2 * LANES, y2)
                        store(some_at, 3 * LANES, y3)
                        for q in range(results):
                            for lane in range(min(LANES, c - k)):
                                y[one, i, kind + kinds * (b + q), k + lane] = some[q * LANES + lane]


@jit
def _weight_grad(first, last, dy, x, rows, row_step, columns, step, border, near, rings, lines, parts, images):
    """dy (N,H',W',C), x (N,H,W,C) -> parts (SHARDS,taps,C+), each shard's sums.

    A block's sums are added to its image's, in images (SHARDS,taps,C+), and those to the shard's: float32 adds as few
    numbers one after the other as it can.  ``lines`` has room for a line of dy with zeros that fill vectors.
    """
    n, down, across, _ = dy.shape
    ring = rings[first]
    ring[:] = 0
    kw, lanes, taps = columns.shape[1], ring.shape[2], rows.shape[1] * columns.shape[1]
    held, row_places, row_factors = np.full(ring.shape[0], -IMAGE, np.int64), rows[0].copy(), rows[0].copy()
    places = np.empty(taps, np.int64)
    x_at, next_, filled = ring.ctypes.data, step * lanes, lines.shape[1] > 0
    if filled:
        lines[first] = 0
    for shard in range(first, last):
        sums, all_sums = images[shard], parts[shard]
        sums[:] = 0
        all_sums[:] = 0
        sums_at, end = sums.ctypes.data, n * down * (shard + 1) // SHARDS
        for line in range(n * down * shard // SHARDS, end):
            one, i = line // down, line % down
            there = _hold_lines(x, one, i, rows, row_step, border, kw, ring, held, row_places, row_factors)
            dy_at = dy[one, i].ctypes.data
            if filled:
                _copy_line(dy, one, i, 0, lines[first])
                dy_at = lines[first].ctypes.data
            for r in range(there):
                for tap in range(kw):
                    places[r * kw + tap] = row_places[r] + (border + columns[0, tap]) * lanes
            for j in range(0, across - BLOCK + 1, BLOCK):
                for k in range(0, lanes, LANES):
                    at = j * lanes + k
                    d0, d1 = load(dy_at, at), load(dy_at, at + lanes)
                    d2, d3 = load(dy_at, at + 2 * lanes), load(dy_at, at + 3 * lanes)
                    if near:
                        for r in range(there):
                            at, sum_ = places[3 * r] + j * lanes + k, 3 * r * lanes + k
                            p1, p2, p3 = load(x_at, at + lanes), load(x_at, at + 2 * lanes), load(x_at, at + 3 * lanes)
                            a = load(sums_at, sum_) + d0 * load(x_at, at)
                            b = load(sums_at, sum_ + lanes) + d0 * p1
                            e = load(sums_at, sum_ + 2 * lanes) + d0 * p2
                            p4, p5 = load(x_at, at + 4 * lanes), load(x_at, at + 5 * lanes)
                            a = a + d1 * p1
                            b = b + d1 * p2
                            e = e + d1 * p3
                            a = a + d2 * p2
                            b = b + d2 * p3
                            e = e + d2 * p4
                            store(sums_at, sum_, a + d3 * p3)
                            store(sums_at, sum_ + lanes, b + d3 * p4)
                            store(sums_at, sum_ + 2 * lanes, e + d3 * p5)
                    else:
                        for t in range(taps):
                            at, sum_ = places[t] + j * next_ + k, t * lanes + k
                            a = load(sums_at, sum_) + d0 * load(x_at, at)
                            a = a + d1 * load(x_at, at + next_)
                            a = a + d2 * load(x_at, at + 2 * next_)
                            store(sums_at, sum_, a + d3 * load(x_at, at + 3 * next_))
            for j in range(across // BLOCK * BLOCK, across):
                for k in range(0, lanes, LANES):
                    d0 = load(dy_at, j * lanes + k)
                    for t in range(taps):
                        sum_ = t * lanes + k
                        store(sums_at, sum_, load(sums_at, sum_) + d0 * load(x_at, places[t] + j * next_ + k))
            if i == down - 1 or line == end - 1:
                for t in range(taps):
                    for k in range(lanes):
                        all_sums[t, k] += sums[t, k]
                        sums[t, k] = 0


@jit
def _finish(parts, dw):
    """Parts (SHARDS,taps,C+), added in order -> dw (C,taps)."""
    c, taps = dw.shape
    for k in range(c):
        for t in range(taps):
            total = parts[0, t, k]
            for shard in range(1, SHARDS):
                total += parts[shard, t, k]
            dw[k, t] = total


def beside(columns: Array, step: int) -> bool:
    """Whether there are three columns of taps, beside each other, and so are the pixels under neighbouring results."""
    return columns.shape == (1, 3) and step == 1 and bool((np.diff(columns[0]) == 1).all())


def whole(channels: int) -> int:
    """So many channels, and those that fill the last vector."""
    return -(-channels // LANES) * LANES


def _run(
    x: Array, w: Array, b: Array | None, y_shape: Shape, stride: Pair, padding: Padding, dilation: Pair, back: bool
) -> Array:
    """x (N,H,W,C), w (C,KH,KW,1) -> y of ``y_shape``: the convolution, or where ``back`` its transpose."""
    c, kh, kw, _ = w.shape
    sizes = zip(x.shape[1:3], y_shape[1:3], (kh, kw), stride, padding, dilation, strict=True)
    along = [axis_taps(size, results, k, s, before, d, back) for size, results, k, s, (before, _), d in sizes]
    (rows, row_step, _, _), (columns, step, border, width) = along
    lanes = whole(c)
    taps, bias = np.zeros((kh * kw, lanes), np.float32), np.zeros(lanes, np.float32)
    taps[:, :c] = w.reshape(c, -1).T
    if b is not None:
        bias[:c] = b
    rings = empty((SHARDS, dilation[0] * (kh - 1) + 1, width, lanes))
    y, spare = empty(y_shape), empty((SHARDS, BLOCK * LANES))
    where = (rows, row_step, columns, step, border, beside(columns, step), rings, spare)
    past = streams(y) and c == lanes
    parallel(_gather, np.ascontiguousarray(x), taps, bias, *where, past, y, work=kh * kw * max(x.size, y.size))
    return y


def forward(
    x: Array, w: Array, b: Array | None, size: Pair, stride: Pair, padding: Padding, dilation: Pair
) -> Array:  # fmt: skip
    """x (N,H,W,C), w (C,KH,KW,1), b (C,) or None -> y (N,*size,C)."""
    return _run(x, w, b, (x.shape[0], *size, x.shape[3]), stride, padding, dilation, False)


def input_grad(dy: Array, w: Array, x_shape: Shape, stride: Pair, padding: Padding, dilation: Pair) -> Array:
    """dy (N,H',W',C), w (C,KH,KW,1) -> dx of ``x_shape``."""
    if stride == (1, 1):  # a convolution with the kernel turned round
        kernel = zip(w.shape[1:3], padding, dilation, strict=True)
        above, left = (((k - 1) * d - before, 0) for k, (before, _), d in kernel)
        return _run(dy, w[:, ::-1, ::-1], None, x_shape, stride, (above, left), dilation, False)
    return _run(dy, w, None, x_shape, stride, padding, dilation, True)


def weight_grad(dy: Array, x: Array, w_shape: Shape, stride: Pair, padding: Padding, dilation: Pair) -> Array:
    """dy (N,H',W',C), x (N,H,W,C) -> dw of ``w_shape`` (C,KH,KW,1)."""
    c, kh, kw, _ = w_shape
    sizes = zip(x.shape[1:3], dy.shape[1:3], (kh, kw), stride, padding, dilation, strict=True)
    along = [axis_taps(size, results, k, s, before, d, False) for size, results, k, s, (before, _), d in sizes]
    (rows, row_step, _, _), (columns, step, border, width) = along
    lanes = whole(c)
    parts, images = (empty((SHARDS, kh * kw, lanes)) for _ in range(2))
    rings = empty((SHARDS, dilation[0] * (kh - 1) + 1, width, lanes))
    lines = empty((SHARDS, 0 if c == lanes else dy.shape[2], lanes))
    where = (rows, row_step, columns, step, border, beside(columns, step), rings, lines)
    dy, x = np.ascontiguousarray(dy), np.ascontiguousarray(x)
    parallel(_weight_grad, dy, x, *where, parts, images, work=kh * kw * dy.size)
    dw = np.empty((c, kh * kw), np.float32)
    _finish(parts, dw)
    return dw.reshape(w_shape)
