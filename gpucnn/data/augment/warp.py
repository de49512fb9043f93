"""Rotation, scaling and elastic distortion of bytes: each pixel of the result looks up its place in the image.

    (1)  place of (i, j)      s = c + M ((i, j) - c) + d_ij        c = ((H - 1) / 2, (W - 1) / 2), the centre
    (2)  rotated by a to the  M = 1/z [ cos a   sin a ]
         left, enlarged by z          [-sin a   cos a ]
    (3)  elastic              d = alpha G_H U G_W                  U uniform in [-1, 1), one for rows, one for columns
    (4)  bilinear             p = (1 - f) ((1 - g) p_00 + g p_01) + f ((1 - g) p_10 + g p_11)

(f, g) is the fraction of s = (u, v) behind the pixel (floor u, floor v), and p_01 its neighbour to the right.  G is a
Gaussian of sigma pixels whose weights add up to 1; beyond the edge U counts as 0  (Simard, Steinkraus and Platt,
"Best practices for convolutional neural networks applied to visual document analysis", ICDAR 2003).
"""

from math import exp

from gpucnn.backend import array_module
from gpucnn.random import bits_each
from gpucnn.types import Array, Shape


def affine_matrix(angle: Array, zoom: Array) -> Array:
    """(2)  angles in degrees (B,), counter-clockwise, and enlargements (B,) -> M, float32 (B,2,2)."""
    xp = array_module(angle)
    radians = angle.astype("float64") * (xp.pi / 180.0)
    cosine, sine = xp.cos(radians) / zoom, xp.sin(radians) / zoom
    return xp.stack((cosine, sine, -sine, cosine), axis=1).reshape(-1, 2, 2).astype("float32")


def noise_planes(index: Array, shape: Shape, seed: int, stream: int, step: int) -> Array:
    """(3)  U of images ``index`` (B,), of the shape (H,W,...): float32 (B,2,H,W) in [-1, 1), multiples of 2**-23.

    What belongs to an image depends on (seed, stream, step) and its number alone.
    """
    h, w, *_ = shape
    words = bits_each(index, 2 * h * w, seed=seed, stream=stream, step=step, xp=array_module(index))
    return ((words >> 8).astype("float32") * 2.0**-23 - 1.0).reshape(-1, 2, h, w)


def smooth(noise: Array, alpha: float, sigma: float) -> Array:
    """(3)  d = alpha G_H U G_W in pixels, rows and columns: (B,2,H,W) -> (B,2,H,W).

    Plane by plane, so that its bits do not depend on B.  No displacement is larger than alpha.
    """
    xp, (h, w) = array_module(noise), noise.shape[2:]
    rows, columns = (gaussian(xp.arange(size), sigma).astype(noise.dtype) for size in (h, w))
    return (rows * alpha) @ noise @ columns


def gaussian(place: Array, sigma: float) -> Array:
    """G of a line of pixels, float64 (H,H): symmetric, with the weights of distances -4 sigma .. 4 sigma."""
    xp, reach = array_module(place), int(4.0 * sigma + 0.5)
    total = sum(exp(-0.5 * (d / sigma) ** 2) for d in range(-reach, reach + 1))
    distance = (place[:, None] - place).astype("float64")
    weights = xp.exp(-0.5 * (distance / sigma) ** 2) / total
    return xp.where(abs(distance) <= reach, weights, xp.zeros((), "float64"))


def warp(images: Array, index: Array, matrix: Array, field: Array | None, border: str) -> Array:
    """(1, 4)  images u8 (N,H,W,C), index (B,), M (B,2,2), d (B,2,H,W) or nothing -> u8 (B,H,W,C), rounded half up.

    Of float32 images: float32, not rounded.

    Beyond the edge the image is black (``border`` "zero") or reflected, as often as it takes ("reflect").
    """
    xp, (_, h, w, _) = array_module(images), images.shape
    i = (xp.arange(h).astype(matrix.dtype) - 0.5 * (h - 1))[:, None]  # (H,1)
    j = xp.arange(w).astype(matrix.dtype) - 0.5 * (w - 1)  # (W,)
    m = matrix[:, :, :, None, None]  # (B,2,2,1,1)
    u = m[:, 0, 0] * i + m[:, 0, 1] * j + 0.5 * (h - 1)  # (B,H,W)
    v = m[:, 1, 0] * i + m[:, 1, 1] * j + 0.5 * (w - 1)
    if field is not None:
        u, v = u + field[:, 0], v + field[:, 1]
    top, left = xp.floor(u), xp.floor(v)
    f, g = (u - top)[..., None], (v - left)[..., None]  # (B,H,W,1)
    row, column = top.astype("int64"), left.astype("int64")
    p00, p01, p10, p11 = (
        pixels(images, index, row + down, column + right, border) for down in (0, 1) for right in (0, 1)
    )
    upper = p00 * (1.0 - g) + p01 * g
    lower = p10 * (1.0 - g) + p11 * g
    between = upper * (1.0 - f) + lower * f
    return xp.floor(between + 0.5).astype("uint8") if images.dtype == "uint8" else between


def pixels(images: Array, index: Array, row: Array, column: Array, border: str) -> Array:
    """Pixels of images ``index`` (B,) at rows and columns (B,H,W), which may lie outside: float32 (B,H,W,C)."""
    xp, (_, h, w, _) = array_module(images), images.shape
    if border == "reflect":
        return images[index[:, None, None], reflected(row, h), reflected(column, w)].astype("float32")
    inside = (row >= 0) & (row < h) & (column >= 0) & (column < w)
    row, column = xp.minimum(xp.maximum(row, 0), h - 1), xp.minimum(xp.maximum(column, 0), w - 1)
    return images[index[:, None, None], row, column].astype("float32") * inside[..., None].astype("float32")


def reflected(place: Array, size: int) -> Array:
    """Places on a line of ``size`` pixels that is mirrored at both ends, not repeating the edge, again and again."""
    xp, period = array_module(place), max(2 * (size - 1), 1)
    place = place % period
    return xp.minimum(place, period - place) if size > 1 else place
