"""The random parameters of each image, and settings that are refused."""

import numpy as np
import pytest
from strict_cupy import STRICT

from gpucnn.data import Augmentation
from gpucnn.data.augment.crop_flip import cover
from gpucnn.data.augment.settings import AugmentParams, sample_augmentation
from gpucnn.errors import UsageError

COUNT = 4000
SHAPE = (6, 5, 3)


def drawn(augmentation: Augmentation, epoch: int = 0, seed: int = 0, count: int = COUNT) -> AugmentParams:
    return sample_augmentation(augmentation, count, SHAPE, seed=seed, epoch=epoch, xp=np)


def test_half_are_mirrored_and_every_shift_and_centre_comes_up() -> None:
    found = drawn(Augmentation(flip=True, crop=2, cutout=3))
    assert found.centre is not None
    assert abs(found.flip.mean() - 0.5) < 0.04  # five standard deviations
    for pairs, rows, columns in ((found.shift, 5, 5), (found.centre, 6, 5)):
        assert pairs.dtype == np.int32
        places = np.bincount(pairs[:, 0] * columns + pairs[:, 1], minlength=rows * columns)
        assert len(places) == rows * columns
        assert abs(places - COUNT / places.size).max() < 65  # five standard deviations
        assert abs(np.corrcoef(found.flip, pairs[:, 0])[0, 1]) < 0.08
        assert abs(np.corrcoef(pairs[:, 0], pairs[:, 1])[0, 1]) < 0.08
    assert abs(np.corrcoef(found.shift[:, 0], found.centre[:, 0])[0, 1]) < 0.08


@pytest.mark.parametrize("side", [1, 2, 3, 5])
def test_squares_that_lie_inside_have_every_place_there(side: int) -> None:
    found = drawn(Augmentation(cutout=side, cutout_mode="inside"))
    assert found.centre is not None
    corners = found.centre - side // 2
    assert found.centre.dtype == np.int32
    assert {tuple(corner) for corner in corners.tolist()} == set(np.ndindex(6 - side + 1, 5 - side + 1))
    covered = (cover(np.ones((COUNT, *SHAPE), np.float32), found.centre, side) == 0).sum(axis=(1, 2, 3))
    assert (covered == side * side * SHAPE[2]).all()


@pytest.mark.parametrize("seed", [0, 2**40])
def test_alternating_mirrors_in_odd_epochs_what_it_did_not_in_even_ones(seed: int) -> None:
    first, *others = (drawn(Augmentation(flip=True, flip_mode="alternating"), epoch, seed).flip for epoch in range(5))
    assert abs(first.mean() - 0.5) < 0.04
    assert first.tolist() == drawn(Augmentation(flip=True), 0, seed).flip.tolist()
    for epoch, flip in enumerate(others, 1):
        assert np.array_equal(flip, first ^ (epoch % 2 == 1))


def test_random_flips_differ_between_epochs() -> None:
    first, second = (drawn(Augmentation(flip=True), epoch).flip for epoch in (0, 1))
    assert 0.45 < (first == second).mean() < 0.55


@pytest.mark.parametrize("mode", ["random", "alternating"])
def test_the_device_samples_the_same(mode: str) -> None:
    how = Augmentation(flip=True, crop=1, cutout=2, flip_mode=mode)
    wanted = drawn(how, 3, 9, 50)
    found = sample_augmentation(how, 50, SHAPE, seed=9, epoch=3, xp=STRICT.xp)
    for name in ("flip", "shift", "centre"):
        assert np.array_equal(STRICT.to_host(getattr(found, name)), getattr(wanted, name))


def test_angles_scales_and_factors_come_from_their_ranges() -> None:
    found = drawn(Augmentation(rotation=30, scale=0.2, brightness=0.4, contrast=0.1))
    assert found.matrix is not None
    cosine, sine = found.matrix[:, 0, 0].astype(float), found.matrix[:, 0, 1].astype(float)
    angle, zoom = np.degrees(np.arctan2(sine, cosine)), 1 / np.hypot(sine, cosine)
    for values, middle, radius in (
        (angle, 0, 30),
        (zoom, 1, 0.2),
        (found.brightness, 1, 0.4),
        (found.contrast, 1, 0.1),
    ):
        scaled = (values - middle) / radius
        assert abs(scaled).max() < 1 + 1e-4
        assert scaled.min() < -0.99
        assert scaled.max() > 0.99
        assert abs(scaled.mean()) < 5 / (3 * COUNT) ** 0.5
    assert abs(np.corrcoef(angle, zoom)[0, 1]) < 0.08
    assert abs(np.corrcoef(found.brightness, found.contrast)[0, 1]) < 0.08


def test_parameters_stay_with_their_images() -> None:
    how = Augmentation(flip=True, crop=2, cutout=3, rotation=5, brightness=0.1)
    whole, index = drawn(how), np.array([7, 0, 3999])
    some = whole.of(index)
    for name in ("flip", "shift", "centre", "matrix", "brightness", "contrast"):
        assert np.array_equal(getattr(some, name), getattr(whole, name)[index])


def test_a_larger_set_has_the_same_parameters_for_its_first_images() -> None:
    how = Augmentation(flip=True, crop=2, cutout=3)
    few, many = drawn(how, count=13), drawn(how)
    for name in ("flip", "shift", "centre"):
        assert np.array_equal(getattr(few, name), getattr(many, name)[:13])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"crop": -1}, "crop = -1"),
        ({"cutout": -1}, "cutout = -1"),
        ({"mixup": -0.1}, "mixup = -0.1"),
        ({"cutmix": float("inf")}, "cutmix = inf"),
        ({"rotation": 181.0}, "rotation = 181.0: give a number >= 0 and <= 180"),
        ({"scale": 1.0}, "scale = 1.0: give a number >= 0 and <= 0.9"),
        ({"elastic": -1.0}, "elastic = -1.0"),
        ({"elastic_sigma": 0.0}, "elastic_sigma = 0.0"),
        ({"brightness": float("nan")}, "brightness = nan"),
        ({"contrast": 2.0}, "contrast = 2.0"),
        ({"mixup_prob": 1.5}, "mixup_prob = 1.5: give a number >= 0 and <= 1"),
        ({"crop_mode": "zeros"}, "did you mean 'zero'?"),
        ({"crop_mode": "edge"}, "known are reflect, zero"),
        ({"cutout_mode": "clip"}, "did you mean 'clipped'?"),
        ({"flip_mode": "alternate"}, "did you mean 'alternating'?"),
    ],
)
def test_bad_settings_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Augmentation(**arguments)
    assert message in str(caught.value)


def test_settings_that_change_nothing_are_none() -> None:
    assert not Augmentation()
    assert not Augmentation(crop_mode="reflect", flip_mode="alternating", mixup_prob=0.5)
    assert all((Augmentation(flip=True), Augmentation(crop=1), Augmentation(cutout=1), Augmentation(mixup=0.1)))
