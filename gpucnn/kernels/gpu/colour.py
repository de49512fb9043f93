"""Brightness and contrast of bytes on the device, in one launch."""

import numpy as np

from gpucnn.kernels.gpu import launch as launching
from gpucnn.kernels.gpu.arguments import float32_shaped, pixels
from gpucnn.kernels.gpu.compile import Module
from gpucnn.kernels.gpu.launch import BLOCK, VECTOR_BYTES, Grid, aligned, contiguous, empty, launch
from gpucnn.types import Array

MODULE = Module("colour.cu", ["jitter<16>", "jitter<1>"])


def accepts(image: Array, *factors: Array) -> bool:
    """Pixels (B,H,W,C), and float32 factors (B,)."""
    return pixels(image) and float32_shaped(*((factor, image.shape[:1]) for factor in factors))


def jitter(pixels: Array, brightness: Array, contrast: Array) -> Array:
    """pixels uint8 (B,H,W,C), factors float32 (B,) -> clip(b (c (p - m) + m), 0, 255), uint8 (B,H,W,C)."""
    pixels, brightness, contrast = map(contiguous, (pixels, brightness, contrast))
    images, size = len(pixels), pixels.size // len(pixels)
    y = empty(pixels.shape, "uint8")
    wide = VECTOR_BYTES if size % VECTOR_BYTES == 0 and aligned(VECTOR_BYTES, pixels, y) else 1
    grid = Grid((min(images, launching.BLOCKS), 1), (1, BLOCK))
    launch(MODULE, f"jitter<{wide}>", grid, pixels, brightness, contrast, np.int64(images), np.int32(size), y)
    return y
