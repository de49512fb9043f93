"""gpucnn: a convolutional-network trainer that reads like a lecture, on NumPy and CuPy."""

from gpucnn import layers, losses, models, optim
from gpucnn.backend import REFERENCE, Backend
from gpucnn.data import Augmentation, Dataset, Loader, load_dataset
from gpucnn.devices import get_backend
from gpucnn.errors import GpucnnError
from gpucnn.models.summary import summary
from gpucnn.optim import schedules
from gpucnn.training.trainer import EpochReport, Trainer, TrainerOptions
from gpucnn.version import __version__

__all__ = [
    "REFERENCE",
    "Augmentation",
    "Backend",
    "Dataset",
    "EpochReport",
    "GpucnnError",
    "Loader",
    "Trainer",
    "TrainerOptions",
    "__version__",
    "get_backend",
    "layers",
    "load_dataset",
    "losses",
    "models",
    "optim",
    "schedules",
    "summary",
]
