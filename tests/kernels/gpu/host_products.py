"""NumPy in the place of cuDNN for the products of matrices."""

import numpy as np
import pytest

from gpucnn.kernels.gpu import launch
from gpucnn.kernels.gpu.cudnn import matmul


def multiplied(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The product as cuDNN gives it: of float16, summed in float32, rounded at the end."""
    assert a.dtype == b.dtype == np.float16
    result = launch.empty((len(a), b.shape[1]), "float16")
    result[...] = a.astype(np.float32) @ b.astype(np.float32)
    return result


def multiply_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """No product is refused."""
    products = matmul.Products
    monkeypatch.setattr(products, "nt", lambda self, a, b: multiplied(a, b.T))
    monkeypatch.setattr(products, "nn", lambda self, a, b: multiplied(a, b))
    monkeypatch.setattr(products, "refusal", lambda self, *geometries: "")
