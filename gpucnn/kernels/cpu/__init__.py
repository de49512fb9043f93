"""Kernels for the CPU, in Numba and BLAS: arrays in, arrays out.  ``devices/cpu.py`` says which op uses which."""

from gpucnn.kernels.cpu import augment, batchnorm, dropout, elementwise, fused, gelu, linear, loss, optim, pooling, warp
from gpucnn.kernels.cpu.conv import conv2d
from gpucnn.kernels.cpu.engine import blas

__all__ = [
    "augment",
    "batchnorm",
    "blas",
    "conv2d",
    "dropout",
    "elementwise",
    "fused",
    "gelu",
    "linear",
    "loss",
    "optim",
    "pooling",
    "warp",
]
