"""Image files: read safely, made upright, opaque and 8 bits deep, and fitted to a model's input.

Whatever changes a picture is said in notes of a few words.
"""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np

from gpucnn.errors import DataError, ShapeError, near
from gpucnn.types import Array, Shape

FORMATS = ("PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP")
SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".gif", ".tif", ".tiff", ".bmp", ".dib", ".webp")

FITS = ("crop", "pad", "stretch")
"""How an image of another aspect ratio comes to a size: its middle, with black beside it, or distorted."""

LARGEST = 2**26
"""Pixels of a picture; more would take gigabytes."""

DEPTHS = (1, 8, 10, 12, 14, 16)
"""Bits of the values that scanners and cameras put into files of 16 or 32 bits."""

LOW_BYTES = {"RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L", "LA;16B": "RGBA"}
"""Layout of a PNG's 16-bit pixels, of which Pillow keeps the high bytes -> the layout that gives the low ones."""

ORIENTATION = 0x0112
"""EXIF's tag, and below what undoes its values 2 to 8."""
TURNS = ("FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_270", "TRANSVERSE", "ROTATE_90")


PROCESS = RLock()
"""Held by a thread that changes what belongs to the whole process: filters of warnings, standard error."""

TURNING = {"exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp"}
"""What an image may have that says how it was taken."""


def open_image(path: Path) -> tuple[Any, list[str]]:
    """An image file -> (a ``PIL.Image``, upright, opaque, in mode L (grey) or RGB; notes).

    Raises:
        DataError: no such file, another format, damaged, or larger than ``LARGEST``.
    """
    with without_warnings():
        return decode(path)


@contextmanager
def without_warnings() -> Iterator[None]:
    """Without Pillow's warnings of metadata and sizes; around the threads that ``decode`` and ``probe``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def decode(path: Path) -> tuple[Any, list[str]]:
    """``open_image`` for several threads at once, in one ``without_warnings``."""
    with _opened(path) as image:
        if image.format != "TIFF":
            return _plain(image, path)
        with PROCESS, _no_standard_error():  # libtiff prints past Python
            return _plain(image, path)


def probe(path: Path) -> tuple[int, int, int]:
    """(height, width, channels) of what ``decode`` makes of a file, from its header; the same errors."""
    with _opened(path) as image:
        turn = None
        if TURNING & image.info.keys():
            turn, _ = _orientation(image)
        width, height = image.size
        across = turn is not None and turn.name.startswith(("TRANS", "ROTATE_90", "ROTATE_270"))
        return *((width, height) if across else (height, width)), 1 if is_grey(image.mode) else 3


def is_grey(mode: str) -> bool:
    """Whether Pillow's mode is one without colours."""
    return mode in ("1", "L", "LA", "La") or mode[0] in "IF"


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """An image file whose header was read; raises as ``open_image``, whatever happens to it."""
    from PIL import Image

    try:
        if not path.is_file():  # reading a pipe would block
            what = "a folder: name the pictures in it" if path.is_dir() else "not a file"
            raise DataError(f"{path}: {what if path.exists() else f'no such file{near(path)}'}")
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > LARGEST:
                size = f"{image.width} x {image.height}"
                raise ValueError(f"{size} pixels, at most {LARGEST:,} are read: make it smaller")
            yield image
    except DataError:
        raise
    except Exception as error:  # Pillow raises whatever the damage leads to
        reason = " ".join(str(error).split()).removesuffix(f" {str(path)!r}") or type(error).__name__
        raise DataError(f"{path} is not an image that can be read ({', '.join(FORMATS)}): {reason}") from None


@contextmanager
def _no_standard_error() -> Iterator[None]:
    """Without what is written to standard error, past Python too."""
    try:
        kept = os.dup(2)
    except OSError:  # it is closed
        yield
        return
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)


def _plain(image: Any, path: Path) -> tuple[Any, list[str]]:
    """Decode an opened file: 8 bits, upright, without transparency or palette."""
    done = ["first frame"] if getattr(image, "is_animated", False) else []
    layout = image.tile[0][3] if image.format == "PNG" and image.tile else None
    image.load()
    turn, notes = _orientation(image) if TURNING & image.info.keys() or image.format == "TIFF" else (None, [])
    done += notes
    if layout in LOW_BYTES:
        image, note = _eight_bits(_sixteen_bits(image, path, layout), image.info.get("transparency"))
        done.append(note)
    elif image.mode[0] in "IF":  # convert() would clip
        image, note = _eight_bits(np.asarray(image)[..., np.newaxis], image.info.get("transparency"))
        done.append(note)
    elif image.mode == "LAB":
        from PIL import ImageCms

        lab, srgb = map(ImageCms.createProfile, ("LAB", "sRGB"))
        image = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    if turn is not None:
        image = image.transpose(turn)
    mode = "L" if is_grey(image.mode) else "RGB"
    if image.has_transparency_data:
        image, notes = _opaque(image)
        done += notes
    return image.convert(mode), done


def _orientation(image: Any) -> tuple[Any, list[str]]:
    """How to turn a picture as EXIF says it was taken, or None; EXIF that cannot be read turns nothing."""
    from PIL import Image

    with PROCESS, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            Image.Exif().load(image.info.get("exif", b""))  # Pillow read a JPEG's before, and said nothing
            value = int(image.getexif().get(ORIENTATION, 1))
        except Exception:  # struct.error, SyntaxError, ValueError, TypeError ...
            value = -1
    done = ["damaged EXIF data"] if warned or not 0 <= value <= 8 else []
    if 2 <= value <= 8:
        return Image.Transpose[TURNS[value - 2]], [*done, "turned upright"]
    return None, done


def _sixteen_bits(image: Any, path: Path, layout: str) -> Array:
    """A PNG in colour or with transparency, loaded as its high bytes -> (H,W,C) uint16."""
    from PIL import Image

    with Image.open(path, formats=("PNG",)) as again:
        again.tile = [(*tile[:3], LOW_BYTES[layout]) for tile in again.tile]
        low = np.asarray(again).astype(np.uint16)
    if layout == "LA;16B":  # as four channels of 8 bits
        return low[..., ::2] * 256 + low[..., 1::2]
    return np.asarray(image).astype(np.uint16) * 256 + low


def _eight_bits(values: Array, key: Any) -> tuple[Any, str]:
    """Deep pixels (H,W,C) -> (a ``PIL.Image`` of 8 bits, what their values were).

    Args:
        key: the colour that is transparent, if any.
    """
    from PIL import Image

    alpha = None
    if values.shape[2] in (2, 4):
        alpha, values = _stretch(values[..., -1])[0], values[..., :-1]
    elif key is not None:
        alpha = np.where((values == key).all(axis=2), 0, 255).astype(np.uint8)
    pixels, note = _stretch(values)
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    if alpha is not None:
        image.putalpha(Image.fromarray(alpha))
    return image, note


def _stretch(values: Array) -> tuple[Array, str]:
    """Numbers of any range -> (0..255, uint8; what they were).

    Integers have the fewest ``DEPTHS`` that the largest needs; floats are 0 to 1; of others the smallest is black
    and the largest white.
    """
    finite = np.isfinite(values)
    low, high = (float(edge(values[finite])) if finite.any() else 0.0 for edge in (np.min, np.max))
    if values.dtype.kind in "iu" and low >= 0 and high < 2 ** DEPTHS[-1]:
        bits = next(bits for bits in DEPTHS if high < 2**bits)
        low, top, note = 0.0, 2.0**bits - 1, f"{bits}-bit values up to {high:,.0f}"
    else:
        if values.dtype.kind == "f" and low >= 0 and high <= 1:
            low, high = 0.0, 1.0
        top, note = high, f"values of {low:g} to {high:g}"
    scaled = (np.where(finite, values, low).astype(np.float32) - low) * (255 / ((top - low) or 1))
    return np.rint(scaled).astype(np.uint8), note


def _opaque(image: Any) -> tuple[Any, list[str]]:
    """Laid on white or black: strokes on what they stand out from, a picture with a ground of its own on what goes on.

    A ground is there if what is visible fills more than half of its box, and differs in brightness.
    """
    from PIL import Image, ImageStat

    image = image.convert("RGBA")
    alpha = image.getchannel("A")
    least, most = alpha.getextrema()
    if least == 255:
        return image.convert("RGB"), []
    if most == 0:
        return Image.new("RGB", image.size, "white"), ["wholly transparent"]
    visible = alpha.point([255 * (2 * value >= most) for value in range(256)])
    luma = ImageStat.Stat(image.convert("L"), visible)
    filled = ImageStat.Stat(visible.crop(visible.getbbox())).mean[0] / 255
    ground = filled > 0.5 and luma.stddev[0] > 30
    side = "white" if (luma.mean[0] > 127.5) == ground else "black"
    return Image.alpha_composite(Image.new("RGBA", image.size, side), image).convert("RGB"), [f"laid on {side}"]


def titled(path: Path | str, notes: list[str]) -> str:
    """A picture's name and what was done to it, as one line."""
    return f"{path} ({', '.join(notes)})" if notes else str(path)


def grey(image: Any) -> Array:
    """A ``PIL.Image`` -> (H,W) float64, 0..1 (luma of ITU-R 601)."""
    return np.asarray(image.convert("L")) / 255.0


def fit(image: Any, shape: Shape, how: str = "crop") -> tuple[Array, list[str]]:
    """A ``PIL.Image`` for a model of images (H,W,C) -> (uint8 (H,W,C), notes).

    Another size comes from a Lanczos filter; how it comes to another aspect ratio, ``FITS`` says.

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
        words = {"crop": "cut to the middle and ", "pad": "padded and ", "stretch": "stretched and "}[how]
        first = words if image.width * height != image.height * width else ""
        done.append(f"{first}resized from {image.width} x {image.height} to {width} x {height}")
        if how == "stretch":
            image = image.resize((width, height), Image.Resampling.LANCZOS)
        else:
            to = ImageOps.fit if how == "crop" else ImageOps.pad
            image = to(image, (width, height), Image.Resampling.LANCZOS)
    return np.asarray(image).reshape(height, width, channels), done


def visible(images: Array, low: float | None = None, high: float | None = None) -> Array:
    """Any images (N,H,W,C) as uint8 (N,H,W,1 or 3): of other channels the first three, or the first of two.

    Floats from ``low`` to ``high``, by default those that there are, become 0 to 255.
    """
    channels = images.shape[3]
    images = images[..., : 3 if channels >= 3 else 1]
    if images.dtype != np.uint8:
        low, high = (images.min() if low is None else low), (images.max() if high is None else high)
        scaled = (images - low) / max(high - low, 1e-30)
        images = np.rint(255.0 * np.clip(scaled, 0.0, 1.0)).astype(np.uint8)
    return images
