"""Test-time augmentation against padding and slicing."""

import numpy as np
import pytest

from gpucnn.backend import Backend
from gpucnn.errors import ShapeError
from gpucnn.inference.tta import VIEWS, View, apply_view, mean_over_views

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("down", [-2, 0, 1])
@pytest.mark.parametrize("right", [-1, 0, 2])
@pytest.mark.parametrize("mirror", [False, True])
def test_a_view_is_a_window_of_the_padded_image(down: int, right: int, mirror: bool, backend: Backend) -> None:
    x = RNG.standard_normal((2, 5, 4, 3)).astype(np.float32)
    padded = np.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="reflect")
    wanted = padded[:, 2 + down : 7 + down, 2 + right : 6 + right]
    got = backend.to_host(apply_view(backend.to_device(x), View(1.0, down, right, mirror)))
    np.testing.assert_array_equal(got, wanted[:, :, ::-1] if mirror else wanted)


def test_views_are_the_papers() -> None:
    # half of the weight on the image and its mirror image, a quarter on each of two corners of the padded one
    x = RNG.standard_normal((3, 6, 6, 2))
    w = RNG.standard_normal((72, 4))

    def model(images: np.ndarray) -> np.ndarray:
        return np.tanh(images.reshape(len(images), -1) @ w)

    def both(images: np.ndarray) -> np.ndarray:
        return 0.5 * model(images) + 0.5 * model(images[:, :, ::-1])

    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    wanted = 0.5 * both(x) + 0.25 * both(padded[:, :6, :6]) + 0.25 * both(padded[:, 2:, 2:])
    np.testing.assert_allclose(mean_over_views(model, x, VIEWS["multicrop"]), wanted, atol=1e-12)
    np.testing.assert_allclose(mean_over_views(model, x, VIEWS["flip"]), both(x), atol=1e-12)
    still = 0.5 * model(x) + 0.25 * model(padded[:, :6, :6]) + 0.25 * model(padded[:, 2:, 2:])
    np.testing.assert_allclose(mean_over_views(model, x, VIEWS["shift"]), still, atol=1e-12)
    np.testing.assert_array_equal(mean_over_views(model, x, VIEWS["none"]), model(x))


@pytest.mark.parametrize("name", VIEWS)
def test_weights_add_up_to_one(name: str) -> None:
    assert sum(view.weight for view in VIEWS[name]) == 1.0


def test_an_image_that_is_too_small_to_move_is_refused() -> None:
    with pytest.raises(ShapeError, match="by 1 pixels"):
        apply_view(np.zeros((1, 1, 4, 3)), VIEWS["multicrop"][-1])
