"""Kernels for the GPU, in CUDA C++: arrays in, arrays out.  ``backends/gpu.py`` says which op uses which.

Importing this needs no CuPy and no GPU; the first launch does.
"""

from gpucnn.kernels.gpu import (
    augment,
    batchnorm,
    dropout,
    elementwise,
    joined,
    linear,
    loss,
    muon,
    optim,
    pooling,
    precision,
    stem,
    sums,
)

__all__ = [
    "augment",
    "batchnorm",
    "dropout",
    "elementwise",
    "joined",
    "linear",
    "loss",
    "muon",
    "optim",
    "pooling",
    "precision",
    "stem",
    "sums",
]

MODULES = (
    augment.MODULE,
    batchnorm.MODULE,
    dropout.MODULE,
    elementwise.MODULE,
    joined.MODULE,
    linear.MODULE,
    loss.MODULE,
    muon.MODULE,
    optim.MODULE,
    pooling.AVERAGE,
    pooling.MAXIMUM,
    precision.MODULE,
    stem.MODULE,
    sums.MODULE,
)
"""Every ``.cu`` file, for whoever compiles them all."""
