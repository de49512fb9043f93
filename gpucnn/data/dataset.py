"""A set of labelled images, checked once where it is made; and a validation set taken off it."""

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from gpucnn.errors import DataError, UsageError
from gpucnn.random import permutation, stream_id
from gpucnn.types import Array, Shape

CHUNK = 2048  # images whose pixels are counted at once: bincount makes 8 bytes of each


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images and what they show, on the host.

    Attributes:
        name: its name in the registry.
        images: uint8 (N,H,W,C), 0..255.
        labels: uint8 (N,), 0 .. len(classes) - 1.
        classes: what each label means.

    Raises:
        DataError: no images, a wrong shape or dtype, or a label without a class.
    """

    name: str
    images: Array
    labels: Array
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        images, labels = self.images, self.labels
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
            raise DataError(
                f"{self.name}: images are {images.dtype} {images.shape}: "
                f"give uint8 (N, H, W, C) with 1 or 3 channels last"
            )
        if images.size == 0:
            raise DataError(f"{self.name}: no images in an array of shape {images.shape}: give at least one")
        if labels.dtype != np.uint8 or labels.shape != (len(images),):
            raise DataError(
                f"{self.name}: labels are {labels.dtype} {labels.shape} for {len(images)} images: "
                f"give uint8 ({len(images)},)"
            )
        if (highest := int(labels.max())) >= self.num_classes:
            raise DataError(
                f"{self.name}: image {int(labels.argmax())} has label {highest}, "
                f"but there are {self.num_classes} classes: labels go from 0 to {self.num_classes - 1}"
            )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def image_shape(self) -> Shape:
        """(H, W, C)"""
        return tuple(self.images.shape[1:])

    @cached_property
    def histogram(self) -> Array:
        """How often each channel has each pixel value: int64 (C, 256)."""
        counts = np.zeros((self.images.shape[3], 256), dtype=np.int64)
        for start in range(0, len(self), CHUNK):
            for channel, count in enumerate(counts):
                pixels = self.images[start : start + CHUNK, :, :, channel]
                count += np.bincount(pixels.ravel(), minlength=256)
        return counts

    @cached_property
    def mean(self) -> tuple[float, ...]:
        """Mean of all pixels, per channel (C,), on a 0..1 scale."""
        share = self.histogram / self.histogram.sum(axis=1, keepdims=True)  # (C, 256)
        return tuple((share @ SCALE).tolist())

    @cached_property
    def std(self) -> tuple[float, ...]:
        """Standard deviation (biased) of all pixels, per channel (C,), on a 0..1 scale."""
        share = self.histogram / self.histogram.sum(axis=1, keepdims=True)
        distance = SCALE - np.array(self.mean)[:, None]  # (C, 256)
        return tuple(np.sqrt((share * distance**2).sum(axis=1)).tolist())

    @cached_property
    def digest(self) -> str:
        """SHA-256 of shape, images and labels, whatever the set is called."""
        content = hashlib.sha256(repr(tuple(self.images.shape)).encode())
        content.update(np.ascontiguousarray(self.images).data)
        content.update(np.ascontiguousarray(self.labels).data)
        return content.hexdigest()


SCALE = np.arange(256) / 255.0  # pixel value -> 0..1


def split_validation(train: Dataset, count: int, seed: int) -> tuple[Dataset, Dataset]:
    """Take ``count`` images, drawn by the seed, off the training set -> (the others, those).

    Both keep the order of the images.  Raises UsageError where one of the two would be empty.
    """
    if not 0 < count < len(train):
        raise UsageError(
            f"a validation set of {count} images of {train.name}: give a number from 1 to {len(train) - 1}"
        )
    order = permutation(len(train), seed=seed, stream=stream_id("validation"))
    held_out = np.zeros(len(train), dtype=bool)
    held_out[order[:count]] = True
    first, second = (
        replace(train, images=train.images[chosen], labels=train.labels[chosen]) for chosen in (~held_out, held_out)
    )
    return first, second
