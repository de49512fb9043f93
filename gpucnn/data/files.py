"""Where data sets lie, and reading them without trusting them."""

import gzip
import os
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from gpucnn.errors import DataError

CACHE = Path("~/.cache/gpucnn")


def roots(data_dir: str | Path | None = None) -> list[Path]:
    """Folders to search, first to last: ``--data-dir``, ``GPUCNN_DATA_DIR``, ~/.cache/gpucnn."""
    named = [data_dir, os.environ.get("GPUCNN_DATA_DIR"), CACHE]
    return [Path(root).expanduser() for root in named if root]


def find(names: Iterable[str], folders: Iterable[str], data_dir: str | Path | None = None) -> Path | None:
    """The first of the files ``folder/name`` that exists, roots first, then folders, then names."""
    wanted, below = list(names), list(folders)
    for root in roots(data_dir):
        for folder in below:
            for name in wanted:
                if (root / folder / name).is_file():
                    return root / folder / name
    return None


def read(path: Path, limit: int) -> bytes:
    """The contents of a file, unpacked where it is gzip; at most ``limit`` bytes.

    Raises:
        DataError: it cannot be read, is damaged, or unpacks to more.
    """
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else path.open("rb") as file:
            content = file.read(limit + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}): delete it and download it again") from None
    if len(content) > limit:
        raise DataError(
            f"{path} holds more than the {limit:,} bytes it may have: it is not the file it claims"
        )
    return bytes(content)


def members(archive: Path, names: Iterable[str], limit: int) -> Iterator[bytes]:
    """The named members of a tar archive, read in place; nothing is ever extracted.

    Raises:
        DataError: the archive is damaged, or a member is missing, doubled, no plain file, or too large.
    """
    wanted = list(names)
    try:
        with tarfile.open(archive) as tar:
            found: dict[str, tarfile.TarInfo] = {}
            for member in tar:
                if member.name in wanted:
                    if member.name in found:
                        raise DataError(f"{archive} holds {member.name} twice: download it again")
                    found[member.name] = member
            for name in wanted:
                member = found.get(name)
                stream = tar.extractfile(member) if member is not None and member.isreg() else None
                if member is None or stream is None or member.size > limit:
                    raise DataError(f"{archive} has no proper member {name}: download it again")
                yield stream.read(limit)
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        raise DataError(f"{archive} cannot be read ({error}): delete it and download it again") from None
