"""Where the files of data sets are searched, and what is known of the publishers' files.

Places are searched in this order: ``--data-dir``, the environment variable GPUCNN_DATA_DIR, ~/.cache/gpucnn.  A user
without a home has no ~.
Downloads go to ``--data-dir``, else to the first of the others that is writable.
"""

import gzip
import io
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from gpucnn.data.dataset import Dataset
from gpucnn.errors import DataError, UsageError

MIB = 2**20
GZIP_MAGIC = b"\x1f\x8b"
NO_PLACE = "this user has no home folder: name one with --data-dir or GPUCNN_DATA_DIR"


@dataclass(frozen=True)
class RemoteFile:
    """A publisher's file.

    Attributes:
        path: its place below a data directory.
        size, sha256: of the file as it is published.
        mirrors: its URLs, tried in this order.
        content_sha256: of the unpacked content, if known.
    """

    path: str
    size: int
    sha256: str
    mirrors: tuple[str, ...]
    content_sha256: str = ""


@dataclass(frozen=True)
class Source:
    """What the registry knows about a data set.

    Attributes:
        about: a one-line description.
        load: the place found -> (train, test); built-in sets ignore the place.
        find: a data directory -> the folder or archive in it, or None where it has neither; None for built-in sets.
        lacks: a data directory -> the files that are missing from a folder in it that has some of them.
        files: the place found -> the files that ``load`` reads.
        remote: what to download; empty for built-in sets.
        known: other files of the publisher, which are read but not downloaded.
        images: digest of the publisher's images in any order, if known (``verify.digest_of_images``).
    """

    about: str
    load: Callable[[Path], tuple[Dataset, Dataset]]
    find: Callable[[Path], Path | None] | None = None
    lacks: Callable[[Path], list[Path]] = lambda data_dir: []
    files: Callable[[Path], list[Path]] = lambda place: []
    remote: tuple[RemoteFile, ...] = ()
    known: tuple[RemoteFile, ...] = ()
    images: str = ""

    @property
    def built_in(self) -> bool:
        """Whether it needs no files."""
        return self.find is None


def search_places(data_dir: str | os.PathLike[str] | None = None) -> list[Path]:
    """The data directories, in the order in which they are searched; they need not exist.

    Raises UsageError where one that is given names the home of a user that is not known.
    """
    places = []
    for place in (data_dir, os.environ.get("GPUCNN_DATA_DIR")):
        try:
            places += [Path(place).expanduser()] if place else []
        except RuntimeError:
            raise UsageError(f"data folder {place}: no home of that user is known: write the path out") from None
    with suppress(RuntimeError):
        places.append(Path("~/.cache/gpucnn").expanduser())
    return places


def download_place(data_dir: str | os.PathLike[str] | None = None) -> Path:
    """Where downloads go: ``data_dir``, else the first searched directory that is writable.

    Raises DataError where there is no such place.
    """
    places = search_places(data_dir)
    if not places:
        raise DataError(f"no folder for data sets: {NO_PLACE}")
    return places[0] if data_dir else next(filter(writable, places), places[-1])


def writable(folder: Path) -> bool:
    """Whether files can be made in a folder, or in its nearest parent that exists."""
    existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)


def locate(source: Source, data_dir: str | os.PathLike[str] | None = None) -> Path | None:
    """The first place that has the data set, or None."""
    found = map(source.find, search_places(data_dir)) if source.find else ()
    return next(filter(None, found), None)


def gap(source: Source, data_dir: str | os.PathLike[str] | None = None) -> str:
    """Which files a folder with a part of the data set lacks, in words; "" where there is no such folder."""
    missing = next(filter(None, map(source.lacks, search_places(data_dir))), [])
    names = ", ".join(path.name for path in missing)
    return f"{names} {'is' if len(missing) == 1 else 'are'} missing from {missing[0].parent}" if missing else ""


def open_bytes(path: Path) -> io.BufferedIOBase:
    """Open a file for reading, through gzip if its first bytes are gzip's, whatever its name.

    Raises DataError where it is missing, unreadable or not a regular file (a FIFO would wait forever).
    """
    try:
        if not path.is_file():
            raise DataError(f"{path} is {'not a regular file' if path.exists() else 'missing'}")
        with path.open("rb") as file:
            packed = file.read(2) == GZIP_MAGIC
        return gzip.open(path, "rb") if packed else path.open("rb")
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from None


def read_up_to(file: io.BufferedIOBase, size: int) -> bytes:
    """At most the next ``size`` bytes; a size that the file does not have reserves no memory."""
    blocks = []
    while size and (block := file.read(min(size, MIB))):
        blocks.append(block)
        size -= len(block)
    return b"".join(blocks)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what a bad file raises (ValueError with the reason, errors of gzip) into a DataError that names it."""
    try:
        yield
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise DataError(f"{path} is damaged: {error}; delete {path.name} and download it again") from None


def size_range(smallest: int, largest: int) -> str:
    """The sizes in bytes that a file may have, in words."""
    return f"{smallest:,}" if smallest == largest else f"{smallest:,} to {largest:,}"
