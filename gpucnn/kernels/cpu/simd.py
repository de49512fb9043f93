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
    above_zero(a, b)                 b where a > 0, else 0
    positive(a)                      max(a, 0), and NaN stays NaN
    larger(a, b)                     max(a, b), and NaN where either is
    at_least(a, b, x, y)             x where a >= b, else y
"""

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.datamodel import models, register_default
from numba.extending import intrinsic, overload

from gpucnn.kernels.cpu.compile import jit

LANES = 16

_FLOAT = ir.FloatType()
_VECTOR = ir.VectorType(_FLOAT, LANES)
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
        super().__init__(manager, kind, _VECTOR)


def _pointer(builder: Any, address: Any, index: Any, kind: Any) -> Any:
    floats = builder.inttoptr(address, _FLOAT.as_pointer())
    return builder.bitcast(builder.gep(floats, [index]), kind.as_pointer())


@intrinsic
def load(typingctx, address, index):
    """The floats index .. index + 15 behind an address."""

    def generate(context, builder, signature, args):
        return builder.load(_pointer(builder, args[0], args[1], _VECTOR), align=4)

    return float32x16(types.uintp, types.intp), generate


@intrinsic
def store(typingctx, address, index, value):
    """Write sixteen floats."""

    def generate(context, builder, signature, args):
        builder.store(args[2], _pointer(builder, args[0], args[1], _VECTOR), align=4)
        return context.get_dummy_value()

    return types.void(types.uintp, types.intp, float32x16), generate


@intrinsic
def stream(typingctx, address, index, value):
    """Write sixteen floats past the caches; the place must be a multiple of 64 bytes."""

    def generate(context, builder, signature, args):
        made = builder.store(args[2], _pointer(builder, args[0], args[1], _VECTOR), align=64)
        made.set_metadata("nontemporal", builder.module.add_metadata([ir.IntType(32)(1)]))
        return context.get_dummy_value()

    return types.void(types.uintp, types.intp, float32x16), generate


@intrinsic
def spread(typingctx, address, index):
    """The float at an index in all lanes; no check, no wrap-around, and often no instruction of its own."""

    def generate(context, builder, signature, args):
        floats = builder.inttoptr(args[0], _FLOAT.as_pointer())
        value = builder.load(builder.gep(floats, [args[1]]))
        one = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), value, ir.IntType(32)(0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        return builder.shuffle_vector(one, ir.Constant(_VECTOR, ir.Undefined), zeros)

    return float32x16(types.uintp, types.intp), generate


@intrinsic
def fill(typingctx, value):
    """One float32 in all lanes."""

    def generate(context, builder, signature, args):
        one = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), args[0], ir.IntType(32)(0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        return builder.shuffle_vector(one, ir.Constant(_VECTOR, ir.Undefined), zeros)

    return float32x16(types.float32), generate


@intrinsic
def above_zero(typingctx, a, b):
    """B where a > 0, else 0."""

    def generate(context, builder, signature, args):
        zero = ir.Constant(_VECTOR, [0.0] * LANES)
        return builder.select(builder.fcmp_ordered(">", args[0], zero), args[1], zero)

    return float32x16(float32x16, float32x16), generate


@intrinsic
def positive(typingctx, a):
    """A where it is not below 0, else 0: one instruction, and what is not a number stays so."""

    def generate(context, builder, signature, args):
        zero = ir.Constant(_VECTOR, [0.0] * LANES)
        return builder.select(builder.fcmp_ordered(">", zero, args[0]), zero, args[0])

    return float32x16(float32x16), generate


@intrinsic
def larger(typingctx, a, b):
    """The larger of a and b, and NaN where either is not a number."""

    def generate(context, builder, signature, args):
        a, b = args
        most = builder.select(builder.fcmp_ordered(">", a, b), a, b)  # one instruction: b where either is NaN
        return builder.select(builder.fcmp_unordered("uno", a, a), a, most)

    return float32x16(float32x16, float32x16), generate


@intrinsic
def at_least(typingctx, a, b, x, y):
    """X where a >= b, else y."""

    def generate(context, builder, signature, args):
        return builder.select(builder.fcmp_ordered(">=", args[0], args[1]), args[2], args[3])

    return float32x16(float32x16, float32x16, float32x16, float32x16), generate


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
