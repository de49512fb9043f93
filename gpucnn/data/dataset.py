"""A set of labelled images, validated on construction, and a validation set split off it."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from gpucnn.data.stored import StoredImages, slices
from gpucnn.errors import DataError, UsageError, shown
from gpucnn.random import permutation, stream_id
from gpucnn.settings import checked, in_short
from gpucnn.types import Array, Shape

MOST_CLASSES, MOST_CHANNELS = 2**31, 4096


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Images and their labels, on the host.  ``Dataset.from_arrays`` makes one of arrays as they come.

    Attributes:
        name: its name in the registry.
        images: (N,H,W,C), of any number of channels up to ``MOST_CHANNELS``; uint8, 0..255, or float32 on a scale of
            their own, finite (float16 and float64 are converted); or ``StoredImages``, which stay in their file.
        labels: (N,), 0 .. len(classes) - 1; any integers, kept as uint8 of at most 256 classes, else as int32.
        classes: the name of each label.

    Raises:
        DataError: no images, a wrong shape or dtype, values that are not finite, or a label without a class.
    """

    name: str
    images: Array
    labels: Array
    classes: tuple[str, ...]

    BYTES: ClassVar[int] = 256  # values of a pixel, and classes whose labels are bytes

    def __post_init__(self) -> None:
        name = self.name
        images, labels = self.as_array(self.images, "images"), self.as_array(self.labels, "labels")
        if isinstance(self.classes, str) or not isinstance(self.classes, Sequence):
            raise DataError(f"{name}: classes = {in_short(self.classes)}: give the name of each, as ('cat', 'dog')")
        if (count := len(self.classes)) > MOST_CLASSES:
            raise DataError(f"{name}: {count} classes: give at most {MOST_CLASSES}")
        if images.dtype.kind not in "uf" or images.ndim != 4 or (images.dtype.kind == "u" and images.dtype != np.uint8):
            raise DataError(
                f"{name}: images are {images.dtype} {images.shape}: give uint8 (N, H, W, C), 0 to 255, or float32"
                f"{conversion(images)}"
            )
        if images.size == 0:
            raise DataError(f"{name}: no images in an array of shape {images.shape}: give at least one")
        if channels_first(images.shape) or images.shape[3] > MOST_CHANNELS:
            raise DataError(
                f"{name}: images {images.shape} have {images.shape[3]} channels if these are last, (N, H, W, C): if "
                "they are (N, C, H, W), give images.transpose(0, 2, 3, 1)"
            )
        if images.dtype.kind == "f" and not isinstance(images, StoredImages):
            with np.errstate(over="ignore"):  # of a float64, which is then refused
                images = images.astype(np.float32, copy=False)
            self.check_finite(images)
        if labels.dtype.kind not in "iu" or labels.shape != (len(images),):
            rows = labels.ndim == 2 and labels.shape[1] > 1
            raise DataError(
                f"{name}: labels are {labels.dtype} {labels.shape} for {len(images)} images: give integers "
                f"({len(images)},), as labels{'.argmax(axis=1)' if rows else '.reshape(-1)'}.astype('int64')"
            )
        if len(odd := np.flatnonzero((labels < 0) | (labels >= count))):
            raise DataError(
                f"{name}: image {odd[0]} has label {labels[odd[0]]}, "
                f"but there are {count} classes: labels go from 0 to {count - 1}"
            )
        kept = {
            "images": images,
            "labels": labels.astype(np.uint8 if count <= self.BYTES else np.int32, copy=False),
            "classes": tuple(map(str, self.classes)),
        }
        for field, value in kept.items():
            object.__setattr__(self, field, value)

    def __repr__(self) -> str:
        size = " x ".join(map(str, self.image_shape))
        return f"{self.name}: {len(self):,} images {size}, {self.images.dtype}, in {len(self.classes)} classes"

    @classmethod
    @checked
    def from_arrays(
        cls,
        images: Any,
        labels: Any,
        classes: Any = None,
        *,
        name: str = "arrays",
        scale: float | None = None,
    ) -> "Dataset":
        """A data set from what a program has: NumPy arrays or lists.

        Args:
            images: (N,H,W) or (N,H,W,C).  Whole numbers from 0 to 255 of any dtype are bytes.  Floats stay on their
                own scale, as float32, and are normalised there, by (x - mean) / std.
            labels: (N,) or (N,1), integers, texts or bools.
            classes: names of the classes, in order.  Integer labels are places in it, unless all names are integers:
                then they, like texts, are names.  Without it the classes are the distinct labels, sorted, so the test
                set of a training set needs ``classes=train.classes``.
            scale: makes bytes of images, round(scale x), 0 to 255: 255 for values from 0 to 1.  Such a set has the
                digest of the bytes, takes a quarter of the memory, and its network takes image files.

        Raises:
            DataError: what ``Dataset`` refuses, a value that makes no byte, or a label that is no class.
        """
        maker = Arrays(name)
        found = images if isinstance(images, StoredImages) else maker.images(images, scale)
        numbers, names = maker.labels(labels, classes)
        return cls(name, found, numbers, names)

    def as_array(self, values: Array, what: str) -> Array:
        """An array of the host; raises DataError where the values are none."""
        return values if isinstance(values, StoredImages) else Arrays(self.name).array(values, what)

    def check_finite(self, images: Array) -> None:
        """Raises DataError for NaN or infinity among float images."""
        if not all(np.isfinite(some).all() for some in slices(images)):
            raise DataError(f"{self.name}: images hold NaN or infinity in float32: leave those images out, or fill in")

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
        take = self.images.select if isinstance(self.images, StoredImages) else self.images.__getitem__
        rest, chosen = (replace(self, images=take(m), labels=self.labels[m]) for m in (~second, second))
        return rest, chosen

    @cached_property
    def histogram(self) -> Array:
        """Counts of each pixel value per channel: int64 (C, 256); raises UsageError for float images."""
        if self.images.dtype != np.uint8:
            raise UsageError(f"{self.name} has float images: only bytes have a histogram of 256 values")
        counts = np.zeros((self.images.shape[3], self.BYTES), dtype=np.int64)
        for some in slices(self.images):
            for channel, count in enumerate(counts):
                count += np.bincount(some[..., channel].ravel(), minlength=self.BYTES)
        return counts

    @property
    def frequencies(self) -> Array:
        """The histogram as fractions: float64 (C, 256)."""
        return self.histogram / self.histogram.sum(axis=1, keepdims=True)

    @cached_property
    def moments(self) -> tuple[Array, Array]:
        """Mean and standard deviation (biased) of all pixels per channel, float64 (C,): on a 0..1 scale for bytes."""
        if self.images.dtype == np.uint8:
            mean = self.frequencies @ SCALE
            distance = SCALE - mean[:, None]  # (C, 256)
            return mean, np.sqrt((self.frequencies * distance**2).sum(axis=1))
        if isinstance(self.images, StoredImages):
            self.check_finite(self.images)
        pixels, mean = self.images.size // self.images.shape[3], np.zeros(())
        mean = sum(part.sum(axis=0) for part in self.pixels()) / pixels
        return mean, np.sqrt(sum(((part - mean) ** 2).sum(axis=0) for part in self.pixels()) / pixels)

    def pixels(self) -> Iterator[Array]:
        """All pixels in order, some images at a time: float64 (M, C)."""
        for some in slices(self.images):
            yield some.reshape(-1, some.shape[3]).astype(np.float64)

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean of all pixels, per channel (C,): of bytes on a 0..1 scale, of floats on their own."""
        return tuple(self.moments[0].tolist())

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation (biased) of all pixels, per channel (C,), on the scale of ``mean``."""
        return tuple(self.moments[1].tolist())

    @cached_property
    def digest(self) -> str:
        """SHA-256 of shape, images and labels; of the dtype where it is float; the name does not count."""
        kind = "" if self.images.dtype == np.uint8 else str(self.images.dtype)
        content = hashlib.sha256(f"{tuple(self.images.shape)!r}{kind}".encode())
        for some in slices(self.images):
            content.update(np.ascontiguousarray(some).data)
        content.update(np.ascontiguousarray(self.labels).data)
        return content.hexdigest()


@dataclass(frozen=True)
class Arrays:
    """What a program has, as the arrays of a data set of this name."""

    name: str

    def array(self, values: Any, what: str) -> Array:
        """An array of the host; raises DataError where the values are none."""
        try:
            return np.asarray(values)
        except (TypeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise DataError(f"{self.name}: {what} are no NumPy array ({reason}): give {what} of one shape") from None

    def images(self, values: Any, scale: float | None) -> Array:
        """uint8 or float (N,H,W,C)."""
        images = self.array(values, "images")
        if images.ndim == 3:
            images = images[..., None]
        if images.dtype.kind not in "iuf" or images.ndim != 4 or not images.size:
            return images  # which Dataset refuses
        if scale is not None:
            return self.as_bytes(images, scale)
        if images.dtype.kind in "iu" and images.dtype != np.uint8:
            if images.min() < 0 or images.max() > 255:
                raise DataError(
                    f"{self.name}: images are whole numbers from {images.min()} to {images.max()}, no bytes: give "
                    f"scale={255 / max(1, int(images.max())):.6g} to make bytes of them, or images.astype('float32')"
                )
            images = images.astype(np.uint8)
        return images

    def as_bytes(self, images: Array, scale: float) -> Array:
        """round(scale x), uint8; raises DataError where that is no byte."""
        if not scale > 0:
            raise DataError(f"{self.name}: scale = {scale:g}: give a number above 0, as 255 for images from 0 to 1")
        pixels = np.empty(images.shape, np.uint8)
        start = 0
        for some in slices(images):
            scaled = np.rint(some.astype(np.float64) * scale)
            if not ((scaled >= 0) & (scaled <= 255)).all():
                raise DataError(
                    f"{self.name}: images from {some.min():.6g} to {some.max():.6g} times scale = {scale:g} are not "
                    "0 to 255: give the scale that makes them so, 255 for 0 to 1, or none, to keep their own"
                )
            pixels[start : start + len(some)] = scaled
            start += len(some)
        return pixels

    def labels(self, values: Any, classes: Any) -> tuple[Array, tuple[str, ...]]:
        """Integers (N,), and the name of each class."""
        labels = self.array(values, "labels")
        if labels.ndim == 2 and labels.shape[1] == 1:
            labels = labels[:, 0]
        if labels.dtype.kind == "O" and all(isinstance(label, str) for label in labels.flat):
            labels = labels.astype(str)
        if labels.dtype.kind not in "biuUS" or labels.ndim != 1:
            rows = ": give their columns, labels.argmax(axis=1)" if labels.ndim == 2 else ": give integers or texts"
            raise DataError(f"{self.name}: labels are {labels.dtype} {labels.shape}{rows}, one for each image")
        try:
            labels = labels.astype(str) if labels.dtype.kind == "S" else labels
        except UnicodeDecodeError:
            remedy = "give texts, as [label.decode() for label in labels]"
            raise DataError(f"{self.name}: labels are bytes beyond ASCII: {remedy}") from None
        if labels.dtype.kind == "b" and classes is not None:
            labels = labels.astype(np.int64)
        if classes is not None and (isinstance(classes, str) or not hasattr(classes, "__len__")):
            raise DataError(f"{self.name}: classes = {in_short(classes)}: give the name of each, as ('cat', 'dog')")
        if classes is None:
            distinct, numbers = np.unique(labels, return_inverse=True)
            return numbers, tuple(map(str, distinct.tolist()))
        names = tuple(map(str, classes))
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            raise DataError(f"{self.name}: two classes are called {shown(twice[0])}: give each a name of its own")
        if labels.dtype.kind in "iu" and not all(name.removeprefix("-").isdecimal() for name in names):
            return labels, names
        place = {name: number for number, name in enumerate(names)}
        distinct, numbers = np.unique(labels, return_inverse=True)
        if odd := [label for label in map(str, distinct.tolist()) if label not in place]:
            raise DataError(f"{self.name}: the label {shown(odd[0])} is none of the {len(names)} classes")
        return np.array([place[str(label)] for label in distinct.tolist()], np.int64)[numbers], names


def check_order(dataset: Dataset, classes: Sequence[str]) -> None:
    """Raises DataError where a class has another number than in ``classes``, those of a model.

    Its images would be counted as those of another class.
    """
    place = {name: number for number, name in enumerate(classes)}
    for number, name in enumerate(dataset.classes):
        if place.get(name, number) != number:
            raise DataError(
                f"{dataset.name}: the class {shown(name)} is number {number}, of the model it is {place[name]}: make "
                "the data set with the model's classes, as Dataset.from_arrays(images, labels, classes=train.classes)"
            )


def channels_first(shape: Shape) -> bool:
    """Whether these are (N, C, H, W), grey or colour, as far as a shape tells."""
    _, channels, height, width = shape
    square = height == width and channels in (1, 3, 4) and height > 4
    return square or (channels in (3, 4) and min(height, width) >= 16)


def conversion(images: Array) -> str:
    """How images of another kind become (N,H,W,C), for a message; "" where that is not clear."""
    if images.ndim == 3:
        return ", as images[..., None] does of (N, H, W)"
    return ", as images.astype('uint8') does of whole numbers" if images.dtype.kind in "iu" else ""


SCALE = np.arange(256) / 255.0  # pixel value -> 0..1


TEST_FRACTION = 0.2
"""Of each class, held out of a set that has no test part."""


@checked
def split_validation(train: Dataset, count: float, seed: int) -> tuple[Dataset, Dataset]:
    """Split random images off the training set -> (training set, validation set).

    Both keep the order of the images.

    Args:
        count: of images; or below 1 the fraction of each class, to the nearest image, though at least one is on
            either side where a class has two.

    Raises UsageError where one of the two would be empty.
    """
    most = len(train) - 1
    if not 0 < count <= most or (count > 1 and count != int(count)):
        raise UsageError(
            f"a validation set of {count:g} images of {train.name}: give a number from 1 to {most}, or a fraction"
        )
    order = permutation(len(train), seed=seed, stream=stream_id("validation"))
    if count >= 1:
        return train.split_off(order[: int(count)])
    labels = train.labels[order]
    order = order[np.argsort(labels, kind="stable")]  # class by class
    _, starts, sizes = np.unique(train.labels[order], return_index=True, return_counts=True)
    chosen = np.where(sizes > 1, np.clip(np.rint(count * sizes), 1, sizes - 1), 0)
    place = np.arange(len(order)) - np.repeat(starts, sizes)  # of an image within its class
    places = order[place < np.repeat(chosen, sizes)]
    if not len(places):
        raise UsageError(f"{train.name} has no class of two images, of which one could be held out: add images")
    return train.split_off(places)
