"""CIFAR-10 and CIFAR-100: 50,000 + 10,000 colour images of 32 x 32 pixels.

A record of the binary version is its labels, one byte each (CIFAR-10: the class; CIFAR-100: the coarse class,
then the fine one), and 3,072 pixels: the red, the green and the blue plane, row by row.  The python version
is a pickle of the same, a matrix (N, 3072) and a list.  Both are read from their folder or from the publisher's
archive; the order of the records does not matter.

Source: A. Krizhevsky, "Learning multiple layers of features from tiny images", 2009.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gpucnn.data.dataset import Dataset
from gpucnn.data.files.pickles import PIXELS, as_images, as_labels, read_pickle
from gpucnn.data.files.sources import MIB, RemoteFile, Source, open_bytes, read_up_to, reading, size_range
from gpucnn.data.files.tar import read_members
from gpucnn.types import Array

SLACK = 32  # a pickle's bytes per record beyond the pixels: labels, file names


@dataclass(frozen=True)
class Layout:
    """One version, binary or python, of one of the data sets.

    Attributes:
        name: of the data set.
        folder, archive: names of the places of its files.
        train, test: file name -> number of records in it.
        classes: the names of the labels.
        label_bytes: per record; 0 for the python version.
        label_key: of the labels in a pickle.
    """

    name: str
    folder: str
    archive: str
    train: dict[str, int]
    test: dict[str, int]
    classes: tuple[str, ...]
    label_bytes: int = 0
    label_key: str = ""

    def sizes(self, records: int) -> tuple[int, int]:
        """The smallest and largest size in bytes of a file with this number of records."""
        if self.label_bytes:
            return (records * (self.label_bytes + PIXELS),) * 2
        return records * PIXELS, records * (PIXELS + SLACK) + MIB

    def find(self, data_dir: Path) -> Path | None:
        """Its folder, if all files are there, or its archive in a data directory; None without either."""
        folder, archive = data_dir / self.folder, data_dir / self.archive
        if all((folder / name).exists() for name in (*self.train, *self.test)):
            return folder
        return archive if archive.exists() else None

    def lacks(self, data_dir: Path) -> list[Path]:
        """The files that are missing from its folder in a data directory, where there is one."""
        folder = data_dir / self.folder
        paths = [folder / name for name in (*self.train, *self.test)] if folder.is_dir() else []
        return [path for path in paths if not path.exists()]

    def files(self, place: Path) -> list[Path]:
        """The files that ``load`` reads."""
        return [place] if place.name == self.archive else [place / name for name in (*self.train, *self.test)]

    def load(self, place: Path) -> tuple[Dataset, Dataset]:
        """The training and the test set in a folder or archive that ``find`` found.

        Raises:
            DataError: a file or archive is damaged, hostile, of another size, or has a label without a class.
        """
        sizes = {f"{self.folder}/{name}": self.sizes(count) for name, count in (self.train | self.test).items()}
        if place.name == self.archive:
            contents = read_members(place, sizes)
        else:
            contents = {name: read_file(place.parent / name, *limits) for name, limits in sizes.items()}
        return self.join(self.train, contents, place), self.join(self.test, contents, place)

    def join(self, files: dict[str, int], contents: dict[str, bytes], place: Path) -> Dataset:
        """Several files as one data set; their contents are dropped on the way."""
        count, start = sum(files.values()), 0
        images, labels = np.empty((count, 32, 32, 3), dtype=np.uint8), np.empty(count, dtype=np.uint8)
        for name, records in files.items():
            part = slice(start, start + records)
            with reading(place / name):
                images[part], labels[part] = self.parse(contents.pop(f"{self.folder}/{name}"), records)
            start += records
        return Dataset(self.name, images, labels, self.classes)

    def parse(self, content: bytes, records: int) -> tuple[Array, Array]:
        """The content of a file -> images uint8 (N,32,32,3), labels uint8 (N,); ValueError where it is bad."""
        if self.label_bytes:
            rows = np.frombuffer(content, dtype=np.uint8).reshape(-1, self.label_bytes + PIXELS)
            labels, planes = rows[:, self.label_bytes - 1], rows[:, self.label_bytes :]
        else:
            found = read_pickle(content, records)
            labels, planes = as_labels(found.get(self.label_key)), as_images(found.get("data"))
        if (len(labels), len(planes)) != (records, records):
            raise ValueError(f"it has {len(planes):,} images and {len(labels):,} labels instead of {records:,} of each")
        if (highest := labels.max()) >= (classes := len(self.classes)):
            raise ValueError(f"record {labels.argmax()} has label {highest}, but {self.name} has {classes} classes")
        return planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels


def read_file(path: Path, smallest: int, largest: int) -> bytes:
    """A whole file, whose size must lie between the two."""
    with reading(path), open_bytes(path) as file:
        content = read_up_to(file, largest + 1)
        if not smallest <= len(content) <= largest:
            found = "more" if len(content) > largest else f"{len(content):,}"
            raise ValueError(f"it has {found} bytes instead of {size_range(smallest, largest)}")
    return content


def cifar_source(
    about: str, layouts: tuple[Layout, ...], published: Iterable[tuple[str, int, str]], images: str = ""
) -> Source:
    """The registry's row.

    Args:
        published: name, size and SHA-256 of the archives; the first is the one to download.
    """
    remote = tuple(
        RemoteFile(name, size, sha256, (f"https://www.cs.toronto.edu/~kriz/{name}",))
        for name, size, sha256 in published
    )

    def layout_of(place: Path) -> Layout:
        return next(layout for layout in layouts if place.name in (layout.folder, layout.archive))

    return Source(
        about,
        load=lambda place: layout_of(place).load(place),
        find=lambda data_dir: next(filter(None, (layout.find(data_dir) for layout in layouts)), None),
        lacks=lambda data_dir: next(filter(None, (layout.lacks(data_dir) for layout in layouts)), []),
        files=lambda place: layout_of(place).files(place),
        remote=remote[:1],
        known=remote[1:],
        images=images,
    )


CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

FINE = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
    castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin
    elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard
    lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear
    pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark
    shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone
    television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""
CIFAR100_CLASSES = tuple(FINE.split())
"""What the labels mean, in the publisher's order."""

BATCHES = [f"data_batch_{number}" for number in range(1, 6)]

CIFAR10_LAYOUTS = (
    Layout(
        *("cifar10", "cifar-10-batches-bin", "cifar-10-binary.tar.gz"),
        *({f"{batch}.bin": 10_000 for batch in BATCHES}, {"test_batch.bin": 10_000}, CIFAR10_CLASSES),
        label_bytes=1,
    ),
    Layout(
        *("cifar10", "cifar-10-batches-py", "cifar-10-python.tar.gz"),
        *(dict.fromkeys(BATCHES, 10_000), {"test_batch": 10_000}, CIFAR10_CLASSES),
        label_key="labels",
    ),
)

CIFAR100_LAYOUTS = (
    Layout(
        *("cifar100", "cifar-100-binary", "cifar-100-binary.tar.gz"),
        *({"train.bin": 50_000}, {"test.bin": 10_000}, CIFAR100_CLASSES),
        label_bytes=2,
    ),
    Layout(
        *("cifar100", "cifar-100-python", "cifar-100-python.tar.gz"),
        *({"train": 50_000}, {"test": 10_000}, CIFAR100_CLASSES),
        label_key="fine_labels",
    ),
)

CIFAR10 = cifar_source(
    "50,000 + 10,000 photographs, colour 32 x 32, 10 classes",
    CIFAR10_LAYOUTS,
    (
        ("cifar-10-binary.tar.gz", 170_052_171, "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"),
        ("cifar-10-python.tar.gz", 170_498_071, "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"),
    ),
    images="8a590e660e6406b7032bf6c2e029c7df67f311491b1921023e91a07de4cc3e2f",
)

CIFAR100 = cifar_source(
    "50,000 + 10,000 photographs, colour 32 x 32, 100 classes",
    CIFAR100_LAYOUTS,
    (("cifar-100-binary.tar.gz", 168_513_733, "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec"),),
)
