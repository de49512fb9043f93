"""Matrix products in float16 on cuDNN, whose calls a CUDA graph may hold: CuPy refuses cuBLAS while one is captured.

A product is a convolution with 1x1 filters.  The rows of the first factor are pixels, a line of them in one image; what
is summed over are channels.  So the engines, their choice by timing and their scratch memory are those of
convolutions.  Sums are float32.
"""

import numpy as np

from gpucnn.kernels.gpu.cudnn.geometry import DGRAD, FPROP, Geometry
from gpucnn.kernels.gpu.cudnn.library import Library
from gpucnn.types import Array

HALF = np.dtype("float16")
ONE, NONE = (1, 1), ((0, 0), (0, 0))
MULTIPLE = 8
"""What tensor cores want the sides of factors to be a multiple of."""


def nt_geometry(m: int, n: int, k: int) -> Geometry:
    """``nt`` of (m,k) and (n,k): n filters of k channels over m pixels."""
    return Geometry(FPROP, (1, 1, m, k), (n, 1, 1, k), ONE, NONE, HALF)


def nn_geometry(m: int, n: int, k: int) -> Geometry:
    """``nn`` of (m,k) and (k,n): the gradient of m pixels of n channels, through k filters."""
    return Geometry(DGRAD, (1, 1, m, n), (k, 1, 1, n), ONE, NONE, HALF)


class Products:
    """Products by a library's cuDNN."""

    def __init__(self, library: Library) -> None:
        self.library = library

    def nt(self, a: Array, b: Array) -> Array:
        """a (m,k), b (n,k) -> a b^T (m,n), float16."""
        (m, k), n = a.shape, len(b)
        return self.library.compute(nt_geometry(m, n, k), (a, b)).reshape(m, n)

    def nn(self, a: Array, b: Array) -> Array:
        """a (m,k), b (k,n) -> a b (m,n), float16."""
        (m, k), n = a.shape, b.shape[1]
        return self.library.compute(nn_geometry(m, n, k), (a, b)).reshape(m, n)

    def refusal(self, *geometries: Geometry) -> str:
        """Why cuDNN does not compute these products on the current GPU; "" where it does."""
        plans = self.library.current()
        if isinstance(plans, str):
            return plans
        return next((reason for geometry in geometries if (reason := plans.find(geometry).refusal)), "")
