"""A recording as one HTML file that asks for nothing else: the tensors, the equations, and a script that adds up.

Tensors lie one after the other, each number in as many bytes as the page has room for: float32, float32 without its
last byte, or float16 in units of a power of two for each tensor.  Bytes are sorted by place, compressed (zlib) and
written in base 85.
"""

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from html import escape
from importlib.resources import files
from typing import Any

import numpy as np

from gpucnn.explain.equations import read
from gpucnn.explain.mathml import equation_to_mathml
from gpucnn.explain.recording import UPDATE, LayerRecord, Recording
from gpucnn.types import Array, Shape

ROOM = {4: 400_000, 3: 1_600_000}  # bytes of a number -> how many numbers a page may have for that; of more, 2
HTML_SAFE = bytes.maketrans(b"<&", b",.")
DERIVED = {"y": "x", "dx": "dy"}  # a tensor that may equal another one where it is not zero
CHECKABLE = 2_000_000  # multiply-adds of a forward pass that the page repeats for a finite difference


@dataclass(frozen=True)
class Subject:
    """What a page is about.

    Attributes:
        model: its name.
        image: where the picture comes from.
        mean, std: per channel on a 0..1 scale, to show the normalised image as a picture; empty for images on a scale
            of their own.
        classes: names.
        label: number of the true class.
        flops: of a forward pass.
    """

    model: str
    image: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...]
    label: int
    flops: int = 0


class Store:
    """Tensors in one string of bytes; the same values are kept once.

    Attributes:
        width: bytes of a number: 4, 3 or 2.
        tensors: each with its shape, and either where its values start and the power of two they are multiplied by, or
            the tensor that it equals where it is not zero and where its bits for that start, as of ReLU's y in its x.
    """

    def __init__(self, width: int) -> None:
        self.width, self.end, self.bits = width, 0, 0
        self.chunks: list[Array] = []
        self.masks: list[Array] = []
        self.known: dict[bytes, dict[str, Any]] = {}  # type and SHA-256 of values -> where they are
        self.numbers: dict[tuple[bytes, Shape], int] = {}
        self.tensors: list[dict[str, Any]] = []

    def add_layer(self, arrays: Mapping[str, Array]) -> dict[str, int]:
        """Symbol -> number of its tensor in the page."""
        numbers: dict[str, int] = {}
        for symbol, array in sorted(arrays.items(), key=lambda item: item[0] in DERIVED):
            source = DERIVED.get(symbol, "")
            numbers[symbol] = self.add(array, arrays.get(source), numbers.get(source))
        return numbers

    def add(self, array: Array, source: Array | None, source_number: int | None) -> int:
        """The number of a tensor in the page."""
        content = array.dtype.str.encode() + sha256(array.tobytes()).digest()
        if content not in self.known:
            masked = source is not None and source.shape == array.shape and ((array == 0) | (array == source)).all()
            self.known[content] = self.add_mask(array, source_number) if masked else self.add_values(array)
        key = content, array.shape
        if key not in self.numbers:
            self.numbers[key] = len(self.tensors)
            self.tensors.append({"shape": array.shape, **self.known[content]})
        return self.numbers[key]

    def add_mask(self, array: Array, source_number: int | None) -> dict[str, Any]:
        """Where a tensor is not zero; there it equals its source."""
        self.masks.append(np.packbits(array.ravel() != 0, bitorder="little"))
        self.bits += self.masks[-1].size
        return {"of": source_number, "bits": self.bits - self.masks[-1].size}

    def add_values(self, array: Array) -> dict[str, Any]:
        """The values of a tensor; in float16 the largest is near 1."""
        largest = float(np.abs(array).max(initial=0.0))
        exponent = int(np.frexp(largest)[1]) if self.width == 2 and np.isfinite(largest) else 0
        values = np.ldexp(array.astype(np.float64), -exponent).astype(np.float16 if self.width == 2 else np.float32)
        self.chunks.append(shortened(values.ravel()) if self.width == 3 else values.ravel())
        self.end += array.size
        return {"start": self.end - array.size, "exponent": exponent}

    def text(self) -> str:
        """All values, as text."""
        values = np.concatenate(self.chunks)
        planes = values.view(np.uint8).reshape(-1, values.itemsize).T  # first all lowest bytes, at last all highest
        masks = b"".join(mask.tobytes() for mask in self.masks)
        return packed(planes[-self.width :].tobytes() + masks)


def shortened(values: Array) -> Array:
    """float32 rounded to 15 bits of mantissa, so that the last byte is zero."""
    bits = values.view(np.uint32)
    rounded = (bits + (0x7F + ((bits >> 8) & 1)).astype(np.uint32)) & np.uint32(0xFFFFFF00)  # ties to even
    return np.where(np.isfinite(values), rounded, bits & np.uint32(0xFFFFFF00)).view(np.float32)


def packed(content: bytes) -> str:
    """Bytes as text, compressed: five letters for four bytes, none of which HTML knows."""
    return base64.b85encode(zlib.compress(content, 9)).translate(HTML_SAFE).decode()


def build(recordings: Sequence[Recording], subject: Subject) -> str:
    """The page of these steps, which follow each other."""
    arrays = (item for step in recordings for layer in step.layers.values() for item in layer.arrays.items())
    numbers = sum(array.size for symbol, array in arrays if symbol not in ("x", "dy"))  # these are a neighbour's
    store = Store(next((width for width, most in ROOM.items() if numbers <= most), 2))
    first = recordings[0]
    facts = {
        "subject": vars(subject),
        "layers": [describe(layer) for layer in [*first.layers.values(), first.loss]],
        "steps": [
            {
                "loss": step.value,
                "lr": step.lr,
                "tensors": [store.add_layer(layer.arrays) for layer in [*step.layers.values(), step.loss]],
            }
            for step in recordings
        ],
        "checkable": subject.flops <= 2 * CHECKABLE,
        "width": store.width,
    }
    facts["store"], facts["total"] = store.tensors, store.end
    place = files("gpucnn.explain")
    parts = {
        "TITLE": escape(f"{subject.model}: one step of training, number by number"),
        "STYLE": (place / "page.css").read_text(encoding="utf-8"),
        "FACTS": packed(json.dumps(facts, separators=(",", ":")).encode()),
        "TENSORS": store.text(),
        "SCRIPT": (place / "page.js").read_text(encoding="utf-8"),
    }
    page = (place / "page.html").read_text(encoding="utf-8")
    for name, text in parts.items():
        page = page.replace(f"{{{{{name}}}}}", text, 1)
    return page


def describe(layer: LayerRecord) -> dict[str, Any]:
    """A layer for the page: its name, its equations as trees and as MathML, and where its tensors come from."""
    equations = list(layer.equations)
    hidden = ("e",) if layer.arrays["x"].shape[0] == 1 else ()
    for symbol in (symbol for symbol in layer.paths if f"d{symbol}" in layer.arrays):
        text = UPDATE.replace("after", f"new_{symbol}").replace("w[", f"{symbol}[")
        if equation := read(text, {}, {symbol: layer.arrays[symbol].shape, f"d{symbol}": layer.arrays[symbol].shape}):
            equations.append(equation)
    return {
        "name": layer.name,
        "kind": layer.kind,
        "paths": layer.paths,
        "sources": layer.sources,
        "equations": [
            {
                "name": equation.name,
                "indices": equation.indices,
                "tree": equation.tree,
                "source": equation.source,
                "mathml": equation_to_mathml(equation, hidden),
            }
            for equation in equations
        ],
    }
