"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009): 50,000 + 10,000 colour images, 32x32.

The binary version is read from its folder or straight from the archive, the Python version through an unpickler that
can make arrays and nothing else.
"""

import io
import pickle
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from gpucnn.data.dataset import Dataset
from gpucnn.data.download import Remote, fetch
from gpucnn.data.files import members, read, roots
from gpucnn.errors import DataError
from gpucnn.typing import Array

PIXELS = 3 * 32 * 32
LIMIT = 200 << 20  # bytes of one file
MIRRORS = ("https://www.cs.toronto.edu/~kriz/",)

TEN = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

REMOTES = {
    "cifar10": Remote(
        "cifar-10-binary.tar.gz",
        170_052_171,
        "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        MIRRORS,
    ),
    "cifar100": Remote(
        "cifar-100-binary.tar.gz",
        168_513_733,
        "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
        MIRRORS,
    ),
}

Files = tuple[list[str], list[str], str]  # training files, test files, names of the classes

BINARY: dict[str, tuple[str, Files]] = {
    "cifar10": (
        "cifar-10-batches-bin",
        ([f"data_batch_{i}.bin" for i in range(1, 6)], ["test_batch.bin"], "batches.meta.txt"),
    ),
    "cifar100": ("cifar-100-binary", (["train.bin"], ["test.bin"], "fine_label_names.txt")),
}
PICKLED: dict[str, tuple[str, Files]] = {
    "cifar10": (
        "cifar-10-batches-py",
        ([f"data_batch_{i}" for i in range(1, 6)], ["test_batch"], "batches.meta"),
    ),
    "cifar100": ("cifar-100-python", (["train"], ["test"], "meta")),
}


def images_from_planes(planes: Array) -> Array:
    """(N,3072) bytes, a red, a green and a blue plane -> (N,32,32,3)."""
    return np.ascontiguousarray(planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


def parse_binary(content: bytes, label_bytes: int, origin: str) -> tuple[Array, Array]:
    """Records of label bytes (the last one is the class) and 3,072 pixels -> images (N,32,32,3), labels (N,)."""
    size = label_bytes + PIXELS
    if not content or len(content) % size:
        raise DataError(
            f"{origin} has {len(content):,} bytes, no multiple of its {size}-byte records: it is truncated"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, size)
    return images_from_planes(records[:, label_bytes:]), records[:, label_bytes - 1].copy()


class ArrayUnpickler(pickle.Unpickler):
    """Makes arrays, and refuses to look up anything else, above all functions."""

    def find_class(self, module: str, name: str) -> Any:
        core = module.replace("numpy._core", "numpy.core")
        allowed = {
            ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
        }
        if (core, name) not in allowed:
            raise pickle.UnpicklingError(f"it wants to call {module}.{name}")
        return allowed[core, name]


def parse_pickle(content: bytes, origin: str) -> dict[str, Any]:
    """The dictionary in a file of the Python version, with its keys as text."""
    try:
        loaded = ArrayUnpickler(io.BytesIO(content), encoding="bytes").load()
        return {key.decode() if isinstance(key, bytes) else key: value for key, value in loaded.items()}
    except Exception as error:  # whatever a damaged or hostile pickle raises
        raise DataError(f"{origin} is not a CIFAR file ({error}): download it again") from None


def read_pickled(content: bytes, origin: str) -> tuple[Array, Array]:
    """A batch of the Python version -> images (N,32,32,3), labels (N,)."""
    batch = parse_pickle(content, origin)
    labels = np.asarray(batch.get("fine_labels", batch.get("labels")))
    planes = batch.get("data")
    if (
        not isinstance(planes, np.ndarray)
        or planes.dtype != np.uint8
        or planes.shape != (len(labels), PIXELS)
    ):
        raise DataError(f"{origin} does not hold {PIXELS} bytes for each label: download it again")
    if labels.size and not 0 <= labels.min() <= labels.max() < 256:
        raise DataError(f"{origin} has a label {labels.max()} that is out of range")
    return images_from_planes(planes), labels.astype(np.uint8)


def _sources(
    name: str, data_dir: str | Path | None
) -> Iterable[tuple[str, Callable[[list[str]], list[bytes]], bool]]:
    """Every place that may hold the set: (what to call it, names -> contents, whether it is the Python version)."""
    for root in roots(data_dir):
        for pickled, (folder, _) in ((False, BINARY[name]), (True, PICKLED[name])):
            if (root / folder).is_dir():
                yield (
                    str(root / folder),
                    lambda names, at=root / folder: [read(at / n, LIMIT) for n in names],
                    pickled,
                )
            archive = f"{folder.replace('-batches', '')}.tar.gz".replace("-bin.", "-binary.").replace(
                "-py.", "-python."
            )
            for place in (root / archive, root / name / archive):
                if place.is_file():
                    yield (
                        str(place),
                        lambda names, at=place, f=folder: list(
                            members(at, [f"{f}/{n}" for n in names], LIMIT)
                        ),
                        pickled,
                    )


def _load(name: str, data_dir: str | Path | None, download: bool, progress: bool) -> tuple[Dataset, Dataset]:
    found = next(iter(_sources(name, data_dir)), None)
    if found is None:
        fetch(REMOTES[name], name, data_dir, download, progress)
        found = next(iter(_sources(name, data_dir)))
    origin, contents, pickled = found
    train_files, test_files, names_file = (PICKLED if pickled else BINARY)[name][1]
    label_bytes = 1 if name == "cifar10" else 2
    classes = _classes(name, contents, names_file, pickled, origin)
    sets = []
    for files in (train_files, test_files):
        parts = [
            read_pickled(content, f"{origin}/{file}")
            if pickled
            else parse_binary(content, label_bytes, f"{origin}/{file}")
            for file, content in zip(files, contents(files), strict=True)
        ]
        images, labels = (np.concatenate(column) for column in zip(*parts, strict=True))
        sets.append(Dataset(name, images, labels, classes))
    return sets[0], sets[1]


def _classes(
    name: str, contents: Callable[[list[str]], list[bytes]], file: str, pickled: bool, origin: str
) -> tuple[str, ...]:
    """The names of the classes; those of CIFAR-10 are known, CIFAR-100 brings its own."""
    if name == "cifar10":
        return TEN
    (content,) = contents([file])
    if pickled:
        names = parse_pickle(content, f"{origin}/{file}").get("fine_label_names", [])
        return tuple(n.decode() if isinstance(n, bytes) else str(n) for n in names)
    return tuple(content.decode("utf-8", "replace").split())


def cifar10(data_dir: str | Path | None, download: bool, progress: bool) -> tuple[Dataset, Dataset]:
    """Ten kinds of things."""
    return _load("cifar10", data_dir, download, progress)


def cifar100(data_dir: str | Path | None, download: bool, progress: bool) -> tuple[Dataset, Dataset]:
    """A hundred kinds of things, by their fine labels."""
    return _load("cifar100", data_dir, download, progress)
