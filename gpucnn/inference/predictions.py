"""The answers of a model: one per image, or of many in order; notebooks show the image and bars."""

import base64
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from numbers import Integral
from typing import Any, overload

import numpy as np

from gpucnn.data.image_files import visible
from gpucnn.errors import UsageError
from gpucnn.inference.predict import top_k
from gpucnn.settings import checked, in_short
from gpucnn.terminal import harmless
from gpucnn.types import Array

SHOWN, TOP = 12, 3  # images in a notebook, and classes of each
NAME = 40  # characters of a class name


@dataclass(frozen=True, eq=False)
class Prediction:
    """A model's answer to one image.

    Attributes:
        label: number of the most probable class.
        name: its name.
        probability: its probability.
        probabilities: of all classes, float32 (K,), on the host.
        classes: the name of each.
        image: what the model saw, (H,W,C), before it was normalised.
        source: the file that it is from, and what was done to fit it to the model; "" of an array.
    """

    label: int
    name: str
    probability: float
    probabilities: Array
    classes: tuple[str, ...]
    image: Array
    source: str = ""

    @checked
    def top(self, k: int = TOP) -> list[tuple[str, float]]:
        """(name, probability) of the ``k`` most probable classes, the most probable first."""
        if k < 0:
            raise UsageError(f"k = {k}: give at least 0")
        return top_k(self.probabilities, self.classes, k)

    def __repr__(self) -> str:
        answers = ", ".join(f"{harmless(name, NAME)} {100 * p:.2f} %" for name, p in self.top())
        return f"{harmless(self.source)}: {answers}" if self.source else answers

    def _repr_html_(self) -> str:
        """The image and the most probable classes as bars, for notebooks."""
        look = "height:96px;image-rendering:pixelated;vertical-align:middle;margin-right:12px"
        picture = base64.b64encode(png(self.image)).decode()
        rows = "".join(
            f'<tr><td>{escape(harmless(name, NAME))}</td><td style="text-align:right">{100 * p:.2f} %</td>'
            f'<td><div style="background:#0969da;height:10px;width:{round(160 * p)}px"></div></td></tr>'
            for name, p in self.top()
        )
        caption = f"<div>{escape(harmless(self.source))}</div>" if self.source else ""
        alt = escape(harmless(f"{self.name}, {100 * self.probability:.2f} %"), quote=True)
        image = f'<img src="data:image/png;base64,{picture}" alt="{alt}" style="{look}">'
        table = f'<table style="display:inline-table;vertical-align:middle">{rows}</table>'
        return f'<div style="margin:8px 0">{caption}{image}{table}</div>'


class Predictions(Sequence[Prediction]):
    """A model's answers to images, in their order.

    ``predictions == labels`` and other NumPy comparisons use ``labels``.

    Attributes:
        labels: numbers of the most probable classes, int64 (N,).
        probabilities: of all classes, float32 (N,K), on the host.
        classes: the name of each.
        images: what the model saw, (N,H,W,C).
        sources: one text per image: its file and what was done to fit it; empty where they were arrays.
    """

    def __init__(
        self, probabilities: Array, classes: tuple[str, ...], images: Array, sources: Sequence[str] = ()
    ) -> None:
        self.probabilities, self.classes, self.images, self.sources = probabilities, classes, images, sources
        self.labels = probabilities.argmax(axis=1)

    @property
    def names(self) -> list[str]:
        """The name of the most probable class of each image."""
        return [self.classes[label] for label in self.labels]

    def __len__(self) -> int:
        return len(self.labels)

    @overload
    def __getitem__(self, place: int) -> Prediction: ...
    @overload
    def __getitem__(self, place: slice) -> "Predictions": ...
    def __getitem__(self, place: int | slice) -> "Prediction | Predictions":
        if not isinstance(place, slice | Integral):
            raise UsageError(f"predictions[{in_short(place)}]: give a number or a slice; .labels takes any index")
        row, image = self.probabilities[place], self.images[place]
        if isinstance(place, slice):
            return Predictions(row, self.classes, image, self.sources[place])
        label = int(self.labels[place])
        source = self.sources[place] if self.sources else ""
        return Prediction(label, self.classes[label], float(row[label]), row, self.classes, image, source)

    def __iter__(self) -> Iterator[Prediction]:
        return (self[i] for i in range(len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """The labels (N,)."""
        return np.array(self.labels, dtype=dtype)

    def __repr__(self) -> str:
        lines = [repr(one) for one in self[:SHOWN]]
        return "\n".join([*lines, *([f"... {len(self):,} in all"] if len(self) > SHOWN else [])])

    def _repr_html_(self) -> str:
        """The first images with their bars, for notebooks."""
        more = f"<p>... {len(self):,} in all</p>" if len(self) > SHOWN else ""
        return "".join(one._repr_html_() for one in self[:SHOWN]) + more


def png(image: Array) -> bytes:
    """An image (H,W,C) as a PNG file, as ``visible`` shows it."""
    pixels = np.ascontiguousarray(visible(image[np.newaxis])[0])
    height, width, channels = pixels.shape
    rows = np.pad(pixels.reshape(height, -1), ((0, 0), (1, 0)))  # filter 0 before each row

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2 if channels == 3 else 0, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows.tobytes())) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body
