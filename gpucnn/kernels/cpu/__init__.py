"""Kernels for the CPU, in Numba and BLAS: arrays in, arrays out.  ``backends/cpu.py`` says which op uses which."""

from gpucnn.kernels.cpu import (
    augment,
    batchnorm,
    conv2d,
    dropout,
    elementwise,
    gelu,
    gemm,
    joined,
    linear,
    loss,
    optim,
    pooling,
    warp,
)

__all__ = [
    "augment",
    "batchnorm",
    "conv2d",
    "dropout",
    "elementwise",
    "gelu",
    "gemm",
    "joined",
    "linear",
    "loss",
    "optim",
    "pooling",
    "warp",
]
