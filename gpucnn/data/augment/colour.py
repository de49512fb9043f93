"""Random brightness and contrast of uint8 images."""

from gpucnn.backend import array_module
from gpucnn.types import Array


def jitter(pixels: Array, brightness: Array, contrast: Array) -> Array:
    """Change the brightness and the contrast of each image.

        q = clip(b (c (p - m) + m), 0, 255), rounded half up;  m is the mean of all values of the image

    Args:
        pixels: uint8 (B,H,W,C).
        brightness: factors b, float32 (B,); 1 changes nothing.
        contrast: factors c, float32 (B,); 1 changes nothing, 0 makes every pixel m.

    Returns:
        uint8 (B,H,W,C).
    """
    xp = array_module(pixels)
    b, h, w, c = pixels.shape
    lines = pixels.reshape(b, h * w * c)
    mean = lines.sum(axis=1, dtype="int64").astype("float32") / float(h * w * c)  # (B,)
    y = lines.astype("float32")
    y *= (brightness * contrast)[:, None]
    y += (brightness * (1.0 - contrast) * mean + 0.5)[:, None]
    return xp.minimum(xp.maximum(y, 0.0), 255.0).astype("uint8").reshape(pixels.shape)
