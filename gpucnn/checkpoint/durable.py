"""Replace a file so that a crash at any moment leaves the old one or the new one, whole.

    temporary file beside it -> write -> fsync -> (keep the old one) -> rename -> fsync of the directory

The rename is the one atomic moment.  Without the first fsync a power cut could leave the new name on an empty
file; without the last one it could bring the old name back.
"""

import errno
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from secrets import token_hex

from gpucnn.errors import GpucnnError

Bytes = bytes | bytearray | memoryview

CHUNK = 1 << 24
"""Bytes per write, so that a signal need not wait long."""


def replace_file(path: Path, parts: Sequence[Bytes], keep: Path | None = None) -> None:
    """Write the parts, one after the other, as the new contents of ``path``.

    Args:
        keep: what was at ``path`` stays there under this name.

    Raises:
        GpucnnError: it could not be written (disk full, read-only, file-size limit ...).  What was at
            ``path`` is still there, whole, and the temporary file is gone.
    """
    temporary = path.with_name(f".{path.name}.{token_hex(4)}.tmp")
    try:
        for target in (path, keep) if keep is not None else (path,):
            clean_leftovers(target)
        try:
            _write(temporary, parts)
            if keep is not None:
                _keep(path, keep)
            os.replace(temporary, path)
        except BaseException:  # Ctrl-C too
            with suppress(OSError):
                os.unlink(temporary)
            raise
        sync_directory(path.parent)
    except OSError as error:
        raise GpucnnError(
            f"could not save {path}: {error.strerror or error}; what was there before is untouched: "
            "free some space or choose another output folder"
        ) from error


def _write(temporary: Path, parts: Sequence[Bytes]) -> None:
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with suppress(OSError):  # a file system without locks never looks like one with a dead writer
            flock(descriptor, LOCK_EX | LOCK_NB)  # falls with the process: an unlocked leftover has no writer
        for part in parts:
            rest = memoryview(part)
            while rest:
                rest = rest[os.write(descriptor, rest[:CHUNK]) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _keep(path: Path, keep: Path) -> None:
    """Give the file at ``path``, if there is one, a second name in place of what had that name.

    A file system without hard links keeps nothing: a rename would leave ``path`` empty for a moment.
    """
    link = keep.with_name(f".{keep.name}.{token_hex(4)}.tmp")
    try:
        os.link(path, link)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
            raise
        return
    try:
        os.replace(link, keep)
    finally:
        with suppress(FileNotFoundError):  # a rename onto another name of the same file leaves both
            os.unlink(link)


def clean_leftovers(path: Path) -> None:
    """Remove what killed processes left of saves to ``path``; one that is still being written is spared."""
    pattern = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{8}}\.tmp")
    for entry in path.parent.iterdir():
        if pattern.fullmatch(entry.name) and not entry.is_symlink():
            with suppress(OSError):
                descriptor = os.open(entry, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                try:
                    flock(descriptor, LOCK_EX | LOCK_NB)
                    os.unlink(entry)
                finally:
                    os.close(descriptor)


def sync_directory(directory: Path) -> None:
    """Make renames in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that knows no such thing
            raise
    finally:
        os.close(descriptor)
