"""From images to class names: normalisation, probabilities and the most probable classes."""

from collections.abc import Sequence

import numpy as np

from gpucnn.backend import Backend
from gpucnn.data.augment.crop_flip import gather_normalize
from gpucnn.errors import NotANumberError, ShapeError
from gpucnn.layers.softmax import softmax
from gpucnn.types import Array


def normalise(images: Array, mean: Sequence[float], std: Sequence[float], backend: Backend) -> Array:
    """Images as a ``Loader`` gives them to the model: uint8 (N,H,W,C) on the host -> float32 (N,H,W,C) on the device.

    Args:
        mean, std: per channel, on a 0..1 scale; those of the training set.

    Raises:
        ShapeError: not one number for each channel.
    """
    channels = images.shape[3]
    if not len(mean) == len(std) == channels:
        raise ShapeError(f"mean = {mean}, std = {std} for {channels} channels: give a number for each channel")
    on = backend.to_device
    shift, inv_std = on(np.array(mean, np.float32)), on((1.0 / np.array(std)).astype(np.float32))  # (C,)
    normalised: Array = backend.run(gather_normalize, on(images), backend.xp.arange(len(images)), shift, inv_std)
    return normalised


def class_names(names: tuple[str, ...], count: int) -> tuple[str, ...]:
    """A name for each of ``count`` classes: these, or numbers if there are more or fewer of them."""
    return names if len(names) == count else tuple(map(str, range(count)))


def probabilities(logits: Array, backend: Backend) -> Array:
    """Softmax of logits (N,K) -> (N,K) on the host.  # sync

    Raises:
        NotANumberError: one of them is NaN.
    """
    found = backend.to_host(backend.run(softmax, logits))
    if not np.isfinite(found).all():
        raise NotANumberError("the model's answer is NaN or infinity: its weights or statistics are too large; retrain")
    return found


def top_k(row: Array, names: Sequence[str], k: int) -> list[tuple[str, float]]:
    """(name, probability) of the ``k`` most probable classes of a row (K,), the most probable first."""
    order = np.argsort(-row, kind="stable")[:k]
    return [(names[i], float(row[i])) for i in order]
