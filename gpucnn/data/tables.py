"""Images as numbers in one file: .npz of NumPy, .csv, and HDF5.

    .npz, .h5   images (N,H,W) or (N,H,W,C) and labels (N,), by the names in ``PAIRS``; "classes" may name the labels
    .csv        a line per image: its label, then its pixels, row by row; the first line may have names

Bytes stay bytes, and floats stay on their own scale.  Labels are integers or texts; without names, classes are called
like the distinct labels, sorted.
"""

import csv
import io
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import isqrt, prod
from pathlib import Path
from typing import Any

import numpy as np

from gpucnn.data.dataset import Dataset
from gpucnn.data.decoded import Cache
from gpucnn.data.files.sources import MIB
from gpucnn.data.reading import Parts, Reading
from gpucnn.data.stored import StoredImages, free_memory, spill
from gpucnn.errors import DataError, shown
from gpucnn.files import open_regular
from gpucnn.types import Array

PAIRS = {
    "train": (("x_train", "y_train"), ("train_images", "train_labels"), ("train/images", "train/labels"),
              ("images", "labels"), ("x", "y"), ("data", "labels")),
    "validation": (("x_val", "y_val"), ("val_images", "val_labels"), ("validation/images", "validation/labels")),
    "test": (("x_test", "y_test"), ("test_images", "test_labels"), ("test/images", "test/labels")),
}  # fmt: skip
"""A part -> the names of its images and labels, any one pair; capital letters are as small ones."""

CLASSES = ("classes", "class_names", "label_names")
DENSEST = 1100  # bytes that one byte of a file may become; deflate reaches 1032
ZIPPED = (zipfile.BadZipFile, zlib.error)
LONGEST_LABEL = 100  # characters
LONGEST_LINE = 64 * MIB
LABELS = ("label", "class", "target", "y")  # the names of a .csv's column of labels


def load_table(path: Path, how: Reading) -> Parts:
    """The images of one file.

    Raises:
        DataError: the file is damaged, or has no images and labels by the names that are known.
    """
    read = READERS[path.suffix.lower()]
    with explained(path):
        parts = read(path, how)
    return parts.fitted(how.size, how.channels, how.fit)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what a damaged file raises into a DataError that names it."""
    try:
        yield
    except (OSError, EOFError, ValueError, LookupError, MemoryError, RuntimeError, *ZIPPED) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or "out of memory"
        raise DataError(f"{path} cannot be read: {reason}") from None


def join(path: Path, how: Reading, names: Mapping[str, str], read: Callable[[str], Any]) -> Parts:
    """The parts of a file.

    Args:
        names: of its arrays, in small letters -> as they are.
        read: the array of a name.
    """
    found: dict[str, tuple[Any, Any]] = {}
    for part, pairs in PAIRS.items():
        pair = next((pair for pair in pairs if all(name in names for name in pair)), None)
        if pair:
            images, labels = (read(names[name]) for name in pair)
            found[part] = (images, np.asarray(labels))
    if "train" not in found:
        known = "; ".join(" and ".join(pair) for pair in PAIRS["train"][:4])
        has = ", ".join(map(str, list(names.values())[:8])) or "nothing"
        raise DataError(f"{path} has {shown(has)}: give images and labels by the names {known}")
    classes: Any = how.classes or None
    if classes is None and (key := next((names[name] for name in CLASSES if name in names), None)):
        classes = [name.decode() if isinstance(name, bytes) else str(name) for name in np.asarray(read(key)).ravel()]
    if classes is None and all(labels.dtype.kind in "iuUS" for _, labels in found.values()):
        distinct = np.unique(np.concatenate([labels.ravel() for _, labels in found.values()]))
        classes = [name.decode() if isinstance(name, bytes) else str(name) for name in distinct.tolist()]
    name = path.stem
    return Parts(**{part: Dataset.from_arrays(*pair, classes=classes, name=name) for part, pair in found.items()})


def check_claim(path: Path, name: str, claimed: int, most: int | None = None) -> None:
    """Raises DataError where an array claims more bytes than a file of its length can hold, or than fit in memory."""
    size = os.stat(path).st_size
    if claimed > DENSEST * size:
        raise DataError(f"{path}: {name!r} claims {claimed:,} bytes in a file of {size:,}: it is damaged")
    if most is not None and claimed > most:
        raise DataError(f"{path}: {name!r} takes {claimed:,} bytes, {most:,} are free: put the images into an .h5 file")


def read_npz(path: Path, how: Reading) -> Parts:
    """A file of ``numpy.savez``, compressed or not; no pickles."""
    with open_regular(path) as file, zipfile.ZipFile(file) as archive:
        names = {
            name.removesuffix(".npy").lower(): name.removesuffix(".npy")
            for name in archive.namelist()
            if name.endswith(".npy")
        }

        def read(name: str) -> Array:
            info = archive.getinfo(f"{name}.npy")
            check_claim(path, name, info.file_size, free_memory())
            with archive.open(info) as member:
                version = np.lib.format.read_magic(member)
                header = {
                    (1, 0): np.lib.format.read_array_header_1_0,
                    (2, 0): np.lib.format.read_array_header_2_0,
                }.get(version)
                if header is None:
                    raise ValueError(f"{name!r} has version {version} of NumPy's format")
                shape, _, dtype = header(member)
                if dtype.hasobject:
                    raise ValueError(f"{name!r} holds Python objects, which are not read: save numbers or texts")
                if prod(shape) * dtype.itemsize != info.file_size - member.tell():
                    raise ValueError(f"{name!r} is {info.file_size:,} bytes long, but claims {dtype} {shape}")
            with archive.open(info) as member:
                found: Array = np.lib.format.read_array(member, allow_pickle=False)
                member.read(1)  # to the end, where the checksum is compared
            return found

        return join(path, how, names, read)


def read_hdf5(path: Path, how: Reading) -> Parts:
    """An HDF5 file; images beyond the memory limit stay in it, or in a copy that can be read one by one."""
    import h5py

    open_regular(path).close()
    limit = how.memory or free_memory() // 2
    with h5py.File(path, "r", locking=False) as file:
        names: dict[str, str] = {}
        for name in file:
            if not isinstance(file.get(name, getlink=True), h5py.HardLink):
                continue  # which may point to another file
            inner = [name] if isinstance(file[name], h5py.Dataset) else [f"{name}/{one}" for one in file[name]]
            names |= {one.lower(): one for one in inner if isinstance(file.get(one, getlink=True), h5py.HardLink)}
        images = {pair[0] for pairs in PAIRS.values() for pair in pairs}

        def read(name: str) -> Any:
            found = file[name]
            if not isinstance(found, h5py.Dataset) or found.is_virtual or found.external:
                raise ValueError(f"{name!r} is no array, or its values are in another file")
            text = h5py.check_string_dtype(found.dtype)
            if found.dtype.kind not in "iuf" and not text:
                raise ValueError(f"{name!r} has values of the type {found.dtype}")
            check_claim(path, name, found.nbytes)
            if name.lower() not in images or found.nbytes <= limit:
                return np.array([str(one) for one in found.asstr()[()]]) if text else found[()]
            if found.ndim != 4 or found.dtype not in (np.uint8, np.float32):
                raise ValueError(f"{name!r} is more than memory may take: give uint8 or float32 (N, H, W, C)")
            if found.chunks is None:
                return StoredImages(path, name)
            status = os.stat(path)
            key = f"{status.st_size}-{status.st_mtime_ns}-{status.st_ino}-{name}".encode().hex()
            cache = Cache.of(path, path.stem, (), key[::-1])
            if cache is None:
                raise ValueError(
                    f"{name!r} is compressed and more than memory may take, and there is no home for a copy"
                )
            copy = cache.folder / f"{cache.stem}-{name.replace('/', '-')}.h5"
            return StoredImages(copy) if copy.exists() else spill(found, copy)

        return join(path, how, names, read)


def read_csv(path: Path, how: Reading) -> Parts:
    """Lines of a label and pixels, with commas, semicolons or tabs between them."""
    with open_regular(path) as opened, io.TextIOWrapper(opened, encoding="utf-8-sig", newline="") as file:
        first = file.readline(LONGEST_LINE)
        delimiter = max(",;\t", key=first.count)
        cells = next(csv.reader([first], delimiter=delimiter), [])
        column, skip = 0, not any(map(is_number, cells[1:2]))
        if skip:
            known = [cell.strip().lower() for cell in cells]
            column = next((known.index(name) for name in LABELS if name in known), 0)
            cells = next(csv.reader([file.readline(LONGEST_LINE)], delimiter=delimiter), [])
        if len(cells) < 2:
            raise DataError(f"{path} has no line of a label and pixels: give label,pixel,pixel,... on each")
        pixels, kind = len(cells) - 1, np.uint8
        shape = line_shape(path, pixels, how)
        if any(not cell.strip().isdecimal() for i, cell in enumerate(cells) if i != column):
            kind = np.float32  # type: ignore[assignment]
        fields = [("before", kind, (column,)), ("label", f"U{LONGEST_LABEL + 1}"), ("after", kind, (pixels - column,))]
        dtype = np.dtype([one for one in fields if one[-1] != (0,)])
        file.seek(0)
        table = np.loadtxt(
            file, dtype, delimiter=delimiter, skiprows=int(skip), comments=None, quotechar='"', ndmin=1
        )  # (N,)
    labels = np.char.strip(table["label"])
    if np.char.str_len(labels).max() > LONGEST_LABEL:
        raise DataError(f"{path}: a label of more than {LONGEST_LABEL} characters: give it a shorter name")
    if all(re.fullmatch("[+-]?[0-9]{1,18}", label) for label in np.unique(labels)):
        labels = labels.astype(np.int64)
    blocks = [table[name] for name in dtype.fields or () if name != "label"]
    images = np.concatenate(blocks, axis=1).reshape(-1, *shape)
    whole = images.dtype.kind == "f" and images.max() > 1 and images.min() >= 0 and (images == np.rint(images)).all()
    if whole and images.max() <= 255:
        images = images.astype(np.uint8)  # "12.0", as spreadsheets write
    return Parts(Dataset.from_arrays(images, labels, classes=how.classes or None, name=path.stem))


def is_number(text: str) -> bool:
    """Whether a cell holds a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def line_shape(path: Path, pixels: int, how: Reading) -> tuple[int, int, int]:
    """(H, W, C) of the pixels of a line: as asked for, or square."""
    channels = how.channels or (pixels // prod(how.size) if how.size else 1)
    side = isqrt(pixels // max(1, channels))
    height, width = how.size or (side, side)
    if height * width * channels != pixels or not pixels:
        wanted = f"{height} x {width} x {channels}" if how.size else "no square image"
        raise DataError(
            f"{path}: {pixels:,} pixels on a line make {wanted}: give --size HxW, and --channels 3 of colour"
        )
    return height, width, channels


READERS: dict[str, Callable[[Path, Reading], Parts]] = {
    ".npz": read_npz,
    ".csv": read_csv,
    ".h5": read_hdf5,
    ".hdf5": read_hdf5,
}
"""Ending of a file's name -> its reader."""
