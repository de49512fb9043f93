"""Random brightness and contrast."""

from gpucnn.backend import array_module
from gpucnn.types import Array


def jitter(pixels: Array, brightness: Array, contrast: Array) -> Array:
    """Change the brightness and the contrast of each image.

        q = clip(b (c (p - m) + m), 0, 255), rounded half up;  m is the mean of all values of the image

    Floats, whose scale is their own, are neither clipped nor rounded.

    Args:
        pixels: uint8 or float32 (B,H,W,C).
        brightness: factors b, float32 (B,); 1 changes nothing.
        contrast: factors c, float32 (B,); 1 changes nothing, 0 makes every pixel m.

    Returns:
        (B,H,W,C) of the same dtype.
    """
    xp = array_module(pixels)
    b, h, w, c = pixels.shape
    lines = pixels.reshape(b, h * w * c)
    whole = pixels.dtype == "uint8"
    mean = lines.sum(axis=1, dtype="int64" if whole else "float64").astype("float32") / float(h * w * c)  # (B,)
    y = lines.astype("float32")
    y *= (brightness * contrast)[:, None]
    y += (brightness * (1.0 - contrast) * mean + (0.5 if whole else 0.0))[:, None]
    if not whole:
        return y.reshape(pixels.shape)
    return xp.minimum(xp.maximum(y, 0.0), 255.0).astype("uint8").reshape(pixels.shape)
