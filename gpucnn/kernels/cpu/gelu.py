"""GELU and its gradient, sixteen at a time, from one exponential and one division.

    P(x) = tail(|x|) for x < 0, else 1 - tail(|x|)
    tail(v) = erfc(v / sqrt 2) / 2 = e^{-v^2/2} t q(t) / 2,     t = 1 / (1 + 0.33 v / sqrt 2)

q is a polynomial of degree 7 with the smallest largest relative error over 0 <= v <= 13 (8e-8, found by reweighted
least squares), so both tails keep their digits.  The density in the gradient is the same exponential: e^u = 2^n 2^f
with n the nearest integer to u / ln 2, put into the exponent's bits, and a polynomial of degree 5 for 2^f (7e-8).

Written as array code, the series of ``layers/gelu.py`` passes over memory about a hundred times.
"""

from math import log2, pi, sqrt

import numpy as np
from llvmlite import ir
from numba.extending import intrinsic

from gpucnn.kernels.arguments import same_shape
from gpucnn.kernels.cpu.arguments import float32_arrays, float32_where
from gpucnn.kernels.cpu.elementwise import _bounds
from gpucnn.kernels.cpu.engine.allocator import empty, streams
from gpucnn.kernels.cpu.engine.compile import jit
from gpucnn.kernels.cpu.engine.simd import (
    LANES,
    VECTOR,
    by_sign,
    fill,
    float32x16,
    load,
    multiply_accumulate,
    put,
    store,
)
from gpucnn.kernels.cpu.engine.threads import parallel
from gpucnn.types import Array

_FLAGS = ("contract",)
_MAGIC = 12582912.0  # 1.5 * 2^23: adding it rounds to an integer, which is then in the lowest bits
_LEAST = -87.0  # below it the smallest normal number is near
_EXP2 = (1.000000071660208, 0.6931469669858221, 0.24022119684212379, 0.055507134115330335, 0.00967554394700873,
         0.001327642743411666)  # fmt: skip
_TAIL = (0.18636611474576334, 0.18283717253729004, 0.2019242247731069, 0.0450094140434536, 0.412543783992696,
         -0.35544116991011165, 0.46268945591708643, -0.13592907776632046)  # fmt: skip
_SLOPE = np.float32(0.33 * sqrt(0.5))
_ZERO, _HALF, _ONE = np.float32(0), np.float32(0.5), np.float32(1)
_DENSITY = np.float32(1 / sqrt(2 * pi))


def _polynomial(builder, x, coefficients):
    """Horner's scheme, the constant first."""
    total = ir.Constant(VECTOR, [coefficients[-1]] * LANES)
    for coefficient in reversed(coefficients[:-1]):
        total = multiply_accumulate(builder, total, x, ir.Constant(VECTOR, [coefficient] * LANES))
    return total


@intrinsic
def _exponential(typingctx, x):
    """e^x for x <= 0; below -87, and for NaN, it is 0."""

    def generate(context, builder, signature, args):
        integers = ir.VectorType(ir.IntType(32), LANES)

        def constant(value):
            return ir.Constant(VECTOR, [value] * LANES)

        counts = builder.fcmp_ordered(">", args[0], constant(_LEAST))
        x = builder.select(counts, args[0], constant(_LEAST))
        scaled = builder.fmul(x, constant(np.float32(log2(np.e)).item()), flags=_FLAGS)
        shifted = builder.fadd(scaled, constant(_MAGIC), flags=_FLAGS)
        rest = builder.fsub(scaled, builder.fsub(shifted, constant(_MAGIC), flags=_FLAGS), flags=_FLAGS)
        power = builder.bitcast(_polynomial(builder, rest, _EXP2), integers)
        whole = builder.shl(builder.bitcast(shifted, integers), ir.Constant(integers, [23] * LANES))
        return builder.select(counts, builder.bitcast(builder.add(power, whole), VECTOR), constant(0.0))

    return float32x16(float32x16), generate


@intrinsic
def _tail(typingctx, v, exponential):
    """The normal distribution beyond v >= 0, given e^{-v^2/2}."""

    def generate(context, builder, signature, args):
        v, exponential = args
        one = ir.Constant(VECTOR, [1.0] * LANES)
        t = builder.fdiv(one, multiply_accumulate(builder, v, ir.Constant(VECTOR, [_SLOPE.item()] * LANES), one))
        half = builder.fmul(exponential, ir.Constant(VECTOR, [0.5] * LANES), flags=_FLAGS)
        series = builder.fmul(t, _polynomial(builder, t, _TAIL), flags=_FLAGS)
        return builder.fmul(half, series, flags=_FLAGS)

    return float32x16(float32x16, float32x16), generate


@jit
def _parts(x):
    """P(x) and e^{-x^2/2}."""
    zero = fill(_ZERO)
    exponential = _exponential(fill(-_HALF) * x * x)
    tail = _tail(by_sign(x, x, zero - x), exponential)
    return by_sign(x, fill(_ONE) - tail, tail), exponential


@jit
def _forward(x):
    return x * _parts(x)[0]


@jit
def _backward(dy, x):
    p, exponential = _parts(x)
    return dy * (p + x * (fill(_DENSITY) * exponential))


@jit
def _gelu(first, last, x, past, y):
    start, stop = _bounds(x.size, first, last)
    source, target = x.ctypes.data, y.ctypes.data
    for i in range(start, stop - LANES + 1, LANES):
        put(target, i, _forward(load(source, i)), past)
    rest = (stop - start) % LANES
    if rest:  # the last elements of all: a vector of their own
        area = np.zeros(LANES, np.float32)
        area[:rest] = x[stop - rest : stop]
        store(area.ctypes.data, 0, _forward(load(area.ctypes.data, 0)))
        y[stop - rest : stop] = area[:rest]


@jit
def _gelu_grad(first, last, dy, x, past, dx):
    start, stop = _bounds(x.size, first, last)
    source, grad, target = x.ctypes.data, dy.ctypes.data, dx.ctypes.data
    for i in range(start, stop - LANES + 1, LANES):
        put(target, i, _backward(load(grad, i), load(source, i)), past)
    rest = (stop - start) % LANES
    if rest:
        area = np.zeros((2, LANES), np.float32)
        area[0, :rest] = dy[stop - rest : stop]
        area[1, :rest] = x[stop - rest : stop]
        at = area.ctypes.data
        store(at, 0, _backward(load(at, 0), load(at, LANES)))
        dx[stop - rest : stop] = area[0, :rest]


accepts = float32_arrays
accepts_grad = float32_where(same_shape)


def gelu(x: Array) -> Array:
    """Exact GELU."""
    y = empty(x.shape)
    parallel(_gelu, np.ravel(x), streams(y), y.reshape(-1), work=4 * x.size)
    return y


def gelu_grad(dy: Array, x: Array) -> Array:
    """dy (P(x) + x p(x))."""
    dx = empty(x.shape)
    parallel(_gelu_grad, np.ravel(dy), np.ravel(x), streams(dx), dx.reshape(-1), work=4 * x.size)
    return dx
