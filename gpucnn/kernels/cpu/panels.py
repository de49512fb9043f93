"""Products of small matrices whose right factor lies in panels: sixteen columns beside each other, row after row.

A matrix (rows, 16 n) is kept as n panels (rows, 16).  A block of some rows by one or two panels has its sums in
registers, reads the right factor in the order in which it lies, and needs no packing: where everything is in the caches
it runs at nine tenths of what the multipliers can do, on sizes at which a BLAS reaches two thirds.

    multiply         c  = a b          a (rows, k), b (k, columns)
    multiply_add     c += a^T b        a (k, rows), b (k, columns)

``rows`` is a multiple of ``ROWS``: whoever has fewer keeps room for them.  Both are loops over ``block``, which knows
more ways to walk through its left factor: ``direct.py`` multiplies the windows of an image with it, where they lie.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from gpucnn.kernels.cpu.compile import jit
from gpucnn.kernels.cpu.simd import HALF, LANES, VECTOR, multiply_accumulate, pointer, spread_float

ROWS = 16


def block(rows: int, panels: int = 1, *, half: bool = False) -> Callable[..., None]:
    """The product of a block as an intrinsic for compiled code: ``rows`` rows of c in ``panels`` panels.

        c[r, :] = start[r, :] + sum over g < groups, i < length of  a[r, g, i] * b[g * length + i, :]

    Its arguments (addresses in bytes, distances in floats):
        a, row, group, step: where a[0, 0, 0] is, and how far it is to the next r, g and i.
        groups, length: of the sums.
        b, b_row, b_panel: panels of b; how far it is to the next row and to the next panel.
        start, start_row, start_panel: what is added: c itself, a bias (a distance of 0 between rows) or zeros.
        c, c_row, c_panel: where the sums go, in ascending order of rows: what a row writes beyond its columns may be
            overwritten by the next one.

    Args:
        half: panels of eight columns instead of sixteen.
    """
    kind = HALF if half else VECTOR

    @intrinsic
    def product(
        typingctx, a, row, group, step, groups, length, b, b_row, b_panel, start, start_row, start_panel,
        c, c_row, c_panel,
    ):  # fmt: skip
        def generate(context, builder, signature, args):
            a, row, group, step, groups, length, b, b_row, b_panel, start, start_row, start_panel, c, c_row, c_panel = (
                args
            )
            number = a.type

            def at(r: int, distance: Any, p: int, panel: Any) -> Any:
                return builder.add(builder.mul(number(r), distance), builder.mul(number(p), panel))

            each = [(r, p) for r in range(rows) for p in range(panels)]
            sums = {rp: cgutils.alloca_once(builder, kind) for rp in each}
            for r, p in each:
                value = builder.load(pointer(builder, start, at(r, start_row, p, start_panel), kind), align=4)
                builder.store(value, sums[r, p])
            with cgutils.for_range(builder, groups) as outer, cgutils.for_range(builder, length) as inner:
                k = builder.add(builder.mul(outer.index, length), inner.index)
                here = builder.add(builder.mul(outer.index, group), builder.mul(inner.index, step))
                ours = builder.mul(k, b_row)
                factors = [
                    builder.load(pointer(builder, b, builder.add(at(0, row, p, b_panel), ours), kind), align=4)
                    for p in range(panels)
                ]
                for r in range(rows):
                    value = spread_float(builder, a, builder.add(at(r, row, 0, row), here), kind)
                    for p in range(panels):
                        total = multiply_accumulate(builder, value, factors[p], builder.load(sums[r, p]))
                        builder.store(total, sums[r, p])
            for r, p in each:
                place = pointer(builder, c, at(r, c_row, p, c_panel), kind)
                builder.store(builder.load(sums[r, p]), place, align=4)
            return context.get_dummy_value()

        n, address = types.int64, types.uintp
        return types.void(address, n, n, n, n, n, address, n, n, address, n, n, address, n, n), generate

    made: Callable[..., None] = product
    return made


block5, block6 = block(5), block(6)
block8x2, block16 = block(8, 2), block(16)


@jit
def _product(a, row, group, step, groups, length, rows, next_row, b, b_panel, start, c, c_panel, columns, wide):
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
                block6(
                    left, row, group, step, groups, length, factor, LANES, b_panel,
                    first, rest, to_panel, there, LANES, c_panel,
                )  # fmt: skip
                for done in (6, 11):
                    block5(
                        left + 4 * done * row, row, group, step, groups, length, factor, LANES, b_panel,
                        first + 4 * done * rest, rest, to_panel, there + 4 * done * LANES, LANES, c_panel,
                    )  # fmt: skip
            elif pair:
                for done in (0, 8):
                    block8x2(
                        left + 4 * done * row, row, group, step, groups, length, factor, LANES, b_panel,
                        first + 4 * done * rest, rest, to_panel, there + 4 * done * LANES, LANES, c_panel,
                    )  # fmt: skip
            else:
                block16(
                    left, row, group, step, groups, length, factor, LANES, b_panel,
                    first, rest, to_panel, there, LANES, c_panel,
                )  # fmt: skip
        panel += 2 if pair else 1


@jit
def multiply(a, a_panel, k, b, c, c_panel, rows, columns, zeros, wide):
    """C = a b: a (rows, 16 k), b (16 k, 16 columns), c (rows, 16 columns); ``zeros`` is the address of sixteen."""
    _product(
        a, LANES, a_panel, 1, k, LANES, rows, LANES * LANES, b, LANES * LANES * k, zeros, c, c_panel, columns, wide
    )


@jit
def multiply_add(a, a_panel, k, b, b_panel, c, rows, columns, start, wide):
    """C = start + a^T b: a (k, rows), b (k, 16 columns), c (rows, 16 columns); ``start`` is c or sixteen zeros."""
    _product(a, 1, 0, LANES, 1, k, rows, a_panel, b, b_panel, start, c, LANES * rows, columns, wide)
