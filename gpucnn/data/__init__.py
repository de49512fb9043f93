"""Data sets by name, and the way of their images to the model."""

from gpucnn.data.augment import Augmentation
from gpucnn.data.dataset import Dataset, split_validation
from gpucnn.data.digits import load_digits
from gpucnn.data.loader import Loader
from gpucnn.data.synthetic import load_synthetic
from gpucnn.errors import UsageError, closest

KNOWN = {"digits": load_digits, "synthetic": load_synthetic}


def load_dataset(name: str, data_dir=None, *, download=True, progress=True):
    if name not in KNOWN:
        raise UsageError(f"unknown data set {name!r}{closest(name, KNOWN)}")
    return KNOWN[name]()
