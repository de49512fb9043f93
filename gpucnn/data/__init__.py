"""Data sets by name, augmentation, and the loader that makes batches of them."""

from gpucnn.data.augment.settings import Augmentation
from gpucnn.data.dataset import Dataset, split_validation
from gpucnn.data.loader import Loader
from gpucnn.data.registry import DATASETS, load_dataset
from gpucnn.data.synthetic import load_synthetic

__all__ = ["DATASETS", "Augmentation", "Dataset", "Loader", "load_dataset", "load_synthetic", "split_validation"]
