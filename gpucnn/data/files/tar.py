"""Named files out of a .tar.gz, read into memory and never extracted.

The tar library follows extension headers (sparse maps, PAX records, long names) before a caller can refuse
them, and a data set's archive needs none of it.  So this reads plain 512-byte headers and refuses others,

    byte 0-99 name   124-135 size, octal   148-155 checksum, octal   156 type   257-262 magic   345-499 prefix

and after each the content, filled up to a multiple of 512 bytes.  A block of zeros ends the archive (ustar,
POSIX.1-1988).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path, PurePosixPath

from gpucnn.data.files.sources import DAMAGED, MIB, open_bytes, read_up_to, replace_hint
from gpucnn.errors import DataError

BLOCK = 512
CHECKSUM = slice(148, 156)
PLAIN, FOLDER = (b"0", b"\0"), (b"5",)
COMMENTS = (b"x", b"g")  # PAX records: times and owners, not looked at
REFUSED = {b"1": "a link", b"2": "a symbolic link", b"3": "a device", b"4": "a device", b"6": "a FIFO"}
MOST_ENTRIES = 100
SPARE = 16 * MIB  # for what is not wanted: a readme, a list of classes, the filling


@dataclass(frozen=True)
class Entry:
    """One header: a member's path, its size in bytes and its type."""

    name: str
    size: int
    kind: bytes


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
    try:
        with open_bytes(path) as archive:
            while entry := read_entry(archive, path):
                budget -= BLOCK + padded(entry.size)
                check_entry(entry, seen, budget, path)
                if entry.name in wanted and entry.kind in PLAIN:
                    found[entry.name] = read_content(archive, entry, wanted[entry.name], path)
                else:
                    skip(archive, entry, path)
                if entry.kind not in COMMENTS:
                    seen.add(entry.name)
            while block := archive.read(MIB):  # to the end, where gzip has its checksum
                budget -= len(block)
                check_budget(budget, path)
    except DAMAGED as error:
        raise DataError(f"{path} is damaged: {error}; {replace_hint(path)}") from None
    if missing := [name for name in wanted if name not in found]:
        raise DataError(f"{path} lacks its member {missing[0]}; {replace_hint(path)}")
    return found


def read_entry(archive: BufferedIOBase, path: Path) -> Entry | None:
    """The next header; None at the end of the archive."""
    block = archive.read(BLOCK)
    if len(block) < BLOCK:
        raise DataError(f"{path} is truncated: it ends without an end mark; {replace_hint(path)}")
    if not any(block):
        return None
    try:
        blank = block[: CHECKSUM.start] + b" " * 8 + block[CHECKSUM.stop :]
        if sum(blank) != octal(block[CHECKSUM]):
            raise ValueError("a header's checksum is wrong")
        name = text(block[:100])
        if block[257:263] == b"ustar\0" and (prefix := text(block[345:500])):
            name = f"{prefix}/{name}"
        return Entry(str(PurePosixPath(name)), octal(block[124:136]), block[156:157])
    except ValueError as error:
        raise DataError(f"{path} is no tar archive, or damaged: {error}; {replace_hint(path)}") from None


def octal(field: bytes) -> int:
    """A number in a header; ValueError where it is none (or in GNU's binary form, for files above 8 GiB)."""
    digits = field.strip(b" \0")
    if not digits or digits.strip(b"01234567"):
        raise ValueError(f"{field!r} is not an octal number")
    return int(digits, 8)


def text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8")


def check_entry(entry: Entry, seen: set[str], budget: int, path: Path) -> None:
    """Refuse what has no business in a data set's archive."""
    if entry.kind not in (*PLAIN, *FOLDER, *COMMENTS):
        kind = REFUSED.get(entry.kind, f"of type {entry.kind!r}")
        raise DataError(f"{path}: its member {entry.name!r} is {kind}; {replace_hint(path)}")
    parts = PurePosixPath(entry.name)
    if parts.is_absolute() or ".." in parts.parts or "\\" in entry.name:
        raise DataError(f"{path}: its member {entry.name!r} leads out of the archive; {replace_hint(path)}")
    if entry.kind not in COMMENTS and entry.name in seen:
        raise DataError(f"{path} has two members called {entry.name!r}; {replace_hint(path)}")
    if len(seen) >= MOST_ENTRIES:
        raise DataError(f"{path} has more than {MOST_ENTRIES} members; {replace_hint(path)}")
    check_budget(budget, path)


def check_budget(budget: int, path: Path) -> None:
    if budget < 0:
        raise DataError(f"{path} unpacks to far more than this data set; {replace_hint(path)}")


def read_content(archive: BufferedIOBase, entry: Entry, sizes: tuple[int, int], path: Path) -> bytes:
    """The content of a wanted member, of a size between the two."""
    smallest, largest = sizes
    if not smallest <= entry.size <= largest:
        wanted = f"{smallest:,}" if smallest == largest else f"{smallest:,} to {largest:,}"
        raise DataError(
            f"{path}: its member {entry.name} has {entry.size:,} bytes instead of {wanted}; {replace_hint(path)}"
        )
    content = read_up_to(archive, padded(entry.size))
    if len(content) < entry.size:
        raise DataError(f"{path} is truncated: it ends within {entry.name}; {replace_hint(path)}")
    return content[: entry.size]


def skip(archive: BufferedIOBase, entry: Entry, path: Path) -> None:
    left = padded(entry.size)
    while left and (block := archive.read(min(left, MIB))):
        left -= len(block)
    if left:
        raise DataError(f"{path} is truncated: it ends within {entry.name}; {replace_hint(path)}")


def padded(size: int) -> int:
    """Filled up to whole blocks."""
    return -(-size // BLOCK) * BLOCK
