"""What there is to see in a data set before it is trained on: counts, sizes, equal images, broken files."""

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from gpucnn.data.dataset import Dataset
from gpucnn.data.folders import Decoder, load_listed, scan
from gpucnn.data.image_files import without_warnings
from gpucnn.data.reading import Parts, Reading
from gpucnn.data.registry import is_path, load_parts
from gpucnn.data.stored import slices
from gpucnn.types import Shape

Place = tuple[str, int]
"""(part, number of an image in it)."""


@dataclass
class Inspection:
    """A data set, and what was found in it.

    Attributes:
        parts: "train", and "validation" and "test" where there are such.
        names: part -> the name of each image's file, of a folder.
        shapes: (H, W, C) of image files -> how many have it.
        broken, ignored: as of a ``Folder``.
        equal: the places of images that are the same, pixel by pixel, each list of two or more.
    """

    parts: dict[str, Dataset]
    names: dict[str, list[str]] = field(default_factory=dict)
    shapes: Counter[Shape] = field(default_factory=Counter)
    broken: dict[str, str] = field(default_factory=dict)
    ignored: Counter[str] = field(default_factory=Counter)
    equal: list[list[Place]] = field(default_factory=list)

    def counts(self) -> dict[str, dict[str, int]]:
        """Class -> part -> number of images."""
        found = {part: np.bincount(one.labels, minlength=one.num_classes) for part, one in self.parts.items()}
        classes = self.parts["train"].classes
        return {name: {part: int(count[i]) for part, count in found.items()} for i, name in enumerate(classes)}

    def name(self, place: Place) -> str:
        """An image, in words."""
        part, number = place
        return self.names[part][number] if self.names else f"{part} {number}"

    def label(self, place: Place) -> int:
        return int(self.parts[place[0]].labels[place[1]])

    def repeats(self) -> dict[str, int]:
        """How many images have an equal one before them in their part; in test or validation, one in train; and how
        many groups of equal images have different labels.
        """
        found: Counter[str] = Counter()
        for group in self.equal:
            per_part = Counter(part for part, _ in group)
            for part, count in per_part.items():
                found[f"within {part}"] += count - 1
                if part != "train" and "train" in per_part:
                    found[f"in {part} and train"] += count
            found["of several classes"] += len(set(map(self.label, group))) > 1
        return {name: count for name, count in found.items() if count}


def inspect(name: str, data_dir: str | None, how: Reading, *, download: bool = True) -> Inspection:
    """Read a data set by its name or path, without the files that cannot be read, and look for equal images.

    Raises UsageError and DataError as ``load_parts``.
    """
    path = Path(name).expanduser()
    if not (is_path(name) and path.is_dir()):
        inspection = Inspection(present(load_parts(name, data_dir, download=download, how=how)))
    else:
        found = scan(path)
        with without_warnings():
            shapes = Decoder(found, how, 0).shapes()
        loaded, broken = load_listed(found, replace(how, skip_broken=True))
        names = {part: [one.path for one in files if one.path not in broken] for part, files in found.parts.items()}
        inspection = Inspection(present(loaded), names, shapes, broken, found.ignored)
    inspection.equal = equal_images(inspection.parts)
    return inspection


def present(parts: Parts) -> dict[str, Dataset]:
    """The parts that there are."""
    return {part: dataset for part, dataset in parts._asdict().items() if dataset is not None}


def equal_images(parts: Mapping[str, Dataset]) -> list[list[Place]]:
    """Places of images with the same pixels, each group of two or more, in their order."""
    places: dict[bytes, list[Place]] = {}
    for part, dataset in parts.items():
        number = 0
        for some in slices(dataset.images):
            for image in np.ascontiguousarray(some):
                key = hashlib.blake2b(image.data, digest_size=16).digest()
                places.setdefault(key, []).append((part, number))
                number += 1
    return [group for group in places.values() if len(group) > 1]
