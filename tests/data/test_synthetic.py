"""Synthetic images: any shape, the same for the same seed, easy to classify."""

import numpy as np
import pytest

from gpucnn.data import load_dataset, load_synthetic
from gpucnn.errors import UsageError


def test_the_registry_s() -> None:
    train, test = load_dataset("synthetic")
    assert (train.images.shape, test.images.shape) == ((5000, 32, 32, 3), (1000, 32, 32, 3))
    assert train.num_classes == 10


@pytest.mark.parametrize("shape", [(28, 28, 1), (5, 9, 3), (1, 1, 1)])
@pytest.mark.parametrize("classes", [1, 7, 256])
def test_shapes_and_classes_can_be_chosen(shape: tuple[int, int, int], classes: int) -> None:
    train, test = load_synthetic(300, 2, shape=shape, num_classes=classes)
    assert train.images.shape == (300, *shape)
    assert test.images.shape == (2, *shape)
    assert train.num_classes == classes
    assert len(np.unique(train.labels)) > classes // 2


def test_the_same_seed_gives_the_same_images() -> None:
    first, again, other = (load_synthetic(50, 20, shape=(4, 4, 1), seed=seed) for seed in (0, 0, 1))
    assert [part.digest for part in first] == [part.digest for part in again]
    assert {part.digest for part in first}.isdisjoint(part.digest for part in other)
    assert first[0].images[0].tobytes() != first[1].images[0].tobytes()


def test_it_stays_what_it_was() -> None:
    train, _ = load_synthetic(50, 20, shape=(4, 4, 1))
    assert train.digest[:16] == "f2e4b91b881376b8"


def test_the_nearest_class_mean_tells_them_apart() -> None:
    train, test = load_synthetic(500, 200, shape=(12, 12, 1), num_classes=4)
    means = np.stack([train.images[train.labels == k].mean(axis=0).ravel() for k in range(4)])
    distance = ((test.images.reshape(200, 1, -1) - means) ** 2).sum(axis=2)
    assert (distance.argmin(axis=1) == test.labels).mean() > 0.99


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        ({"train": 0}, "0 + 1000"),
        ({"test": -1}, "5000 + -1"),
        ({"shape": (0, 4, 1)}, "(0, 4, 1)"),
        ({"num_classes": 0}, "0 classes"),
    ],
)
def test_sizes_that_no_set_has(arguments: dict[str, object], value: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_synthetic(**arguments)
    assert value in str(caught.value)
