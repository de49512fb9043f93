"""Every expected failure: a one-line message that names the value and the remedy, and its exit code."""

import os
from collections.abc import Iterable
from contextlib import suppress
from difflib import get_close_matches
from itertools import chain, islice
from pathlib import Path
from reprlib import Repr

LONGEST_LINE = 1500  # characters of a message
LONGEST_NAME = 60  # of a name that is compared with others, which takes its length squared


class GpucnnError(Exception):
    """Base of all errors that a user can cause or mend; its text is one line."""

    exit_code = 1

    def __str__(self) -> str:
        return one_line(super().__str__())


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


SYNONYMS = (
    {"amp", "fp16", "mixed_precision", "precision"},
    {"arch", "architecture", "model"},
    {"batch_size", "bs"},
    {"device", "gpu"},
    {"early_stopping", "patience"},
    {"label_smoothing", "smoothing"},
    {"learning_rate", "lr"},
    {"lr_scheduler", "sched", "schedule", "scheduler"},
    {"name", "type"},
    {"num_workers", "threads", "workers"},
    {"opt", "optim", "optimizer"},
    {"wd", "weight_decay"},
)
"""Names of flags and settings, here and elsewhere, that mean the same."""


MOST_NAMES = 1000  # in a folder, compared with one that is not there


def nearest(name: object, known: Iterable[str]) -> str | None:
    """The known name that was probably meant: a synonym, or the most similar spelling; None where there is neither."""
    names = sorted(known)
    if len(str(name)) > LONGEST_NAME:
        return None
    synonyms = (other for group in SYNONYMS if name in group for other in names if other in group)
    return next(chain(synonyms, get_close_matches(str(name), names, n=1)), None)


def near(path: Path) -> str:
    """The end of a message about a file that is not there: one beside its place with such a name, or nothing."""
    with suppress(OSError, ValueError), os.scandir(path.parent) as entries:
        names = [entry.name for entry in islice(entries, MOST_NAMES)]
        if not os.path.lexists(path) and (match := get_close_matches(path.name, names, n=1)):
            return f"; did you mean {path.parent / match[0]}?"
    return ""


def closest(name: object, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: what could have been meant."""
    names = sorted(known)
    match = nearest(name, names)
    return f": did you mean {match!r}?" if match else f": known are {', '.join(names) or 'none'}"


def cut(text: str, length: int = LONGEST_LINE) -> str:
    """The text, without its middle where it is too long."""
    return text if len(text) <= length else f"{text[: length // 2]} ... {text[-length // 2 :]}"


def one_line(text: str) -> str:
    """A message on one line that is not too long."""
    return cut(text.replace("\n", "\\n"))


class Shown(Repr):
    """``repr`` of any value in a few words: integers of a million digits, lists in lists and long texts too."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother = 3, 80, 80

    def repr_int(self, x: int, level: int) -> str:
        digits = x.bit_length() * 3 // 10
        return repr(x) if digits < self.maxlong else f"an integer of about {digits} digits"


shown = Shown().repr
"""A value in a message."""
