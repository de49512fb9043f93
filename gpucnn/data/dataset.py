"""A set of labelled images, validated on construction, and a validation set split off it."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from gpucnn.errors import DataError, UsageError
from gpucnn.random import permutation, stream_id
from gpucnn.settings import checked, in_short
from gpucnn.types import Array, Shape

MOST_CLASSES = 256  # labels are bytes
CHUNK = 2048  # images per bincount, which makes 8 bytes of each pixel


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images and their labels, on the host.

    Attributes:
        name: its name in the registry.
        images: uint8 (N,H,W,C), 0..255.
        labels: uint8 (N,), 0 .. len(classes) - 1; a list of integers is converted.
        classes: the name of each label.

    Raises:
        DataError: no images, a wrong shape or dtype, or a label without a class.
    """

    name: str
    images: Array
    labels: Array
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        name = self.name
        images, labels = self.as_array(self.images, "images"), self.as_array(self.labels, "labels")
        if isinstance(self.classes, str) or not isinstance(self.classes, Sequence):
            raise DataError(f"{name}: classes = {in_short(self.classes)}: give the name of each, as ('cat', 'dog')")
        for field, value in (("images", images), ("classes", tuple(map(str, self.classes)))):
            object.__setattr__(self, field, value)
        classes = self.num_classes
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
            raise DataError(
                f"{name}: images are {images.dtype} {images.shape}: give uint8 (N, H, W, C), 0 to 255, with 1 or 3 "
                f"channels last{conversion(images)}"
            )
        if images.size == 0:
            raise DataError(f"{name}: no images in an array of shape {images.shape}: give at least one")
        known = labels.dtype.kind in "iu" if isinstance(self.labels, list | tuple) else labels.dtype == np.uint8
        if not known or labels.shape != (len(images),):
            rows = labels.ndim == 2 and labels.shape[1] > 1
            raise DataError(
                f"{name}: labels are {labels.dtype} {labels.shape} for {len(images)} images: "
                f"give uint8 ({len(images)},), as labels{'.argmax(axis=1)' if rows else '.reshape(-1)'}.astype('uint8')"
            )
        if len(odd := np.flatnonzero((labels < 0) | (labels >= classes))):
            raise DataError(
                f"{name}: image {odd[0]} has label {labels[odd[0]]}, "
                f"but there are {classes} classes: labels go from 0 to {classes - 1}"
            )
        if classes > MOST_CLASSES:
            raise DataError(f"{name}: {classes} classes: give at most {MOST_CLASSES}")
        object.__setattr__(self, "labels", labels.astype(np.uint8, copy=False))

    def as_array(self, values: Array, what: str) -> Array:
        """An array of the host; raises DataError where the values are none."""
        try:
            return np.asarray(values)
        except (TypeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise DataError(f"{self.name}: {what} are no NumPy array ({reason}): give {what} of one shape") from None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def image_shape(self) -> Shape:
        """(H, W, C)"""
        return tuple(self.images.shape[1:])

    def split_off(self, places: Array) -> tuple["Dataset", "Dataset"]:
        """(the other images, the images ``places``), both in the order that they have here."""
        second = np.zeros(len(self), dtype=bool)
        second[places] = True
        rest, chosen = (replace(self, images=self.images[m], labels=self.labels[m]) for m in (~second, second))
        return rest, chosen

    @cached_property
    def histogram(self) -> Array:
        """Counts of each pixel value per channel: int64 (C, 256)."""
        counts = np.zeros((self.images.shape[3], 256), dtype=np.int64)
        for start in range(0, len(self), CHUNK):
            for channel, count in enumerate(counts):
                pixels = self.images[start : start + CHUNK, :, :, channel]
                count += np.bincount(pixels.ravel(), minlength=256)
        return counts

    @property
    def frequencies(self) -> Array:
        """The histogram as fractions: float64 (C, 256)."""
        return self.histogram / self.histogram.sum(axis=1, keepdims=True)

    @cached_property
    def mean(self) -> tuple[float, ...]:
        """Mean of all pixels, per channel (C,), on a 0..1 scale."""
        return tuple((self.frequencies @ SCALE).tolist())

    @cached_property
    def std(self) -> tuple[float, ...]:
        """Standard deviation (biased) of all pixels, per channel (C,), on a 0..1 scale."""
        distance = SCALE - np.array(self.mean)[:, None]  # (C, 256)
        return tuple(np.sqrt((self.frequencies * distance**2).sum(axis=1)).tolist())

    @cached_property
    def digest(self) -> str:
        """SHA-256 of shape, images and labels; the name does not count."""
        content = hashlib.sha256(repr(tuple(self.images.shape)).encode())
        content.update(np.ascontiguousarray(self.images).data)
        content.update(np.ascontiguousarray(self.labels).data)
        return content.hexdigest()


def conversion(images: Array) -> str:
    """How images of another kind become uint8 (N,H,W,C), for a message; "" where that is not clear."""
    if images.dtype.kind == "f":
        return ", as (255 * images).round().astype('uint8') does of 0 to 1"
    if images.ndim == 4 and images.shape[3] not in (1, 3):
        return ", as images.transpose(0, 2, 3, 1) does of (N, C, H, W)"
    return ", as images[..., None] does of (N, H, W)" if images.ndim == 3 else ""


SCALE = np.arange(256) / 255.0  # pixel value -> 0..1


@checked
def split_validation(train: Dataset, count: int, seed: int) -> tuple[Dataset, Dataset]:
    """Split ``count`` random images off the training set -> (training set, validation set).

    Both keep the order of the images.  Raises UsageError where one of the two would be empty.
    """
    most = len(train) - 1
    if not 0 < count <= most:
        raise UsageError(f"a validation set of {count} images of {train.name}: give a number from 1 to {most}")
    return train.split_off(permutation(len(train), seed=seed, stream=stream_id("validation"))[:count])
