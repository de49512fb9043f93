"""From images on the device to a batch: gather, shift, mirror, normalise.

A pixel p in 0..255 of channel c becomes

    (p / 255 - mean_c) / std_c

with mean and std on a 0..1 scale.  A border of the shift is black (p = 0) before normalisation, or the image
reflected at its edge.
"""

from dataclasses import dataclass

from gpucnn.backend import array_module
from gpucnn.errors import UsageError, closest
from gpucnn.typing import Array

CROP_MODES = ("zero", "reflect")


@dataclass(frozen=True)
class Augmentation:
    """What happens to training images, drawn anew in every epoch.

    Args:
        flip: mirror left and right, every second image on average.
        crop: shift by up to this many pixels up, down, left and right.
        crop_mode: the border that a shift uncovers: "zero" is black, "reflect" mirrors the image.
    """

    flip: bool = False
    crop: int = 0
    crop_mode: str = "zero"

    def __post_init__(self) -> None:
        if self.crop < 0:
            raise UsageError(f"crop = {self.crop}: give the largest shift in pixels, 0 for none")
        if self.crop_mode not in CROP_MODES:
            raise UsageError(f"crop_mode = {self.crop_mode!r}{closest(self.crop_mode, CROP_MODES)}")


def gather_normalize(images: Array, index: Array, mean: Array, inv_std: Array) -> Array:
    """images u8 (N,H,W,C), index (B,), mean and 1/std (C,) on a 0..1 scale -> float32 (B,H,W,C)."""
    return normalize(images[index], mean, inv_std)


def gather_augment(
    images: Array,
    index: Array,
    flip: Array,
    shift: Array,
    crop: int,
    crop_mode: str,
    mean: Array,
    inv_std: Array,
) -> Array:
    """``gather_normalize`` with a shift, then a mirror image.

    Args:
        images: uint8 (N,H,W,C).
        index: which images, (B,).
        flip: which of them to mirror, bool (B,).
        shift: int (B,2) in 0 .. 2 crop: the corner (row, column) of the H x W window that is cut out of the
            image padded by ``crop`` on all sides; (crop, crop) leaves the image as it is.
        crop_mode: "zero" or "reflect" (which needs crop < H and W).
        mean, inv_std: float32 (C,), on a 0..1 scale.
    """
    pixels = images[index]  # (B,H,W,C)
    if crop:
        pixels = cut_windows(pixels, shift, crop, crop_mode)
    xp = array_module(images)
    either = xp.stack((pixels, pixels[:, :, ::-1, :]))  # (2,B,H,W,C): as it is, mirrored
    return normalize(either[flip.astype(int), xp.arange(len(index))], mean, inv_std)


def cut_windows(pixels: Array, shift: Array, crop: int, crop_mode: str) -> Array:
    """One H x W window out of each padded image: pixels (B,H,W,C), shift (B,2) -> (B,H,W,C)."""
    xp = array_module(pixels)
    border = ((0, 0), (crop, crop), (crop, crop), (0, 0))
    padded = xp.pad(pixels, border, mode="constant" if crop_mode == "zero" else "reflect")
    image, row, column, channel = padded.strides
    places = 2 * crop + 1
    windows = xp.lib.stride_tricks.as_strided(  # a view of every window of every image
        padded,
        shape=(len(pixels), places, places, *pixels.shape[1:]),
        strides=(image, row, column, row, column, channel),
    )
    return windows[xp.arange(len(pixels)), shift[:, 0], shift[:, 1]]


def normalize(pixels: Array, mean: Array, inv_std: Array) -> Array:
    """uint8 (B,H,W,C) -> float32, (p / 255 - mean) / std as one product and one difference per pixel."""
    xp = array_module(pixels)
    b, h, w, _ = pixels.shape
    x = pixels.astype("float32", order="C")
    rows = x.reshape(b, h, -1)  # (B,H,W*C), a view: NumPy is slow along an axis of three colours
    rows *= xp.tile(inv_std * (1.0 / 255.0), w)
    rows -= xp.tile(mean * inv_std, w)
    return x
