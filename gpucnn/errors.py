"""Every expected failure: a one-line message that names the value and the remedy, and its exit code."""

from collections.abc import Iterable
from difflib import get_close_matches


class GpucnnError(Exception):
    """Base of all errors that a user can cause or mend; commands print it as one line."""

    exit_code = 1


class UsageError(GpucnnError):
    """A flag, a config value or an argument that makes no sense."""

    exit_code = 2


class ShapeError(UsageError):
    """Layers, models and data whose shapes do not fit together."""


class DataError(GpucnnError):
    """A data set that is missing, damaged or not what it says."""

    exit_code = 3


class CheckpointError(GpucnnError):
    """A checkpoint that is damaged, hostile or does not fit the model."""

    exit_code = 4


class NotANumberError(GpucnnError):
    """NaN or infinity in a loss, a gradient or a weight.

    Attributes:
        batch: the images and labels of the step, where there is one.
    """

    exit_code = 5

    def __init__(self, message: str, batch: tuple[object, object] | None = None) -> None:
        super().__init__(message)
        self.batch = batch


class DeviceError(GpucnnError):
    """A GPU that is missing, unusable or out of memory."""

    exit_code = 6


SYNONYMS = {
    "arch": ("model",),
    "bs": ("batch_size",),
    "early_stopping": ("patience",),
    "fp16": ("amp",),
    "gpu": ("device",),
    "label_smoothing": ("smoothing",),
    "learning_rate": ("lr",),
    "lr_scheduler": ("sched", "schedule"),
    "num_workers": ("threads",),
    "optim": ("opt", "optimizer"),
    "optimizer": ("opt",),
    "precision": ("amp",),
    "schedule": ("sched",),
    "scheduler": ("sched", "schedule"),
    "type": ("name",),
    "warmup": ("warmup_epochs",),
    "wd": ("weight_decay",),
}
"""What others call a flag or a setting -> what it may be here."""


def nearest(name: object, known: Iterable[str]) -> str | None:
    """The known name that was meant, as far as that can be guessed; None where it cannot."""
    names = sorted(known)
    meant = (other for other in SYNONYMS.get(str(name), ()) if other in names)
    return next(meant, None) or next(iter(get_close_matches(str(name), names, n=1)), None)


def closest(name: object, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: what could have been meant."""
    names = sorted(known)
    match = nearest(name, names)
    return f": did you mean {match!r}?" if match else f": known are {', '.join(names) or 'none'}"
