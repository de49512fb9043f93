"""Mixup and cutmix: against loops over pixels, their weights, and what a run makes of the labels."""

import numpy as np
import pytest
import strict_cupy
from strict_cupy import STRICT

from gpucnn import optim
from gpucnn.data import Augmentation, Dataset, Loader
from gpucnn.data.augment.mixing import Mix, cutmix, cutmix_box, mixed_labels, mixup, sample_mixes
from gpucnn.layers import Flatten, Linear, Sequential
from gpucnn.losses import softmax_cross_entropy
from gpucnn.metrics import count_correct
from gpucnn.training.trainer import Trainer

SHAPE = (6, 5, 3)
MIXUP, CUTMIX = Augmentation(mixup=0.4), Augmentation(cutmix=1.0)
BOTH = Augmentation(flip=True, crop=1, cutout=2, mixup=0.4, cutmix=1.0, mixup_prob=0.7)


def batch(count: int = 5) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, *SHAPE)).astype(np.float32)


def noise(count: int = 23) -> Dataset:
    """A pattern for each class, under noise."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, count).astype(np.uint8)
    images = rng.integers(0, 128, (4, *SHAPE))[labels] + rng.integers(0, 128, (count, *SHAPE))
    return Dataset("noise", images.astype(np.uint8), labels, tuple("abcd"))


def loader(augmentation: Augmentation, **options) -> Loader:
    dataset = noise()
    options = {"mean": dataset.mean, "std": dataset.std, "shuffle": True, "seed": 5, **options}
    return Loader(dataset, 4, augmentation=augmentation, **options)


@pytest.mark.parametrize("count", [1, 4, 5])
@pytest.mark.parametrize("weight", [0.0, 0.3, 0.5, 1.0])
def test_mixup_is_its_definition(count: int, weight: float, backend) -> None:
    x = batch(count)
    found = backend.to_host(backend.run(mixup, backend.to_device(x), weight))
    assert found.dtype == np.float32
    for b, image in enumerate(found):
        wanted = weight * x[b].astype(float) + (1 - weight) * x[count - 1 - b].astype(float)
        np.testing.assert_allclose(image, wanted, rtol=0, atol=5e-7)


@pytest.mark.parametrize("box", [(0, 6, 0, 5), (1, 4, 2, 3), (2, 2, 0, 5), (5, 6, 4, 5)])
def test_cutmix_is_its_definition(box, backend) -> None:
    x, (top, bottom, left, right) = batch(), box
    found = backend.to_host(backend.run(cutmix, backend.to_device(x), *box))
    for b in range(5):
        for i in range(SHAPE[0]):
            for j in range(SHAPE[1]):
                inside = top <= i < bottom and left <= j < right
                assert np.array_equal(found[b, i, j], x[4 - b if inside else b, i, j])


def test_labels_are_mixed_as_the_images_are(backend) -> None:
    rows = backend.to_host(mixed_labels(backend.to_device(np.array([2, 0, 3, 2])), 4, 0.25))
    assert rows.dtype == np.float32
    assert rows.tolist() == [[0, 0, 1, 0], [0.25, 0, 0, 0.75], [0.75, 0, 0, 0.25], [0, 0, 1, 0]]


def test_a_mixed_label_counts_by_its_larger_weight(backend) -> None:
    rows = np.array([[0.4, 0.6, 0], [0.4, 0.6, 0], [0, 0, 1], [0.9, 0, 0.1]], np.float32)
    logits = np.eye(3, dtype=np.float32)[[1, 0, 2, 2]]
    found = backend.run(count_correct, backend.to_device(logits), backend.to_device(rows))
    assert int(backend.to_host(found)) == 2


def test_the_loss_is_the_mean_of_both_labels_losses(backend) -> None:
    rng = np.random.default_rng(1)
    logits, labels = rng.standard_normal((5, 4)).astype(np.float32), rng.integers(0, 4, 5)
    on = backend.to_device
    found = backend.run(softmax_cross_entropy, on(logits), mixed_labels(on(labels), 4, 0.3), smoothing=0.1)
    parts = [softmax_cross_entropy(logits.astype(float), given, smoothing=0.1) for given in (labels, labels[::-1])]
    for got, own, other in zip(found, *parts, strict=True):
        np.testing.assert_allclose(backend.to_host(got), 0.3 * own + 0.7 * other, atol=1e-6)


def test_weights_are_sampled_as_asked() -> None:
    plain = [mix.weight for mix in sample_mixes(MIXUP, 4000, SHAPE, seed=1, epoch=0)]
    assert all(mix.box is None for mix in sample_mixes(MIXUP, 50, SHAPE, seed=1, epoch=0))
    variance = 1 / (4 * (2 * 0.4 + 1))  # of Beta(alpha, alpha)
    assert abs(np.mean(plain) - 0.5) < 5 * (variance / 4000) ** 0.5
    assert abs(np.var(plain) - variance) < 0.01
    half = sample_mixes(BOTH, 4000, SHAPE, seed=1, epoch=0)
    assert abs(np.mean([mix.weight < 1 for mix in half]) - 0.7) < 0.06  # a small box may have no pixel
    boxes = sum(mix.box is not None for mix in half)
    assert abs(boxes / 4000 - 0.5) < 0.04


def test_every_box_lies_in_the_image_and_has_its_area() -> None:
    shape, corners = (9, 14, 3), set()
    for mix in sample_mixes(CUTMIX, 3000, shape, seed=2, epoch=1):
        assert mix.box is not None
        top, bottom, left, right = mix.box
        assert 0 <= top <= bottom <= 9
        assert 0 <= left <= right <= 14
        assert mix.weight == 1 - (bottom - top) * (right - left) / (9 * 14)
        corners.add((top, left))
    assert len(corners) == 9 * 14 or len(corners) > 100


@pytest.mark.parametrize(
    ("weight", "row", "column", "mix"),
    [
        (0.0, 0.5, 0.5, Mix(0.0, (0, 8, 0, 12))),  # all of the partner
        (0.75, 0.5, 0.5, Mix(0.75, (2, 6, 3, 9))),
        (0.75, 0.0, 0.999, Mix(1 - 2 * 4 / 96, (0, 2, 8, 12))),  # cut off at a corner
        (1.0, 0.5, 0.5, Mix(1.0, (4, 4, 6, 6))),
    ],
)
def test_boxes_by_hand(weight: float, row: float, column: float, mix: Mix) -> None:
    assert cutmix_box(weight, row, column, (8, 12, 3)) == mix


@pytest.mark.parametrize("augmentation", [MIXUP, CUTMIX, BOTH])
def test_batches_are_the_plain_ones_mixed(augmentation: Augmentation) -> None:
    alone = Augmentation(**{**vars(augmentation), "mixup": 0.0, "cutmix": 0.0})
    mixes = loader(augmentation).sample_epoch(3)[2]
    assert len({mix.weight for mix in mixes}) > 2
    batches = zip(loader(augmentation).epoch(3), loader(alone).epoch(3), mixes, strict=True)
    for (x, rows), (plain, labels), mix in batches:
        if mix.weight < 1:
            plain = cutmix(plain, *mix.box) if mix.box else mixup(plain, mix.weight)
        assert np.array_equal(x, plain)
        assert np.array_equal(rows, mixed_labels(labels, 4, mix.weight))
        np.testing.assert_allclose(rows.sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("start", range(7))
def test_an_epoch_goes_on_where_it_stopped(start: int) -> None:
    whole, rest = list(loader(BOTH).epoch(4)), list(loader(BOTH).epoch(4, start))
    assert len(rest) == 6 - start if start < 6 else not rest
    for (x, rows), (wanted, wanted_rows) in zip(rest, whole[start:], strict=True):
        assert np.array_equal(x, wanted)
        assert np.array_equal(rows, wanted_rows)


def test_epochs_and_seeds_mix_differently() -> None:
    seen = {
        tuple(mix.weight for mix in sample_mixes(MIXUP, 5, SHAPE, seed=seed, epoch=epoch))
        for seed in (0, 1, 2**40)
        for epoch in (0, 1)
    }
    assert len(seen) == 6


def test_mixing_waits_for_no_device_and_gives_the_same_batches() -> None:
    strict_cupy.reset()
    found = list(loader(BOTH, backend=STRICT).epoch(2))
    assert strict_cupy.syncs == 0
    for (x, rows), (wanted, wanted_rows) in zip(found, loader(BOTH).epoch(2), strict=True):
        assert np.array_equal(STRICT.to_host(x), wanted)
        assert np.array_equal(STRICT.to_host(rows), wanted_rows)


def test_it_trains_on_mixed_batches(backend) -> None:
    trainer = Trainer(
        Sequential(Flatten(), Linear(90, 4)), optim.SGD(0.1), backend=backend, batch_size=6, augmentation=MIXUP
    )
    reports = list(trainer.fit(noise(), noise(), epochs=20))
    assert reports[-1].train_loss < reports[0].train_loss
    assert reports[-1].test_accuracy > 0.9
    assert 0.4 < reports[-1].train_accuracy <= 1.0
