"""Files that a command reads and writes: regular ones, and no more of them than such a file can have."""

import os
import stat
from errno import EFBIG, EINVAL
from io import BufferedReader
from pathlib import Path


def open_regular(path: Path) -> BufferedReader:
    """Open a file for reading; what is no file, as a FIFO or a device, might keep a reader waiting for ever.

    Raises:
        OSError: it cannot be opened, or is not a regular file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except ValueError as error:  # a NUL in the name
        raise OSError(EINVAL, str(error), str(path)) from None
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise OSError(EINVAL, "this is a folder" if stat.S_ISDIR(mode) else "not a regular file", str(path))
    return open(descriptor, "rb")


def foreign(folder: Path) -> str | None:
    """Why a folder may hold what others have put there, who could make a reader do anything; None where it may not.

    Raises:
        OSError: there is no such folder.
    """
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode):
        return f"{folder} is not a folder"
    if status.st_uid != os.getuid():
        return f"{folder} belongs to another user"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"others may write {folder} (chmod go-w mends that)"
    return None


def check_target(path: Path) -> None:
    """Raises OSError for a place that has no file but a FIFO or a device, where a writer might wait for ever."""
    if path.exists() and not path.is_file():
        raise OSError(EINVAL, "this is a folder" if path.is_dir() else "not a regular file", str(path))


def read_text(path: Path, most: int, errors: str = "strict") -> str:
    """A whole text file; ``errors`` as ``bytes.decode`` takes it.

    Raises:
        OSError: as ``open_regular``, or it has more than ``most`` bytes.
        UnicodeDecodeError: it is not UTF-8.
    """
    with open_regular(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(EFBIG, f"more than {most:,} bytes", str(path))
    return content.decode(errors=errors)
