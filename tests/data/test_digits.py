"""scikit-learn's digits, as any other data set."""

import numpy as np
from sklearn.datasets import load_digits as read_digits

from gpucnn.data import load_dataset


def test_sizes_and_classes() -> None:
    train, test = load_dataset("digits")
    assert train.images.shape == (1437, 8, 8, 1)
    assert test.images.shape == (360, 8, 8, 1)
    assert train.classes == test.classes == tuple("0123456789")


def test_each_image_is_in_one_part_with_its_label() -> None:
    published = read_digits()
    wanted = sorted((image.tobytes(), label) for image, label in zip(published.data, published.target, strict=True))
    found = []
    for part in load_dataset("digits"):
        sixteenths = np.rint(part.images[..., 0] * (16 / 255))  # back to 0..16
        assert np.abs(sixteenths * (255 / 16) - part.images[..., 0]).max() <= 0.5
        pixels = sixteenths.reshape(len(part), 64)
        found += [(image.tobytes(), label) for image, label in zip(pixels, part.labels.tolist(), strict=True)]
    assert sorted(found) == wanted


def test_brightness_fills_the_byte() -> None:
    train, _ = load_dataset("digits")
    assert (train.images.min(), train.images.max()) == (0, 255)
    assert len(np.unique(train.images)) == 17


def test_the_split_is_stratified() -> None:
    train, test = load_dataset("digits")
    counts = np.bincount(train.labels), np.bincount(test.labels)
    assert np.abs(counts[1] - (counts[0] + counts[1]) / 5).max() < 1


def test_the_split_is_not_by_writer_order() -> None:
    """Neighbours of the file, often by one hand, are on both sides."""
    published = read_digits().data
    test_images = {image.tobytes() for image in np.rint(load_dataset("digits")[1].images * (16 / 255)).reshape(360, 64)}
    places = [n for n, image in enumerate(published) if image.tobytes() in test_images]
    gaps = np.diff(places)
    assert len(set(gaps.tolist())) > 10
    assert 800 < np.mean(places) < 1000


def test_it_stays_what_it_was() -> None:
    """Results on digits compare only while the split does not change."""
    assert [part.digest[:16] for part in load_dataset("digits")] == ["869a8d04fd059bc2", "e57ea2a8bb694bac"]
