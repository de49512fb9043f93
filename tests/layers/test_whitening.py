"""Whitening: covariance and filters against NumPy's definitions, the layer on every backend, when it is fitted."""

import numpy as np
import pytest
from trainer_settings import copy_state

from gpucnn import optim
from gpucnn.data import Dataset
from gpucnn.errors import ShapeError
from gpucnn.layers import GELU, Flatten, Linear, Sequential, Whitening
from gpucnn.layers.whitening import IMAGES, patch_covariance, whiten, whitening_filters
from gpucnn.training.trainer import Trainer

RNG = np.random.default_rng(4)
KERNEL = (2, 2)


def smooth(count: int, seed: int = 0) -> np.ndarray:
    """Bytes whose neighbours and channels are alike, as in photographs."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 256, (count, 9, 8, 1)) + rng.integers(-40, 40, (count, 9, 8, 3))
    blurred = sum(np.roll(noise, (i, j), (1, 2)) for i in range(3) for j in range(3)) / 9
    return blurred.clip(0, 255).astype(np.uint8)


def patches_by_loops(x: np.ndarray) -> np.ndarray:
    n, h, w, _ = x.shape
    return np.array([x[k, i : i + 2, j : j + 2].ravel() for k in range(n) for i in range(h - 1) for j in range(w - 1)])


MEAN, STD = (0.5, 0.4, 0.6), (0.2, 0.3, 0.25)


@pytest.mark.parametrize("count", [3, 121])  # 121: more than are laid out at once
def test_the_covariance_is_that_of_all_patches_without_a_mean(backend, count) -> None:
    images = smooth(count)
    p = patches_by_loops((images / 255.0 - MEAN) / STD)
    np.testing.assert_allclose(patch_covariance(images, KERNEL, MEAN, STD, backend), p.T @ p / len(p), rtol=1e-11)


def test_floats_have_a_scale_of_their_own() -> None:
    images = (smooth(20) / 9 - 7).astype(np.float32)
    p = patches_by_loops((images.astype(float) - MEAN) / STD)
    np.testing.assert_allclose(patch_covariance(images, KERNEL, MEAN, STD), p.T @ p / len(p), rtol=1e-9)


def test_every_backend_makes_the_same_filters_to_the_bit(backend) -> None:
    """On other machines too: the sums are exact, and the rest is done on the host."""
    images = smooth(60)
    np.testing.assert_array_equal(
        patch_covariance(images, KERNEL, MEAN, STD, backend), patch_covariance(images, KERNEL, MEAN, STD)
    )


def test_filtered_patches_have_the_identity_as_covariance() -> None:
    p = patches_by_loops(smooth(20) / 255.0 - 0.5)
    filters = whitening_filters(p.T @ p / len(p), 0.0)
    responses = p @ filters[:12].T
    np.testing.assert_allclose(responses.T @ responses / len(p), np.eye(12), atol=1e-9)
    np.testing.assert_array_equal(filters[12:], -filters[:12])


def test_eps_holds_back_what_hardly_varies() -> None:
    p = patches_by_loops(smooth(20) / 255.0 - 0.5)
    covariance = p.T @ p / len(p)
    eps = 5e-4
    responses = p @ whitening_filters(covariance, eps)[:12].T
    values = np.linalg.eigvalsh(covariance)[::-1]
    np.testing.assert_allclose(responses.T @ responses / len(p), np.diag(values / (values + eps)), atol=1e-9)


def test_signs_do_not_depend_on_the_library() -> None:
    vectors, _ = np.linalg.qr(RNG.standard_normal((6, 6)))
    values = np.array([6.0, 5.0, 4.0, 3.0, 2.0, 1.0])
    filters = whitening_filters(vectors * values @ vectors.T, 0.0)[:6]
    for k, row in enumerate(filters):
        same = row * np.sqrt(values[k]) / vectors[:, k]
        np.testing.assert_allclose(same, same[0], rtol=1e-8)  # an eigenvector, with one sign or the other
        first = np.flatnonzero(abs(row) >= abs(row).max() / 2)[0]
        assert row[first] > 0


def test_the_layer_whitens_what_it_sees(backend) -> None:
    images = smooth(30)
    layer = Whitening(3, eps=1e-6).initialize(0, backend)
    before = backend.to_host(layer.weight.data).copy()
    whiten(layer, images, MEAN, STD)
    assert (backend.to_host(layer.weight.data) != before).any()
    x = ((images / 255.0 - MEAN) / STD).astype(np.float32)
    y = backend.to_host(layer(backend.to_device(x)))
    assert y.shape == (30, 8, 7, 24)
    responses = y.reshape(-1, 24)[:, :12].astype(np.float64)
    np.testing.assert_allclose(responses.T @ responses / len(responses), np.eye(12), atol=2e-3)
    np.testing.assert_allclose(y[..., 12:], -y[..., :12], atol=1e-4)


def test_only_the_bias_gets_a_gradient() -> None:
    layer = Whitening(3).initialize()
    y = layer(RNG.standard_normal((2, 4, 4, 3)).astype(np.float32))
    dx = layer.backward(np.ones_like(y))
    assert dx.shape == (2, 4, 4, 3)
    np.testing.assert_allclose(layer.bias.grad, np.full(24, 18.0))
    assert not layer.weight.grad.any()
    assert (layer.weight.group, layer.bias.group) == ("frozen", "whiten")


def test_the_first_images_are_enough() -> None:
    images = np.concatenate([np.tile(smooth(50), (IMAGES // 50, 1, 1, 1)), 255 - smooth(10, seed=9)])
    found = []
    for some in (images, images[:IMAGES]):
        layer = Whitening(3).initialize()
        whiten(layer, some, (0.5,) * 3, (0.25,) * 3)
        found.append(layer.weight.data.copy())
    np.testing.assert_array_equal(*found)


def test_images_of_another_kind_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"Whitening\(in_channels=3\)"):
        Whitening(3).initialize().fit(np.zeros((2, 4, 4, 1), dtype=np.uint8), MEAN, STD)


@pytest.mark.parametrize(("mean", "std"), [((0.5,), STD), (MEAN, (0.2, 0.3))])
def test_statistics_of_another_number_of_channels_are_refused(mean, std) -> None:
    with pytest.raises(ShapeError, match="give 3 numbers, one per channel"):
        Whitening(3).initialize().fit(smooth(2), mean, std)


def data() -> Dataset:
    return Dataset("smooth", smooth(24), (np.arange(24) % 2).astype(np.uint8), ("a", "b"))


def trainer() -> Trainer:
    model = Sequential(Whitening(3), GELU(), Flatten(), Linear(8 * 7 * 24, 2))
    return Trainer(model, optim.SGD(0.01, momentum=0.9, weight_decay=0.1), batch_size=8)


def test_a_fresh_run_fits_the_filters_and_training_leaves_them_alone() -> None:
    run = trainer()
    list(run.fit(data(), data(), epochs=2))
    wanted = Whitening(3).initialize()
    whiten(wanted, data().images, data().mean, data().std)
    np.testing.assert_array_equal(run.model.state_dict()["0.weight"], wanted.weight.data)
    assert run.model.state_dict()["0.bias"].any()


def test_a_resumed_run_keeps_the_filters_of_its_checkpoint() -> None:
    first = trainer()
    list(first.fit(data(), data(), epochs=1))
    state = first.model.state_dict()
    state["0.weight"] = np.full_like(state["0.weight"], 0.125)
    second = trainer()
    copy_state(first, second)
    second.model.load_state_dict(state)
    list(second.fit(data(), data(), epochs=2))
    assert (second.model.state_dict()["0.weight"] == 0.125).all()
