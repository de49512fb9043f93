"""Products of small matrices that lie in panels: sixteen columns beside each other, row after row.

A matrix (rows, 16 n) is kept as n panels (rows, 16).  A block of eight rows by two panels has its sums in registers,
reads both factors in the order in which they lie, and needs no packing: where everything is in the caches it runs at
nine tenths of what the multipliers can do, on sizes at which a BLAS reaches two thirds.

    multiply         c  = a b          a (rows, k), b (k, columns)
    multiply_add     c += a^T b        a (k, rows), b (k, columns)

``rows`` is a multiple of ``ROWS``: whoever has fewer keeps room for them.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from gpucnn.kernels.cpu.compile import jit
from gpucnn.kernels.cpu.simd import LANES, VECTOR, multiply_accumulate, pointer, spread_float

ROWS = 16
WIDE = bool(binding.get_host_cpu_features().get("avx512f"))
"""Whether a vector is one of 32 registers; otherwise it is two or four, and a block must be smaller."""


def block(rows: int, panels: int) -> Callable[..., None]:
    """The product of a block as an intrinsic for compiled code: ``rows`` rows of c in ``panels`` panels.

    Its arguments (addresses in bytes, distances in floats):
        a, row, step: where a[0, 0] is, and how far it is to the next row and the next column.
        group: how far it is to the columns after the first ``length``.
        groups, length: k, the length of the sums, is groups * length.
        b, b_panel: panels of b and how far it is from one to the next.
        c, c_panel: likewise.
        add: whether to add to c.
    """

    @intrinsic
    def product(typingctx, a, row, step, group, groups, length, b, b_panel, c, c_panel, add):
        def generate(context, builder, signature, args):
            a, row, step, group, groups, length, b, b_panel, c, c_panel, add = args
            number = a.type

            def times(count: int, distance: Any) -> Any:
                return builder.mul(number(count), distance)

            sums = [[cgutils.alloca_once(builder, VECTOR) for _ in range(panels)] for _ in range(rows)]
            places = [
                [pointer(builder, c, builder.add(times(p, c_panel), number(r * LANES))) for p in range(panels)]
                for r in range(rows)
            ]
            for r in range(rows):
                for p in range(panels):
                    builder.store(ir.Constant(VECTOR, [0.0] * LANES), sums[r][p])
            with builder.if_then(builder.icmp_signed("!=", add, add.type(0))):
                for r in range(rows):
                    for p in range(panels):
                        builder.store(builder.load(places[r][p], align=4), sums[r][p])
            with cgutils.for_range(builder, groups) as outer, cgutils.for_range(builder, length) as inner:
                k = builder.add(builder.mul(outer.index, length), inner.index)
                at = builder.add(builder.mul(outer.index, group), builder.mul(inner.index, step))
                ours = builder.mul(k, number(LANES))
                factors = [
                    builder.load(pointer(builder, b, builder.add(times(p, b_panel), ours)), align=4)
                    for p in range(panels)
                ]
                for r in range(rows):
                    value = spread_float(builder, a, builder.add(times(r, row), at))
                    for p in range(panels):
                        total = builder.load(sums[r][p])
                        builder.store(multiply_accumulate(builder, value, factors[p], total), sums[r][p])
            for r in range(rows):
                for p in range(panels):
                    builder.store(builder.load(sums[r][p]), places[r][p], align=4)
            return context.get_dummy_value()

        n, address = types.int64, types.uintp
        return types.void(address, n, n, n, n, n, address, n, address, n, types.int64), generate

    made: Callable[..., None] = product
    return made


_block8x2, _block16x1, _block4x1 = block(8, 2), block(16, 1), block(4, 1)


@jit
def _product(a, row, step, group, groups, length, rows, next_row, b, b_panel, c, c_panel, columns, add, wide):
    """All blocks of c (rows, 16 columns); ``next_row`` floats lie between a's rows r and r + 16 in steps of 16."""
    panel = 0
    while panel < columns:
        here, there = b + 4 * panel * b_panel, c + 4 * panel * c_panel
        if not wide:
            for r in range(0, rows, 4):
                at = a + 4 * (r // LANES * next_row + r % LANES * row)
                _block4x1(at, row, step, group, groups, length, here, b_panel, there + 4 * r * LANES, c_panel, add)
            panel += 1
        elif panel + 1 < columns:
            for r in range(0, rows, 8):
                at = a + 4 * (r // LANES * next_row + r % LANES * row)
                _block8x2(at, row, step, group, groups, length, here, b_panel, there + 4 * r * LANES, c_panel, add)
            panel += 2
        else:
            for r in range(0, rows, 16):
                at = a + 4 * (r // LANES * next_row)
                _block16x1(at, row, step, group, groups, length, here, b_panel, there + 4 * r * LANES, c_panel, add)
            panel += 1


@jit
def multiply(a, a_panel, k, b, c, c_panel, rows, columns, wide):
    """C = a b: a (rows, 16 k), b (16 k, 16 columns), c (rows, 16 columns)."""
    _product(a, LANES, 1, a_panel, k, LANES, rows, LANES * LANES, b, LANES * LANES * k, c, c_panel, columns, 0, wide)


@jit
def multiply_add(a, a_panel, k, b, b_panel, c, rows, columns, add, wide):
    """C = a^T b, or c += a^T b where ``add``: a (k, rows), b (k, 16 columns), c (rows, 16 columns)."""
    _product(a, 1, LANES, 0, 1, k, rows, a_panel, b, b_panel, c, LANES * rows, columns, add, wide)
