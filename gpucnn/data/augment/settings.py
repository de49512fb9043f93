"""Augmentation: its settings, and the random parameters of every image, sampled per epoch for the whole set.

Which image is mirrored, shifted or covered depends on the seed, the epoch and the image, not on the batch size or on
where an interrupted epoch resumes.
"""

from dataclasses import dataclass
from types import ModuleType

from gpucnn.data.augment.warp import affine_matrix
from gpucnn.errors import UsageError
from gpucnn.random import integers, stream_id, uniform
from gpucnn.settings import Settings, setting
from gpucnn.types import Array, Shape

CROP_MODES = ("zero", "reflect")

FLIP, CROP, CUTOUT, ROTATION, SCALE, ELASTIC, BRIGHTNESS, CONTRAST = (
    stream_id(name) for name in ("flip", "crop", "cutout", "rotation", "scale", "elastic", "brightness", "contrast")
)


@dataclass(frozen=True)
class Augmentation(Settings):
    """What happens to training images, in this order.

    Args:
        rotation: turn by up to so many degrees to either side.
        scale: enlarge by a factor of 1 - scale .. 1 + scale.
        elastic: bend by a random field of displacements, smoothed and times so many pixels
            (``augment.warp``); 34 for digits of 28 x 28.
        elastic_sigma: of the Gaussian that smooths it, in pixels.
        brightness: multiply by a factor of 1 - brightness .. 1 + brightness.
        contrast: multiply the distance from the image's mean by a factor of 1 - contrast .. 1 + contrast.
        crop: shift by up to this many pixels up, down, left and right.
        crop_mode: what lies beyond the edge of an image: "zero" is black, "reflect" mirrors the image.
        flip: mirror left and right, every second image on average.
        flip_mode: "random" draws anew in every epoch; "alternating" draws once, for epoch 0, and then mirrors in every
            odd epoch what it did not mirror before, so that two epochs show both sides of each image
            (arXiv 2404.00498).
        cutout: cover a square of so many pixels a side with the mean colour, 0 after normalisation.
        cutout_mode: "clipped" has its centre at any pixel, and what would lie outside of the image is cut off
            (arXiv 1708.04552); "inside" is any square that lies in the image as a whole.
        mixup: alpha of mixup, 0 for none: batches are blended with themselves in reverse (``augment.mixing``).
        cutmix: alpha of cutmix, 0 for none.
        mixup_prob: probability that a batch is mixed at all.

    Raises:
        UsageError: a value out of its range.
    """

    flip: bool = False
    crop: int = setting(0, at_least=0, at_most=512)
    crop_mode: str = setting("zero", choices=CROP_MODES)
    flip_mode: str = setting("random", choices=("random", "alternating"))
    cutout: int = setting(0, at_least=0, at_most=512)
    cutout_mode: str = setting("clipped", choices=("clipped", "inside"))
    mixup: float = setting(0.0, "alpha of mixup, which blends images; 0: none", "--mixup", at_least=0, at_most=10**6)
    cutmix: float = setting(0.0, "alpha of cutmix, which pastes boxes; 0: none", "--cutmix", at_least=0, at_most=10**6)
    mixup_prob: float = setting(1.0, "probability that a batch is mixed", "--mixup-prob", at_least=0, at_most=1)
    rotation: float = setting(0.0, at_least=0, at_most=180)
    scale: float = setting(0.0, at_least=0, at_most=0.9)
    elastic: float = setting(0.0, at_least=0, at_most=1000)
    elastic_sigma: float = setting(4.0, at_least=0.1, at_most=1000)
    brightness: float = setting(0.0, at_least=0, at_most=1)
    contrast: float = setting(0.0, at_least=0, at_most=1)

    def __bool__(self) -> bool:
        """Whether anything happens to images."""
        return bool(self.flip or self.crop or self.cutout or self.warps or self.jitters or self.mixes)

    def summary(self) -> str:
        """The settings that differ from the defaults, human-readable."""
        changed = {name: value for name, value in vars(self).items() if value != getattr(Augmentation, name)}
        words = (f" {value:g}" if isinstance(value, float) else f" {value}" for value in changed.values())
        return ", ".join(name + ("" if word == " True" else word) for name, word in zip(changed, words, strict=True))

    @property
    def warps(self) -> bool:
        """Whether pixels are interpolated at other places."""
        return bool(self.rotation or self.scale or self.elastic)

    @property
    def jitters(self) -> bool:
        """Whether brightness or contrast changes."""
        return bool(self.brightness or self.contrast)

    @property
    def mixes(self) -> bool:
        """Whether labels become rows of probabilities."""
        return bool(self.mixup or self.cutmix)

    def check(self, height: int, width: int) -> None:
        """Raises UsageError where images of this size are too small for the crop or the cutout."""
        smaller = min(height, width)
        for name, value, most in (("crop", self.crop, smaller - 1), ("cutout", self.cutout, smaller)):
            if value > most:
                raise UsageError(f"{name} = {value} for images of {height} x {width}: give at most {most}")


@dataclass(frozen=True)
class AugmentParams:
    """The random parameters of some images.

    Attributes:
        flip: whether to mirror, bool (N,).
        shift: int32 (N,2) in 0 .. 2 crop, the corner of the window in the padded image.
        centre: int32 (N,2), the pixel (row, column) in the middle of the covered square; None without cutout.
        matrix: float32 (N,2,2), from places in the warped image to places in the image; None without warping.
        brightness, contrast: factors, float32 (N,); None where neither changes.
    """

    flip: Array
    shift: Array
    centre: Array | None = None
    matrix: Array | None = None
    brightness: Array | None = None
    contrast: Array | None = None

    def of(self, index: Array) -> "AugmentParams":
        """Those of images ``index`` (B,)."""
        return AugmentParams(*(None if values is None else values[index] for values in vars(self).values()))


def sample_augmentation(
    how: Augmentation, count: int, shape: Shape, *, seed: int, epoch: int, xp: ModuleType
) -> AugmentParams:
    """The parameters of an epoch for a set of ``count`` images (H,W,C)."""

    def between(stream: int, middle: float, radius: float) -> Array:
        """Uniform in middle - radius .. middle + radius, float32 (N,)."""
        return (uniform((count,), seed=seed, stream=stream, step=epoch, xp=xp) * 2.0 - 1.0) * radius + middle

    flip, shift = xp.zeros(count, dtype=bool), xp.zeros((count, 2), dtype=xp.int32)
    centre = matrix = brightness = contrast = None
    if how.flip:
        drawn, mirrored = (0, 1 - epoch % 2) if how.flip_mode == "alternating" else (epoch, 1)
        flip = integers((count,), 2, seed=seed, stream=FLIP, step=drawn, xp=xp) == mirrored
    if how.crop:
        shift = integers((count, 2), 2 * how.crop + 1, seed=seed, stream=CROP, step=epoch, xp=xp)
    if how.cutout:
        inside = how.cutout_mode == "inside"
        rows, columns = (size - how.cutout + 1 if inside else size for size in shape[:2])
        place = integers((count,), rows * columns, seed=seed, stream=CUTOUT, step=epoch, xp=xp)
        centre = xp.stack((place // columns, place % columns), axis=1) + (how.cutout // 2 if inside else 0)
    if how.warps:
        matrix = affine_matrix(between(ROTATION, 0.0, how.rotation), between(SCALE, 1.0, how.scale))
    if how.jitters:
        brightness, contrast = between(BRIGHTNESS, 1.0, how.brightness), between(CONTRAST, 1.0, how.contrast)
    return AugmentParams(flip, shift, centre, matrix, brightness, contrast)
