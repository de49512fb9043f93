"""The look-up of pixels by CUDA where places lie far outside or are none, and what it shares with its source."""

import re

import numpy as np
import pytest
from gpu_samples import TABLE

from gpucnn.data.augment.warp import warp
from gpucnn.kernels.gpu import warp as kernel


def arguments(field: np.ndarray, border: str, channels: int) -> tuple[object, ...]:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, *field.shape[2:], channels), dtype=np.uint8)
    matrix = rng.standard_normal((len(field), 2, 2)).astype(np.float32)
    return images, rng.integers(0, 5, len(field)), matrix, field, border


@pytest.mark.parametrize("border", ["zero", "reflect"])
@pytest.mark.parametrize("shape", [(6, 7, 1), (1, 9, 3), (4, 1, 2)])
def test_places_far_outside_are_the_ops(border: str, shape: tuple[int, int, int], emulator) -> None:
    """Up to 2^62: whole numbers that 32 bits do not hold."""
    rng = np.random.default_rng(1)
    size = (8, 2, *shape[:2])
    field = (rng.uniform(-1, 1, size) * 2.0 ** rng.integers(-3, 62, size)).astype(np.float32)
    args = arguments(field, border, shape[2])
    np.testing.assert_array_equal(TABLE[warp].run(*args), warp(*args))


@pytest.mark.parametrize("border", ["zero", "reflect"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30, -1e30])
def test_nan_and_far_places_stay_inside_the_images(border: str, value: float, emulator) -> None:
    """The emulator stops whoever reads beside them."""
    field = np.full((3, 2, 6, 7), value, np.float32)
    assert TABLE[warp].run(*arguments(field, border, 3)).shape == (3, 6, 7, 3)


def test_images_are_counted_from_the_end_as_by_the_op(emulator) -> None:
    images, _, matrix, field, border = arguments(np.ones((3, 2, 6, 7), np.float32), "reflect", 3)
    index = np.array([-1, 4, -5])
    np.testing.assert_array_equal(
        TABLE[warp].run(images, index, matrix, field, border), warp(images, index, matrix, field, border)
    )


def test_the_limits_are_those_of_the_source() -> None:
    for name in ("PLANE", "DISTANCES"):
        (found,) = re.findall(rf"constexpr int {name} = (\d+);", kernel.MODULE.source)
        assert int(found) == getattr(kernel, name)
