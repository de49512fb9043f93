"""The IDX format of MNIST: two zero bytes, a type, the number of dimensions, sizes as big-endian 32-bit, the bytes."""

import struct
from math import prod
from pathlib import Path

import numpy as np

from gpucnn.data.files import read
from gpucnn.errors import DataError
from gpucnn.typing import Array

UNSIGNED_BYTE = 0x08
LIMIT = 64 << 20  # bytes; MNIST's largest file has 47 MB


def read_idx(path: Path, dimensions: int) -> Array:
    """A uint8 array with so many dimensions; plain or gzip.

    Raises:
        DataError: wrong magic number, wrong type, or sizes that do not fit the length.
    """
    content = read(path, LIMIT)
    head = 4 + 4 * dimensions
    if len(content) < head:
        raise DataError(f"{path} has {len(content)} bytes, too few for an IDX file: download it again")
    magic = struct.unpack(">I", content[:4])[0]
    if magic != UNSIGNED_BYTE << 8 | dimensions:
        raise DataError(
            f"{path} has magic number {magic:#010x}, expected {UNSIGNED_BYTE << 8 | dimensions:#010x}: "
            "it is another kind of file"
        )
    shape = struct.unpack(f">{dimensions}I", content[4:head])
    if prod(shape) != len(content) - head:
        raise DataError(
            f"{path} says it holds {shape}, {prod(shape):,} bytes, but {len(content) - head:,} follow: it is truncated"
        )
    return np.frombuffer(content, np.uint8, offset=head).reshape(shape)
