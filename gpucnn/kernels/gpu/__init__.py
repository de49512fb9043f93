"""Kernels for the GPU, in CUDA C++: arrays in, arrays out.  ``devices/gpu.py`` says which op uses which.

Importing this needs no CuPy and no GPU; the first launch does.
"""

from gpucnn.kernels.gpu import (
    augment,
    batchnorm,
    colour,
    dropout,
    elementwise,
    fused,
    linear,
    loss,
    muon,
    optim,
    pooling,
    precision,
    stem,
    sums,
    warp,
)

__all__ = [
    "augment",
    "batchnorm",
    "colour",
    "dropout",
    "elementwise",
    "fused",
    "linear",
    "loss",
    "muon",
    "optim",
    "pooling",
    "precision",
    "stem",
    "sums",
    "warp",
]

MODULES = (
    augment.MODULE,
    batchnorm.MODULE,
    colour.MODULE,
    dropout.MODULE,
    elementwise.MODULE,
    fused.MODULE,
    linear.MODULE,
    loss.MODULE,
    muon.MODULE,
    optim.MODULE,
    pooling.AVERAGE,
    pooling.MAXIMUM,
    precision.MODULE,
    stem.MODULE,
    sums.MODULE,
    warp.MODULE,
)
"""Every ``.cu`` file, for whoever compiles them all."""
