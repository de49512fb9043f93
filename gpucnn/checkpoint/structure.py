"""The bytes of an HDF5 image -> its tree, by a reader that accepts only what gpucnn writes.

A digest detects damage, not intent: whoever makes a file can compute it.  libhdf5 follows external files, filters,
references, virtual data sets and other features that a checkpoint does not need, and trusts addresses and counts.
So untrusted bytes are not given to it.  The few structures below are all that an image may have (HDF5 File Format
Specification, version 3.0: superblock 0, symbol-table groups, version 1 object headers, contiguous data); every
structure claims its bytes, no byte is claimed twice, and the number of structures is bounded, so reading ends and needs
no more memory than the file is long.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import prod

from gpucnn.checkpoint.envelope import USER_BLOCK
from gpucnn.errors import CheckpointError
from gpucnn.types import Shape

UNDEFINED = 2**64 - 1
MAX_STRUCTURES = 50_000
MAX_DEPTH = 3
MAX_RANK = 8
MAX_ELEMENTS = 1 << 32
MAX_NAME = 255
MAX_BLOCK = 65_536  # bytes of one block of an object header
MAX_MESSAGES = 64
NODE, LEAF = 544, 328  # bytes of a B-tree node and of a symbol table node, for K = 16 and K = 4

CONTINUATION, SYMBOL_TABLE, ATTRIBUTE, NIL = 0x10, 0x11, 0x0C, 0x00
DATASPACE, DATATYPE, FILL_VALUE, LAYOUT = 0x01, 0x03, 0x05, 0x08
KNOWN = {NIL, DATASPACE, DATATYPE, FILL_VALUE, LAYOUT, ATTRIBUTE, CONTINUATION, SYMBOL_TABLE}
REFUSED = {0x02: "links", 0x06: "a link", 0x07: "external storage", 0x0B: "a filter", 0x12: "a time stamp"}

TYPES = {
    bytes.fromhex("11200f00 02000000 00001000 0a05000a 0f"): "float16",
    bytes.fromhex("11201f00 04000000 00002000 17080017 7f"): "float32",
    bytes.fromhex("11203f00 08000000 00004000 340b0034 ff03"): "float64",
    bytes.fromhex("10080000 04000000 000020"): "int32",
    bytes.fromhex("10080000 08000000 000040"): "int64",
    bytes.fromhex("10000000 01000000 000008"): "uint8",
}
"""Encoded datatype, without zeros at the end -> NumPy's name; all little-endian.  Bytes 4 to 7 are the size."""
TEXT = bytes.fromhex("13110000")  # a string, padded with zeros, UTF-8; its length follows


@dataclass(frozen=True)
class Entry:
    """A data set or an attribute: shape, dtype (NumPy's name, or "text") and its bytes, little-endian."""

    shape: Shape
    dtype: str
    data: memoryview


class Tree:
    """The contents of an image.

    Attributes:
        attributes: of the root.
        groups: their paths.
        entries: data sets by path ("model/conv.weight").

    Raises:
        CheckpointError: anything that gpucnn does not write.
    """

    def __init__(self, image: bytes) -> None:
        self.image = memoryview(image)
        self.claims: dict[int, int] = {}  # start -> end of every structure met so far
        self.attributes: dict[str, Entry] = {}
        self.groups: set[str] = set()
        self.entries: dict[str, Entry] = {}
        try:
            self.object(self.superblock(), "", 0)
        except (struct.error, UnicodeDecodeError) as error:
            raise CheckpointError(f"malformed: {error}") from None
        for (_, end), (start, _) in pairwise(sorted(self.claims.items())):
            if start < end:
                raise CheckpointError(f"malformed: two structures share the bytes at {start}")

    def claim(self, start: int, size: int, what: str) -> memoryview:
        """The bytes of a structure, which no other may overlap."""
        if start + size > len(self.image):
            raise CheckpointError(f"malformed: {what} of {size} bytes at {start} reaches beyond the file's end")
        if start in self.claims:
            raise CheckpointError(f"malformed: {what} at {start} is used twice (a hard link or a cycle)")
        if len(self.claims) >= MAX_STRUCTURES:
            raise CheckpointError(f"more than {MAX_STRUCTURES} structures, too many for a checkpoint")
        self.claims[start] = start + size
        return self.image[start : start + size]

    def superblock(self) -> int:
        """The address of the root group."""
        block = self.claim(0, 96, "the superblock")
        versions = bytes.fromhex("894844460d0a1a0a 00000000 00080800 0400 1000 00000000")
        base, free_space, end, driver, name, root = struct.unpack_from("<6Q", block, 24)
        if block[:24] != versions or (base, free_space, driver, name) != (USER_BLOCK, UNDEFINED, UNDEFINED, 0):
            raise CheckpointError("its superblock is not one that gpucnn writes")
        if end != USER_BLOCK + len(self.image):
            raise CheckpointError("malformed: the length in the superblock is not that of the file")
        return int(root)

    def object(self, address: int, path: str, depth: int) -> None:
        """Read a group with everything below it, or a data set."""
        messages: dict[int, memoryview] = {}
        for kind, body in self.messages(address, path or "/"):
            if kind == ATTRIBUTE:
                if path:
                    raise CheckpointError(f"{path!r} has an attribute; only the root may")
                self.attribute(body)
            elif kind in messages:
                raise CheckpointError(f"malformed: {path or '/'!r} has two messages of kind {kind:#x}")
            elif kind != NIL:
                messages[kind] = body
        if set(messages) == {SYMBOL_TABLE}:
            self.group(messages[SYMBOL_TABLE], path, depth)
        elif set(messages) == {DATASPACE, DATATYPE, FILL_VALUE, LAYOUT} and path:
            self.entries[path] = self.dataset(messages, path)
        else:
            raise CheckpointError(f"{path or '/'!r} is neither a group nor a contiguous data set")

    def messages(self, address: int, path: str) -> Iterator[tuple[int, memoryview]]:
        """(kind, body) of each message of an object header."""
        version, count, references, size = struct.unpack("<BxHII", self.claim(address, 12, f"{path!r}"))
        if (version, references) != (1, 1) or count > MAX_MESSAGES:
            raise CheckpointError(f"{path!r} has a header that gpucnn does not write (or several hard links)")
        blocks = [(address + 16, size)]
        for start, length in blocks:
            if length > MAX_BLOCK:
                raise CheckpointError(f"the header of {path!r} is too long: {length} bytes")
            block = self.claim(start, length, f"the header of {path!r}")
            while len(block) >= 8:
                kind, size, flags = struct.unpack_from("<HHB", block)
                body, block = block[8 : 8 + size], block[8 + size :]
                count -= 1
                if kind not in KNOWN:
                    found = REFUSED.get(kind, f"a message of kind {kind:#x}")
                    raise CheckpointError(f"{path!r} has {found}, which gpucnn does not write")
                if count < 0 or flags not in (0, 1) or len(body) != size:
                    raise CheckpointError(f"malformed: the header of {path!r}")
                if kind == CONTINUATION:
                    blocks.append(struct.unpack("<QQ", body))
                else:
                    yield kind, body
        if count:
            raise CheckpointError(f"malformed: {path!r} declares {count} header messages too many")

    def group(self, message: memoryview, path: str, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise CheckpointError(f"groups nested deeper than {MAX_DEPTH}: {path!r}")
        if path:
            self.groups.add(path)
        where = path or "/"
        tree, heap = struct.unpack("<QQ", message)
        signature, size, _, address = struct.unpack("<4s4xQQQ", self.claim(heap, 32, f"the names of {where!r}"))
        if signature != b"HEAP":
            raise CheckpointError(f"malformed: {where!r} has no names")
        names = self.claim(address, size, f"the names of {where!r}")
        for leaf in self.leaves(tree, where):
            block = self.claim(leaf, LEAF, f"members of {where!r}")
            signature, count = struct.unpack_from("<4s2xH", block)
            if signature != b"SNOD" or count > 8:
                raise CheckpointError(f"malformed: the members of {where!r} are no symbol table")
            for i in range(count):
                offset, header, cache = struct.unpack_from("<QQI", block, 8 + 40 * i)
                name = self.name(names, offset, where)
                child = f"{path}/{name}" if path else name
                if cache > 1:
                    raise CheckpointError(f"{child!r} is a soft or external link, which gpucnn does not write")
                if child in self.entries or child in self.groups:
                    raise CheckpointError(f"malformed: {child!r} comes twice")
                self.object(header, child, depth + 1)

    def leaves(self, address: int, path: str, height: int | None = None) -> Iterator[int]:
        """The addresses of the symbol table nodes below a node of a B-tree; None is the root's height."""
        block = self.claim(address, NODE, f"the members of {path!r}")
        signature, kind, level, count = struct.unpack_from("<4sBBH", block)
        if signature != b"TREE" or kind != 0 or count > 32 or height not in (None, level):
            raise CheckpointError(f"malformed: the members of {path!r} are no B-tree")
        for child in struct.unpack_from("<" + "8xQ" * count, block, 24):
            if level:  # a byte, so that this nests 255 deep at most
                yield from self.leaves(child, path, level - 1)
            else:
                yield child

    def name(self, names: memoryview, offset: int, path: str) -> str:
        raw, end, _ = bytes(names[offset : offset + MAX_NAME + 1]).partition(b"\0")
        if not end or not all(0x20 < byte < 0x7F and byte != 0x2F for byte in raw) or raw in (b"", b".", b".."):
            raise CheckpointError(f"{path!r} has a member with an unusable name: {raw[:40]!r}")
        return raw.decode("ascii")

    def attribute(self, body: memoryview) -> None:
        version, of_name, of_type, of_space = struct.unpack_from("<BxHHH", body)
        if version != 1 or of_name > MAX_NAME:
            raise CheckpointError("an attribute that gpucnn does not write")
        parts, start = [], 8
        for size in (of_name, of_type, of_space):
            parts.append(body[start : start + size])
            start += -(-size // 8) * 8  # each padded to a multiple of 8
        name = self.name(parts[0], 0, "attributes")
        shape, (dtype, size) = self.shape(parts[2], name), self.dtype(parts[1], name)
        if shape or name in self.attributes or start + size > len(body):
            raise CheckpointError(f"attribute {name!r} is not one number or one text")
        self.attributes[name] = Entry((), dtype, body[start : start + size])

    def dataset(self, messages: dict[int, memoryview], path: str) -> Entry:
        shape = self.shape(messages[DATASPACE], path)
        dtype, itemsize = self.dtype(messages[DATATYPE], path)
        version, kind, address, size = struct.unpack_from("<BBQQ", messages[LAYOUT])
        if (version, kind) != (3, 1):
            raise CheckpointError(f"{path!r} is chunked, compact or virtual, not contiguous")
        if dtype == "text" and shape:
            raise CheckpointError(f"{path!r} is an array of texts")
        if prod(shape) * itemsize != size:
            raise CheckpointError(f"{path!r} is {dtype} {shape} and so cannot have {size} bytes")
        if not size:
            return Entry(shape, dtype, self.image[:0])
        return Entry(shape, dtype, self.claim(address, size, f"the data of {path!r}"))

    def shape(self, message: memoryview, path: str) -> Shape:
        version, rank, flags = struct.unpack_from("<3B", message)
        if version != 1 or rank > MAX_RANK or flags not in (0, 1) or not (rank or not flags):
            raise CheckpointError(f"{path!r} has a shape that gpucnn does not write (rank {rank})")
        shape = struct.unpack_from(f"<{rank}Q", message, 8)
        if prod(max(size, 1) for size in shape) > MAX_ELEMENTS:
            raise CheckpointError(f"{path!r} has the shape {shape}, more elements than allowed")
        if flags and struct.unpack_from(f"<{rank}Q", message, 8 + 8 * rank) != shape:
            raise CheckpointError(f"{path!r} has a shape that may grow")
        return shape

    def dtype(self, message: memoryview, path: str) -> tuple[str, int]:
        """(name, bytes per item)"""
        raw = bytes(message)
        name = "text" if raw[:4] == TEXT else TYPES.get(raw.rstrip(b"\0"))
        if name is None:
            raise CheckpointError(f"{path!r} has a type that gpucnn does not write ({raw[:8].hex()})")
        return name, int.from_bytes(raw[4:8], "little")
