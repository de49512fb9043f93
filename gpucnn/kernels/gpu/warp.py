"""Warped images on the device: noise, its smoothing, and the look-up of pixels, a launch each."""

from functools import lru_cache
from math import exp, prod
from typing import Any

import numpy as np

from gpucnn.kernels.gpu.arguments import PLACES, float32_shaped, indices, on_host, pixels
from gpucnn.kernels.gpu.compile import Module
from gpucnn.kernels.gpu.launch import BLOCK, NULL, ceil_div, contiguous, empty, launch, line_of, table_of
from gpucnn.types import Array, Shape

MODULE = Module("warp.cu", ["noise<4>", "noise<1>", "smooth", "warp<1>", "warp<3>", "warp<0>"])
MASK = 0xFFFFFFFF
PER_BLOCK = 4  # words of a Philox block
PLANE = 4096  # pixels that smooth keeps in shared memory
DISTANCES = 256  # weights that it keeps there
FEW_CHANNELS = (1, 3)  # have an instance of their own


def accepts_noise(index: Array, shape: Shape, seed: Any, stream: Any, step: Any) -> bool:
    """Indices of some images, and a plane that a 32-bit place reaches."""
    return indices(index) and on_host(*shape, seed, stream, step) and 0 < prod(shape[:2]) < PLACES // 2


def noise_planes(index: Array, shape: Shape, seed: int, stream: int, step: int) -> Array:
    """Numbers of [-1, 1) that belong to images ``index`` (B,), of the shape (H,W,...): float32 (B,2,H,W)."""
    h, w, *_ = shape
    index = contiguous(index).astype("int64", copy=False)
    y = empty((len(index), 2, h, w), "float32")
    size = 2 * h * w
    each = ceil_div(size, PER_BLOCK)
    words = (seed & MASK, seed >> 32 & MASK, stream & MASK, step & MASK)
    count = len(index) * each
    sizes = (np.int64(count), np.int32(each), np.int32(size))
    name = f"noise<{1 if size % PER_BLOCK else PER_BLOCK}>"
    launch(MODULE, name, line_of(count), index, *sizes, *map(np.uint32, words), y)
    return y


def reach_of(sigma: float) -> int:
    """The largest distance, in pixels, that has a weight."""
    return int(4.0 * sigma + 0.5)


@lru_cache(maxsize=16)
def total_of(sigma: float) -> float:
    """What the weights of all distances add up to, before they are divided by it."""
    reach = reach_of(sigma)
    return sum(exp(-0.5 * (d / sigma) ** 2) for d in range(-reach, reach + 1))


def accepts_smooth(noise: Array, alpha: Any, sigma: Any) -> bool:
    """Float32 planes and weights that both fit into shared memory."""
    planes = noise.dtype == np.float32 and noise.ndim == 4 and noise.size and prod(noise.shape[2:]) <= PLANE
    return bool(planes and on_host(alpha, sigma) and min(reach_of(sigma), max(noise.shape[2:]) - 1) < DISTANCES)


def smooth(noise: Array, alpha: float, sigma: float) -> Array:
    """Displacements alpha G_H U G_W in pixels, of planes U: (B,2,H,W) -> (B,2,H,W), G a Gaussian of sigma pixels."""
    noise = contiguous(noise)
    h, w = noise.shape[2:]
    y, count, reach = empty(noise.shape, noise.dtype), prod(noise.shape[:2]), min(reach_of(sigma), max(h, w) - 1)
    sizes = (np.int64(count), np.int32(h), np.int32(w), np.int32(reach))
    numbers = (np.float32(alpha), np.float64(sigma), np.float64(total_of(sigma)))
    launch(MODULE, "smooth", line_of(count * BLOCK), noise, *sizes, *numbers, y)
    return y


def accepts_warp(images: Array, index: Array, matrix: Array, field: Array | None, border: str) -> bool:
    """Bytes, indices of some images, a float32 matrix for each, and displacements of each pixel."""
    if not (pixels(images) and indices(index) and float32_shaped((matrix, (len(index), 2, 2)))):
        return False
    return field is None or float32_shaped((field, (len(index), 2, *images.shape[1:3])))


def warp(images: Array, index: Array, matrix: Array, field: Array | None, border: str) -> Array:
    """images u8 (N,H,W,C), index (B,), matrices (B,2,2), displacements (B,2,H,W) or none -> u8 (B,H,W,C)."""
    images, matrix = contiguous(images), contiguous(matrix)
    n, h, w, c = images.shape
    index = contiguous(index).astype("int64", copy=False)
    moved = NULL if field is None else contiguous(field)
    y, rows = empty((len(index), h, w, c), "uint8"), len(index) * h
    sizes = (np.int64(rows), np.int32(h), np.int32(w), np.int32(c))
    name, grid = f"warp<{c if c in FEW_CHANNELS else 0}>", table_of(rows, w, waves=True)
    launch(MODULE, name, grid, images, np.int64(n), index, matrix, moved, np.bool_(border == "reflect"), *sizes, y)
    return y
