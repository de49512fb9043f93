"""Matrix products of the fully connected layer: pieces of the output's columns or rows, one BLAS call each.

The pieces are fixed, so the bits do not depend on the threads.  The sums over rows that biases need are here too.
"""

import numpy as np

from gpucnn.kernels.cpu.arguments import examples_fit, filters_fit, float32_arrays, float32_where, weights_fit
from gpucnn.kernels.cpu.engine.allocator import empty
from gpucnn.kernels.cpu.engine.blas import PLAIN, ROW_MAJOR, TRANSPOSED, sgemm
from gpucnn.kernels.cpu.engine.compile import jit
from gpucnn.kernels.cpu.engine.simd import LANES, load, store
from gpucnn.kernels.cpu.engine.threads import SHARDS, parallel, partial
from gpucnn.types import Array

SMALL_PRODUCT = 2_000_000  # multiply-adds that one thread does in the time of a fork and join


@jit
def _pieces(first, last, a, ta, b, tb, m, n, k, c):
    """c (M,N) = op(a) op(b), a piece per shard; a is (M,K) or, transposed, (K,M); likewise b.

    Pieces are columns, or rows where b is transposed: BLAS packs it anew for each piece, whose few columns cost most.
    """
    lda = m if ta else k
    ldb = k if tb else n
    for shard in range(first, last):
        top, bottom, left, right = 0, m, 0, n
        if tb:
            top, bottom = m * shard // SHARDS, m * (shard + 1) // SHARDS
        else:
            left, right = n * shard // SHARDS, n * (shard + 1) // SHARDS
        if top < bottom and left < right:
            sgemm(
                ROW_MAJOR, TRANSPOSED if ta else PLAIN, TRANSPOSED if tb else PLAIN, bottom - top, right - left, k,
                np.float32(1), a.ctypes.data + 4 * (top if ta else top * k), lda,
                b.ctypes.data + 4 * (left * k if tb else left), ldb,
                np.float32(0), c.ctypes.data + 4 * (top * n + left), n,
            )  # fmt: skip


@jit
def _add_bias(first, last, y, b):
    n, f = y.shape
    for row in range(n * first // SHARDS, n * last // SHARDS):
        for k in range(f):
            y[row, k] += b[k]


@jit
def _column_sums(first, last, x, total):
    """Sums over each shard of the rows of x (M,C) -> total (SHARDS,C).

    Sixteen columns at a time, in float32 over 64 rows; lanes beyond the last column hold what nobody reads.
    """
    m, c = x.shape
    some = np.zeros(LANES, np.float32)
    sums, source = some.ctypes.data, x.ctypes.data
    safe = m - 1 - LANES // c  # rows behind which there is a vector's worth of memory
    for shard in range(first, last):
        total[shard] = 0.0
        stop = m * (shard + 1) // SHARDS
        for block in range(m * shard // SHARDS, stop, 64):
            end = min(block + 64, stop)
            quick = block + (max(min(end, safe), block) - block) // 4 * 4
            for k in range(0, c, LANES):
                zero = load(sums, 0) - load(sums, 0)
                a0 = a1 = a2 = a3 = zero
                for row in range(block, quick, 4):
                    at = row * c + k
                    a0, a1 = a0 + load(source, at), a1 + load(source, at + c)
                    a2, a3 = a2 + load(source, at + 2 * c), a3 + load(source, at + 3 * c)
                store(sums, 0, (a0 + a1) + (a2 + a3))
                for q in range(k, min(k + LANES, c)):
                    rest = some[q - k]
                    for row in range(quick, end):
                        rest += x[row, q]
                    total[shard, q] += rest
                some[:] = 0


def product(a: Array, b: Array, *, ta: bool = False, tb: bool = False) -> Array:
    """op(a) op(b) in float32."""
    m, k = a.shape[::-1] if ta else a.shape
    n = b.shape[0] if tb else b.shape[1]
    c = empty((m, n))
    left, right = a.T if ta else a, b.T if tb else b
    if k == 1:  # a BLAS takes five times as long for the gradient of one image
        return np.multiply(left, right, out=c)
    if m * n * k < SMALL_PRODUCT or m == 1:
        return np.matmul(left, right, out=c)
    parallel(_pieces, np.ascontiguousarray(a), ta, np.ascontiguousarray(b), tb, m, n, k, c)
    return c


accepts_forward = float32_where(weights_fit)
accepts_input_grad = float32_where(filters_fit)
accepts_weight_grad = float32_where(examples_fit)
accepts_bias_grad = float32_arrays


def linear(x: Array, w: Array, b: Array | None) -> Array:
    """x (N,C), w (F,C), b (F,) or None -> y (N,F)."""
    y = product(x, w, tb=True)
    if b is not None:
        parallel(_add_bias, y, b, work=y.size)
    return y


def linear_input_grad(dy: Array, w: Array) -> Array:
    """dy (N,F), w (F,C) -> dx (N,C)."""
    return product(dy, w)


def linear_weight_grad(dy: Array, x: Array) -> Array:
    """dy (N,F), x (N,C) -> dw (F,C)."""
    return product(dy, x, ta=True)


def bias_grad(dy: Array) -> Array:
    """dy (..., F) -> db (F,)."""
    rows = np.ascontiguousarray(dy).reshape(-1, dy.shape[-1])
    total = partial(rows.shape[1])
    parallel(_column_sums, rows, total, work=rows.size)
    return total.sum(axis=0).astype(np.float32)
