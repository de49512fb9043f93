"""Products in panels against NumPy, in blocks for wide registers and for narrow ones."""

import numpy as np
import pytest

pytest.importorskip("numba")

from gpucnn.kernels.cpu.compile import jit
from gpucnn.kernels.cpu.panels import multiply, multiply_add
from gpucnn.kernels.cpu.simd import LANES, transpose

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
    multiply(
        in_a.ctypes.data, LANES * rows, k // LANES, in_b.ctypes.data,
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
    length = LANES * (k - 3)
    start = c if add else ZEROS
    multiply_add(
        in_a.ctypes.data, length, k - 3, in_b.ctypes.data, length,
        c.ctypes.data, rows, columns // LANES, start.ctypes.data, wide,
    )  # fmt: skip
    wanted = panels(a.T.astype(np.float64) @ b) + (7 if add else 0)
    np.testing.assert_allclose(c, wanted, rtol=1e-4, atol=1e-4)


def test_transpose() -> None:
    @jit
    def call(a, b):
        transpose(a.ctypes.data, a.shape[1], b.ctypes.data, b.shape[1])

    a, b = normal(16, 19), np.zeros((16, 18), np.float32)
    call(a, b)
    np.testing.assert_array_equal(b[:, :16], a[:, :16].T)
    assert (b[:, 16:] == 0).all()
