"""Brightness and contrast: against loops over values."""

from math import floor

import numpy as np
import pytest

from gpucnn.data.augment.colour import jitter


@pytest.mark.parametrize("shape", [(5, 4, 7, 3), (5, 3, 3, 1)])
def test_jitter_is_its_definition(shape, backend) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, shape).astype(np.uint8)
    brightness, contrast = (rng.uniform(0, 2, shape[0]).astype(np.float32) for _ in range(2))
    found = backend.to_host(backend.run(jitter, *map(backend.to_device, (pixels, brightness, contrast))))
    assert (found.shape, found.dtype) == (shape, np.uint8)
    for image, before, b, c in zip(found, pixels.astype(float), brightness.tolist(), contrast.tolist(), strict=True):
        mean = before.mean()
        for value, p in zip(image.ravel().tolist(), before.ravel().tolist(), strict=True):
            assert abs(value - min(max(b * (c * (p - mean) + mean), 0), 255)) <= 0.5 + 1e-4
    assert (found == 255).any()
    assert (found == 0).any()


def test_factors_of_one_change_nothing() -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(4, 8, 8, 1)
    one = np.ones(4, np.float32)
    assert np.array_equal(jitter(pixels, one, one), pixels)


def test_no_contrast_is_the_mean_and_no_brightness_is_black() -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(4, 8, 8, 1)
    one, zero = np.ones(4, np.float32), np.zeros(4, np.float32)
    for image, before in zip(jitter(pixels, one, zero), pixels, strict=True):
        assert (image == floor(before.mean() + 0.5)).all()
    assert not jitter(pixels, zero, one).any()
