"""What there is to say about reading people's own images, and what is read: the parts of a set."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from gpucnn.data.dataset import Dataset
from gpucnn.data.image_files import FITS
from gpucnn.data.image_files import fit as fit_image
from gpucnn.errors import DataError, UsageError, closest

LARGEST_SIDE = 512  # pixels of a side of the images that networks learn from
DEFAULT_SIDE = 224  # at most, where images of several sizes are made equal


class Parts(NamedTuple):
    """A set's images for training, and those for validation and for testing where they stand apart."""

    train: Dataset
    validation: Dataset | None = None
    test: Dataset | None = None

    def fitted(self, size: tuple[int, ...], channels: int, fit: str) -> "Parts":
        """The same by ``fit_pictures``."""
        train, *others = self
        fitted = (part and fit_pictures(part, size, channels, fit) for part in others)
        return Parts(fit_pictures(train, size, channels, fit), *fitted)


def fit_pictures(dataset: Dataset, size: tuple[int, ...], channels: int, fit: str) -> Dataset:
    """A set with its images resized, grey or in colour; () and 0 leave that as it is.

    Raises:
        DataError: they are no pictures in memory: floats, of another number of channels than 1 or 3, or in a file.
    """
    images, own = dataset.images, dataset.image_shape
    shape = (*(size or own[:2]), channels or own[2])
    if shape == own:
        return dataset
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or own[2] not in (1, 3):
        kind = f"{images.dtype} images {' x '.join(map(str, own))}, not {' x '.join(map(str, shape))}"
        raise DataError(f"{dataset.name} has {kind}: only bytes in memory, grey or in colour, are resized")
    from PIL import Image

    plain = (Image.fromarray(image[..., 0] if own[2] == 1 else image) for image in images)
    return replace(dataset, images=np.stack([fit_image(image, shape, fit)[0] for image in plain]))


@dataclass(frozen=True)
class Reading:
    """How images are read.

    Args:
        size: (H, W) of the images, or (side,) of square ones; () for their own, where all have one, else for a square
            (``folders.chosen_size``).
        fit: one of ``FITS``.
        channels: 1 for grey, 3 for colour; 0 for what is there.
        skip_broken: leave out image files that cannot be read, rather than refuse the set.
        classes: those of a trained model, in its order, which the set's must be among; () for the set's own.
        threads: that decode; 0 for one per core.
        memory: bytes that images may take in memory, beyond which they stay in a file; 0 for half of what is free.
        progress: show the progress of decoding, and tell what was decided.

    Raises UsageError for a value out of range.
    """

    size: tuple[int, ...] = ()
    fit: str = "crop"
    channels: int = 0
    skip_broken: bool = False
    classes: tuple[str, ...] = ()
    threads: int = 0
    memory: int = 0
    progress: bool = True

    def __post_init__(self) -> None:
        if len(self.size) == 1:
            object.__setattr__(self, "size", 2 * self.size)  # a square
        if len(self.size) not in (0, 2) or not all(1 <= side <= LARGEST_SIDE for side in self.size):
            raise UsageError(f"size = {list(self.size)}: give height and width, each 1 to {LARGEST_SIDE} pixels")
        if self.channels not in (0, 1, 3):
            raise UsageError(f"channels = {self.channels}: give 1 for grey, 3 for colour or 0 for what is there")
        if self.fit not in FITS:
            raise UsageError(f"fit = {self.fit!r}{closest(self.fit, FITS)}")
