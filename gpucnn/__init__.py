"""gpucnn: a convolutional-network trainer that reads like a lecture, on NumPy and CuPy.

A public name is imported when it is first used, so that a command can prepare for Ctrl-C before NumPy is loaded.
"""

from importlib import import_module

from gpucnn.version import __version__

TYPE_CHECKING = False  # as in ``typing``, whose import takes longer than everything here
if TYPE_CHECKING:
    from gpucnn import layers, losses, models, optim
    from gpucnn.backend import REFERENCE, Backend
    from gpucnn.data import Augmentation, Dataset, Loader, load_dataset
    from gpucnn.devices import get_backend
    from gpucnn.errors import GpucnnError
    from gpucnn.models.summary import summary
    from gpucnn.optim import schedules
    from gpucnn.runs.classifier import Classifier, load
    from gpucnn.runs.trainer import Trainer
    from gpucnn.training.trainer import EpochReport, TrainerOptions

__all__ = [
    "REFERENCE",
    "Augmentation",
    "Backend",
    "Classifier",
    "Dataset",
    "EpochReport",
    "GpucnnError",
    "Loader",
    "Trainer",
    "TrainerOptions",
    "__version__",
    "get_backend",
    "layers",
    "load",
    "load_dataset",
    "losses",
    "models",
    "optim",
    "schedules",
    "summary",
]

_HOMES = {
    "backend": ("REFERENCE", "Backend"),
    "data": ("Augmentation", "Dataset", "Loader", "load_dataset"),
    "devices": ("get_backend",),
    "errors": ("GpucnnError",),
    "models.summary": ("summary",),
    "optim": ("schedules",),
    "runs.classifier": ("Classifier", "load"),
    "runs.trainer": ("Trainer",),
    "training.trainer": ("EpochReport", "TrainerOptions"),
}
"""Module -> its public names; a public name that is not here is itself a module."""


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = next((home for home, names in _HOMES.items() if name in names), None)
    found = getattr(import_module(f"{__name__}.{home}"), name) if home else import_module(f"{__name__}.{name}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
