"""IDX, the format of MNIST: a big-endian header, then the numbers.

    byte 0, 1    0
    byte 2       type of the numbers; 8 is unsigned byte, the only one used for images
    byte 3       D, the number of dimensions
    4 D bytes    size of each dimension, as 32-bit integers
    the rest     the numbers, last dimension fastest

Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database", section on file formats.
"""

import struct
from math import prod
from pathlib import Path

import numpy as np

from gpucnn.data.files.sources import DAMAGED, MIB, open_bytes, read_up_to, replace_hint
from gpucnn.errors import DataError
from gpucnn.types import Array

UNSIGNED_BYTE = 8
LARGEST = 256 * MIB  # of the numbers; MNIST's training images are 45 MiB


def read_idx(path: Path, ndim: int) -> Array:
    """A plain or gzipped IDX file of unsigned bytes -> uint8 array of ``ndim`` dimensions.

    What the header claims is read and not a byte more, so a small file cannot fill the memory.

    Raises:
        DataError: the file is missing, damaged, no IDX file, or has another size than its header claims.
    """
    try:
        with open_bytes(path) as file:
            shape = parse_header(file.read(4 + 4 * ndim), ndim, path)
            size = prod(shape)
            content = read_up_to(file, size)
            surplus = len(content) == size and bool(file.read(1))  # the end is where gzip has its checksum
    except DAMAGED as error:
        raise DataError(f"{path} is damaged: {error}; {replace_hint(path)}") from None
    if len(content) < size or surplus:
        holds = "more" if surplus else f"{len(content):,}"
        raise DataError(
            f"{path}: its header claims {' x '.join(map(str, shape))} = {size:,} bytes, "
            f"but it holds {holds}; {replace_hint(path)}"
        )
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)


def parse_header(header: bytes, ndim: int, path: Path) -> tuple[int, ...]:
    """The sizes of an IDX file of ``ndim`` dimensions of unsigned bytes."""
    magic = bytes((0, 0, UNSIGNED_BYTE, ndim))
    if header[:4] != magic:
        raise DataError(
            f"{path} is not the IDX file wanted: it starts with {header[:4].hex(' ') or 'nothing'}, "
            f"not with {magic.hex(' ')} (unsigned bytes in {ndim} dimensions); {replace_hint(path)}"
        )
    if len(header) < 4 + 4 * ndim:
        raise DataError(f"{path} ends within its header, after {len(header)} bytes; {replace_hint(path)}")
    shape = struct.unpack(f">{ndim}I", header[4:])
    if prod(shape) > LARGEST:
        raise DataError(
            f"{path}: its header claims {' x '.join(map(str, shape))} bytes, more than the {LARGEST:,} "
            f"that are read at most; {replace_hint(path)}"
        )
    return shape
