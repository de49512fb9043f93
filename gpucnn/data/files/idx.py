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

from gpucnn.data.files.sources import MIB, open_bytes, read_up_to, reading
from gpucnn.types import Array

UNSIGNED_BYTE = 8
LARGEST = 256 * MIB  # of the numbers; MNIST's training images are 45 MiB


def read_idx(path: Path, ndim: int) -> Array:
    """A plain or gzipped IDX file of unsigned bytes -> uint8 array of ``ndim`` dimensions.

    No more is read than the header claims, so a small file cannot fill the memory.

    Raises:
        DataError: the file is missing, damaged, no IDX file, or has another size than its header claims.
    """
    with reading(path), open_bytes(path) as file:
        magic, start, sizes = bytes((0, 0, UNSIGNED_BYTE, ndim)), file.read(4), file.read(4 * ndim)
        if start != magic:
            raise ValueError(
                f"it starts with {start.hex(' ') or 'nothing'}, not with {magic.hex(' ')} "
                f"(unsigned bytes in {ndim} dimensions)"
            )
        if len(sizes) < 4 * ndim:
            raise ValueError(f"it ends within its header, after {4 + len(sizes)} bytes")
        shape = struct.unpack(f">{ndim}I", sizes)
        size, claimed = prod(shape), " x ".join(map(str, shape))
        if size > LARGEST:
            raise ValueError(f"its header claims {claimed} bytes, more than the {LARGEST:,} allowed")
        content = read_up_to(file, size + 1)  # to the end, where gzip has its checksum
        if len(content) != size:
            found = f"{len(content):,}" if len(content) < size else "more"
            raise ValueError(f"its header claims {claimed} = {size:,} bytes, but it holds {found}")
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)
