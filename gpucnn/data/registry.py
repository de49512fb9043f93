"""Data sets by name, and people's own by their path.  A new one is one file and its row here."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from gpucnn.data.cifar import CIFAR10, CIFAR100
from gpucnn.data.dataset import TEST_FRACTION, Dataset, split_validation
from gpucnn.data.digits import load_digits
from gpucnn.data.files.download import download as fetch
from gpucnn.data.files.sources import Source, download_place, gap, locate, search_places
from gpucnn.data.folders import load_folder
from gpucnn.data.mnist import FASHION_MNIST, MNIST
from gpucnn.data.reading import Parts, Reading
from gpucnn.data.synthetic import load_synthetic
from gpucnn.data.tables import READERS, load_table
from gpucnn.errors import DataError, UsageError, closest, near
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
        raise UsageError(f"unknown data set {name!r}{closest(key, DATASETS)}; a folder or file is named by its path")
    return key, DATASETS[key]


def is_path(name: str) -> bool:
    """Whether this names a folder or a file, and not one of ``DATASETS``."""
    if name.lower().replace("-", "_") in DATASETS:
        return False
    return "/" in name or name.startswith((".", "~")) or Path(name).suffix.lower() in READERS or os.path.exists(name)


def title(name: str) -> str:
    """What a data set is called: its name, or the last part of its path without what a file's name should not have."""
    path = Path(name).expanduser().resolve() if is_path(name) else Path(name)
    return re.sub(r"[^\w.-]", "_", path.stem if path.suffix.lower() in READERS else path.name)[:60] or "images"


@checked
def load_dataset(
    name: str | os.PathLike[str],
    data_dir: str | os.PathLike[str] | None = None,
    *,
    download: bool = True,
    progress: bool = True,
    size: Sequence[int] = (),
    fit: str = "crop",
    channels: int = 0,
    skip_broken: bool = False,
) -> tuple[Dataset, Dataset]:
    """The training and the test set of this name, or in this folder or file (docs/own_data.md).

    Of one's own images without a test part, a fifth of each class is held out.

    Args:
        name: one of ``DATASETS``, or the path of a folder of images, an .npz, .csv or HDF5 file.
        data_dir: where to look first, before GPUCNN_DATA_DIR and ~/.cache/gpucnn; and where to download to.
        download: whether to download a set that is in none of them.
        progress: show the progress of a download, or of decoding.
        size, fit, channels, skip_broken: how image files are read, as in ``Reading``.

    Raises:
        UsageError: unknown name.
        DataError: the files are missing or damaged.
    """
    how = Reading(tuple(size), fit, channels, skip_broken, progress=progress)
    train, validation, test = load_parts(str(name), data_dir, download=download, how=how)
    shape = train.image_shape
    if (how.size and how.size != shape[:2]) or (channels and channels != shape[2]):
        raise UsageError(
            f"{train.name} has images {' x '.join(map(str, shape))}: size and channels are for image files, and for a "
            ".csv's lines"
        )
    test = test or validation
    return (train, test) if test else split_validation(train, TEST_FRACTION, 0)


def load_parts(
    name: str, data_dir: str | os.PathLike[str] | None = None, *, download: bool = True, how: Reading | None = None
) -> Parts:
    """``load_dataset``, with the parts that there are."""
    how = how or Reading()
    if not is_path(name):
        key, source = find_source(name)
        place = Path() if source.built_in else ensure_files(key, data_dir, download=download, progress=how.progress)
        train, test = source.load(place)
        return Parts(train, test=test)
    try:
        path = Path(name).expanduser()
    except RuntimeError:
        raise DataError(f"{name}: no home of that user is known: write the path out") from None
    if path.is_dir():
        return load_folder(path, how)
    if not path.exists():
        raise DataError(f"{path}: no such folder or file{near(path)}")
    if path.suffix.lower() not in READERS:
        kinds = ", ".join(READERS)
        raise DataError(f"{path} is no data set: give a folder with a sub-folder per class, or a file of {kinds}")
    return load_table(path, how)


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
