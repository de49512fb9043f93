"""Crash-safe checkpoints: one HDF5 file with a digest, replaced atomically, verified before it is parsed.

    save_checkpoint("last.h5", checkpoint)
    checkpoint = load_checkpoint("last.h5", expected)

docs/checkpoint.md describes the file and what is guaranteed.
"""

from pathlib import Path

from gpucnn.checkpoint.contents import Checkpoint, check_finite, make_image
from gpucnn.checkpoint.durable import replace_file
from gpucnn.checkpoint.envelope import LARGEST, USER_BLOCK, read_image, user_block
from gpucnn.checkpoint.file import CheckpointFile, Expected, Tensors
from gpucnn.errors import CheckpointError, GpucnnError, NotANumberError

__all__ = [
    "Checkpoint",
    "CheckpointFile",
    "Expected",
    "Tensors",
    "load_checkpoint",
    "open_checkpoint",
    "save_checkpoint",
]


def save_checkpoint(path: str | Path, checkpoint: Checkpoint, *, keep: str | Path | None = None) -> None:
    """Write a checkpoint; when this returns, the whole file is on the disk.

    Args:
        keep: the file that was at ``path`` is kept under this name.

    Raises:
        NotANumberError: a tensor holds NaN or infinity.
        GpucnnError: it could not be written.  In both cases the file at ``path`` is unchanged.
    """
    path = Path(path)
    try:
        check_finite(checkpoint)
    except NotANumberError as error:
        raise NotANumberError(f"{path} was not saved: {error}") from None
    image = make_image(checkpoint)
    if USER_BLOCK + len(image) > LARGEST:
        raise CheckpointError(f"{path} was not saved: {len(image)} bytes, a checkpoint may have {LARGEST}")
    try:
        CheckpointFile(path, image, len(image))
    except CheckpointError as error:
        raise CheckpointError(f"{path} was not saved, because it could not be loaded again: {error}") from None
    replace_file(path, [user_block(image), image], Path(keep) if keep is not None else None)


def open_checkpoint(path: str | Path) -> CheckpointFile:
    """Read a file once and verify its digest and its structure; no tensor is copied yet.

    Raises:
        CheckpointError: it is missing, damaged, hostile, or of an unknown version.
    """
    path = Path(path)
    try:
        image = read_image(path)
        return CheckpointFile(path, image, USER_BLOCK + len(image))
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None


def load_checkpoint(path: str | Path, expected: Expected | None = None) -> Checkpoint:
    """The whole checkpoint.

    Args:
        expected: config text -> {"parameters": {name: (shape, dtype)}, "buffers": ...} of the model built from that
            config; compared before any tensor is copied.

    Raises:
        CheckpointError: as ``open_checkpoint``, or it does not fit the model.  Nothing is loaded in part.
    """
    file = open_checkpoint(path)
    try:
        if expected is not None:
            file.check(expected(file.config))
        return file.read()
    except GpucnnError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except RecursionError:
        raise CheckpointError(f"{path}: its config nests too deeply") from None
