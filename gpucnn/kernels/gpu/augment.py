"""Batches out of uint8 images on the device: gather, shift, mirror, normalise and cover a square in one pass."""

import numpy as np

from gpucnn.kernels.gpu.arguments import channel_values, indices, pixels
from gpucnn.kernels.gpu.compile import Module, instances
from gpucnn.kernels.gpu.launch import NULL, contiguous, empty, launch, table_of, vectors
from gpucnn.types import Array

MODULE = Module("augment.cu", instances("gather"))


def accepts_gather(images: Array, index: Array, *statistics: Array) -> bool:
    """Pixels (N,H,W,C), integers (B,), float32 per channel."""
    return pixels(images) and indices(index) and channel_values(images, *statistics)


def accepts_augment(
    images: Array,
    index: Array,
    flip: Array,
    shift: Array,
    crop: int,
    crop_mode: str,
    mean: Array,
    inv_std: Array,
    centre: Array | None = None,
    cutout: int = 0,
) -> bool:
    """The same, a bool and a corner for each image, a border that the mode can fill, and a pixel for each square."""
    if not accepts_gather(images, index, mean, inv_std):
        return False
    corners = (len(index), 2)
    flips = flip.dtype == np.bool_ and flip.shape == index.shape
    shifts = shift.dtype.kind in "iu" and shift.shape == corners
    border = crop_mode == "zero" or (crop_mode == "reflect" and crop < min(images.shape[1:3]))
    squares = not cutout or (centre is not None and centre.dtype.kind in "iu" and centre.shape == corners)
    return bool(flips and shifts and border and squares)


def gather(
    images: Array,
    index: Array,
    drawn: tuple[Array, Array] | None,
    crop: int,
    crop_mode: str,
    mean: Array,
    inv_std: Array,
    centre: Array | None = None,
    cutout: int = 0,
    dtype: str = "float32",
) -> Array:
    """images uint8 (N,H,W,C), index (B,), drawn = flip (B,) and shift (B,2) -> (B,H,W,C), float32 or float16.

    A square of ``cutout`` pixels a side around ``centre`` (B,2) is covered with zeros.
    """
    images, mean, inv_std = map(contiguous, (images, mean, inv_std))
    n, h, w, c = images.shape
    index = contiguous(index).astype("int64", copy=False)
    flip, shift = NULL, NULL
    if drawn is not None:
        flip = contiguous(drawn[0])
        shift = contiguous(drawn[1]).astype("int32", copy=False) if crop else NULL
    middle = contiguous(centre).astype("int32", copy=False) if cutout and centre is not None else NULL
    y = empty((len(index), h, w, c), dtype)
    storage, wide = vectors(w * c, y)
    rows, columns = len(index) * h, w * c // wide
    border = (np.int32(crop), np.bool_(crop_mode == "reflect"))
    sizes = (np.int64(rows), np.int32(columns), np.int32(h), np.int32(w), np.int32(c))
    arrays = (images, np.int64(n), index, flip, shift)
    square = (middle, np.int32(cutout))
    launch(MODULE, f"gather<{storage}>", table_of(rows, columns), *arrays, *border, mean, inv_std, *square, *sizes, y)
    return y


def gather_normalize(images: Array, index: Array, mean: Array, inv_std: Array) -> Array:
    """images uint8 (N,H,W,C), index (B,) -> float32 (B,H,W,C)."""
    return gather(images, index, None, 0, "zero", mean, inv_std)


def gather_augment(
    images: Array,
    index: Array,
    flip: Array,
    shift: Array,
    crop: int,
    crop_mode: str,
    mean: Array,
    inv_std: Array,
    centre: Array | None = None,
    cutout: int = 0,
) -> Array:
    """The same with a shift, flip bool (B,), shift (B,2), then a mirror image, then a covered square."""
    return gather(images, index, (flip, shift), crop, crop_mode, mean, inv_std, centre, cutout)
