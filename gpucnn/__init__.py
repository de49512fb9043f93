"""gpucnn: a convolutional-network trainer that reads like a lecture, on NumPy and CuPy."""

from gpucnn import layers as layers
from gpucnn import losses as losses
from gpucnn import models as models
from gpucnn import optim as optim
from gpucnn.backend import REFERENCE as REFERENCE
from gpucnn.backend import Backend as Backend
from gpucnn.data import Augmentation as Augmentation
from gpucnn.data import Dataset as Dataset
from gpucnn.data import Loader as Loader
from gpucnn.data import load_dataset as load_dataset
from gpucnn.devices import get_backend as get_backend
from gpucnn.errors import GpucnnError as GpucnnError
from gpucnn.models.summary import summary as summary
from gpucnn.optim import schedules as schedules
from gpucnn.training.trainer import EpochReport as EpochReport
from gpucnn.training.trainer import Trainer as Trainer
from gpucnn.training.trainer import TrainerOptions as TrainerOptions
from gpucnn.version import __version__ as __version__
