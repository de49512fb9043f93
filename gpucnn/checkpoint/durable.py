"""Replace a file atomically: a crash at any moment leaves either the old file or the new one, whole.

    temporary file in the same folder -> write -> fsync -> (keep the old one) -> rename -> fsync of the directory

The rename is the atomic step.  Without the first fsync a power cut could leave an empty file under the new name;
without the last one it could bring the old file back.
"""

import errno
import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from fcntl import LOCK_EX, LOCK_NB, flock
from glob import escape
from pathlib import Path
from secrets import token_hex

from gpucnn.errors import GpucnnError
from gpucnn.files import check_target

Bytes = bytes | bytearray | memoryview

CHUNK = 1 << 24
"""Bytes per write, so that signals are handled soon."""


def replace_file(path: Path, parts: Iterable[Bytes], keep: Path | None = None) -> None:
    """Write the parts, one after the other, as the new contents of ``path``.

    Args:
        keep: the file that was at ``path`` is kept under this name.

    Raises:
        GpucnnError: it could not be written (disk full, read-only, file-size limit ...).  The file at
            ``path`` is unchanged, and the temporary file is removed.
    """
    try:
        replace_atomically(path, parts, keep)
    except OSError as error:
        raise GpucnnError(
            f"could not save {path}: {error.strerror or error}; the file that was there is unchanged: "
            "free some space or choose another output folder"
        ) from error


def replace_atomically(path: Path, parts: Iterable[Bytes], keep: Path | None = None) -> None:
    """``replace_file``, whose failures are OSErrors; one of ``parts`` leaves the file at ``path`` unchanged too."""
    if "\0" in str(path):
        raise OSError(errno.EINVAL, "a NUL in the name", str(path))
    check_target(path)  # as root one could put a file into the place of /dev/null
    for target in (path, keep) if keep is not None else (path,):
        clean_leftovers(target)
    temporary, descriptor = create_temporary(path)
    try:
        for part in parts:
            rest = memoryview(part)
            while rest:
                rest = rest[os.write(descriptor, rest[:CHUNK]) :]
        os.fsync(descriptor)
        if keep is not None:
            _keep(path, keep)
        os.replace(temporary, path)
    except BaseException:  # Ctrl-C too
        with suppress(OSError):
            os.unlink(temporary)
        raise
    finally:
        os.close(descriptor)  # and with it the lock, which nobody needs once the file has its name
    sync_directory(path.parent)


def create_temporary(path: Path) -> tuple[Path, int]:
    """A new file beside ``path``, open and locked; it never is one that was there, nor one that a link points to.

    The lock ends with the process, so an unlocked file of this kind has no writer.
    """
    while True:
        temporary = path.with_name(f".{path.name}.{token_hex(4)}.tmp")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        with suppress(OSError):  # without locks in the file system, leftovers stay
            flock(descriptor, LOCK_EX)
        if os.path.lexists(temporary):
            return temporary, descriptor
        os.close(descriptor)  # another process took it for a leftover before it was locked


def _keep(path: Path, keep: Path) -> None:
    """Give the file at ``path``, if there is one, the second name ``keep``, which is replaced.

    Without hard links in the file system nothing is kept: with a rename ``path`` would be missing for a moment.
    """
    link = keep.with_name(f".{keep.name}.{token_hex(4)}.tmp")
    try:
        os.link(path, link)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
            raise
        return
    try:
        with suppress(FileNotFoundError):  # another process that saves took the link for a leftover
            os.replace(link, keep)
    finally:
        with suppress(FileNotFoundError):  # a rename onto a link to the same file leaves both
            os.unlink(link)


def clean_leftovers(path: Path) -> None:
    """Remove the temporary files of killed processes that saved to ``path``; locked ones are in use and stay."""
    for entry in path.parent.glob(f".{escape(path.name)}.{'[0-9a-f]' * 8}.tmp"):
        with suppress(OSError):
            descriptor = os.open(entry, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                flock(descriptor, LOCK_EX | LOCK_NB)
                if stat.S_ISREG(os.fstat(descriptor).st_mode):
                    os.unlink(entry)
            finally:
                os.close(descriptor)


def sync_directory(directory: Path) -> None:
    """Make renames in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # not supported by the file system
            raise
    finally:
        os.close(descriptor)
