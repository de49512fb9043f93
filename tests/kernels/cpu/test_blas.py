"""NumPy's own BLAS from compiled code."""

import numpy as np
import pytest

pytest.importorskip("numba")

from gpucnn.kernels.cpu.engine import blas
from gpucnn.kernels.cpu.engine.compile import jit
from gpucnn.kernels.cpu.linear import product

pytestmark = pytest.mark.skipif(not blas.ADDRESS, reason="NumPy has no OpenBLAS of its own")


@jit
def _call(a, ta, b, tb, m, n, k, alpha, beta, c):
    blas.sgemm(
        blas.ROW_MAJOR, blas.TRANSPOSED if ta else blas.PLAIN, blas.TRANSPOSED if tb else blas.PLAIN, m, n, k,
        np.float32(alpha), a.ctypes.data, a.shape[1], b.ctypes.data, b.shape[1],
        np.float32(beta), c.ctypes.data, c.shape[1],
    )  # fmt: skip


def normal(*shape):
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(("ta", "tb"), [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 0.0), (1.0, 1.0), (0.5, -2.0)])
@pytest.mark.parametrize(("m", "n", "k"), [(1, 1, 1), (5, 7, 3), (64, 32, 48)])
def test_products_of_parts_of_larger_matrices(m, n, k, alpha, beta, ta, tb) -> None:
    a, b, c = (
        normal(k if ta else m, (m if ta else k) + 5),
        normal(n if tb else k, (k if tb else n) + 2),
        normal(m, n + 3),
    )
    before = c.copy()
    _call(a, ta, b, tb, m, n, k, alpha, beta, c)
    left = (a[:, :m].T if ta else a[:, :k]).astype(np.float64)
    right = (b[:, :k].T if tb else b[:, :n]).astype(np.float64)
    np.testing.assert_allclose(c[:, :n], alpha * left @ right + beta * before[:, :n], rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(c[:, n:], before[:, n:])


@pytest.mark.parametrize(("ta", "tb"), [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize(("m", "n", "k"), [(3, 4, 5), (200, 5, 2100), (1500, 3, 500), (130, 129, 131)])
def test_products_in_pieces(m, n, k, ta, tb) -> None:
    a, b = normal(*((k, m) if ta else (m, k))), normal(*((n, k) if tb else (k, n)))
    wanted = (a.T if ta else a).astype(np.float64) @ (b.T if tb else b).astype(np.float64)
    got = product(a, b, ta=ta, tb=tb)
    assert np.abs(got - wanted).max() <= 2e-6 * np.abs(wanted).max() * np.sqrt(k)
