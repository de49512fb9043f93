"""Named files out of a .tar.gz, read into memory and never extracted.

``tarfile.open`` reads extension headers (sparse maps, PAX records, long names) into memory, whatever their size,
before a caller can refuse them, takes a wrong checksum for the end, and accepts an archive that was cut off.  So only
its parser of one header is used, and this walks the archive: a header of 512 bytes, the content filled up to a multiple
of 512 bytes, and so on until a block of zeros (ustar, POSIX.1-1988).
"""

import re
import tarfile
from collections.abc import Mapping
from io import BufferedIOBase
from pathlib import Path, PurePosixPath

from gpucnn.data.files.sources import MIB, open_bytes, read_up_to, reading, size_range

BLOCK = tarfile.BLOCKSIZE
SIZE = slice(124, 136)  # of the content, octal
PLAIN, FOLDER = (tarfile.REGTYPE, tarfile.AREGTYPE), tarfile.DIRTYPE
COMMENTS = (tarfile.XHDTYPE, tarfile.XGLTYPE)  # PAX records: times and owners, skipped
REFUSED = {b"1": "a link", b"2": "a symbolic link", b"3": "a device", b"4": "a device", b"6": "a FIFO"}
MOST_ENTRIES = 100
FAR_MORE = "it unpacks to far more than this data set"
SPARE = 16 * MIB  # for members that are not wanted (a readme, a list of classes) and for padding


def read_members(path: Path, wanted: Mapping[str, tuple[int, int]]) -> dict[str, bytes]:
    """The content of some members of an archive.

    Args:
        path: a .tar.gz (or .tar).
        wanted: a member's path -> its smallest and largest size in bytes.

    Raises:
        DataError: the archive is damaged or truncated, lacks a wanted member or has one of another size, or
            holds what a data set's never does: paths that lead out of it, links, devices, duplicates, or far
            more data than was asked for.
    """
    budget = SPARE + sum(largest for _, largest in wanted.values())
    found: dict[str, bytes] = {}
    seen: set[str] = set()
    headers = 0
    with reading(path), open_bytes(path) as archive:
        while member := read_header(archive):
            headers += 1
            if headers > MOST_ENTRIES:
                raise ValueError(f"it has more than {MOST_ENTRIES} members")
            name, filled = str(PurePosixPath(member.name)), -(-member.size // BLOCK) * BLOCK
            budget -= BLOCK + filled
            check_member(name, member.type, seen, budget)
            keep = name in wanted and member.type in PLAIN
            if keep and not wanted[name][0] <= member.size <= wanted[name][1]:
                raise ValueError(f"its member {name} has {member.size:,} bytes instead of {size_range(*wanted[name])}")
            content = read_up_to(archive, filled)
            if len(content) < filled:
                raise ValueError(f"it is truncated: it ends within {name}")
            if keep:
                found[name] = content[: member.size]
            if member.type not in COMMENTS:
                seen.add(name)
        while block := archive.read(MIB):  # to the end, where gzip has its checksum
            budget -= len(block)
            if budget < 0:
                raise ValueError(FAR_MORE)
        if missing := [name for name in wanted if name not in found]:
            raise ValueError(f"it lacks its member {missing[0]}")
    return found


def read_header(archive: BufferedIOBase) -> tarfile.TarInfo | None:
    """The next header; None at the end of the archive.  Raises ValueError where it is damaged."""
    block = archive.read(BLOCK)
    if len(block) < BLOCK:
        raise ValueError("it is truncated: it ends without an end mark")
    if not any(block):
        return None
    if not re.fullmatch(rb" *[0-7]+[ \0]*", block[SIZE]):  # tarfile takes negative and binary numbers too
        raise ValueError(f"a member's size {block[SIZE]!r} is not an octal number")
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "strict")
    except tarfile.HeaderError as error:
        raise ValueError(f"it is no tar archive, or a header is wrong ({error})") from None


def check_member(name: str, kind: bytes, seen: set[str], budget: int) -> None:
    """Raises ValueError for what has no place in a data set's archive."""
    if kind not in (*PLAIN, FOLDER, *COMMENTS):
        raise ValueError(f"its member {name!r} is {REFUSED.get(kind, f'of type {kind!r}')}")
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name:
        raise ValueError(f"its member {name!r} leads out of the archive")
    if kind not in COMMENTS and name in seen:
        raise ValueError(f"it has two members called {name!r}")
    if budget < 0:
        raise ValueError(FAR_MORE)
