"""Files with a right digest and bad intentions: name -> what is done to a sound checkpoint.

``EDITS`` are made with h5py, ``PATCHES`` on the bytes.
"""

import struct
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

CANARY = Path("canary.h5")
"""What links, storage and virtual data sets point to; nobody may open it."""

WEIGHT = "model/features.0.weight"


def replace(path: str, **how: object) -> Callable[[h5py.File], object]:
    """Put another data set in a place."""

    def edit(file: h5py.File) -> None:
        if path in file:
            del file[path]
        file.create_dataset(path, **how)

    return edit


def text(path: str, raw: bytes, length: int = 0) -> Callable[[h5py.File], object]:
    return replace(path, data=np.bytes_(raw), dtype=h5py.string_dtype("utf-8", length or len(raw)))


def link(target: object, path: str = WEIGHT) -> Callable[[h5py.File], object]:
    def edit(file: h5py.File) -> None:
        del file[path]
        file[path] = target

    return edit


def hard_link(file: h5py.File) -> None:
    file["model/again"] = file[WEIGHT]


def cycle(file: h5py.File) -> None:
    file["model/loop"] = file["model"]


def cycle_to_root(file: h5py.File) -> None:
    file["optimizer/loop"] = file["/"]


def external_storage(file: h5py.File) -> None:
    del file[WEIGHT]
    space = h5py.h5s.create_simple((4, 3, 3, 2))
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_obj_track_times(False)
    plist.set_external(str(CANARY).encode(), 0, 288)
    h5py.h5d.create(file["model"].id, b"features.0.weight", h5py.h5t.IEEE_F32LE, space, plist)


def virtual(file: h5py.File) -> None:
    del file[WEIGHT]
    space = h5py.h5s.create_simple((4, 3, 3, 2))
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_obj_track_times(False)
    plist.set_virtual(space, str(CANARY).encode(), b"w", space)
    h5py.h5d.create(file["model"].id, b"features.0.weight", h5py.h5t.IEEE_F32LE, space, plist)


def references(file: h5py.File) -> None:
    del file[WEIGHT]
    file.create_dataset(WEIGHT, data=[file["model"].ref] * 4, dtype=h5py.ref_dtype)


def region_references(file: h5py.File) -> None:
    target = file["model/features.1.scale"]
    file.create_dataset("model/region", data=[target.regionref[:2]], dtype=h5py.regionref_dtype)


def unknown_filter(file: h5py.File) -> None:
    del file[WEIGHT]
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((4, 3, 3, 2))
    plist.set_obj_track_times(False)
    plist.set_filter(31_337, h5py.h5z.FLAG_OPTIONAL)
    space = h5py.h5s.create_simple((4, 3, 3, 2))
    h5py.h5d.create(file["model"].id, b"features.0.weight", h5py.h5t.IEEE_F32LE, space, plist)


def compact(file: h5py.File) -> None:
    del file[WEIGHT]
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_layout(h5py.h5d.COMPACT)
    plist.set_obj_track_times(False)
    space = h5py.h5s.create_simple((4,))
    h5py.h5d.create(file["model"].id, b"features.0.weight", h5py.h5t.IEEE_F32LE, space, plist)


def deep(file: h5py.File) -> None:
    group = file["model"]
    for _ in range(2000):
        group = group.create_group("a")


def many_groups(file: h5py.File) -> None:
    for i in range(12_000):
        file["model"].create_group(f"g{i}")


def many_datasets(file: h5py.File) -> None:
    for i in range(3000):
        file.create_dataset(f"extra{i}", data=np.float32(1))


def attribute(where: str, name: str, value: object) -> Callable[[h5py.File], object]:
    return lambda file: file[where].attrs.create(name, value)


def committed_type(file: h5py.File) -> None:
    file["model/type"] = np.dtype("f4")


def soft_cycle(file: h5py.File) -> None:
    file["model/a"], file["model/b"] = h5py.SoftLink("/model/b"), h5py.SoftLink("/model/a")


def new_style_group(file: h5py.File) -> None:
    del file["history"]
    file.create_group("history", track_order=True)


EDITS: dict[str, Callable[[h5py.File], object]] = {
    "external link": link(h5py.ExternalLink(str(CANARY), "/w")),
    "external link as group": link(h5py.ExternalLink(str(CANARY), "/"), "buffers"),
    "soft link": link(h5py.SoftLink("/model/features.1.scale")),
    "dangling soft link": link(h5py.SoftLink("/nowhere")),
    "soft link cycle": soft_cycle,
    "second hard link": hard_link,
    "hard link cycle": cycle,
    "hard link to the root": cycle_to_root,
    "external storage": external_storage,
    "virtual data set": virtual,
    "object references": references,
    "region references": region_references,
    "variable-length text": replace(WEIGHT, data="text", dtype=h5py.string_dtype()),
    "variable-length numbers": replace(WEIGHT, shape=(4,), dtype=h5py.vlen_dtype("f4")),
    "compound": replace(WEIGHT, data=np.zeros(4, [("a", "f4"), ("b", "f4")])),
    "complex": replace(WEIGHT, data=np.zeros(4, "complex64")),
    "array type": replace(WEIGHT, shape=(2,), dtype=np.dtype(("f4", (3,)))),
    "enumeration": replace(WEIGHT, data=np.zeros(4, bool)),
    "opaque": replace(WEIGHT, data=np.zeros(4, "V8")),
    "half precision": replace(WEIGHT, data=np.zeros((4, 3, 3, 2), "f2")),
    "big-endian": replace(WEIGHT, data=np.zeros((4, 3, 3, 2), ">f4")),
    "unknown filter": unknown_filter,
    "deflate filter": replace(WEIGHT, data=np.zeros((4, 3, 3, 2), "f4"), compression="gzip"),
    "chunked": replace(WEIGHT, data=np.zeros((4, 3, 3, 2), "f4"), chunks=(4, 3, 3, 2)),
    "growable": replace(WEIGHT, data=np.zeros((4, 3), "f4"), maxshape=(None, 3)),
    "compact": compact,
    "rank 9": replace(WEIGHT, data=np.zeros((1,) * 9, "f4")),
    "rank 32": replace(WEIGHT, data=np.zeros((1,) * 32, "f4")),
    "1 TiB declared": replace(WEIGHT, shape=(1 << 38,), dtype="f4"),
    "declared, not written": replace(WEIGHT, shape=(4, 3, 3, 2), dtype="f4"),
    "null data space": replace(WEIGHT, data=h5py.Empty("f4")),
    "12,000 groups": many_groups,
    "3,000 data sets": many_datasets,
    "2,000 levels": deep,
    "huge attribute": attribute("/", "huge", np.zeros(60_000, "u1")),
    "attribute on a group": attribute("model", "note", 1),
    "attribute on a tensor": attribute(WEIGHT, "note", 1),
    "variable-length attribute": attribute("/", "format_version", "one"),
    "array attribute": attribute("/", "epoch", np.arange(2)),
    "attribute of another type": attribute("/", "seed", 1.5),
    "lying epoch": attribute("/", "epoch", 3),
    "no format": lambda file: file.attrs.__delitem__("format"),
    "no version": lambda file: file.attrs.__delitem__("format_version"),
    "no seed": lambda file: file.attrs.__delitem__("seed"),
    "NaN weights": lambda file: file[WEIGHT].write_direct(np.full((4, 3, 3, 2), np.nan, "f4")),
    "infinite weight": lambda file: file[WEIGHT].__setitem__((0, 0, 0, 0), np.inf),
    "NaN buffer": lambda file: file["buffers/features.1.running_mean"].__setitem__(0, np.nan),
    "NaN velocity": lambda file: file["optimizer/velocity/features.1.scale"].__setitem__(0, np.nan),
    "group in place of a tensor": lambda file: (file.__delitem__(WEIGHT), file.create_group(WEIGHT)),
    "tensor in place of a group": replace("history", data=np.zeros(3, "f4")),
    "text in place of a tensor": text(WEIGHT, b"text"),
    "text in place of a number": text("progress/epoch", b"2"),
    "array in place of a number": replace("progress/epoch", data=np.zeros(2)),
    "single precision in place of a number": replace("progress/epoch", data=np.float32(2)),
    "number in place of a text": replace("config", data=np.float64(1)),
    "array of texts": replace("config", shape=(2,), dtype=h5py.string_dtype("utf-8", 1)),
    "text in ASCII": replace("config", data=np.bytes_(b"a = 1")),
    "text that is not UTF-8": text("config", b"\xff\xfe"),
    "matrix of history": replace("history/test_loss", data=np.zeros((2, 2))),
    "ragged history": replace("history/test_loss", data=np.zeros(7)),
    "text of history": text("history/test_loss", b"text"),
    "no config": lambda file: file.__delitem__("config"),
    "no group of buffers": lambda file: file.__delitem__("buffers"),
    "a group too many": lambda file: file.create_group("payload"),
    "a data set too many": lambda file: file.create_dataset("payload", data=1.0),
    "optimizer tensor of another shape": replace("optimizer/velocity/features.1.scale", data=np.zeros(5, "f4")),
    "optimizer tensor missing": lambda file: file.__delitem__("optimizer/velocity/features.1.scale"),
    "state too many": lambda file: file["optimizer"].create_group("m"),
    "data set beside the states": replace("optimizer/m", data=np.zeros(3, "f4")),
    "name with an escape code": lambda file: file["model"].create_dataset("\x1b[2J", data=np.float32(1)),
    "name beyond ASCII": lambda file: file["model"].create_dataset("gewicht_ß", data=np.float32(1)),
    "name of 300 letters": lambda file: file["model"].create_dataset("a" * 300, data=np.float32(1)),
    "committed type": committed_type,
    "group of the new style": new_style_group,
}


def put(form: str, *values: object, after: bytes, shift: int, number: int = 0) -> Callable[[bytearray], object]:
    """Overwrite at a distance from the n-th occurrence of a signature."""

    def patch(image: bytearray) -> None:
        start = -1
        for _ in range(number + 1):
            start = image.index(after, start + 1)
        struct.pack_into(form, image, start + shift, *values)

    return patch


def self_child(image: bytearray) -> None:
    """A B-tree node that is its own child, one level up."""
    node = image.index(b"TREE")
    image[node + 5] = 1
    struct.pack_into("<Q", image, node + 32, node)


def shared_data(image: bytearray) -> None:
    """Two data sets on the same bytes: amplification."""
    first = image.index(b"\x03\x01", image.index(b"SNOD"))
    second = image.index(b"\x03\x01", first + 24)
    image[second : second + 10] = image[first : first + 10]


def overlap(image: bytearray) -> None:
    """A data set that begins inside a header."""
    first = image.index(b"\x03\x01", image.index(b"SNOD"))
    struct.pack_into("<Q", image, first + 2, 100)


def duplicate_name(image: bytearray) -> None:
    """Two members of one name."""
    node = image.index(b"SNOD")
    image[node + 48 : node + 56] = image[node + 8 : node + 16]


def two_names(image: bytearray) -> None:
    """Two members that are one object, which counts one link."""
    node = image.index(b"SNOD")
    image[node + 56 : node + 64] = image[node + 16 : node + 24]


def endless_header(image: bytearray) -> None:
    """A header that goes on in itself."""
    (root,) = struct.unpack_from("<Q", image, 64)
    struct.pack_into("<HHB3xQQ", image, root + 16, 0x10, 16, 0, root + 16, 24)


UNDEFINED = 2**64 - 1

PATCHES: dict[str, Callable[[bytearray], object]] = {
    "superblock of version 3": put("<B", 3, after=b"\x89HDF", shift=8),
    "4-byte offsets": put("<B", 4, after=b"\x89HDF", shift=13),
    "another base address": put("<Q", 0, after=b"\x89HDF", shift=24),
    "another end of file": put("<Q", 1 << 40, after=b"\x89HDF", shift=40),
    "driver information": put("<Q", 96, after=b"\x89HDF", shift=48),
    "open for writing": put("<I", 1, after=b"\x89HDF", shift=20),
    "root beyond the end": put("<Q", 1 << 50, after=b"\x89HDF", shift=64),
    "root at the undefined address": put("<Q", UNDEFINED, after=b"\x89HDF", shift=64),
    "root is the superblock": put("<Q", 0, after=b"\x89HDF", shift=64),
    "no B-tree": put("<4s", b"BUSH", after=b"TREE", shift=0),
    "B-tree of chunks": put("<B", 1, after=b"TREE", shift=4),
    "B-tree of 65,535 children": put("<H", 65_535, after=b"TREE", shift=6),
    "B-tree of 255 levels": put("<B", 255, after=b"TREE", shift=5),
    "B-tree in itself": self_child,
    "leaf beyond the end": put("<Q", 1 << 40, after=b"TREE", shift=32),
    "no symbol table": put("<4s", b"SNOW", after=b"SNOD", shift=0),
    "65,535 symbols": put("<H", 65_535, after=b"SNOD", shift=6),
    "name beyond the heap": put("<Q", 1 << 40, after=b"SNOD", shift=8),
    "symbol with a link in its cache": put("<I", 2, after=b"SNOD", shift=24),
    "object beyond the end": put("<Q", UNDEFINED - 8, after=b"SNOD", shift=16),
    "two members of one name": duplicate_name,
    "two names of one object": two_names,
    "no heap": put("<4s", b"HELP", after=b"HEAP", shift=0),
    "heap of 2^60 bytes": put("<Q", 1 << 60, after=b"HEAP", shift=8),
    "heap data beyond the end": put("<Q", 1 << 40, after=b"HEAP", shift=24),
    "header in itself": endless_header,
    "shared data": shared_data,
    "data inside a header": overlap,
    "trailing bytes": lambda image: image.extend(b"\0" * 64),
    "nothing": lambda image: image.clear(),
    "superblock alone": lambda image: image.__delitem__(slice(96, None)),
    "half of it": lambda image: image.__delitem__(slice(len(image) // 2, None)),
    "zeros": lambda image: image.__setitem__(slice(None), bytes(len(image))),
}
