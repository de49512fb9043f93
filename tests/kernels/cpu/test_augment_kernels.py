"""Batches of images: the op's to the bit, and nothing read that is not there."""

import re

import numpy as np
import pytest

pytest.importorskip("numba")

from outcomes import accepts

from gpucnn.data import Augmentation, Dataset, Loader
from gpucnn.data.augment.crop_flip import gather_augment, gather_normalize
from gpucnn.devices import cpu

if reason := cpu.problem():
    pytest.skip(reason, allow_module_level=True)

TABLE, BACKEND = cpu.table(), cpu.cpu_backend()
MEAN, INV_STD = np.array([0.4914, 0.4822, 0.4465], np.float32), 1 / np.array([0.247, 0.2435, 0.2616], np.float32)


def batch(shape, count, crop, seed=0):
    """Images (7,...), which of them, whether to mirror, and corners, first and last among them."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (7, *shape), dtype=np.uint8)
    shift = rng.integers(0, 2 * crop + 1, (count, 2))
    shift[:2] = [[0, 2 * crop], [2 * crop, 0]][:count]
    return images, rng.integers(0, 7, count), rng.random(count) < 0.5, shift


def same_bits(op, *args):
    assert accepts(TABLE, op, *args)
    got, wanted = BACKEND.run(op, *args), op(*args)
    assert (got.shape, got.dtype, got.flags.c_contiguous) == (wanted.shape, np.float32, True)
    return got.tobytes() == wanted.tobytes()


@pytest.mark.parametrize("count", [1, 9])
@pytest.mark.parametrize("crop", range(5))
@pytest.mark.parametrize("mode", ["zero", "reflect"])
@pytest.mark.parametrize("shape", [(5, 6, 1), (5, 7, 3), (8, 5, 1), (28, 28, 1), (32, 32, 3), (6, 17, 3), (5, 16, 1)])
def test_the_same_bits_as_the_op(shape, mode, crop, count) -> None:
    images, index, flip, shift = batch(shape, count, crop)
    values = (MEAN[: shape[2]], INV_STD[: shape[2]])
    for mirror in (flip, np.zeros(count, bool), np.ones(count, bool)):
        assert same_bits(gather_augment, images, index, mirror, shift, crop, mode, *values)
    assert same_bits(gather_normalize, images, index, *values)


@pytest.mark.parametrize("side", [1, 2, 5])
@pytest.mark.parametrize("shape", [(5, 7, 3), (8, 5, 1), (32, 32, 3)])
def test_a_covered_square_is_the_ops(shape, side) -> None:
    images, index, flip, shift = batch(shape, 9, 2)
    last = np.array(shape[:2]) - 1
    centre = np.concatenate(
        [np.random.default_rng(1).integers(0, last, (5, 2)), [[0, 0], last, last * [0, 1], last * [1, 0]]]
    )
    values = (MEAN[: shape[2]], INV_STD[: shape[2]])
    for mode in ("zero", "reflect"):
        assert same_bits(gather_augment, images, index, flip, shift, 2, mode, *values, centre, side)


def test_every_byte_rounds_twice() -> None:
    # one rounding for both operations, as other kernels have it, would change many of these
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    fused = 0
    for mean in np.linspace(0.1, 0.9, 50, dtype=np.float32):
        args = (images, np.array([0]), mean[None], 4 * mean[None])
        assert same_bits(gather_normalize, *args)
        scale, offset = (4 * mean) * np.float32(1 / 255), mean * (4 * mean)
        once = (np.arange(256.0) * float(scale) - float(offset)).astype(np.float32)
        fused += not np.array_equal(once, gather_normalize(*args).ravel())
    assert fused > 25


def test_a_shift_as_large_as_the_image_shows_only_border() -> None:
    for crop in (4, 5, 11):
        images, index, flip, shift = batch((4, 5, 3), 6, crop)
        assert same_bits(gather_augment, images, index, flip, shift, crop, "zero", MEAN, INV_STD)


@pytest.mark.parametrize("layout", [np.asfortranarray, lambda a: np.repeat(a, 2, axis=0)[::2], lambda a: a[:, ::-1]])
def test_images_may_lie_in_memory_as_they_like(layout) -> None:
    images, index, flip, shift = batch((6, 7, 3), 5, 2)
    images = layout(images)
    images.setflags(write=False)
    assert same_bits(gather_augment, images, index, flip, shift, 2, "reflect", MEAN, INV_STD)
    assert same_bits(gather_normalize, images, index, MEAN, INV_STD)
    assert not images.flags.writeable


def test_a_set_that_may_be_written_to_stays_so() -> None:
    images, index, *_ = batch((6, 7, 3), 5, 2)
    BACKEND.run(gather_normalize, images, index, MEAN, INV_STD)
    assert images.flags.writeable


EVERYTHING = Augmentation(flip=True, crop=3, flip_mode="alternating", cutout=5, rotation=15, elastic=9, contrast=0.3)
BAD = {
    "negative": {"index": np.array([0, -1])},
    "boolean": {"index": np.array([True, False] * 3 + [True])},
    "two-dimensional": {"index": np.array([[0, 1]])},
    "a list": {"index": [1, 2]},
    "none": {"index": np.zeros(0, int)},
    "beyond the last": {"index": np.array([0, 7])},
    "far beyond": {"index": np.array([2**62, 0])},
    "fractional": {"index": np.array([0.0, 1.0])},
    "images of floats": {"images": np.zeros((7, 6, 6, 3), np.float32)},
    "two channels": {"images": np.zeros((7, 6, 6, 2), np.uint8), "mean": MEAN[:2], "inv_std": INV_STD[:2]},
    "tiny": {"images": np.zeros((7, 1, 5, 3), np.uint8), "crop": 0},
    "no channel": {"images": np.zeros((7, 6, 6), np.uint8)},
    "float64 mean": {"mean": MEAN.astype(float)},
    "one mean": {"mean": MEAN[:1]},
    "corner outside": {"shift": np.array([[0, 5], [0, 0]])},
    "corner before": {"shift": np.array([[-1, 0], [0, 0]])},
    "one corner": {"shift": np.array([[1, 1]])},
    "flip by number": {"flip": np.array([1, 0])},
    "no centre": {"cutout": 2, "centre": np.zeros((0, 2), int)},
    "centre outside": {"cutout": 2, "centre": np.array([[0, 0], [9, 9]])},
    "one flip": {"flip": np.array([True])},
    "reflected twice": {"images": np.zeros((7, 2, 9, 3), np.uint8), "crop_mode": "reflect"},
}


@pytest.mark.parametrize("case", BAD)
def test_anything_else_runs_on_the_reference_implementation(case) -> None:
    images, _, _, shift = batch((6, 6, 3), 2, 2)
    good = {"images": images, "index": np.array([3, 0]), "flip": np.array([True, False]), "shift": shift}
    good |= {"crop": 2, "crop_mode": "zero", "mean": MEAN, "inv_std": INV_STD}
    assert accepts(TABLE, gather_augment, **good)
    args = {**good, **BAD[case]}
    assert not accepts(TABLE, gather_augment, **args)
    check(gather_augment, args)
    plain = {name: args[name] for name in ("images", "index", "mean", "inv_std")}
    if BAD[case].keys() & plain.keys() and case != "reflected twice":
        assert not accepts(TABLE, gather_normalize, **plain)
    check(gather_normalize, plain)


def check(op, args) -> None:
    """The kernel's answer, or its complaint, is the op's."""
    try:
        wanted = op(**args)
    except (IndexError, ValueError) as error:
        with pytest.raises(type(error), match=re.escape(str(error))):
            BACKEND.run(op, **args)
    else:
        np.testing.assert_array_equal(BACKEND.run(op, **args), wanted)


def test_arguments_may_come_by_name_in_any_order() -> None:
    images, index, flip, shift = batch((6, 6, 3), 4, 2)
    args = {"inv_std": INV_STD, "shift": shift, "crop": 2, "images": images, "flip": flip, "mean": MEAN}
    args |= {"crop_mode": "reflect", "index": index}
    assert accepts(TABLE, gather_augment, **args)
    assert BACKEND.run(gather_augment, **args).tobytes() == gather_augment(**args).tobytes()


def test_a_whole_epoch_is_the_same_on_both_backends() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 50).astype(np.uint8)
    data = Dataset("noise", rng.integers(0, 256, (50, 12, 10, 3), dtype=np.uint8), labels, tuple("0123456789"))
    options = {"mean": data.mean, "std": data.std, "shuffle": True, "augmentation": EVERYTHING}
    plain, fast = Loader(data, 16, **options), Loader(data, 16, backend=BACKEND, **options)
    for (x, labels), (wanted, wanted_labels) in zip(fast.epoch(1), plain.epoch(1), strict=True):
        assert x.tobytes() == wanted.tobytes()
        assert labels.tolist() == wanted_labels.tolist()
