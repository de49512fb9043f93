"""What comes with the package: recipes and pretrained models, by name."""

import os
import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from gpucnn.errors import CheckpointError, UsageError, closest, near
from gpucnn.files import read_text

RECIPES, PRETRAINED = (Path(str(files("gpucnn"))) / name for name in ("recipes", "pretrained"))

FITTING = {"cifar10": "cifar10_vgg", "digits": "digits", "mnist": "mnist_cnn"}
"""Data set -> the recipe that ``gpucnn train --dataset NAME`` alone stands for."""

LONGEST = 2**16  # bytes of a file that is read for its table
REACHED = re.compile(
    r"^# Reached: ([\d.]+ %) \((?:[\d.]+ %, )?n = (\d+)[^)]*\)[^;]*; ([^;\n]+); ([^;\n]+)$", re.MULTILINE
)
ROW = re.compile(r"^\| `(\w+)\.h5` \| ([\d,]+) \| ([\d.]+ %)[^|]*\| `([0-9a-f]{64})` \|$", re.MULTILINE)


@dataclass(frozen=True)
class Result:
    """What a recipe has reached: mean test accuracy over n seeds, minutes or seconds of a run, and where it ran."""

    accuracy: str
    n: str
    time: str
    machine: str


def names(folder: Path) -> list[str]:
    """The names of the recipes or of the pretrained models."""
    suffix = ".toml" if folder == RECIPES else ".h5"
    return sorted(path.stem for path in folder.glob(f"*{suffix}"))


def recipe(name: str) -> Path:
    """The file of a recipe; raises UsageError, with the closest match, where there is none of this name."""
    if name not in (known := names(RECIPES)):
        raise UsageError(f"unknown recipe {name!r}{closest(name, known)}")
    return RECIPES / f"{name}.toml"


def results(name: str) -> list[Result]:
    """What is written at the head of a recipe about its measured runs; none where it has not been run to its end."""
    return [Result(*found) for found in REACHED.findall(read_text(recipe(name), LONGEST))]


def accuracies() -> dict[str, str]:
    """Pretrained model -> its test accuracy, by the table beside the files."""
    return {name: accuracy for name, _, accuracy, _ in ROW.findall(read_text(PRETRAINED / "README.md", LONGEST))}


def pretrained(name: str) -> Path:
    """The file of a pretrained model."""
    return PRETRAINED / f"{name}.h5"


def checkpoint_file(path: Path) -> Path:
    """A path, or the file of the pretrained model of this name where nothing else has it.

    Raises:
        CheckpointError: a name without a folder or a suffix that is neither.
    """
    name = str(path)
    if path.name != name or path.suffix or os.path.lexists(path):
        return path
    if name not in (known := names(PRETRAINED)):
        hint = near(path) or closest(name, known)
        raise CheckpointError(f"{name}: there is no such file, and no pretrained model of this name{hint}")
    return pretrained(name)
