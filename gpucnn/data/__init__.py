"""Data sets by name, and the batches made of them.  A new data set is one file and its row in ``DATASETS``."""

from collections.abc import Callable
from pathlib import Path

from gpucnn.data.augment import Augmentation
from gpucnn.data.cifar import cifar10, cifar100
from gpucnn.data.dataset import Dataset, split_validation
from gpucnn.data.digits import load_digits
from gpucnn.data.loader import Loader
from gpucnn.data.mnist import fashion_mnist, mnist
from gpucnn.data.synthetic import load_synthetic
from gpucnn.errors import UsageError, closest

__all__ = ["DATASETS", "Augmentation", "Dataset", "Loader", "load_dataset", "split_validation"]

DATASETS: dict[str, Callable[[str | Path | None, bool, bool], tuple[Dataset, Dataset]]] = {
    "digits": lambda *_: load_digits(),
    "mnist": mnist,
    "fashion_mnist": fashion_mnist,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "synthetic": lambda *_: load_synthetic(),
}


def load_dataset(
    name: str, data_dir: str | Path | None = None, *, download: bool = True, progress: bool = True
) -> tuple[Dataset, Dataset]:
    """Training and test set.

    Args:
        name: one of ``DATASETS``.
        data_dir: where to look first, before GPUCNN_DATA_DIR and ~/.cache/gpucnn.
        download: fetch what is missing.
        progress: show how a download goes.

    Raises:
        UsageError: no such data set.
        DataError: it is missing, damaged or not what it says.
    """
    key = name.replace("-", "_")
    if key not in DATASETS:
        raise UsageError(f"unknown dataset {name!r}{closest(name, DATASETS)}")
    return DATASETS[key](data_dir, download, progress)
