"""What happens to training images, and what chance decides: drawn per epoch for the whole set, element = image.

Which image is mirrored, shifted or covered depends on the seed, the epoch and the image, not on the batch size or on
where an interrupted epoch resumes.
"""

from dataclasses import dataclass
from math import isfinite
from types import ModuleType

from gpucnn.errors import UsageError, closest
from gpucnn.random import integers, stream_id
from gpucnn.typing import Array, Shape

CROP_MODES = ("zero", "reflect")
FLIP_MODES = ("random", "alternating")

FLIP, CROP, CUTOUT = (stream_id(name) for name in ("flip", "crop", "cutout"))


@dataclass(frozen=True)
class Augmentation:
    """What happens to training images, in this order.

    Args:
        crop: shift by up to this many pixels up, down, left and right.
        crop_mode: the border that a shift uncovers: "zero" is black, "reflect" mirrors the image.
        flip: mirror left and right, every second image on average.
        flip_mode: "random" draws anew in every epoch; "alternating" draws once, for epoch 0, and then mirrors in every
            odd epoch what it did not mirror before, so that two epochs show both sides of each image
            (arXiv 2404.00498).
        cutout: cover a square of so many pixels a side with the mean colour, 0 after normalisation
            (arXiv 1708.04552).  Its centre is any pixel; what would lie outside of the image is cut off.
        mixup: alpha of mixup, 0 for none: batches are blended with themselves in reverse (``gpucnn.data.mixing``).
        cutmix: alpha of cutmix, 0 for none.
        mixup_prob: share of the batches that are mixed at all.

    Raises:
        UsageError: a value out of its range.
    """

    flip: bool = False
    crop: int = 0
    crop_mode: str = "zero"
    flip_mode: str = "random"
    cutout: int = 0
    mixup: float = 0.0
    cutmix: float = 0.0
    mixup_prob: float = 1.0

    def __post_init__(self) -> None:
        if self.crop < 0:
            raise UsageError(f"crop = {self.crop}: give the largest shift in pixels, 0 for none")
        if self.cutout < 0:
            raise UsageError(f"cutout = {self.cutout}: give the side of a square in pixels, 0 for none")
        for name in ("mixup", "cutmix"):
            if not (isfinite(value := getattr(self, name)) and value >= 0.0):
                raise UsageError(f"{name} = {value}: give alpha of Beta(alpha, alpha) as a number >= 0, 0 for none")
        if not 0.0 <= self.mixup_prob <= 1.0:
            raise UsageError(f"mixup_prob = {self.mixup_prob}: give a share in [0, 1]")
        for name, allowed in (("crop_mode", CROP_MODES), ("flip_mode", FLIP_MODES)):
            if (value := getattr(self, name)) not in allowed:
                raise UsageError(f"{name} = {value!r}{closest(value, allowed)}")

    def __bool__(self) -> bool:
        """Whether anything happens to images."""
        return bool(self.flip or self.crop or self.cutout or self.mixes)

    @property
    def mixes(self) -> bool:
        """Whether labels become rows of probabilities."""
        return bool(self.mixup or self.cutmix)

    def check(self, height: int, width: int) -> None:
        """Raises UsageError for what images of this size are too small for."""
        smaller = min(height, width)
        for name, value, most in (("crop", self.crop, smaller - 1), ("cutout", self.cutout, smaller)):
            if value > most:
                raise UsageError(f"{name} = {value} for images of {height} x {width}: give at most {most}")


@dataclass(frozen=True)
class Draws:
    """What was drawn for some images.

    Attributes:
        flip: whether to mirror, bool (N,).
        shift: int32 (N,2) in 0 .. 2 crop, the corner of the window in the padded image.
        centre: int32 (N,2), the pixel (row, column) in the middle of the square that is covered; None where none is.
    """

    flip: Array
    shift: Array
    centre: Array | None = None

    def of(self, index: Array) -> "Draws":
        """Those of images ``index`` (B,)."""
        centre = None if self.centre is None else self.centre[index]
        return Draws(self.flip[index], self.shift[index], centre)


def draw(augmentation: Augmentation, count: int, shape: Shape, *, seed: int, epoch: int, xp: ModuleType) -> Draws:
    """The draws of an epoch for a set of ``count`` images (H,W,C)."""
    flip, shift, centre = xp.zeros(count, dtype=bool), xp.zeros((count, 2), dtype=xp.int32), None
    if augmentation.flip:
        alternating = augmentation.flip_mode == "alternating"
        flip = integers((count,), 2, seed=seed, stream=FLIP, step=0 if alternating else epoch, xp=xp) == 1
        if alternating and epoch % 2:
            flip = ~flip
    if crop := augmentation.crop:
        shift = integers((count, 2), 2 * crop + 1, seed=seed, stream=CROP, step=epoch, xp=xp)
    if augmentation.cutout:
        centre = places(count, shape, seed=seed, epoch=epoch, xp=xp)
    return Draws(flip, shift, centre)


def places(count: int, shape: Shape, *, seed: int, epoch: int, xp: ModuleType) -> Array:
    """A pixel (row, column) of each image (H,W,C), all alike likely: int32 (N,2)."""
    pixel = integers((count,), shape[0] * shape[1], seed=seed, stream=CUTOUT, step=epoch, xp=xp)
    return xp.stack((pixel // shape[1], pixel % shape[1]), axis=1)
