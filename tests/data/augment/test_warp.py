"""Rotation, scaling and elastic distortion: against loops over pixels, turns by hand, and SciPy's Gaussian."""

from math import cos, floor, radians, sin

import numpy as np
import pytest

from gpucnn.data.augment.warp import affine_matrix, noise_planes, smooth, warp
from gpucnn.random import bits

SEED, STREAM, EPOCH = 0x1234567_89ABCDEF, 99, 3


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


def ones(count: int) -> np.ndarray:
    return np.ones(count, np.float32)


def folded(place: int, size: int) -> int:
    """Walk along the line and turn at its ends."""
    at, step = 0, 1 if place > 0 else -1
    if size == 1:
        return 0
    for _ in range(abs(place)):
        if not 0 <= at + step < size:
            step = -step
        at += step
    return at


def pixel(image: np.ndarray, row: int, column: int, border: str) -> np.ndarray:
    h, w, c = image.shape
    if border == "reflect":
        return image[folded(row, h), folded(column, w)].astype(float)
    return image[row, column].astype(float) if 0 <= row < h and 0 <= column < w else np.zeros(c)


def by_loops(images, index, matrix, field, border) -> np.ndarray:
    """The definition, one pixel after the other, in float64 and not rounded."""
    _, h, w, c = images.shape
    out = np.empty((len(index), h, w, c))
    for b, which in enumerate(index):
        for i in range(h):
            for j in range(w):
                from_centre = np.array([i - (h - 1) / 2, j - (w - 1) / 2])
                u, v = matrix[b].astype(float) @ from_centre + [(h - 1) / 2, (w - 1) / 2]
                if field is not None:
                    u, v = u + float(field[b, 0, i, j]), v + float(field[b, 1, i, j])
                weights = {
                    (floor(u) + a, floor(v) + d): abs(1 - a - (u - floor(u))) * abs(1 - d - (v - floor(v)))
                    for a in (0, 1)
                    for d in (0, 1)
                }
                out[b, i, j] = sum(weight * pixel(images[which], *at, border) for at, weight in weights.items())
    return out


@pytest.mark.parametrize("border", ["zero", "reflect"])
@pytest.mark.parametrize("shape", [(3, 6, 7, 3), (3, 7, 4, 1), (3, 1, 5, 1), (3, 5, 1, 3)])
@pytest.mark.parametrize("bent", [True, False])
def test_warp_is_its_definition(shape, border: str, bent: bool, backend) -> None:
    rng = np.random.default_rng(1)
    images, index = noise(*shape), np.array([2, 0, 0, 1])
    matrix = affine_matrix(rng.uniform(-180, 180, 4).astype(np.float32), rng.uniform(0.4, 1.6, 4).astype(np.float32))
    field = (4 * rng.standard_normal((4, 2, *shape[1:3]))).astype(np.float32) if bent else None
    args = [backend.to_device(a) if isinstance(a, np.ndarray) else a for a in (images, index, matrix, field)]
    found = backend.to_host(backend.run(warp, *args, border))
    assert (found.shape, found.dtype) == ((4, *shape[1:]), np.uint8)
    wanted = by_loops(images, index, matrix, field, border)
    assert np.abs(found - wanted).max() <= 0.5 + 1e-3  # rounded to bytes


@pytest.mark.parametrize("border", ["zero", "reflect"])
def test_the_identity_changes_nothing(border: str) -> None:
    images, index = noise(3, 6, 7, 3), np.array([1, 2, 1])
    matrix = affine_matrix(0 * ones(3), ones(3))
    for field in (None, np.zeros((3, 2, 6, 7), np.float32)):
        assert np.array_equal(warp(images, index, matrix, field, border), images[index])


@pytest.mark.parametrize("quarters", range(-3, 5))
@pytest.mark.parametrize("side", [6, 7])
def test_quarter_turns_go_counter_clockwise(quarters: int, side: int) -> None:
    images = noise(2, side, side, 3)
    found = warp(images, np.array([0, 1]), affine_matrix(90 * quarters * ones(2), ones(2)), None, "zero")
    # a place that is rounded just beyond the edge is blended with the black there: a level at most
    assert np.abs(found.astype(int) - np.rot90(images, quarters, axes=(1, 2))).max() <= 1


def test_angles_and_enlargements_make_the_matrix() -> None:
    found = affine_matrix(np.array([30, -45], np.float32), np.array([1, 2], np.float32))
    for matrix, angle, zoom in zip(found, (30, -45), (1, 2), strict=True):
        a = radians(angle)
        np.testing.assert_allclose(matrix, np.array([[cos(a), sin(a)], [-sin(a), cos(a)]]) / zoom, atol=1e-7)
    assert found.dtype == np.float32


def test_enlarging_shows_the_middle_larger() -> None:
    image = np.zeros((1, 20, 20, 1), np.uint8)
    image[:, 5:15, 5:15] = 200
    areas = [
        warp(image, np.array([0]), affine_matrix(0 * ones(1), zoom * ones(1)), None, "zero").sum() / image.sum()
        for zoom in (0.5, 1.0, 1.5)
    ]
    np.testing.assert_allclose(areas, [0.25, 1.0, 2.25], rtol=0.02)


def test_a_field_of_whole_pixels_moves_them() -> None:
    images = noise(1, 6, 7, 3)
    field = np.zeros((1, 2, 6, 7), np.float32)
    field[:, 0], field[:, 1] = 2, -1
    found = warp(images, np.array([0]), affine_matrix(0 * ones(1), ones(1)), field, "zero")
    wanted = np.zeros_like(images)
    wanted[:, :4, 1:] = images[:, 2:, :6]
    assert np.array_equal(found, wanted)


@pytest.mark.parametrize("shape", [(5, 6, 3), (3, 3, 1), (1, 1, 1), (28, 28, 1)])
def test_noise_belongs_to_its_image(shape, backend) -> None:
    index = np.array([7, 0, 2**32 - 1, 7])
    found = backend.to_host(backend.run(noise_planes, backend.to_device(index), shape, SEED, STREAM, EPOCH))
    size = 2 * shape[0] * shape[1]
    assert (found.shape, found.dtype) == ((4, 2, *shape[:2]), np.float32)
    for planes, member in zip(found, index.tolist(), strict=True):
        words = bits((size,), seed=SEED, stream=STREAM, step=EPOCH + (member << 32))
        assert np.array_equal(planes.ravel(), (words >> 8) * 2.0**-23 - 1)


def test_noise_is_uniform_and_new_in_every_epoch() -> None:
    first, second = (noise_planes(np.arange(40), (28, 28, 1), SEED, STREAM, epoch) for epoch in (0, 1))
    assert first.min() < -0.999
    assert 0.999 < first.max() < 1.0
    assert abs(first.mean()) < 0.012  # five standard deviations
    assert abs(first.var() - 1 / 3) < 0.006
    for others in (second, np.roll(first, 1, axis=0), first[:, ::-1]):
        assert abs((first * others).mean()) < 0.007


@pytest.mark.parametrize(("h", "w", "sigma"), [(28, 28, 4.0), (9, 14, 1.3), (5, 7, 6.0), (3, 3, 0.1)])
def test_smoothing_is_scipys_gaussian(h: int, w: int, sigma: float, backend) -> None:
    ndimage = pytest.importorskip("scipy.ndimage")  # comes with scikit-learn
    planes = np.random.default_rng(0).uniform(-1, 1, (3, 2, h, w)).astype(np.float32)
    found = backend.to_host(backend.run(smooth, backend.to_device(planes), 34.0, sigma))
    wanted = ndimage.gaussian_filter(planes.astype(float), (0, 0, sigma, sigma), mode="constant", truncate=4.0)
    assert (found.shape, found.dtype) == (planes.shape, np.float32)
    np.testing.assert_allclose(found, 34 * wanted, atol=2e-5)


def test_smoothing_a_plane_does_not_depend_on_the_others() -> None:
    planes = np.random.default_rng(0).uniform(-1, 1, (7, 2, 28, 28)).astype(np.float32)
    whole = smooth(planes, 34.0, 4.0)
    for b in range(7):
        assert np.array_equal(smooth(planes[b : b + 1], 34.0, 4.0)[0], whole[b])
