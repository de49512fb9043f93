"""3x3 convolutions of stride 1 by Winograd's F(4x4, 3x3) (Lavin and Gray, arXiv 1509.09308).

An output tile of 4x4 pixels needs an input tile of 6x6 and 36 products per pair of channels instead of 144:

    forward:      V = B^T d B,   U = G g G^T,   M = V U (summed over channels),   y = A^T M A
    for the kernel: the adjoint, dU = V^T (A dy A^T) summed over tiles,   dg = G^T dU G

The 36 positions are independent, so M = V U is 36 matrix products, tiles x channels times channels x filters.  The
gradient for the input is a forward convolution of dy with the kernel rotated by 180 degrees.

Tiles are handled in chunks: one chunk's V and M stay in the second-level cache between transform, product and
transform back.  Channels go sixteen at a time, hence ``channels % 16 == 0``.
"""

import os

import numpy as np

from gpucnn.kernels.cpu.conv.winograd_tiles import (
    column3,
    column6,
    kernel_adjoint,
    kernel_transform,
    put3,
    put6,
    transform_gradients,
    transform_inputs,
    transform_outputs,
)
from gpucnn.kernels.cpu.engine.allocator import empty, streams
from gpucnn.kernels.cpu.engine.compile import jit
from gpucnn.kernels.cpu.engine.microkernel import ROWS, multiply, multiply_add
from gpucnn.kernels.cpu.engine.simd import LANES, WIDE, load, store, transpose
from gpucnn.kernels.cpu.engine.threads import SHARDS, parallel
from gpucnn.types import Array, Padding

L2_SIZE = os.sysconf("SC_LEVEL2_CACHE_SIZE") if "SC_LEVEL2_CACHE_SIZE" in os.sysconf_names else 0
TILES = 64 if L2_SIZE > 3 << 19 else 32  # of a chunk, whose V and M should fill half of the second-level cache
MANY = 512  # channels in and out: twice as many tiles, since the transformed kernel is read once per chunk
SKEW = 16  # floats between two positions: 36 streams at the same offset in their pages would fight for cache lines
PARTIALS = 4  # sums of dU that are made apart and added in order
AREA = 64 * LANES  # floats: what a transform keeps between its two halves


@jit
def _transform_kernel(taps, step, area, target, position):
    """U = G g G^T of sixteen kernels: nine vectors, ``step`` floats apart, to 36, ``position`` floats apart."""
    for n in range(3):
        put6(area, n * LANES, 3 * LANES, kernel_transform(*column3(taps, n * step, 3 * step)))
    for i in range(6):
        put6(target, 6 * i * position, position, kernel_transform(*column3(area, 3 * i * LANES, LANES)))


@jit
def _kernels(first, last, w, scratch, u):
    """w (F,3,3,C) -> u (36,F/16,C,16): the filters become the lanes, sixteen filters by sixteen channels at a time."""
    f, _, _, c = w.shape
    area = scratch[first].ctypes.data
    taps = area + 4 * AREA
    across = c // LANES
    blocks = f // LANES * across
    for one in range(blocks * first // SHARDS, blocks * last // SHARDS):
        row, column = one // across * LANES, one % across * LANES
        for tap in range(9):
            source = w.ctypes.data + 4 * ((row * 9 + tap) * c + column)
            transpose(source, 9 * c, taps + 4 * tap * LANES * LANES, LANES)
        for k in range(LANES):
            target = u.ctypes.data + 4 * (row * c + (column + k) * LANES)
            _transform_kernel(taps + 4 * k * LANES, LANES * LANES, area, target, f * c)


@jit
def _rotated_kernels(first, last, w, scratch, u):
    """w (F,3,3,C), rotated by 180 degrees -> u (36,C/16,F,16)."""
    f, _, _, c = w.shape
    area = scratch[first].ctypes.data
    for one in range(f * first // SHARDS, f * last // SHARDS):
        for k in range(0, c, LANES):
            source = w.ctypes.data + 4 * ((one * 9 + 8) * c + k)
            _transform_kernel(source, -c, area, u.ctypes.data + 4 * (k * f + one * LANES), f * c)


@jit
def _convolve(first, last, x, u, top, left, across, down, tiles, walk, zeros, scratch, v, m, past, wide, y):
    """Shards of all tiles: x (N,H,W,C), u (36,F/16,C,16) -> y (N,H',W',F)."""
    c, f = x.shape[3], y.shape[3]
    count = x.shape[0] * across * down
    chunks = -(-count // tiles)
    v_step, m_step = tiles * c + SKEW, tiles * f + SKEW
    area, v_at, m_at = scratch[first], v[first].ctypes.data, m[first].ctypes.data
    for chunk in range(chunks * first // SHARDS, chunks * last // SHARDS):
        start = chunk * tiles
        stop = min(start + tiles, count)
        rows = -(-(stop - start) // ROWS) * ROWS  # those beyond the last tile hold what nobody reads
        transform_inputs(x, start, stop, across, down, top, left, zeros, area, v_at, v_step, tiles)
        for p in range(36):
            kernel = u.ctypes.data + 4 * p * c * f
            multiply(
                v_at + 4 * p * v_step, walk.ctypes.data, c, kernel,
                m_at + 4 * p * m_step, LANES * tiles, rows, f // LANES, np.int64(zeros.ctypes.data), wide,
            )  # fmt: skip
        transform_outputs(y, start, stop, across, down, area, m_at, m_step, tiles, past)


@jit
def _kernel_gradients(first, last, x, dy, top, left, across, down, tiles, walk, zeros, scratch, v, m, wide, du):
    """Shards of all tiles: dM^T V summed -> du (parts,36,C/16,F,16)."""
    c, f = x.shape[3], dy.shape[3]
    count = x.shape[0] * across * down
    chunks = -(-count // tiles)
    v_step, m_step = tiles * c + SKEW, tiles * f + SKEW
    area, v_at, m_at = scratch[first], v[first].ctypes.data, m[first].ctypes.data
    parts = du.shape[0]
    for part in range(parts * first // SHARDS, parts * last // SHARDS):
        begin, end = chunks * part // parts, chunks * (part + 1) // parts
        for chunk in range(begin, end):
            start = chunk * tiles
            stop = min(start + tiles, count)
            transform_inputs(x, start, stop, across, down, top, left, zeros, area, v_at, v_step, tiles)
            transform_gradients(dy, start, stop, across, down, zeros, area, m_at, m_step, tiles)
            for p in range(36):
                sums = np.int64(du[part, p].ctypes.data)
                multiply_add(
                    m_at + 4 * p * m_step, LANES * tiles, walk.ctypes.data, stop - start,
                    v_at + 4 * p * v_step, LANES * tiles, sums, f, c // LANES,
                    sums if chunk > begin else np.int64(zeros.ctypes.data), wide,
                )  # fmt: skip


@jit
def _finish_kernels(first, last, du, scratch, dw):
    """du (parts,36,C/16,F,16), added in order -> dw = G^T du G (F,3,3,C)."""
    f, _, _, c = dw.shape
    area = scratch[first].ctypes.data
    step = f * c
    whole = 36 * step
    for one in range(f * first // SHARDS, f * last // SHARDS):
        target = dw.ctypes.data + 4 * (one * 9 * c)
        for k in range(0, c, LANES):
            source = du.ctypes.data + 4 * (k * f + one * LANES)
            for p in range(36):
                total = load(source, p * step)
                for part in range(1, du.shape[0]):
                    total = total + load(source, part * whole + p * step)
                store(area, p * LANES, total)
            for j in range(6):
                r = kernel_adjoint(*column6(area, j * LANES, 6 * LANES))
                put3(area, (36 + j) * LANES, 6 * LANES, r)
            for i in range(3):
                r = kernel_adjoint(*column6(area, (36 + 6 * i) * LANES, LANES))
                put3(target, 3 * i * c + k, c, r)


def _chunk(count: int, channels: int) -> int:
    """Tiles of a chunk: what suits the caches, but not so many that threads have nothing to do."""
    each = -(-count // SHARDS)
    return min(TILES if channels < MANY else 2 * TILES, -(-each // ROWS) * ROWS)


def _work(c: int, f: int, tiles: int) -> tuple[Array, Array, Array, Array]:
    """A line of zeros; room for each shard that starts a thread's part: a transform's, V, M.

    Untouched pages cost nothing.
    """
    return (
        np.zeros(6 * max(c, f), np.float32),
        empty((SHARDS, AREA)),
        empty((SHARDS, 36 * (tiles * c + SKEW))),
        empty((SHARDS, 36 * (tiles * f + SKEW))),
    )


def convolve(x: Array, u: Array, padding: Padding) -> Array:
    """x (N,H,W,C), u (36,F/16,C,16) -> y (N,H',W',F)."""
    n, h, w, c = x.shape
    f = LANES * u.shape[1]
    (top, bottom), (left, right) = padding
    y = empty((n, h + top + bottom - 2, w + left + right - 2, f))
    down, across = -(-y.shape[1] // 4), -(-y.shape[2] // 4)
    tiles = _chunk(n * down * across, c + f)
    walk = (LANES * tiles * np.arange(c // LANES)[:, None] + np.arange(LANES)).reshape(-1)  # along a row of V
    parallel(_convolve, x, u, top, left, across, down, tiles, walk, *_work(c, f, tiles), streams(y), WIDE, y)
    return y


def forward(x: Array, w: Array, padding: Padding) -> Array:
    """x (N,H,W,C), w (F,3,3,C) -> y."""
    f, _, _, c = w.shape
    u = empty((36, f // LANES, c, LANES))
    parallel(_kernels, w, empty((SHARDS, AREA + 9 * LANES * LANES)), u)
    return convolve(x, u, padding)


def input_grad(dy: Array, w: Array, padding: Padding) -> Array:
    """dy (N,H',W',F), w (F,3,3,C) -> dx: dy convolved with the kernel rotated by 180 degrees."""
    f, _, _, c = w.shape
    (top, bottom), (left, right) = padding
    u = empty((36, c // LANES, f, LANES))
    parallel(_rotated_kernels, w, empty((SHARDS, AREA)), u)
    return convolve(dy, u, ((2 - top, 2 - bottom), (2 - left, 2 - right)))


def weight_grad(dy: Array, x: Array, padding: Padding) -> Array:
    """dy (N,H',W',F), x (N,H,W,C) -> dw (F,3,3,C)."""
    c, f = x.shape[3], dy.shape[3]
    (top, _), (left, _) = padding
    down, across = -(-dy.shape[1] // 4), -(-dy.shape[2] // 4)
    tiles = _chunk(len(x) * down * across, c + f)
    du = empty((min(PARTIALS, -(-len(x) * down * across // tiles)), 36, c // LANES, f, LANES))
    zeros, scratch, v, m = _work(c, f, tiles)
    walk = LANES * np.arange(tiles)  # down a column of dM
    parallel(_kernel_gradients, x, dy, top, left, across, down, tiles, walk, zeros, scratch, v, m, WIDE, du)
    dw = empty((f, 3, 3, c))
    parallel(_finish_kernels, du, empty((SHARDS, AREA)), dw)
    return dw
