"""Data sets by name.  A new one is one file and its row here."""

import os
from pathlib import Path

from gpucnn.data.cifar import CIFAR10, CIFAR100
from gpucnn.data.dataset import Dataset
from gpucnn.data.digits import load_digits
from gpucnn.data.files.download import download as fetch
from gpucnn.data.files.sources import Source, download_place, gap, locate, search_places
from gpucnn.data.mnist import FASHION_MNIST, MNIST
from gpucnn.data.synthetic import load_synthetic
from gpucnn.errors import DataError, UsageError, closest
from gpucnn.settings import checked
from gpucnn.terminal import quoted, tell

DATASETS: dict[str, Source] = {
    "mnist": MNIST,
    "fashion_mnist": FASHION_MNIST,
    "cifar10": CIFAR10,
    "cifar100": CIFAR100,
    "digits": Source(
        "1,437 + 360 handwritten digits, grey 8 x 8, 10 classes, part of scikit-learn",
        load=lambda place: load_digits(),
    ),
    "synthetic": Source(
        "5,000 + 1,000 synthetic images, colour 32 x 32, 10 classes, for benchmarks",
        load=lambda place: load_synthetic(),
    ),
}


def find_source(name: str) -> tuple[str, Source]:
    """(the name in the registry, its row); ``fashion-mnist`` stands for ``fashion_mnist``.

    Raises UsageError for an unknown name, with the closest match.
    """
    key = name.lower().replace("-", "_")
    if key not in DATASETS:
        raise UsageError(f"unknown data set {name!r}{closest(key, DATASETS)}")
    return key, DATASETS[key]


@checked
def load_dataset(
    name: str, data_dir: str | os.PathLike[str] | None = None, *, download: bool = True, progress: bool = True
) -> tuple[Dataset, Dataset]:
    """The training and the test set of this name.

    Args:
        name: one of ``DATASETS``.
        data_dir: where to look first, before GPUCNN_DATA_DIR and ~/.cache/gpucnn; and where to download to.
        download: whether to download a set that is in none of them.
        progress: show the progress of a download.

    Raises:
        UsageError: unknown name.
        DataError: the files are missing or damaged.
    """
    key, source = find_source(name)
    place = Path() if source.built_in else ensure_files(key, data_dir, download=download, progress=progress)
    return source.load(place)


def ensure_files(key: str, data_dir: str | os.PathLike[str] | None, *, download: bool, progress: bool) -> Path:
    """The place of a data set's files, which are downloaded if they are missing."""
    source = DATASETS[key]
    place = locate(source, data_dir)
    if place is not None:
        return place
    lack = gap(source, data_dir)
    if download:
        if lack and progress:
            tell(f"{key} is incomplete: {lack}; downloading")
        folder = download_place(data_dir)
        try:
            for file in source.remote:
                fetch(file, folder, progress=progress)
        except DataError as error:
            raise DataError(f"{key} is incomplete: {lack}; {error}" if lack else str(error)) from None
        if place := locate(source, folder):
            return place
    remedy = f"gpucnn data download {key}{f' --data-dir {quoted(data_dir)}' if data_dir else ''}"
    wanted = ", ".join(file.path for file in source.remote)
    searched = ", ".join(map(str, search_places(data_dir))) or "no folder"
    raise DataError(
        f"{key} is missing or incomplete{f' ({lack})' if lack else ''}; searched {searched}: put {wanted} into one of "
        f"them, name a folder that has it with --data-dir or GPUCNN_DATA_DIR, or run: {remedy}"
    )
