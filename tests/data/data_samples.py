"""Tiny synthetic data sets in their publishers' formats, and hostile archives."""

import gzip
import io
import struct
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from gpucnn.data.cifar import CIFAR10_LAYOUTS, CIFAR100_LAYOUTS, Layout, cifar_source
from gpucnn.data.files.sources import Source

PARTS = (("train", 5), ("t10k", 3))  # of the synthetic MNIST: images in each


def idx_bytes(array: np.ndarray) -> bytes:
    """An IDX file of unsigned bytes."""
    header = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


def write_mnist(folder: Path, *, packed: bool = True, seed: int = 0) -> dict[str, np.ndarray]:
    """Four IDX files of a few images; returns their arrays by name."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    arrays = {}
    for part, count in PARTS:
        arrays[f"{part}-images-idx3-ubyte"] = rng.integers(0, 256, (count, 28, 28)).astype(np.uint8)
        arrays[f"{part}-labels-idx1-ubyte"] = rng.integers(0, 10, count).astype(np.uint8)
    for name, array in arrays.items():
        content = idx_bytes(array)
        path = folder / (f"{name}.gz" if packed else name)
        path.write_bytes(gzip.compress(content) if packed else content)
    return arrays


def tiny(layouts: tuple[Layout, ...], train: int = 4, test: int = 3) -> tuple[Layout, ...]:
    """CIFAR's versions with a few records per file."""
    return tuple(
        replace(one, train=dict.fromkeys(one.train, train), test=dict.fromkeys(one.test, test)) for one in layouts
    )


TEN_BINARY, TEN_PYTHON = tiny(CIFAR10_LAYOUTS)
HUNDRED_BINARY, HUNDRED_PYTHON = tiny(CIFAR100_LAYOUTS)


def tiny_cifar10() -> Source:
    return cifar_source("a few photographs", (TEN_BINARY, TEN_PYTHON), ())


def cifar_planes(layout: Layout, seed: int = 0) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Per file: planes (N,3,32,32) and labels (N,), the same for the binary and the python version."""
    rng = np.random.default_rng(seed)
    return {
        name: (
            rng.integers(0, 256, (count, 3, 32, 32)).astype(np.uint8),
            rng.integers(0, len(layout.classes), count).astype(np.uint8),
        )
        for name, count in {**layout.train, **layout.test}.items()
    }


def cifar_contents(layout: Layout, seed: int = 0) -> dict[str, bytes]:
    """Per file: its bytes, records or a Python 2 pickle."""
    made = cifar_planes(layout, seed)
    if not layout.label_bytes:
        return {
            name: python2_pickle(planes.reshape(len(planes), -1), labels.tolist(), layout.label_key)
            for name, (planes, labels) in made.items()
        }
    coarse = b"\x13" * (layout.label_bytes - 1)
    return {
        name: b"".join(
            coarse + bytes([label]) + image.tobytes() for image, label in zip(planes, labels.tolist(), strict=True)
        )
        for name, (planes, labels) in made.items()
    }


def write_folder(folder: Path, contents: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return folder


def write_archive(path: Path, contents: dict[str, bytes], folder: str = "") -> Path:
    """A .tar.gz with a folder and its files."""
    members = [plain(f"{folder}/{name}" if folder else name, content) for name, content in contents.items()]
    if folder:
        members.insert(0, (tar_info(folder, type=tarfile.DIRTYPE), b""))
    return write_members(path, members)


def write_members(path: Path, members: list[tuple[tarfile.TarInfo, bytes]], **options: object) -> Path:
    """Any members, hostile ones too."""
    with tarfile.open(path, "w:gz", compresslevel=1, **options) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return path


def tar_info(name: str, **fields: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def plain(name: str, content: bytes, **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    return tar_info(name, size=len(content), **fields), content


# -- pickles as Python 2 wrote them, instruction by instruction ---------------------------------------


def python2_string(value: bytes) -> bytes:
    if len(value) < 256:
        return b"U" + bytes([len(value)]) + value
    return b"T" + struct.pack("<i", len(value)) + value


def python2_array(rows: np.ndarray, code: bytes = b"u1", shape: tuple[int, ...] | None = None) -> bytes:
    """What numpy 1 wrote of a two-dimensional array: _reconstruct(ndarray, (0,), 'b'), then its state."""
    height, width = shape or rows.shape
    return (
        b"cnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nq\x02K\x00\x85q\x03U\x01bq\x04\x87q\x05Rq\x06"
        + b"(K\x01"
        + (b"J" + struct.pack("<i", height) + b"J" + struct.pack("<i", width) + b"\x86q\x07")
        + (b"cnumpy\ndtype\nq\x08" + python2_string(code) + b"q\x09K\x00K\x01\x87q\x0aRq\x0b")
        + b"(K\x03U\x01|q\x0cNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x0db"
        + (b"\x89" + python2_string(rows.tobytes()) + b"q\x0etq\x0fb")
    )


def python2_pickle(rows: np.ndarray, labels: list[int], label_key: str = "labels", **changes: object) -> bytes:
    """A CIFAR batch: {'batch_label': ..., label_key: [...], 'data': array}."""
    items = b"".join(b"K" + bytes([label]) for label in labels)
    return (
        b"\x80\x02}q\x00("
        + (python2_string(b"batch_label") + python2_string(b"training batch 1 of 5"))
        + (python2_string(label_key.encode()) + b"](" + items + b"e")
        + (python2_string(b"data") + python2_array(rows, **changes))
        + b"u."
    )
