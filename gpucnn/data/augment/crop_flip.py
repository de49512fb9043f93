"""From images on the device to a batch: gather, crop, flip, normalise, cut out a square.

A pixel p in 0..255 of channel c becomes

    (p / 255 - mean_c) / std_c

with mean and std on a 0..1 scale.  A float has a scale of its own, and becomes (p - mean_c) / std_c.

The border of a crop is black (p = 0) before normalisation, or the image reflected at its edge.  A cut-out square is 0
after normalisation, the mean colour.
"""

from gpucnn.backend import array_module
from gpucnn.types import Array


def gather_normalize(images: Array, index: Array, mean: Array, inv_std: Array) -> Array:
    """images u8 or float32 (N,H,W,C), index (B,), mean and 1/std (C,) on their scale -> float32 (B,H,W,C)."""
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
    centre: Array | None = None,
    cutout: int = 0,
) -> Array:
    """``gather_normalize`` with a random crop, a flip and cutout, in this order.

    Args:
        images: uint8 or float32 (N,H,W,C).
        index: which images, (B,).
        flip: which of them to mirror, bool (B,).
        shift: int (B,2) in 0 .. 2 crop: the corner (row, column) of the H x W window that is cut out of the
            image padded by ``crop`` on all sides; (crop, crop) leaves the image unchanged.
        crop_mode: "zero" or "reflect" (which needs crop < H and W).
        mean, inv_std: float32 (C,), of bytes on a 0..1 scale.
        centre: int (B,2), row and column of the pixel in the middle of the cut-out square.
        cutout: its side in pixels.
    """
    pixels = images[index]  # (B,H,W,C)
    if crop:
        pixels = cut_windows(pixels, shift, crop, crop_mode)
    xp = array_module(images)
    either = xp.stack((pixels, pixels[:, :, ::-1, :]))  # (2,B,H,W,C): unchanged, mirrored
    x = normalize(either[flip.astype(int), xp.arange(len(index))], mean, inv_std)
    return cover(x, centre, cutout) if cutout else x


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
    """(B,H,W,C) -> float32, (p / 255 - mean) / std as one multiplication and one subtraction per pixel.

    Without the 255 if the pixels are floats.
    """
    xp, scale = array_module(pixels), 1.0 / 255.0 if pixels.dtype == "uint8" else 1.0
    b, h, w, _ = pixels.shape
    x = pixels.astype("float32", order="C")
    rows = x.reshape(b, h, -1)  # (B,H,W*C), a view: NumPy is slow along an axis of three colours
    rows *= xp.tile(inv_std * scale, w)
    rows -= xp.tile(mean * inv_std, w)
    return x


def cover(x: Array, centre: Array, side: int) -> Array:
    """x (B,H,W,C) with zeros in a square around ``centre`` (B,2), clipped to the image.

    Its rows are  r - side // 2  to  r - side // 2 + side - 1,  its columns likewise.
    """
    xp = array_module(x)
    first = centre[:, :, None, None] - side // 2  # (B,2,1,1)
    row, column = xp.arange(x.shape[1])[:, None], xp.arange(x.shape[2])  # (H,1), (W,)
    down, across = row - first[:, 0], column - first[:, 1]  # (B,H,1), (B,1,W): from the square's corner
    covered = (down >= 0) & (down < side) & (across >= 0) & (across < side)  # (B,H,W)
    return xp.where(covered[:, :, :, None], xp.zeros((), x.dtype), x)
