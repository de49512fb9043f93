"""Matrix products from compiled code, through the BLAS that NumPy brings.

``sgemm`` is bound to the cblas function in NumPy's own OpenBLAS by its address, under a name of ours, so compiled
kernels can be cached on disk.  Everything here is row-major with leading dimensions (elements from row to row).
"""

import ctypes
from pathlib import Path

import numpy as np
from llvmlite import binding
from numba import types

SYMBOLS = ("scipy_cblas_sgemm64_", "cblas_sgemm64_")
"""The names that NumPy's wheels give to cblas_sgemm with 64-bit sizes."""


def find_sgemm() -> int:
    """The address of cblas_sgemm in NumPy's OpenBLAS; 0 where NumPy was built with another BLAS."""
    package = Path(np.__file__).parent
    for folder in (package.parent / "numpy.libs", package / ".dylibs"):
        for library in sorted(folder.glob("lib*openblas*")):
            try:
                loaded = ctypes.CDLL(str(library))
            except OSError:
                continue
            for symbol in SYMBOLS:
                if hasattr(loaded, symbol):
                    return ctypes.cast(getattr(loaded, symbol), ctypes.c_void_p).value or 0
    return 0


ADDRESS = find_sgemm()
if ADDRESS:
    binding.add_symbol("gpucnn_cblas_sgemm", ADDRESS)

_i32, _i64, _f32, _ptr = types.int32, types.int64, types.float32, types.uintp

sgemm = types.ExternalFunction(
    "gpucnn_cblas_sgemm",
    types.void(_i32, _i32, _i32, _i64, _i64, _i64, _f32, _ptr, _i64, _ptr, _i64, _f32, _ptr, _i64),
)
"""(order, transpose a, transpose b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc): c = alpha a b + beta c."""

ROW_MAJOR, PLAIN, TRANSPOSED = 101, 111, 112
