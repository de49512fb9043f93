"""Products in panels against NumPy, in blocks for wide registers and for narrow ones."""

import numpy as np
import pytest

pytest.importorskip("numba")

from gpucnn.kernels.cpu.engine.compile import jit
from gpucnn.kernels.cpu.engine.microkernel import (
    FULL,
    HALVES,
    NARROW,
    OVERHANG,
    SPLIT_EXACTLY,
    gather_rows,
    multiply,
    multiply_add,
    overhang,
    pack_columns,
    scatter_rows,
    smaller,
    split,
)
from gpucnn.kernels.cpu.engine.simd import LANES, transpose

ZEROS = np.zeros(LANES, np.float32)
SIZES = [(16, 16, 16), (32, 48, 80), (48, 32, 64)]


def panels(matrix: np.ndarray) -> np.ndarray:
    """(rows, 16 n) -> (n, rows, 16)."""
    return np.ascontiguousarray(matrix.reshape(len(matrix), -1, LANES).swapaxes(0, 1))


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize(("rows", "k", "columns"), SIZES)
def test_multiply(rows, k, columns, wide) -> None:
    a, b = normal(rows, k), normal(k, columns)
    in_a, in_b, c = panels(a), panels(b), np.full((columns // LANES, rows + 3, LANES), 7, np.float32)
    walk = (LANES * rows * np.arange(k // LANES)[:, None] + np.arange(LANES)).reshape(-1)
    multiply(
        in_a.ctypes.data, walk.ctypes.data, k, in_b.ctypes.data,
        c.ctypes.data, LANES * (rows + 3), rows, columns // LANES, ZEROS.ctypes.data, wide,
    )  # fmt: skip
    np.testing.assert_allclose(c[:, :rows], panels(a.astype(np.float64) @ b), rtol=1e-4, atol=1e-4)
    assert (c[:, rows:] == 7).all()


@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize("add", [True, False])
@pytest.mark.parametrize(("rows", "k", "columns"), SIZES)
def test_multiply_add(rows, k, columns, add, wide) -> None:
    a, b = normal(k - 3, rows), normal(k - 3, columns)
    in_a, in_b, c = panels(a), panels(b), np.full((columns // LANES, rows, LANES), 7, np.float32)
    length, walk = LANES * (k - 3), LANES * np.arange(k - 3)
    start = c if add else ZEROS
    multiply_add(
        in_a.ctypes.data, length, walk.ctypes.data, k - 3, in_b.ctypes.data, length,
        c.ctypes.data, rows, columns // LANES, start.ctypes.data, wide,
    )  # fmt: skip
    wanted = panels(a.T.astype(np.float64) @ b) + (7 if add else 0)
    np.testing.assert_allclose(c, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [NARROW, HALVES, FULL])
def test_rows_are_split_into_blocks_that_hold_them_all(kind) -> None:
    small = smaller(kind)
    for count in range(0, 200):
        blocks, large = split(count, kind)
        assert 0 <= large <= blocks
        beyond = small * blocks + large - count
        assert beyond == overhang(count, kind)
        assert 0 <= beyond < OVERHANG
        assert beyond == 0 or count < SPLIT_EXACTLY


@pytest.mark.parametrize("kind", [NARROW, HALVES, FULL])
@pytest.mark.parametrize("count", [1, 5, 13, 23, 64])
def test_gathered_rows(count, kind) -> None:
    lanes = LANES // 2 if kind == HALVES else LANES
    memory, b, start = normal(999), normal(11, lanes), normal(count + OVERHANG, lanes)
    rng = np.random.default_rng(count)
    rows, walk = rng.integers(0, 500, count + OVERHANG), rng.integers(0, 400, 11)
    c = np.full((count + OVERHANG, lanes + 3), 7, np.float32)
    gather_rows(
        memory.ctypes.data, rows.ctypes.data, walk.ctypes.data, 11, count, b.ctypes.data, lanes,
        start.ctypes.data, lanes, c.ctypes.data, lanes + 3, kind,
    )  # fmt: skip
    wanted = start.astype(np.float64) + memory[rows[:, None] + walk].astype(np.float64) @ b
    np.testing.assert_allclose(c[:count, :lanes], wanted[:count], rtol=1e-4, atol=1e-4)
    assert (c[:, lanes:] == 7).all()
    assert (c[count + overhang(count, kind) :] == 7).all()


@pytest.mark.parametrize("kind", [NARROW, FULL])
@pytest.mark.parametrize("count", [1, 5, 13, 64])
def test_scattered_rows_may_meet(count, kind) -> None:
    a, b = normal(count + OVERHANG, 11), normal(11, LANES)
    rng = np.random.default_rng(count)
    rows, walk = rng.integers(0, 200, count + OVERHANG), np.arange(11)  # many overlap
    rows[count:] = 300
    sources = 11 * rng.permutation(count + OVERHANG)
    c = np.full(400, 7, np.float32)
    scatter_rows(
        a.ctypes.data, sources.ctypes.data, walk.ctypes.data, 11, count, b.ctypes.data, LANES, ZEROS.ctypes.data,
        c.ctypes.data, rows.ctypes.data, kind,
    )  # fmt: skip
    wanted = np.full(400, 7, np.float64)
    for row, values in zip(rows[:count], a[sources[:count] // 11].astype(np.float64) @ b, strict=True):
        wanted[row : row + LANES] += values
    np.testing.assert_allclose(c[:300], wanted[:300], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("lanes", [8, 16])
@pytest.mark.parametrize(("f", "k", "first"), [(40, 37, 16), (20, 16, 16), (8, 25, 0)])
def test_packed_columns(f, k, first, lanes) -> None:
    w, panel = normal(f, k), np.full((k, lanes), 7, np.float32)
    some = min(lanes, f - first)
    pack_columns(w, first, some, panel)
    np.testing.assert_array_equal(panel[:, :some], w[first : first + some].T)
    assert (panel[:, some:] == 0).all()


def test_transpose() -> None:
    @jit
    def call(a, b):
        transpose(a.ctypes.data, a.shape[1], b.ctypes.data, b.shape[1])

    a, b = normal(16, 19), np.zeros((16, 18), np.float32)
    call(a, b)
    np.testing.assert_array_equal(b[:, :16], a[:, :16].T)
    assert (b[:, 16:] == 0).all()
