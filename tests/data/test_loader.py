"""Batches: every image once, the same bits for the same seed and epoch, whatever the batch size."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpucnn.backend import REFERENCE, Backend
from gpucnn.data import Augmentation, Dataset, Loader
from gpucnn.data.augment.crop_flip import gather_augment, gather_normalize
from gpucnn.errors import ShapeError, UsageError

SHAPE = (6, 5, 3)
MOVED = Augmentation(flip=True, crop=2, crop_mode="reflect")
COVERED = Augmentation(flip=True, crop=1, flip_mode="alternating", cutout=3)
BENT = Augmentation(flip=True, crop=1, rotation=20, scale=0.1, elastic=8.0, elastic_sigma=2.0, brightness=0.2)


def noise(count: int = 23, seed: int = 0) -> Dataset:
    """Images whose labels are their numbers."""
    images = np.random.default_rng(seed).integers(0, 256, (count, *SHAPE)).astype(np.uint8)
    return Dataset("noise", images, np.arange(count, dtype=np.uint8), tuple(map(str, range(count))))


def make(dataset: Dataset | None = None, batch_size: int = 7, **options: Any) -> Loader:
    dataset = dataset or noise()
    return Loader(dataset, batch_size, **{"mean": dataset.mean, "std": dataset.std, **options})


def drain(loader: Loader, epoch: int = 0, start: int = 0) -> tuple[np.ndarray, np.ndarray]:
    batches = list(loader.epoch(epoch, start))
    return np.concatenate([x for x, _ in batches]), np.concatenate([labels for _, labels in batches])


def test_in_order_and_normalised() -> None:
    dataset = noise()
    x, labels = drain(make(dataset))
    assert (x.dtype, labels.dtype) == (np.float32, np.int64)
    wanted = (dataset.images / 255 - np.array(dataset.mean)) / np.array(dataset.std)
    np.testing.assert_allclose(x, wanted, rtol=0, atol=2e-6)
    assert labels.tolist() == list(range(23))


def test_the_training_statistics_are_used_for_any_set() -> None:
    x, _ = drain(make(noise(seed=1), mean=(0.5, 0.25, 0.0), std=(0.5, 1.0, 2.0)))
    pixels = noise(seed=1).images / 255
    np.testing.assert_allclose(x, (pixels - [0.5, 0.25, 0.0]) / [0.5, 1.0, 2.0], atol=1e-6)


@given(st.integers(1, 40), st.integers(1, 50), st.booleans(), st.booleans())
def test_every_image_once(count: int, batch_size: int, shuffle: bool, drop_last: bool) -> None:
    if drop_last and batch_size > count:
        return
    loader = make(noise(count), batch_size, shuffle=shuffle, drop_last=drop_last)
    batches = list(loader.epoch(3))
    sizes = [len(labels) for _, labels in batches]
    assert len(batches) == len(loader)
    assert sum(sizes) == loader.examples == (count // batch_size * batch_size if drop_last else count)
    assert all(size == batch_size for size in sizes[:-1])
    assert 0 < sizes[-1] <= batch_size
    assert all(x.shape == (len(labels), *SHAPE) for x, labels in batches)
    seen = np.concatenate([labels for _, labels in batches])
    assert len(set(seen.tolist())) == len(seen)
    if not drop_last:
        assert sorted(seen) == list(range(count))


def test_two_epochs_show_both_sides_of_each_image() -> None:
    both = [drain(make(augmentation=Augmentation(flip=True, flip_mode="alternating")), epoch)[0] for epoch in (0, 1)]
    plain, _ = drain(make())
    for image, first, second in zip(plain, *both, strict=True):
        sides = [image.tobytes(), image[:, ::-1].tobytes()]
        assert sorted([first.tobytes(), second.tobytes()]) == sorted(sides)


def test_labels_stay_with_their_images() -> None:
    dataset = noise()
    x, labels = drain(make(dataset, shuffle=True))
    in_order, _ = drain(make(dataset))
    assert np.array_equal(x, in_order[labels])
    assert labels.tolist() != sorted(labels)


@pytest.mark.parametrize("augmentation", [None, MOVED, COVERED, BENT, Augmentation(crop=1), Augmentation(flip=True)])
def test_the_batch_size_changes_nothing_else(augmentation: Augmentation | None) -> None:
    x, labels = drain(make(batch_size=23, shuffle=True, augmentation=augmentation, seed=5), epoch=2)
    for batch_size in (1, 7, 22, 24, 1000):
        again = drain(make(batch_size=batch_size, shuffle=True, augmentation=augmentation, seed=5), epoch=2)
        assert np.array_equal(again[0], x)
        assert np.array_equal(again[1], labels)


def test_what_happens_to_an_image_does_not_depend_on_the_order() -> None:
    x, labels = drain(make(shuffle=True, augmentation=MOVED))
    in_order, _ = drain(make(augmentation=MOVED))
    assert np.array_equal(x, in_order[labels])


@pytest.mark.parametrize("augmentation", [MOVED, COVERED, BENT])
@pytest.mark.parametrize("start", range(5))
def test_an_epoch_goes_on_where_it_stopped(start: int, augmentation: Augmentation) -> None:
    loader = make(shuffle=True, augmentation=augmentation, seed=9)
    whole = list(loader.epoch(5))
    rest = list(make(shuffle=True, augmentation=augmentation, seed=9).epoch(5, start))
    assert len(rest) == len(whole) - start
    for (x, labels), (wanted, wanted_labels) in zip(rest, whole[start:], strict=True):
        assert np.array_equal(x, wanted)
        assert np.array_equal(labels, wanted_labels)


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 1, 0)])
def test_an_epoch_that_is_sampled_early_is_the_same(order: tuple[int, ...]) -> None:
    """On a device that runs ahead the next epoch is sampled with the last batch, wanted or not."""
    running = make(backend=replace(REFERENCE, synchronous=False), shuffle=True, augmentation=MOVED)
    for epoch in order:
        found = drain(running, epoch)
        assert list(running.ahead) == [epoch + 1]
        for part, wanted in zip(found, drain(make(shuffle=True, augmentation=MOVED), epoch), strict=True):
            np.testing.assert_array_equal(part, wanted)


def test_seeds_and_epochs_differ() -> None:
    orders = {
        tuple(drain(make(shuffle=True, seed=seed), epoch)[1].tolist()) for seed in (0, 1, 2**40) for epoch in (0, 1, 2)
    }
    assert len(orders) == 9
    moved = {drain(make(augmentation=MOVED, seed=seed), epoch)[0].tobytes() for seed in (0, 1) for epoch in (0, 1)}
    assert len(moved) == 4


@pytest.mark.parametrize("augmentation", [Augmentation(flip=True), Augmentation(crop=2), Augmentation(cutout=2),
     Augmentation(rotation=9), Augmentation(scale=0.2), Augmentation(elastic=9.0), Augmentation(brightness=0.2),
     Augmentation(contrast=0.2)],
)  # fmt: skip
def test_every_parameter_differs_between_epochs_and_seeds(augmentation: Augmentation) -> None:
    runs = [(seed, epoch) for seed in (0, 1) for epoch in (0, 1, 2)]
    seen = {drain(make(augmentation=augmentation, seed=seed), epoch)[0].tobytes() for seed, epoch in runs}
    assert len(seen) == 6


def test_the_order_stays_what_it_was() -> None:
    """A resumed run must see the batches that the interrupted one would have seen, in every version."""
    _, labels = drain(make(shuffle=True, seed=3), epoch=1)
    assert labels.tolist() == [
        18,
        4,
        21,
        16,
        14,
        10,
        20,
        0,
        22,
        17,
        9,
        5,
        15,
        19,
        12,
        7,
        11,
        6,
        2,
        1,
        3,
        13,
        8,
    ]


class Recorder:
    """A backend's to_device and kernels, with a note of each call."""

    def __init__(self) -> None:
        self.sent: list[np.ndarray] = []
        self.ran: list[str] = []

    def backend(self) -> Backend:
        recorder = self

        class Spy(Backend):
            def to_device(self, host: np.ndarray) -> np.ndarray:
                recorder.sent.append(host)
                return super().to_device(host)

            def run(self, op: Any, *args: Any, **kwargs: Any) -> Any:
                recorder.ran.append(op.__name__)
                return super().run(op, *args, **kwargs)

        return Spy("spy", np)


@pytest.mark.parametrize(("augmentation", "op"), [(None, gather_normalize), (MOVED, gather_augment)])
def test_images_are_sent_once_as_bytes_and_batches_are_ops(augmentation: Augmentation | None, op: Any) -> None:
    recorder = Recorder()
    loader = make(backend=recorder.backend(), augmentation=augmentation)
    sent = [(array.dtype, array.shape) for array in recorder.sent]
    assert (np.dtype(np.uint8), (23, *SHAPE)) in sent
    for epoch in range(2):
        drain(loader, epoch)
    assert len(recorder.sent) == len(sent)
    assert recorder.ran == [op.__name__] * 8


def test_a_kernel_takes_the_place_of_the_op() -> None:
    def kernel(images: np.ndarray, index: np.ndarray, mean: np.ndarray, inv_std: np.ndarray) -> np.ndarray:
        return np.full((len(index), *images.shape[1:]), 42, np.float32)

    x, _ = drain(make(backend=replace(REFERENCE, kernels={gather_normalize: kernel})))
    assert (x == 42).all()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"batch_size": 0}, UsageError, "batch_size = 0"),
        ({"batch_size": 24, "drop_last": True}, UsageError, "batch_size = 24 with drop_last leaves no batch"),
        ({"mean": (0.5,)}, ShapeError, "mean = (0.5,) for images (6, 5, 3)"),
        ({"std": ()}, ShapeError, "std = ()"),
        ({"std": (1.0, 0.0, 1.0)}, ShapeError, "give positive numbers"),
        ({"std": (1.0, float("nan"), 1.0)}, ShapeError, "give positive numbers"),
        ({"augmentation": Augmentation(crop=5)}, UsageError, "crop = 5 for images of 6 x 5: give at most 4"),
        ({"augmentation": Augmentation(cutout=6)}, UsageError, "cutout = 6 for images of 6 x 5: give at most 5"),
    ],
)
def test_bad_arguments_are_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        make(**options)
    assert message in str(caught.value)


def test_a_batch_larger_than_the_data_is_all_of_it() -> None:
    loader = make(batch_size=100)
    assert (len(loader), loader.examples) == (1, 23)
    assert drain(loader)[0].shape == (23, *SHAPE)
