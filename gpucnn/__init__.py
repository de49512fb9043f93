"""gpucnn: a convolutional-network trainer that reads like a lecture, on NumPy and CuPy."""

from gpucnn import layers, losses, models, optim, schedules
from gpucnn.backend import REFERENCE, Backend
from gpucnn.backends import get_backend
from gpucnn.data import Augmentation, Dataset, Loader, load_dataset
from gpucnn.errors import GpucnnError
from gpucnn.summary import summary
from gpucnn.trainer import EpochReport, Trainer

__version__ = "0.1.0"

__all__ = [
    "REFERENCE",
    "Augmentation",
    "Backend",
    "Dataset",
    "EpochReport",
    "GpucnnError",
    "Loader",
    "Trainer",
    "get_backend",
    "layers",
    "load_dataset",
    "losses",
    "models",
    "optim",
    "schedules",
    "summary",
]
