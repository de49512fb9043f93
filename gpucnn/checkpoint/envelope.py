"""The envelope: 512 bytes of text before the HDF5 image, with the image's length and SHA-256.

    GPUCNN-HDF5 1
    length 103920
    sha256 b2a37840338a422ec1292b85c29b525feca1266a964990e6a0ebac4beb851b6a
    A gpucnn checkpoint: ...

It is a valid HDF5 user block, so any HDF5 viewer opens the file.  On reading, the block is made anew from the image
and compared byte for byte, so that no bit of the file can change unnoticed.
"""

import hashlib
import os
import re
from pathlib import Path

from gpucnn.checkpoint.durable import Bytes
from gpucnn.errors import CheckpointError, near
from gpucnn.files import open_regular

USER_BLOCK = 512
MAGIC = b"GPUCNN-HDF5 "
VERSION = 1
LARGEST = 1 << 32
"""Bytes that a file may have."""

REMEDY = "use best.h5 or an older checkpoint"


def user_block(image: Bytes) -> bytes:
    """The 512 bytes that belong before an image."""
    text = (
        f"{MAGIC.decode()}{VERSION}\n"
        f"length {len(image)}\n"
        f"sha256 {hashlib.sha256(image).hexdigest()}\n"
        "A gpucnn checkpoint: an HDF5 file behind this block of 512 bytes. Any HDF5 viewer opens it;\n"
        "'gpucnn inspect FILE' shows what it holds. The digest is of everything behind the block.\n"
    )
    return text.encode().ljust(USER_BLOCK, b"\0")


def read_image(path: Path) -> bytes:
    """The verified image of the file at ``path``; each byte is read once, and only the block is parsed.

    Raises:
        CheckpointError: no such file, not a regular file, not a checkpoint, truncated, or damaged.
    """
    try:
        opened = open_regular(path)
    except OSError as error:
        remedy = near(path) or "; give a checkpoint such as last.h5"
        raise CheckpointError(f"cannot open it: {error.strerror}{remedy}") from None
    try:
        with opened as file:
            block = file.read(USER_BLOCK)
            length = image_length(block, os.fstat(file.fileno()).st_size)
            image = file.read(length + 1)
    except OSError as error:
        raise CheckpointError(f"cannot read it: {error.strerror}; {REMEDY}") from None
    if len(image) != length:
        raise CheckpointError(f"its size changed while it was read; {REMEDY}")
    if user_block(image) != block:
        raise CheckpointError(f"damaged: the SHA-256 of its contents does not match; {REMEDY}")
    return image


def image_length(block: bytes, size: int) -> int:
    """The length that the block of a file of ``size`` bytes declares; CheckpointError where it is wrong."""
    if not size:
        raise CheckpointError(f"the file is empty; {REMEDY}")
    if not block.startswith(MAGIC):
        raise CheckpointError("not a gpucnn checkpoint (no GPUCNN-HDF5 block): give a file such as last.h5")
    found = re.match(rb"GPUCNN-HDF5 (\d{1,9})\nlength (\d{1,18})\n", block)
    if not found or len(block) < USER_BLOCK:
        raise CheckpointError(f"damaged or truncated within its first {USER_BLOCK} bytes; {REMEDY}")
    version, length = int(found[1]), int(found[2])
    if version != VERSION:
        raise CheckpointError(f"its envelope has version {version}, this gpucnn reads {VERSION}: upgrade gpucnn")
    if size != USER_BLOCK + length:
        kind = "truncated" if size < USER_BLOCK + length else "too long"
        raise CheckpointError(f"{kind}: {size} bytes instead of {USER_BLOCK + length}; {REMEDY}")
    if size > LARGEST:
        raise CheckpointError(f"{size} bytes are more than the {LARGEST} that a checkpoint may have")
    return length
