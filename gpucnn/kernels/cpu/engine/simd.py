"""Sixteen float32 at once in Numba code.

LLVM gives up on vectorising a loop that reads and writes 36 streams, as Winograd's transforms do: it cannot prove that
they do not overlap.  With a vector type of our own there is nothing to prove.  On machines without 512-bit registers
LLVM splits the vectors; the code stays right.

    a = load(address, i)             the floats i .. i + 15 behind an address (``array.ctypes.data``)
    store(address, i, a + b)
    stream(address, i, a)            the same past the caches, at a multiple of 64 bytes
    put(address, i, a, past)         one or the other
    fill(2.0) * a                    all lanes the same
    spread(address, i)               the float at i in all lanes
    transpose(a, step, b, step)      sixteen rows of sixteen floats become columns
    above_zero(a, b)                 b where a > 0, else 0
    by_sign(a, x, y)                 x where a > 0, else y
    positive(a)                      max(a, 0), and NaN stays NaN
    larger(a, b)                     max(a, b), and NaN where either is
    at_least(a, b, x, y)             x where a >= b, else y
    no_larger(a, b)                  min(a, b), and a where it is NaN
    first_of(a, b, x, y)             x where a >= b or a is NaN, else y: NaN is the largest
"""

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.core.datamodel import models, register_default
from numba.extending import intrinsic, overload

from gpucnn.kernels.cpu.engine.compile import jit

LANES = 16

WIDE = bool(binding.get_host_cpu_features().get("avx512f"))
"""Whether a vector is one of 32 registers; otherwise it is two or four, of sixteen, and blocks must be smaller."""

_FLOAT = ir.FloatType()
VECTOR = ir.VectorType(_FLOAT, LANES)
HALF = ir.VectorType(_FLOAT, LANES // 2)
_FLAGS = ("contract",)  # a * b + c becomes one instruction


class Float32x16(types.Type):
    """Sixteen lanes of float32."""

    def __init__(self) -> None:
        super().__init__(name="Float32x16")


float32x16 = Float32x16()


@register_default(Float32x16)
class Float32x16Model(models.PrimitiveModel):
    """Lives in one register."""

    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, VECTOR)


def pointer(builder: Any, address: Any, index: Any, kind: Any = VECTOR) -> Any:
    """To the vector ``index`` floats behind an address."""
    floats = builder.inttoptr(address, _FLOAT.as_pointer())
    return builder.bitcast(builder.gep(floats, [index]), kind.as_pointer())


def spread_float(builder: Any, address: Any, index: Any, kind: Any = VECTOR) -> Any:
    """The float ``index`` floats behind an address, in all lanes."""
    floats = builder.inttoptr(address, _FLOAT.as_pointer())
    return spread_value(builder, builder.load(builder.gep(floats, [index])), kind)


def spread_value(builder: Any, value: Any, kind: Any = VECTOR) -> Any:
    """A float in all lanes."""
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.IntType(32)(0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), kind.count), [0] * kind.count)
    return builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), zeros)


def multiply_accumulate(builder: Any, a: Any, b: Any, total: Any) -> Any:
    """A b + total, in one instruction where there is one."""
    return builder.fadd(builder.fmul(a, b, flags=_FLAGS), total, flags=_FLAGS)


@intrinsic
def load(typingctx, address, index):
    """The floats index .. index + 15 behind an address."""

    def generate(context, builder, signature, args):
        return builder.load(pointer(builder, args[0], args[1]), align=4)

    return float32x16(types.uintp, types.intp), generate


@intrinsic
def store(typingctx, address, index, value):
    """Write sixteen floats."""

    def generate(context, builder, signature, args):
        builder.store(args[2], pointer(builder, args[0], args[1]), align=4)
        return context.get_dummy_value()

    return types.void(types.uintp, types.intp, float32x16), generate


@intrinsic
def stream(typingctx, address, index, value):
    """Write sixteen floats past the caches; the place must be a multiple of 64 bytes."""

    def generate(context, builder, signature, args):
        made = builder.store(args[2], pointer(builder, args[0], args[1]), align=64)
        made.set_metadata("nontemporal", builder.module.add_metadata([ir.IntType(32)(1)]))
        return context.get_dummy_value()

    return types.void(types.uintp, types.intp, float32x16), generate


@intrinsic
def spread(typingctx, address, index):
    """The float at an index in all lanes; no check, no wrap-around, and often no instruction of its own."""

    def generate(context, builder, signature, args):
        return spread_float(builder, args[0], args[1])

    return float32x16(types.uintp, types.intp), generate


@intrinsic
def fill(typingctx, value):
    """One float32 in all lanes."""

    def generate(context, builder, signature, args):
        return spread_value(builder, args[0])

    return float32x16(types.float32), generate


@intrinsic
def above_zero(typingctx, a, b):
    """b where a > 0, else 0."""

    def generate(context, builder, signature, args):
        zero = ir.Constant(VECTOR, [0.0] * LANES)
        return builder.select(builder.fcmp_ordered(">", args[0], zero), args[1], zero)

    return float32x16(float32x16, float32x16), generate


@intrinsic
def by_sign(typingctx, a, x, y):
    """x where a > 0, else y."""

    def generate(context, builder, signature, args):
        zero = ir.Constant(VECTOR, [0.0] * LANES)
        return builder.select(builder.fcmp_ordered(">", args[0], zero), args[1], args[2])

    return float32x16(float32x16, float32x16, float32x16), generate


@intrinsic
def positive(typingctx, a):
    """max(a, 0) in one instruction; NaN stays NaN."""

    def generate(context, builder, signature, args):
        zero = ir.Constant(VECTOR, [0.0] * LANES)
        return builder.select(builder.fcmp_ordered(">", zero, args[0]), zero, args[0])

    return float32x16(float32x16), generate


@intrinsic
def larger(typingctx, a, b):
    """The larger of a and b, and NaN where either is NaN."""

    def generate(context, builder, signature, args):
        a, b = args
        most = builder.select(builder.fcmp_ordered(">", a, b), a, b)  # one instruction: b where either is NaN
        return builder.select(builder.fcmp_unordered("uno", a, a), a, most)

    return float32x16(float32x16, float32x16), generate


@intrinsic
def no_larger(typingctx, a, b):
    """min(a, b) in one instruction; a where it is NaN."""

    def generate(context, builder, signature, args):
        return builder.select(builder.fcmp_ordered("<", args[1], args[0]), args[1], args[0])

    return float32x16(float32x16, float32x16), generate


@intrinsic
def at_least(typingctx, a, b, x, y):
    """x where a >= b, else y."""

    def generate(context, builder, signature, args):
        return builder.select(builder.fcmp_ordered(">=", args[0], args[1]), args[2], args[3])

    return float32x16(float32x16, float32x16, float32x16, float32x16), generate


@intrinsic
def first_of(typingctx, a, b, x, y):
    """x where a >= b or a is NaN, else y."""

    def generate(context, builder, signature, args):
        a, b, x, y = args
        larger = builder.or_(builder.fcmp_ordered(">=", a, b), builder.fcmp_unordered("uno", a, a))
        return builder.select(larger, x, y)

    return float32x16(float32x16, float32x16, float32x16, float32x16), generate


@intrinsic
def transpose(typingctx, source, source_step, target, target_step):
    """Sixteen rows of sixteen floats, ``source_step`` floats apart, to sixteen columns."""

    def generate(context, builder, signature, args):
        source, source_step, target, target_step = args
        number = source_step.type
        places = [pointer(builder, source, builder.mul(number(i), source_step)) for i in range(LANES)]
        rows = [builder.load(place, align=4) for place in places]
        for bit in (8, 4, 2, 1):  # swap this bit of the row's number with that of the lane's
            for i in range(LANES):
                if not i & bit:
                    a, b = rows[i], rows[i + bit]
                    upper = [lane + LANES - bit if lane & bit else lane for lane in range(LANES)]
                    lower = [lane + LANES if lane & bit else lane + bit for lane in range(LANES)]
                    for row, lanes in ((i, upper), (i + bit, lower)):
                        order = ir.Constant(ir.VectorType(ir.IntType(32), LANES), lanes)
                        rows[row] = builder.shuffle_vector(a, b, order)
        for i in range(LANES):
            builder.store(rows[i], pointer(builder, target, builder.mul(number(i), target_step)), align=4)
        return context.get_dummy_value()

    return types.void(types.uintp, types.int64, types.uintp, types.int64), generate


def _arithmetic(name: str) -> Callable[..., Any]:
    @intrinsic
    def operation(typingctx, a, b):
        def generate(context, builder, signature, args):
            return getattr(builder, name)(args[0], args[1], flags=_FLAGS)

        return float32x16(float32x16, float32x16), generate

    made: Callable[..., Any] = operation
    return made


_add, _subtract, _multiply = _arithmetic("fadd"), _arithmetic("fsub"), _arithmetic("fmul")


@overload(operator.add)
def _overload_add(a, b):
    if a is float32x16 and b is float32x16:
        return lambda a, b: _add(a, b)
    return None


@overload(operator.sub)
def _overload_subtract(a, b):
    if a is float32x16 and b is float32x16:
        return lambda a, b: _subtract(a, b)
    return None


@overload(operator.mul)
def _overload_multiply(a, b):
    if a is float32x16 and b is float32x16:
        return lambda a, b: _multiply(a, b)
    return None


@jit
def put(address, index, value, past):
    """Write sixteen floats, past the caches where ``past``."""
    if past:
        stream(address, index, value)
    else:
        store(address, index, value)
