"""Convolutions of any shape, directly: the windows are multiplied where they lie.

    forward   y[pixel, :]       = b + sum over taps of  x[pixel + tap] w[tap, :]
    kernel    dw[tap, :]       += sum over pixels of    x[pixel + tap] dy[pixel, :]
    input     dx[pixel + tap]  += dy[pixel, :] w[:, tap]

Each is a product of panels (``engine/microkernel.py``) whose one factor is an image with its border, and offsets say
where its rows begin: so the windows, which a matrix product would want laid out, are never copied.  Filters are the
lanes of a vector forward and for the kernel, channels (or, where there are few, a whole line of the kernel) back to the
input.  Small images go several at a time, since a block of pixels may span them.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from gpucnn.kernels.cpu.engine.allocator import empty
from gpucnn.kernels.cpu.engine.compile import jit
from gpucnn.kernels.cpu.engine.microkernel import (
    OVERHANG,
    copy_rows,
    gather_rows,
    kind_of,
    lanes_of,
    overhang,
    pack_columns,
    scatter_rows,
    take_columns,
)
from gpucnn.kernels.cpu.engine.simd import LANES, load, store, transpose
from gpucnn.kernels.cpu.engine.threads import SHARDS, parallel
from gpucnn.types import Array, Padding, Pair, Shape

PIXELS = 256  # that a group of images has at least, where there are enough images
SMALL_SUM = 1 << 18  # numbers in a kernel's gradient: larger ones are summed in two parts instead of ``SHARDS``
ZEROS = np.zeros(LANES, np.float32)


@dataclass(frozen=True)
class Geometry:
    """Where things are in a group of padded images (group, height, width, C), in floats."""

    group: int
    height: int
    width: int
    pixels: Array  # the window of each output pixel of the group, and a few more
    columns: Array  # the numbers of the output pixels, down the columns of each image; and a few more
    taps: Array  # KH*KW*C places of a window, and a few more
    lines: Array  # KH places: the lines of a window
    points: Array  # KH*KW places: its pixels


@lru_cache(maxsize=256)
def geometry(
    n: int, image: Shape, size: Pair, kernel: Pair, stride: Pair, padding: Padding, c: int, dilation: Pair = (1, 1)
) -> Geometry:
    """For n images of shape ``image`` (H,W) that become ``size`` (H',W'), with c channels in the padded ones."""
    (h, w), (down, across), (kh, kw) = image, size, kernel
    (top, bottom), (left, right) = padding
    height, width = h + top + bottom, w + left + right
    most = max(1, min(PIXELS // (down * across), n // SHARDS))
    group = max(size for size in range(1, most + 1) if n % size == 0)
    places = (
        np.arange(group)[:, None, None] * (height * width)
        + np.arange(down)[:, None] * (stride[0] * width)
        + np.arange(across) * stride[1]
    )
    points = np.arange(kh)[:, None] * (dilation[0] * width) + np.arange(kw) * dilation[1]  # (KH,KW)
    taps = (c * points[:, :, None] + np.arange(c)).reshape(-1)
    spare = np.zeros(OVERHANG, np.int64)
    return Geometry(
        group,
        height,
        width,
        np.concatenate([c * places.reshape(-1), spare]),
        np.concatenate([np.arange(places.size).reshape(places.shape).swapaxes(1, 2).reshape(-1), spare]),
        np.concatenate([taps, spare]),
        c * points[:, 0].copy(),
        c * points.reshape(-1),
    )


@jit
def pad_images(x, start, stop, top, left, padded):
    """Images start .. stop - 1 of x with their borders, as padded (.., H+, W+, C); the borders are zero already."""
    _, h, w, c = x.shape
    for n in range(start, stop):
        for i in range(h):
            source = x[n, i].reshape(-1)
            target = padded[n - start, i + top].reshape(-1)[left * c : (left + w) * c]
            for k in range(w * c):
                target[k] = source[k]


@jit
def _pack(first, last, w, panels):
    """w (F,K) -> panels (P,K,lanes)."""
    count, _, lanes = panels.shape
    for p in range(count * first // SHARDS, count * last // SHARDS):
        pack_columns(w, p * lanes, min(lanes, w.shape[0] - p * lanes), panels[p])


@jit
def safe_rows(count, beyond, kind):
    """How many of ``count`` rows ``gather_rows`` may write where they lie, so that no row behind them is touched.

    It computes ``overhang`` rows more, and the lanes beyond the last column reach over ``beyond`` rows further.
    """
    rows = count - beyond
    while rows > 0 and rows + overhang(rows, kind) + beyond > count:
        rows -= 1
    return max(rows, 0)


@jit
def _forward(first, last, x, panels, bias, pixels, walk, top, left, padded, results, kind, y):
    """x (N,H,W,C), panels (P,taps,lanes), bias (P,lanes) -> y (N,H',W',F); padded is (SHARDS,0,..) without a border."""
    n, down, across, f = y.shape
    count, taps, lanes = panels.shape
    some = pixels.size - OVERHANG  # of a group
    groups = n * down * across // some
    rows, out = y.reshape(-1, f), results[first]
    border = padded.shape[1] > 0
    if border:
        padded[first] = 0
    held = -1
    for item in range(groups * count * first // SHARDS, groups * count * last // SHARDS):
        group, panel = item // count, item % count
        start, stop = n * group // groups, n * (group + 1) // groups
        at = np.int64(x[start].ctypes.data)
        if border:
            if held != group:
                pad_images(x, start, stop, top, left, padded[first])
                held = group
            at = np.int64(padded[first].ctypes.data)
        row, column = some * group, panel * lanes
        width = min(lanes, f - column)
        place = y.ctypes.data + 4 * (row * f + column)
        # what would be written beyond the group or beyond its filters goes elsewhere first
        tail = some - safe_rows(some, -(-(lanes - width) // f), kind) if width == lanes or count == 1 else some
        windows, steps = np.int64(pixels.ctypes.data), np.int64(walk.ctypes.data)
        factor, offset, none = np.int64(panels[panel].ctypes.data), np.int64(bias[panel].ctypes.data), np.int64(0)
        gather_rows(at, windows, steps, taps, some - tail, factor, lanes, offset, none, place, f, kind)
        if tail:
            windows += 8 * (some - tail)
            there = np.int64(out.ctypes.data)
            gather_rows(at, windows, steps, taps, tail, factor, lanes, offset, none, there, lanes, kind)
            copy_rows(out, tail, rows, row + some - tail, column, width)


@jit
def _weight_grad(first, last, dy, x, taps, pixels, top, left, padded, grads, zeros, kind, parts):
    """dy (N,H',W',F), x (N,H,W,C) -> parts (parts,P,taps,lanes), sums over some of the images each."""
    n, down, across, f = dy.shape
    sums, count, _, lanes = parts.shape
    some = pixels.size - OVERHANG  # of a group
    groups = n * down * across // some
    rows, copied = dy.reshape(-1, f), grads[first]
    border = padded.shape[1] > 0
    if border:
        padded[first] = 0
    begin, end = sums * count * first // SHARDS, sums * count * last // SHARDS
    for part in range(begin // count, -(-end // count)):
        low, high = max(begin - part * count, 0), min(end - part * count, count)
        fresh = groups * part // sums
        for group in range(fresh, groups * (part + 1) // sums):
            start, stop = n * group // groups, n * (group + 1) // groups
            at = np.int64(x[start].ctypes.data)
            if border:
                pad_images(x, start, stop, top, left, padded[first])
                at = np.int64(padded[first].ctypes.data)
            for panel in range(low, high):
                column = panel * lanes
                grad, step = np.int64(dy.ctypes.data) + 4 * (some * group * f + column), f
                if (some * (group + 1) - 1) * f + column + lanes > rows.size:  # nothing to read behind the last image
                    take_columns(rows[some * group :], column, min(lanes, f - column), copied)
                    grad, step = np.int64(copied.ctypes.data), lanes
                target = np.int64(parts[part, panel].ctypes.data)
                start_at, start_row = (np.int64(zeros.ctypes.data), 0) if group == fresh else (target, lanes)
                gather_rows(
                    at, np.int64(taps.ctypes.data), np.int64(pixels.ctypes.data), some, taps.size - OVERHANG,
                    grad, step, start_at, start_row, target, lanes, kind,
                )  # fmt: skip


@jit
def _finish(first, last, parts, scratch, dw):
    """Parts (parts,P,taps,lanes), added in order and turned -> dw (F,taps)."""
    sums, count, _, lanes = parts.shape
    f, taps = dw.shape
    area = scratch[first]
    for panel in range(count * first // SHARDS, count * last // SHARDS):
        row = panel * lanes
        some = min(lanes, f - row)
        for tap in range(0, taps, LANES):
            wide = min(LANES, taps - tap)
            for t in range(wide):
                for q in range(lanes):
                    total = parts[0, panel, tap + t, q]
                    for part in range(1, sums):
                        total += parts[part, panel, tap + t, q]
                    area[t, q] = total
            if some == wide == LANES:
                transpose(area.ctypes.data, LANES, dw.ctypes.data + 4 * (row * taps + tap), taps)
            else:
                for q in range(some):
                    for t in range(wide):
                        dw[row + q, tap + t] = area[t, q]


@jit
def _input_grad(first, last, dy, weights, slices, sources, targets, walk, top, left, padded, zeros, kind, dx):
    """dy (N,H',W',F), weights (slices,F,16 P), in whatever order -> dx (N,H,W,C).

    A slice is what every output pixel adds to the padded images at one place: a tap's channels or, where there are few,
    a line of the kernel.  In the first case each panel of channels has padded images of its own, or, where padded has
    no pixels, adds to dx where it lies.
    """
    n, down, across, f = dy.shape
    _, h, w, _ = dx.shape
    panels = weights.shape[2] // LANES
    c = padded.shape[4]
    apart = panels if c == LANES else 1
    group = padded.shape[1] - 1  # what blocks have beyond the last pixel goes to an image that nobody reads
    groups = n // group
    images = padded[first]
    inside = padded.shape[2] == 0
    for item in range(groups * apart * first // SHARDS, groups * apart * last // SHARDS):
        one, panel = item // apart, item % apart
        start = one * group
        base = np.int64(images.ctypes.data)
        if inside:
            base, step = np.int64(dx[start].ctypes.data) + 4 * panel * LANES, dx.shape[3]
            for pixel in range(group * h * w):
                store(base, pixel * step, load(zeros.ctypes.data, 0))
        else:
            images[:group] = 0
        for s in range(slices.size):
            for p in range(panel, panel + 1 if apart > 1 else panels):
                scatter_rows(
                    dy[start].ctypes.data, sources.ctypes.data, walk.ctypes.data, f, group * down * across,
                    weights[s].ctypes.data + 4 * p * LANES, weights.strides[1] // 4, zeros.ctypes.data,
                    base + 4 * (slices[s] + (p - panel) * LANES), targets.ctypes.data, kind,
                )  # fmt: skip
        if inside:
            continue
        for image in range(start, start + group):
            for i in range(h):
                line, out = images[image - start, top + i].reshape(-1), dx[image, i]
                if apart == 1:
                    flat = out.reshape(-1)
                    for k in range(w * c):
                        flat[k] = line[left * c + k]
                else:
                    for j in range(w):
                        store(out.ctypes.data, j * out.shape[1] + panel * c, load(line.ctypes.data, (left + j) * c))


def _padded(g: Geometry, c: int, padding: Padding) -> Array:
    """Room for a group of images with their borders per shard; none where an image is read where it lies."""
    if padding == ((0, 0), (0, 0)):
        return np.empty((SHARDS, 0, 0, 0, 0), np.float32)
    return empty((SHARDS, g.group, g.height, g.width, c))


def _panels(w: Array) -> Array:
    """w (F,...) -> panels (P,K,lanes), of eight lanes where they are enough."""
    f = len(w)
    lanes = lanes_of(f)
    panels = empty((-(-f // lanes), w[0].size, lanes))
    parallel(_pack, w.reshape(f, -1), panels, work=2 * w.size)
    return panels


def forward(
    x: Array, w: Array, b: Array | None, stride: Pair, padding: Padding, size: Pair, dilation: Pair = (1, 1)
) -> Array:
    """x (N,H,W,C), w (F,KH,KW,C) -> y (N,*size,F)."""
    n, h, width, c = x.shape
    f, kh, kw, _ = w.shape
    g = geometry(n, (h, width), size, (kh, kw), stride, padding, c, dilation)
    panels = _panels(w)
    bias = np.zeros(panels.shape[::2], np.float32)
    if b is not None:
        bias.reshape(-1)[:f] = b
    y = empty((n, *size, f))
    results = empty((SHARDS, g.pixels.size, panels.shape[2]))
    corner = padding[0][0], padding[1][0]
    parallel(_forward, x, panels, bias, g.pixels, g.taps, *corner, _padded(g, c, padding), results, kind_of(f), y)
    return y


def weight_grad(dy: Array, x: Array, w_shape: Shape, stride: Pair, padding: Padding, dilation: Pair = (1, 1)) -> Array:
    """dy (N,H',W',F), x (N,H,W,C) -> dw (F,KH,KW,C)."""
    n, h, width, c = x.shape
    f, kh, kw, _ = w_shape
    taps, lanes = kh * kw * c, lanes_of(f)
    g = geometry(n, (h, width), dy.shape[1:3], (kh, kw), stride, padding, c, dilation)
    sums = min(-(-n // g.group), SHARDS if taps * f < SMALL_SUM else 2)
    parts = empty((sums, -(-f // lanes), taps + OVERHANG, lanes))
    grads = empty((SHARDS, g.pixels.size - OVERHANG, lanes))
    corner, padded = (padding[0][0], padding[1][0]), _padded(g, c, padding)
    parallel(_weight_grad, dy, x, g.taps, g.pixels, *corner, padded, grads, ZEROS, kind_of(f), parts)
    dw = empty((f, taps))
    parallel(_finish, parts, empty((SHARDS, LANES, lanes)), dw, work=parts.size)
    return dw.reshape(w_shape)


def input_grad(dy: Array, w: Array, x_shape: Shape, stride: Pair, padding: Padding, dilation: Pair = (1, 1)) -> Array:
    """dy (N,H',W',F), w (F,KH,KW,C) -> dx of ``x_shape``; with dilation C has to fill vectors."""
    n, h, width, c = x_shape
    f, kh, kw, _ = w.shape
    by_tap = c % LANES == 0
    slices, per, own = (kh * kw, c, LANES) if by_tap else (kh, kw * c, c)
    columns = -(-per // LANES) * LANES
    # zeros beyond the last column are added too: an image has lines for them at its end
    spare = 0 if by_tap else 1 + columns // ((width + sum(padding[1])) * own)
    (top, bottom), sides = padding
    g = geometry(n, (h, width), dy.shape[1:3], (kh, kw), stride, ((top, bottom + spare), sides), own, dilation)
    kind, pixels = kind_of(LANES), g.pixels.size - OVERHANG
    inside = by_tap and padding == ((0, 0), (0, 0)) and overhang(pixels, kind) == 0
    if inside:
        g = geometry(n, (h, width), dy.shape[1:3], (kh, kw), stride, padding, c, dilation)
    weights = w.reshape(f, slices, per).swapaxes(0, 1)  # (slices,F,per), where w lies
    if columns > per:
        weights = np.zeros((slices, f, columns), np.float32)
        weights[:, :, :per] = w.reshape(f, slices, per).swapaxes(0, 1)
    padded = empty((SHARDS, g.group + 1, 0 if inside else g.height, g.width, own))
    # pixels beside each other would overlap where a slice is a line, pixels below each other do not
    order = np.arange(g.pixels.size) if by_tap else g.columns
    sources, targets = order * f, g.pixels[order]
    sources[-OVERHANG:], targets[-OVERHANG:] = 0, g.group * g.height * g.width * own
    dx = empty(x_shape)
    corner, places = (top, sides[0]), g.points if by_tap else g.lines
    parallel(_input_grad, dy, weights, places, sources, targets, np.arange(f), *corner, padded, ZEROS, kind, dx)
    return dx
