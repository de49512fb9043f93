"""Gather, shift, mirror, normalise, cover a square: against loops over single pixels."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpucnn.data.augment.crop_flip import gather_augment, gather_normalize

MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)


def statistics(channels: int) -> tuple[np.ndarray, np.ndarray]:
    mean, std = np.array(MEAN[:channels]), np.array(STD[:channels])
    return mean.astype(np.float32), (1 / std).astype(np.float32)


def noise(n: int, h: int, w: int, c: int, seed: int = 0) -> np.ndarray:
    images = np.random.default_rng(seed).integers(0, 256, (n, h, w, c)).astype(np.uint8)
    images.flags.writeable = False
    return images


def pixel(image: np.ndarray, row: int, column: int, mode: str) -> np.ndarray:
    """The colour at a place that may lie beyond the image."""
    h, w, c = image.shape
    if mode == "reflect":
        row = -row if row < 0 else 2 * (h - 1) - row if row >= h else row
        column = -column if column < 0 else 2 * (w - 1) - column if column >= w else column
    inside = 0 <= row < h and 0 <= column < w
    return image[row, column].astype(np.float64) if inside else np.zeros(c)


def by_loops(images, index, flip, shift, crop, mode, c, centre=None, cutout=0) -> np.ndarray:
    """The definition, one pixel after the other, in float64."""
    _, h, w, _ = images.shape
    out = np.empty((len(index), h, w, c))
    for n, which in enumerate(index):
        for i in range(h):
            for j in range(w):
                column = w - 1 - j if flip[n] else j
                place = (i + shift[n, 0] - crop, column + shift[n, 1] - crop)
                p = pixel(images[which], *place, mode)
                out[n, i, j] = (p / 255 - MEAN[:c]) / STD[:c]
                if cutout:
                    first = [place - cutout // 2 for place in centre[n]]
                    if i - first[0] in range(cutout) and j - first[1] in range(cutout):
                        out[n, i, j] = 0
    return out


@given(st.data(), st.sampled_from(["zero", "reflect"]), st.sampled_from([1, 3]), st.integers(0, 3))
def test_augmentation_is_its_definition(data: st.DataObject, mode: str, c: int, crop: int) -> None:
    h, w = data.draw(st.integers(crop + 1, 6)), data.draw(st.integers(crop + 1, 6))
    batch = data.draw(st.integers(1, 4))
    images = noise(5, h, w, c)
    index = np.array(data.draw(st.lists(st.integers(0, 4), min_size=batch, max_size=batch)))
    flip = np.array(data.draw(st.lists(st.booleans(), min_size=batch, max_size=batch)))
    corner = st.integers(0, 2 * crop)
    shift = np.array(data.draw(st.lists(st.tuples(corner, corner), min_size=batch, max_size=batch)))
    found = gather_augment(images, index, flip, shift, crop, mode, *statistics(c))
    assert (found.shape, found.dtype) == ((batch, h, w, c), np.float32)
    np.testing.assert_allclose(found, by_loops(images, index, flip, shift, crop, mode, c), rtol=0, atol=2e-6)


@pytest.mark.parametrize("cutout", range(1, 7))
@pytest.mark.parametrize(("h", "w", "c"), [(6, 7, 3), (7, 6, 1)])
def test_a_covered_square_is_its_definition(h: int, w: int, c: int, cutout: int) -> None:
    count = h * w  # each pixel is a centre once
    images, index, centre = noise(5, h, w, c), np.arange(count) % 5, np.argwhere(np.ones((h, w)))
    flip, shift = np.arange(count) % 2 == 1, np.stack((np.arange(count) % 3, np.arange(count) // 3 % 3), axis=1)
    drawn = (images, index, flip, shift, 1, "zero")
    found = gather_augment(*drawn, *statistics(c), centre, cutout)
    np.testing.assert_allclose(found, by_loops(*drawn, c, centre, cutout), rtol=0, atol=2e-6)
    inner = found[(centre[:, 0] == h // 2) & (centre[:, 1] == w // 2)]
    assert (inner == 0).all(axis=3).sum() == cutout * cutout  # nothing of it lies outside


@pytest.mark.parametrize("c", [1, 3])
def test_normalisation_is_its_definition(c: int) -> None:
    images = np.arange(256, dtype=np.uint8).reshape(4, 8, 8, 1).repeat(c, axis=3)
    index = np.array([3, 0, 0, 1])
    found = gather_normalize(images, index, *statistics(c))
    wanted = (images[index].astype(np.float64) / 255 - MEAN[:c]) / STD[:c]
    assert (found.shape, found.dtype) == ((4, 8, 8, c), np.float32)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-6)


@pytest.mark.parametrize("mode", ["zero", "reflect"])
def test_an_unmoved_image_is_the_plain_one_to_the_bit(mode: str) -> None:
    images, index = noise(3, 5, 7, 3), np.array([2, 0])
    still, centre = np.zeros(2, bool), np.full((2, 2), 2, np.int32)
    found = gather_augment(images, index, still, centre, 2, mode, *statistics(3))
    assert np.array_equal(found, gather_normalize(images, index, *statistics(3)))


@pytest.mark.parametrize("layout", [np.asfortranarray, lambda x: x.transpose(0, 3, 1, 2).copy().transpose(0, 2, 3, 1)])
def test_images_may_lie_in_memory_as_they_like(layout: Callable[[np.ndarray], np.ndarray]) -> None:
    images, index = noise(4, 5, 7, 3), np.array([2, 0, 3])
    flip, shift = np.array([True, False, True]), np.array([[0, 3], [2, 4], [4, 1]])
    for mode in ("zero", "reflect"):
        wanted, found = (
            (
                gather_normalize(i, index, *statistics(3)),
                gather_augment(i, index, flip, shift, 2, mode, *statistics(3)),
            )
            for i in (images, layout(images))
        )
        assert np.array_equal(wanted[0], found[0])
        assert np.array_equal(wanted[1], found[1])
        assert found[0].flags.c_contiguous
        assert found[1].flags.c_contiguous


def test_the_uncovered_border_is_black_before_normalisation() -> None:
    images = np.full((1, 4, 4, 1), 200, np.uint8)
    mean, inv_std = statistics(1)
    found = gather_augment(images, np.array([0]), np.array([False]), np.array([[0, 3]]), 2, "zero", mean, inv_std)
    black, light = (np.float32((p / 255 - MEAN[0]) / STD[0]) for p in (0, 200))
    wanted = np.array([[0, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, 0], [1, 1, 1, 0]])
    np.testing.assert_allclose(found[0, :, :, 0], np.where(wanted, light, black), atol=1e-6)


def test_mirroring_twice_is_nothing() -> None:
    images, index, centre = noise(3, 4, 6, 3), np.arange(3), np.zeros((3, 2), int)
    zero, one = np.zeros(3, np.float32), np.full(3, 255, np.float32)
    once = gather_augment(images, index, np.ones(3, bool), centre, 0, "zero", zero, one)
    twice = gather_augment(np.rint(once).astype(np.uint8), index, np.ones(3, bool), centre, 0, "zero", zero, one)
    np.testing.assert_allclose(twice, images, atol=1e-3)
    assert not np.array_equal(np.rint(once), images)
