"""PNG and JPEG files: read safely, and fitted to a model's input."""

from pathlib import Path
from typing import Any

import numpy as np

from gpucnn.errors import DataError, ShapeError, UsageError, near
from gpucnn.types import Array, Shape

FORMATS = ("PNG", "JPEG")


def open_image(path: Path) -> Any:
    """A PNG or JPEG file as a ``PIL.Image``, upright, in mode L (grey) or RGB.

    Raises:
        DataError: no such file, another format, damaged, or larger than Pillow accepts.
        UsageError: Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise UsageError(f"image files need Pillow ({error}): pip install 'gpucnn[viz]'") from None
    if not path.is_file():  # reading a pipe would block
        raise DataError(f"{path}: {'not a file' if path.exists() else f'no such file{near(path)}'}")
    try:
        with Image.open(path, formats=FORMATS) as image:
            image.load()
            return _plain(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split()).removesuffix(f" {str(path)!r}")
        raise DataError(f"{path} is not a PNG or JPEG image that can be read: {reason}") from None


def _plain(image: Any) -> Any:
    """Upright, without transparency or palette, 8 bits."""
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits; convert() would clip values above 255
        image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).astype(np.uint8))
    if image.has_transparency_data:  # on white paper
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image if image.mode in ("L", "RGB") else image.convert("L" if image.mode in ("1", "LA") else "RGB")


def grey(image: Any) -> Array:
    """A ``PIL.Image`` -> (H,W) float64, 0..1 (luma of ITU-R 601)."""
    return np.asarray(image.convert("L")) / 255.0


def fit(image: Any, shape: Shape) -> tuple[Array, str]:
    """A ``PIL.Image`` for a model of images (H,W,C) -> (uint8 (H,W,C), what was changed, or "").

    The middle is cropped to the model's aspect ratio and resized with a Lanczos filter.

    Raises:
        ShapeError: the model takes neither 1 nor 3 channels.
    """
    from PIL import Image, ImageOps

    height, width, channels = shape
    if channels not in (1, 3):
        raise ShapeError(f"the model takes images of {channels} channels; image files have 1 (grey) or 3")
    done = []
    mode = "L" if channels == 1 else "RGB"
    if image.mode != mode:
        done.append("colour made grey" if mode == "L" else "grey made colour")
        image = image.convert(mode)
    if image.size != (width, height):
        cut = "cut to the middle and " if image.width * height != image.height * width else ""
        done.append(f"{cut}resized from {image.width} x {image.height} to {width} x {height}")
        image = ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)
    return np.asarray(image).reshape(height, width, channels), ", ".join(done)
