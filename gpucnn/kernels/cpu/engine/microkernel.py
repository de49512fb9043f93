"""Products of small matrices whose right factor lies in panels: sixteen columns beside each other, row after row.

A matrix (rows, 16 n) is kept as n panels (rows, 16).  A block of some rows by one or two panels has its sums in
registers and reads the right factor in the order in which it lies; the left factor may lie anywhere: lists of offsets
say where its rows begin and how to walk through them, so the windows of an image need not be laid out.  In the caches
this runs at nine tenths of what the multipliers can do, on sizes at which a BLAS reaches two thirds.

    multiply         c  = a b          a (rows, k), b (k, columns), for rows of which there are a multiple of ``ROWS``
    multiply_add     c += a^T b        a (k, rows), b (k, columns), likewise
    gather_rows      c  = start + a b  rows of a by a list
    scatter_rows     c[list] += a b    rows of c by a list

Addresses are given as ``np.int64``: Numba would compile these functions once more for every mixture of signed and
unsigned ones, and takes the one or the other of two such numbers as a float.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from gpucnn.kernels.cpu.engine.compile import jit
from gpucnn.kernels.cpu.engine.simd import (
    HALF,
    LANES,
    VECTOR,
    WIDE,
    multiply_accumulate,
    pointer,
    spread_float,
    transpose,
)

ROWS = 16
OVERHANG = 8  # rows more than asked for that ``gather_rows`` and ``scatter_rows`` may compute
SPLIT_EXACTLY = 56  # every number from here on is a sum of eights and nines, of sixes and sevens, of fives and sixes
Product = Callable[..., None]


def block(rows: int, panels: int = 1, *, half: bool = False, gather: bool = False, scatter: bool = False) -> Product:
    """The product of a block as an intrinsic for compiled code: ``rows`` rows of c in ``panels`` panels.

        c[r, :] = start[r, :] + sum over k < length of  a[row r, walk k] * b[k, :]

    Its arguments (addresses in bytes, distances in floats):
        a, row, walk: where a[0, 0] is, how far it is to the next row, and the address of int64 offsets, one for each k.
        length: of the sums.
        b, b_row, b_panel: panels of b; how far it is to the next row and to the next panel.
        start, start_row, start_panel: what is added: c itself, a bias (a distance of 0 between rows) or zeros.
        c, c_row, c_panel: where the sums go, in ascending order of rows: what a row writes beyond its columns may be
            overwritten by the next one.

    Args:
        half: panels of eight columns instead of sixteen.
        gather: ``row`` is the address of int64 offsets, one for each row of a.
        scatter: likewise ``c_row``, and the sums are added to what is there, one row after the other.
    """
    kind = HALF if half else VECTOR

    @intrinsic
    def product(
        typingctx, a, row, walk, length, b, b_row, b_panel, start, start_row, start_panel, c, c_row, c_panel
    ):  # fmt: skip
        def generate(context, builder, signature, args):
            a, row, walk, length, b, b_row, b_panel, start, start_row, start_panel, c, c_row, c_panel = args
            number = length.type

            def times(count: int, distance: Any) -> Any:
                return builder.mul(number(count), distance)

            def listed(address: Any, index: Any) -> Any:
                return builder.load(builder.gep(builder.inttoptr(address, number.as_pointer()), [index]))

            def offset(r: int, distance: Any, by_list: bool) -> Any:
                return listed(distance, number(r)) if by_list else times(r, distance)

            def place(address: Any, row: Any, p: int, panel: Any) -> Any:
                return pointer(builder, address, builder.add(row, times(p, panel)), kind)

            each = [(r, p) for r in range(rows) for p in range(panels)]
            sums = {rp: cgutils.alloca_once(builder, kind) for rp in each}
            for r, p in each:
                first = place(start, times(r, start_row), p, start_panel)
                builder.store(builder.load(first, align=4), sums[r, p])
            lines = [pointer(builder, a, offset(r, row, gather), kind) for r in range(rows)]
            lines = [builder.ptrtoint(line, number) for line in lines]
            with cgutils.for_range(builder, length) as loop:
                here = listed(walk, loop.index)
                ours = builder.mul(loop.index, b_row)
                factors = [builder.load(place(b, ours, p, b_panel), align=4) for p in range(panels)]
                for r in range(rows):
                    value = spread_float(builder, lines[r], here, kind)
                    for p in range(panels):
                        total = multiply_accumulate(builder, value, factors[p], builder.load(sums[r, p]))
                        builder.store(total, sums[r, p])
            for r in range(rows):
                target = offset(r, c_row, scatter)
                for p in range(panels):
                    there, total = place(c, target, p, c_panel), builder.load(sums[r, p])
                    if scatter:
                        total = builder.fadd(builder.load(there, align=4), total)
                    builder.store(total, there, align=4)
            return context.get_dummy_value()

        n, address = types.int64, types.uintp
        return types.void(address, n, n, n, address, n, n, address, n, n, address, n, n), generate

    made: Product = product
    return made


block5, block6 = block(5), block(6)
block8x2, block16 = block(8, 2), block(16)


@jit
def _product(a, row, walk, length, rows, next_row, b, b_panel, start, c, c_panel, columns, wide):
    """All blocks of c (rows, 16 columns); ``next_row`` floats lie between a's rows r and r + 16 in steps of 16.

    ``start`` is c, or an address of zeros.
    """
    rest, to_panel = (LANES, c_panel) if start == c else (0, 0)
    panel = 0
    while panel < columns:
        factor, out = b + 4 * panel * b_panel, c + 4 * panel * c_panel
        pair = wide and panel + 1 < columns
        for r in range(0, rows, ROWS):
            left, there = a + 4 * (r // LANES * next_row), out + 4 * r * LANES
            first = there if start == c else start
            if not wide:  # six rows of two registers each are what sixteen registers hold
                block6(left, row, walk, length, factor, LANES, b_panel, first, rest, to_panel, there, LANES, c_panel)
                for done in (6, 11):
                    block5(
                        left + 4 * done * row, row, walk, length, factor, LANES, b_panel,
                        first + 4 * done * rest, rest, to_panel, there + 4 * done * LANES, LANES, c_panel,
                    )  # fmt: skip
            elif pair:
                for done in (0, 8):
                    block8x2(
                        left + 4 * done * row, row, walk, length, factor, LANES, b_panel,
                        first + 4 * done * rest, rest, to_panel, there + 4 * done * LANES, LANES, c_panel,
                    )  # fmt: skip
            else:
                block16(left, row, walk, length, factor, LANES, b_panel, first, rest, to_panel, there, LANES, c_panel)
        panel += 2 if pair else 1


@jit
def multiply(a, walk, k, b, c, c_panel, rows, columns, zeros, wide):
    """c = a b: a (rows, k), sixteen floats a row, b (k, 16 columns), c (rows, 16 columns); ``zeros``: an address."""
    _product(a, LANES, walk, k, rows, LANES * LANES, b, LANES * k, zeros, c, c_panel, columns, wide)


@jit
def multiply_add(a, a_panel, walk, k, b, b_panel, c, rows, columns, start, wide):
    """c = start + a^T b: a (k, rows) in panels, b (k, 16 columns), c (rows, 16 columns); ``start``: c or zeros."""
    _product(a, 1, walk, k, rows, a_panel, b, b_panel, start, c, LANES * rows, columns, wide)


NARROW, HALVES, FULL = 0, 1, 2
"""Kinds of blocks for ``gather_rows`` and ``scatter_rows``: five or six rows of sixteen columns, which are what sixteen
registers of eight floats hold; six or seven rows of eight columns; eight or nine of sixteen, in wide registers."""

gather5, gather6 = block(5, gather=True), block(6, gather=True)
gather8, gather9 = block(8, gather=True), block(9, gather=True)
halves6, halves7 = block(6, half=True, gather=True), block(7, half=True, gather=True)
scatter5, scatter6 = block(5, gather=True, scatter=True), block(6, gather=True, scatter=True)
scatter8, scatter9 = block(8, gather=True, scatter=True), block(9, gather=True, scatter=True)


def kind_of(columns: int) -> int:
    """The blocks for so many columns on this machine."""
    if columns <= LANES // 2:
        return HALVES
    return FULL if WIDE else NARROW


def lanes_of(columns: int) -> int:
    """The width of their panels."""
    return LANES // 2 if kind_of(columns) == HALVES else LANES


@jit
def smaller(kind):
    """Rows of the smaller of a kind's two blocks; the larger one has one more."""
    return 5 if kind == NARROW else 6 if kind == HALVES else 8


@jit
def split(count, kind):
    """``count`` rows as (blocks, how many of them are large): together they have ``count`` rows or a few more."""
    small = smaller(kind)
    blocks = -(-count // (small + 1))
    return blocks, max(0, count - small * blocks)


@jit
def overhang(count, kind):
    """Rows that are computed beyond ``count``: none from ``SPLIT_EXACTLY`` rows on."""
    return max(0, smaller(kind) * split(count, kind)[0] - count)


@jit
def gather_rows(a, rows, walk, length, count, b, b_row, start, start_row, c, c_row, kind):
    """c = start + a b for one panel: a's rows begin at offsets from the list at ``rows``, of int64 in floats.

    Some rows more than ``count`` may be computed and written (``overhang``).
    """
    blocks, large = split(count, kind)
    small = smaller(kind)
    done = 0
    for one in range(blocks):
        list_, first, there = rows + 8 * done, start + 4 * done * start_row, c + 4 * done * c_row
        if kind == NARROW:
            if one < large:
                gather6(a, list_, walk, length, b, b_row, 0, first, start_row, 0, there, c_row, 0)
            else:
                gather5(a, list_, walk, length, b, b_row, 0, first, start_row, 0, there, c_row, 0)
        elif kind == HALVES:
            if one < large:
                halves7(a, list_, walk, length, b, b_row, 0, first, start_row, 0, there, c_row, 0)
            else:
                halves6(a, list_, walk, length, b, b_row, 0, first, start_row, 0, there, c_row, 0)
        elif one < large:
            gather9(a, list_, walk, length, b, b_row, 0, first, start_row, 0, there, c_row, 0)
        else:
            gather8(a, list_, walk, length, b, b_row, 0, first, start_row, 0, there, c_row, 0)
        done += small + (one < large)


@jit
def scatter_rows(a, sources, walk, length, count, b, b_row, zeros, c, targets, kind):
    """C[targets] += a[sources] b, row after row, for one panel of sixteen; both lists are as in ``gather_rows``.

    Rows that follow each other should not overlap: what was just stored in other pieces is slow to load.
    """
    blocks, large = split(count, kind)
    small = smaller(kind)
    done = 0
    for one in range(blocks):
        from_, to = sources + 8 * done, targets + 8 * done
        if kind == NARROW:
            if one < large:
                scatter6(a, from_, walk, length, b, b_row, 0, zeros, 0, 0, c, to, 0)
            else:
                scatter5(a, from_, walk, length, b, b_row, 0, zeros, 0, 0, c, to, 0)
        elif one < large:
            scatter9(a, from_, walk, length, b, b_row, 0, zeros, 0, 0, c, to, 0)
        else:
            scatter8(a, from_, walk, length, b, b_row, 0, zeros, 0, 0, c, to, 0)
        done += small + (one < large)


@jit
def pack_columns(w, first, some, panel):
    """Rows first .. first + some - 1 of w (F,K) become the columns of a panel (K, lanes), with zeros beyond them."""
    k, lanes = panel.shape
    whole = k // LANES * LANES if some == LANES else 0
    source = w.ctypes.data + 4 * first * k
    for at in range(0, whole, LANES):
        transpose(source + 4 * at, k, panel.ctypes.data + 4 * at * lanes, lanes)
    for at in range(whole, k):
        for q in range(lanes):
            panel[at, q] = w[first + q, at] if q < some else np.float32(0)


@jit
def take_columns(x, first, some, panel):
    """Columns first .. first + some - 1 of x (N,K) as a panel (N, lanes), with zeros beyond them."""
    for n in range(panel.shape[0]):
        for q in range(panel.shape[1]):
            panel[n, q] = x[n, first + q] if q < some else np.float32(0)


@jit
def copy_rows(panel, count, y, row, first, some):
    """The first ``some`` columns of ``count`` rows of a panel -> y[row .., first ..]."""
    for r in range(count):
        for q in range(some):
            y[row + r, first + q] = panel[r, q]
