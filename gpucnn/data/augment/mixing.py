"""Two images in one: mixup and cutmix.  The partner of image b in a batch of B is image B - 1 - b.

    mixup   x = s x + (1 - s) x'        y = s y + (1 - s) y'        s ~ Beta(alpha, alpha)   (arXiv 1710.09412)
    cutmix  x = x' in a box, x around   y likewise                  box of the area 1 - s    (arXiv 1905.04899)

Labels become rows of probabilities.  One weight s is sampled for each batch, from (seed, epoch, number of the batch),
on the host: these are a few numbers per epoch, every backend mixes with the same bits, and no step waits for a device.
"""

from dataclasses import dataclass

import numpy as np

from gpucnn.backend import array_module
from gpucnn.data.augment.settings import Augmentation
from gpucnn.random import bits, stream_id, symmetric_beta
from gpucnn.types import Array, Shape

MIX = stream_id("mix")


@dataclass(frozen=True)
class Mix:
    """How a batch is mixed.

    Attributes:
        weight: of each image, in [0, 1]; its partner has the rest.
        box: of the partner's pixels, for cutmix: rows from and to, columns from and to; None for mixup.
    """

    weight: float
    box: tuple[int, int, int, int] | None = None


def mixup(x: Array, weight: float) -> Array:
    """x (B,H,W,C) -> weight x + (1 - weight) partner."""
    y = x[::-1] * (1.0 - weight)
    y += x * weight
    return y


def cutmix(x: Array, top: int, bottom: int, left: int, right: int) -> Array:
    """x (B,H,W,C) with the partner in rows top .. bottom - 1, columns left .. right - 1."""
    y = x.copy()
    y[:, top:bottom, left:right] = x[::-1, top:bottom, left:right]
    return y


def mixed_labels(labels: Array, classes: int, weight: float) -> Array:
    """Classes (B,) -> rows of probabilities, float32 (B,K): ``weight`` for its class, the rest for its partner's."""
    rows = (labels[:, None] == array_module(labels).arange(classes)).astype("float32")
    return rows * weight + rows[::-1] * (1.0 - weight)


def sample_mixes(augmentation: Augmentation, batches: int, shape: Shape, *, seed: int, epoch: int) -> list[Mix]:
    """How the batches 0 .. batches - 1 of an epoch are mixed, for images (H,W,C).

    With both mixup and cutmix each has half of the batches.  A batch that is not mixed has the weight 1.
    """
    u = bits((batches, 6), seed=seed, stream=MIX, step=epoch) * 2.0**-32  # in [0, 1): six numbers for each batch
    whether, which, *beta, row, column = u.T
    cut = which < 0.5 if augmentation.mixup and augmentation.cutmix else np.full(batches, bool(augmentation.cutmix))
    alpha = np.where(cut, augmentation.cutmix, augmentation.mixup)
    weights = np.where(whether < augmentation.mixup_prob, symmetric_beta(alpha, *beta), 1.0)
    return [
        cutmix_box(weight, row, column, shape) if cut else Mix(weight)
        for weight, cut, row, column in zip(*(a.tolist() for a in (weights, cut, row, column)), strict=True)
    ]


def cutmix_box(weight: float, row: float, column: float, shape: Shape) -> Mix:
    """A box in the image's proportions of about the area 1 - weight, around a place in fractions of height and width.

    The box is clipped to the image, and the weight becomes the fraction of the pixels outside of it.
    """
    edges = []
    for place, size in ((row, shape[0]), (column, shape[1])):
        side = int(size * (1.0 - weight) ** 0.5)
        first = int(place * size) - side // 2
        edges += [max(first, 0), min(first + side, size)]
    top, bottom, left, right = edges
    return Mix(1.0 - (bottom - top) * (right - left) / (shape[0] * shape[1]), (top, bottom, left, right))
