"""Tensors in a safetensors file: 8 bytes with the header's length, the header in JSON, and the numbers.

    {"__metadata__": {text: text}, name: {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, ...}

The header is checked as a whole before any number is read, and a tensor is read when it is asked for, so a file that
claims much takes no memory.  The package ``safetensors`` writes.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from gpucnn.errors import CheckpointError, UsageError, near, shown
from gpucnn.files import open_regular
from gpucnn.types import Array, Shape

LARGEST, LONGEST_HEADER = 1 << 32, 1 << 22  # bytes of a file and of its header: 20,000 tensors need half of that
MOST_TENSORS, LONGEST_NAME, MOST_AXES = 20_000, 512, 8

FLOATS = {"F16": "<f2", "BF16": "<u2", "F32": "<f4", "F64": "<f8"}
INTEGERS = {"I64": "<i8", "I32": "<i4", "U8": "u1"}  # counters, as num_batches_tracked
DTYPES = FLOATS | INTEGERS

CONVERT = (
    'state = torch.load("{0}", weights_only=True)',
    'safetensors.torch.save_file(state, "{1}")',
)
"""What turns a state of PyTorch's, which is a pickle, into such a file."""


@dataclass(frozen=True)
class Tensors:
    """The tensors of a file.

    Attributes:
        shapes: name -> shape.
        metadata: text -> text.
    """

    path: Path
    shapes: Mapping[str, Shape]
    metadata: Mapping[str, str]
    _places: Mapping[str, tuple[str, int, int]]  # dtype, first byte and last in the file

    def read(self, name: str) -> Array:
        """A tensor as float32.

        Raises:
            CheckpointError: it holds integers, NaN, infinity, or numbers too large for float32.
        """
        dtype, start, stop = self._places[name]
        if dtype not in FLOATS:
            raise CheckpointError(f"{self.path}: {shown(name)} is {dtype}: weights are {', '.join(FLOATS)}")
        try:
            with open_regular(self.path) as file:
                file.seek(start)
                data = file.read(stop - start)
        except OSError as error:
            raise CheckpointError(f"{self.path}: {error.strerror or error}") from None
        if len(data) != stop - start:
            raise CheckpointError(f"{self.path}: it became shorter while it was read")
        values = np.frombuffer(data, FLOATS[dtype])
        if dtype == "BF16":  # the upper half of a float32
            values = (values.astype(np.uint32) << 16).view(np.float32)
        with np.errstate(over="ignore"):
            array: Array = values.astype(np.float32).reshape(self.shapes[name])
        if not np.isfinite(array).all():
            raise CheckpointError(f"{self.path}: {shown(name)} holds NaN, infinity or numbers beyond float32")
        return array


def read_tensors(path: Path) -> Tensors:
    """The tensors of a file, its header checked.

    Raises:
        UsageError: a file of PyTorch's own format, which is a program and is never run.
        CheckpointError: no such file, or one that is damaged or hostile.
    """
    refuse_pickle(path)
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > LARGEST:
                raise CheckpointError(f"{path}: {size:,} bytes: at most {LARGEST:,} are read")
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or not 2 <= length <= min(size - 8, LONGEST_HEADER):
                raise CheckpointError(f"{path}: not a safetensors file, or damaged: its header has {length:,} bytes")
            text = file.read(length)
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or error}{near(path)}") from None
    return checked_header(text, size, path)


def refuse_pickle(path: Path) -> None:
    """Raises UsageError for the suffix of a pickle."""
    if path.suffix.lower() in (".pt", ".pth"):
        first, second = (line.format(path.name, path.with_suffix(".safetensors").name) for line in CONVERT)
        raise UsageError(
            f"{path}: a pickle can run anything, so none is read: convert it in PyTorch, where you trust it: "
            f"{first}; {second}"
        )


def checked_header(text: bytes, size: int, path: Path) -> Tensors:
    """The tensors of a file of so many bytes; raises CheckpointError."""
    try:
        header = json.loads(text.decode(), object_pairs_hook=once)
        entries = dict(header) if isinstance(header, dict) else None
    except (ValueError, RecursionError):
        entries = None
    if entries is None:
        raise CheckpointError(f"{path}: its header is not a JSON object with each name once")
    metadata = entries.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise CheckpointError(f"{path}: its metadata are not texts")
    if not 1 <= len(entries) <= MOST_TENSORS:
        raise CheckpointError(f"{path}: {len(entries):,} tensors: 1 to {MOST_TENSORS:,} are read")
    base = 8 + len(text)
    shapes, places = {}, {}
    for name, entry in entries.items():
        (start, stop), shapes[name] = checked_entry(name, entry, path)
        places[name] = entry["dtype"], base + start, base + stop
    end = base
    for _, start, stop in sorted(places.values(), key=lambda place: place[1:]):
        if start != end:
            raise CheckpointError(f"{path}: its tensors overlap, or leave gaps, at byte {min(start, end):,}")
        end = stop
    if end != size:
        raise CheckpointError(f"{path}: it has {size:,} bytes, its header is for {end:,}: truncated or damaged")
    return Tensors(path, shapes, metadata, places)


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; raises ValueError where a name stands twice."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice")
    return found


def checked_entry(name: str, entry: Any, path: Path) -> tuple[tuple[int, int], Shape]:
    """Where a tensor begins and ends, and its shape; raises CheckpointError."""
    if not name.isprintable() or not 1 <= len(name) <= LONGEST_NAME:
        raise CheckpointError(f"{path}: a tensor has the name {shown(name)}")
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise CheckpointError(f"{path}: {shown(name)} is {shown(entry)}, not a dtype, a shape and offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise CheckpointError(f"{path}: {shown(name)} is {shown(dtype)}: known are {', '.join(DTYPES)}")
    if not sizes(shape) or not sizes(offsets) or len(offsets) != 2 or len(shape) > MOST_AXES:
        raise CheckpointError(f"{path}: {shown(name)} has the shape {shown(shape)} at {shown(offsets)}")
    start, stop = offsets
    if stop - start != prod(shape) * np.dtype(DTYPES[dtype]).itemsize:
        raise CheckpointError(f"{path}: {shown(name)} has {stop - start} bytes, too few or many for {shown(shape)}")
    return (start, stop), tuple(shape)


def sizes(value: Any) -> bool:
    """Whether it is a list of integers from 0 to the size of a file."""
    return isinstance(value, list) and all(type(item) is int and 0 <= item <= LARGEST for item in value)


def tensors_image(tensors: Mapping[str, Array], metadata: Mapping[str, str]) -> bytes:
    """The bytes of a file with these float32 or float16 arrays; equal contents give equal bytes.

    Raises:
        UsageError: the package is missing.
    """
    try:
        from safetensors.numpy import save
    except ImportError:
        raise UsageError("safetensors files need the package safetensors: pip install 'gpucnn[exchange]'") from None
    return save({name: np.ascontiguousarray(array) for name, array in tensors.items()}, dict(metadata))
