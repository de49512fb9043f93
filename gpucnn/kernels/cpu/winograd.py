"""3x3 convolutions of stride 1 by Winograd's F(4x4, 3x3) (Lavin and Gray, arXiv 1509.09308).

An output tile of 4x4 pixels needs an input tile of 6x6 and 36 products per pair of channels instead of 144:

    forward:      V = B^T d B,   U = G g G^T,   M = V U (summed over channels),   y = A^T M A
    for the kernel: the adjoint, dU = V^T (A dy A^T) summed over tiles,   dg = G^T dU G

The 36 positions are independent, so M = V U is 36 matrix products, tiles x channels times channels x filters.  The
gradient for the input is a forward convolution of dy with the kernel turned round.

Tiles are handled in chunks of ``TILES``: one chunk's V and M stay in the second-level cache between transform,
product and transform back.  Channels go sixteen at a time, hence ``channels % 16 == 0``.
"""

import numpy as np

from gpucnn.kernels.cpu.compile import jit
from gpucnn.kernels.cpu.gemm import PLAIN, ROW_MAJOR, TRANSPOSED, sgemm
from gpucnn.kernels.cpu.pool import empty, streams
from gpucnn.kernels.cpu.simd import LANES, load, store
from gpucnn.kernels.cpu.threads import SHARDS, parallel
from gpucnn.kernels.cpu.winograd_tiles import (
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
from gpucnn.typing import Array, Padding

TILES = 64
SKEW = 16  # floats between two positions: 36 streams at the same offset in their pages would fight for cache lines
PARTIALS = 4  # sums of dU that are made apart and added in order


@jit
def _kernels(first, last, w, turned, scratch, u):
    """U = G g G^T: w (P,3,3,Q), lanes along Q -> u (36,P,Q); turned by 180 degrees for the input's gradient."""
    p, _, _, q = w.shape
    step = p * q
    for one in range(p * first // SHARDS, p * last // SHARDS):
        source = w.ctypes.data + 4 * (one * 9 * q)
        target = u.ctypes.data + 4 * (one * q)
        area = scratch[first].ctypes.data
        for k in range(0, q, LANES):
            for n in range(3):
                if turned:
                    g = kernel_transform(*column3(source, (8 - n) * q + k, -3 * q))
                else:
                    g = kernel_transform(*column3(source, n * q + k, 3 * q))
                put6(area, n * LANES, 3 * LANES, g)
            for i in range(6):
                g = kernel_transform(*column3(area, 3 * i * LANES, LANES))
                put6(target, 6 * i * step + k, step, g)


@jit
def _convolve(first, last, x, u, top, left, across, down, tiles, patches, v, m, past, y):
    """Shards of all tiles: x (N,H,W,C), u (36,C,F) -> y (N,H',W',F)."""
    c, f = x.shape[3], y.shape[3]
    count = x.shape[0] * across * down
    chunks = -(-count // tiles)
    v_step, m_step = tiles * c + SKEW, tiles * f + SKEW
    patch_in = patches[first, : 36 * c].reshape(6, 6, c)
    patch_out = patches[first, : 16 * f].reshape(4, 4, f)
    scratch = patches[first, 36 * max(c, f) :]
    v_at, m_at = v[first].ctypes.data, m[first].ctypes.data
    for chunk in range(chunks * first // SHARDS, chunks * last // SHARDS):
        start = chunk * tiles
        stop = min(start + tiles, count)
        transform_inputs(x, start, stop, across, down, top, left, patch_in, scratch, v_at, v_step)
        for p in range(36):
            sgemm(
                ROW_MAJOR, PLAIN, PLAIN, stop - start, f, c, np.float32(1), v_at + 4 * p * v_step, c,
                u.ctypes.data + 4 * p * c * f, f, np.float32(0), m_at + 4 * p * m_step, f,
            )  # fmt: skip
        transform_outputs(y, start, stop, across, down, patch_out, scratch, m_at, m_step, past)


@jit
def _kernel_gradients(first, last, x, dy, top, left, across, down, tiles, patches, v, m, du):
    """Shards of all tiles: V^T dM summed -> du (PARTIALS,36,F,C)."""
    c, f = x.shape[3], dy.shape[3]
    count = x.shape[0] * across * down
    chunks = -(-count // tiles)
    v_step, m_step = tiles * c + SKEW, tiles * f + SKEW
    patch_in = patches[first, : 36 * c].reshape(6, 6, c)
    patch_out = patches[first, : 16 * f].reshape(4, 4, f)
    scratch = patches[first, 36 * max(c, f) :]
    v_at, m_at = v[first].ctypes.data, m[first].ctypes.data
    for part in range(PARTIALS * first // SHARDS, PARTIALS * last // SHARDS):
        beta = np.float32(0)
        for chunk in range(chunks * part // PARTIALS, chunks * (part + 1) // PARTIALS):
            start = chunk * tiles
            stop = min(start + tiles, count)
            transform_inputs(x, start, stop, across, down, top, left, patch_in, scratch, v_at, v_step)
            transform_gradients(dy, start, stop, across, down, patch_out, scratch, m_at, m_step)
            for p in range(36):
                sgemm(
                    ROW_MAJOR, TRANSPOSED, PLAIN, f, c, stop - start, np.float32(1), m_at + 4 * p * m_step, f,
                    v_at + 4 * p * v_step, c, beta, du[part, p].ctypes.data, c,
                )  # fmt: skip
            beta = np.float32(1)
        if beta == 0:
            du[part] = 0


@jit
def _finish_kernels(first, last, du, scratch, dw):
    """Du (PARTIALS,36,F,C), added in order -> dw = G^T du G (F,3,3,C)."""
    f, _, _, c = dw.shape
    area = scratch[first].ctypes.data
    step = f * c
    whole = 36 * step
    for one in range(f * first // SHARDS, f * last // SHARDS):
        source = du.ctypes.data + 4 * (one * c)
        target = dw.ctypes.data + 4 * (one * 9 * c)
        for k in range(0, c, LANES):
            for p in range(36):
                total = load(source, p * step + k)
                for part in range(1, PARTIALS):
                    total = total + load(source, part * whole + p * step + k)
                store(area, p * LANES, total)
            for j in range(6):
                r = kernel_adjoint(*column6(area, j * LANES, 6 * LANES))
                put3(area, (36 + j) * LANES, 6 * LANES, r)
            for i in range(3):
                r = kernel_adjoint(*column6(area, (36 + 6 * i) * LANES, LANES))
                put3(target, 3 * i * c + k, c, r)


def _work(c: int, f: int, tiles: int) -> tuple[Array, Array, Array]:
    """Room for each shard that starts a thread's part: patches and registers, V, M; untouched pages cost nothing."""
    return (
        empty((SHARDS, 36 * max(c, f) + 64 * LANES)),
        empty((SHARDS, 36 * (tiles * c + SKEW))),
        empty((SHARDS, 36 * (tiles * f + SKEW))),
    )


def transformed(w: Array, *, turned: bool) -> Array:
    """w (P,3,3,Q) -> U (36,P,Q)."""
    p, _, _, q = w.shape
    u = empty((36, p, q))
    parallel(_kernels, w, turned, empty((SHARDS, 18 * LANES)), u)
    return u


def convolve(x: Array, u: Array, padding: Padding) -> Array:
    """x (N,H,W,C), u (36,C,F) -> y (N,H',W',F)."""
    n, h, w, c = x.shape
    f = u.shape[2]
    (top, bottom), (left, right) = padding
    y = empty((n, h + top + bottom - 2, w + left + right - 2, f))
    down, across = -(-y.shape[1] // 4), -(-y.shape[2] // 4)
    tiles = TILES if c + f < 256 else 2 * TILES  # a large U is read once per chunk
    parallel(_convolve, x, u, top, left, across, down, tiles, *_work(c, f, tiles), streams(y), y)
    return y


def forward(x: Array, w: Array, padding: Padding) -> Array:
    """x (N,H,W,C), w (F,3,3,C) -> y."""
    by_channel = np.ascontiguousarray(w.transpose(3, 1, 2, 0))  # (C,3,3,F): lanes along the filters
    return convolve(x, transformed(by_channel, turned=False), padding)


def input_grad(dy: Array, w: Array, padding: Padding) -> Array:
    """dy (N,H',W',F), w (F,3,3,C) -> dx: dy convolved with the kernel turned round."""
    (top, bottom), (left, right) = padding
    return convolve(dy, transformed(w, turned=True), ((2 - top, 2 - bottom), (2 - left, 2 - right)))


def weight_grad(dy: Array, x: Array, padding: Padding) -> Array:
    """dy (N,H',W',F), x (N,H,W,C) -> dw (F,3,3,C)."""
    c, f = x.shape[3], dy.shape[3]
    (top, _), (left, _) = padding
    down, across = -(-dy.shape[1] // 4), -(-dy.shape[2] // 4)
    du = empty((PARTIALS, 36, f, c))
    patches, v, m = _work(c, f, TILES)
    parallel(_kernel_gradients, x, dy, top, left, across, down, TILES, patches, v, m, du)
    dw = empty((f, 3, 3, c))
    parallel(_finish_kernels, du, patches, dw)
    return dw
