"""Image files damaged at random: each is read, or refused by one line, and nothing else is said.

``python tests/data/damaged_pictures.py COUNT [SEED]`` prints how many were read, refused and failed.
"""

import io
import os
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from gpucnn.data.image_files import fit, open_image
from gpucnn.errors import DataError

KINDS = [
    ("PNG", mode, {}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
] + [
    ("JPEG", "L", {}),
    ("JPEG", "RGB", {"exif": True}),
    ("JPEG", "CMYK", {"progressive": True}),
    ("GIF", "P", {"save_all": True}),
    ("BMP", "RGB", {}),
    ("WEBP", "RGBA", {"exif": True}),
    ("TIFF", "L", {}),
    ("TIFF", "F", {}),
    ("TIFF", "CMYK", {"compression": "tiff_lzw"}),
    ("TIFF", "RGB", {"compression": "tiff_adobe_deflate"}),
    ("TIFF", "RGB", {"compression": "jpeg"}),
]  # fmt: skip


def whole(kind: tuple[str, str, dict[str, object]], rng: np.random.Generator) -> bytes:
    """A sound file."""
    name, mode, options = kind
    options = dict(options)
    pixels = rng.integers(0, 256, (rng.integers(1, 40), rng.integers(1, 40)), dtype=np.uint8)
    image = Image.fromarray(pixels.astype(np.uint16) * 200) if mode == "I;16" else Image.fromarray(pixels).convert(mode)
    if options.pop("exif", False):
        exif = Image.Exif()
        exif[0x0112], exif[0x010F] = int(rng.integers(1, 9)), "a maker"
        options["exif"] = exif.tobytes()
    if "save_all" in options:
        options["append_images"] = [image]
    file = io.BytesIO()
    image.save(file, name, **options)
    return file.getvalue()


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """Some bytes changed, or a part cut off, out, or doubled."""
    start, stop = sorted(int(place) for place in rng.integers(0, len(data) + 1, 2))
    way = rng.integers(5)
    if way == 0:
        return data[:start]
    if way == 1:
        return data[:start] + data[stop:]
    if way == 2:
        return data[:stop] + data[start:]
    changed = bytearray(data)
    near = len(data) if way == 3 else min(len(data), 64)  # headers are short
    for place in rng.integers(0, near, rng.integers(1, 6)):
        changed[place] = rng.choice([0, 1, 127, 255, rng.integers(256)])
    return bytes(changed)


def tried(count: int, seed: int, folder: Path) -> Counter[str]:
    """How many of ``count`` damaged files were read and refused, and what else was raised."""
    rng = np.random.default_rng(seed)
    found: Counter[str] = Counter()
    path = folder / "damaged"
    for i in range(count):
        path.write_bytes(damaged(whole(KINDS[i % len(KINDS)], rng), rng))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                image, _ = open_image(path)
                fit(image, (28, 28, 1))
            found["read"] += 1
        except DataError as error:
            found["refused" if str(path) in str(error) and "\n" not in str(error) else f"unclear: {error}"] += 1
        except Exception as error:
            found[f"failed: {type(error).__name__}: {error}"] += 1
    return found


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        said = os.dup(2)
        os.dup2(os.open(f"{place}/stderr", os.O_WRONLY | os.O_CREAT), 2)  # what the libraries of the formats print
        found = tried(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0, Path(place))
        os.dup2(said, 2)
        printed = Path(place, "stderr").stat().st_size
    print(f"{dict(found)}, {printed} bytes on standard error")
    sys.exit(found.keys() > {"read", "refused"} or printed > 0)
