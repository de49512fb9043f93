"""Synthetic images of any shape, for benchmarks and dry runs: easy to learn, the same on every machine."""

import numpy as np

from gpucnn.data.dataset import Dataset
from gpucnn.errors import UsageError
from gpucnn.random import bits, integers, stream_id
from gpucnn.types import Array, Shape


def load_synthetic(
    train: int = 5000,
    test: int = 1000,
    *,
    shape: tuple[int, int, int] = (32, 32, 3),
    num_classes: int = 10,
    seed: int = 0,
) -> tuple[Dataset, Dataset]:
    """``train`` and ``test`` images (H,W,C): each half the pattern of its class, half noise.

    Raises UsageError for sizes out of range.
    """
    if min(train, test, *shape, num_classes) < 1:
        raise UsageError(
            f"a synthetic set of {train} + {test} images {shape} in {num_classes} classes: give at least one "
            f"image of each kind, a shape (H, W, C) and at least one class"
        )
    patterns = random_bytes((num_classes, *shape), seed, "synthetic patterns")
    parts = []
    for name, count in (("train", train), ("test", test)):
        labels = integers((count,), num_classes, seed=seed, stream=stream_id(f"synthetic {name} labels"))
        noise = random_bytes((count, *shape), seed, f"synthetic {name} noise")
        images = patterns[labels] // 2 + noise // 2  # (N,H,W,C), at most 254
        parts.append(Dataset("synthetic", images, labels, tuple(map(str, range(num_classes)))))
    return parts[0], parts[1]


def random_bytes(shape: Shape, seed: int, name: str) -> Array:
    """Uniform uint8 of a shape, four from each 32-bit number."""
    size = int(np.prod(shape))
    words = bits(((size + 3) // 4,), seed=seed, stream=stream_id(name))
    return words.astype("<u4").view(np.uint8)[:size].reshape(shape)
