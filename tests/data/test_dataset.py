"""The data set: its checks, statistics and digest; the validation set taken off it."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gpucnn.data import Dataset, split_validation
from gpucnn.errors import DataError, UsageError


def make(count: int = 20, shape: tuple[int, ...] = (4, 5, 3), seed: int = 0) -> Dataset:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, *shape)).astype(np.uint8)
    return Dataset("made", images, rng.integers(0, 3, count).astype(np.uint8), ("a", "b", "c"))


def test_it_knows_its_shape() -> None:
    data = make()
    assert (len(data), data.image_shape, data.num_classes) == (20, (4, 5, 3), 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": np.zeros((20, 4, 5, 3), np.uint16)}, "uint16 (20, 4, 5, 3)"),
        ({"images": np.full((20, 4, 5, 3), np.nan)}, "NaN or infinity"),
        ({"images": np.full((20, 4, 5, 3), 1e300)}, "NaN or infinity"),
        ({"images": np.zeros((20, 4, 5), np.uint8)}, "(20, 4, 5)"),
        ({"images": np.zeros((20, 3, 8, 8), np.uint8)}, "give images.transpose(0, 2, 3, 1)"),
        ({"images": np.zeros((20, 4, 5, 5000), np.uint8)}, "5000 channels"),
        ({"images": np.zeros((0, 4, 5, 3), np.uint8)}, "no images"),
        ({"images": np.zeros((20, 0, 5, 3), np.uint8)}, "no images"),
        ({"images": np.zeros((19, 4, 5, 3), np.uint8)}, "(20,) for 19 images"),
        ({"labels": np.zeros(20)}, "float64"),
        ({"labels": np.eye(20, dtype=np.uint8)}, "(20, 20)"),
        ({"labels": np.arange(20, dtype=np.uint8) % 4}, "image 3 has label 3, but there are 3 classes"),
    ],
)
def test_what_is_no_data_set_is_refused_with_the_value(changes: dict[str, object], message: str) -> None:
    with pytest.raises(DataError) as caught:
        replace(make(), **changes)
    assert message in str(caught.value)
    assert str(caught.value).startswith("made: ")


@given(arrays(np.uint8, st.tuples(st.integers(1, 5), st.just(3), st.just(2), st.sampled_from([1, 3]))))
def test_mean_and_std_are_those_of_all_pixels(images: np.ndarray) -> None:
    data = Dataset("made", images, np.zeros(len(images), np.uint8), ("only",))
    pixels = images.reshape(-1, images.shape[3]).astype(np.float64) / 255
    np.testing.assert_allclose(data.mean, pixels.mean(axis=0), rtol=0, atol=1e-14)
    np.testing.assert_allclose(data.std, pixels.std(axis=0), rtol=0, atol=1e-14)
    assert all(type(value) is float for value in data.mean + data.std)


def test_statistics_of_more_images_than_are_counted_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = make(50).mean
    monkeypatch.setattr("gpucnn.data.stored.CHUNK", 7 * 60)
    assert make(50).mean == whole


def test_the_digest_is_of_the_content_and_not_of_the_name() -> None:
    data = make()
    assert replace(data, name="other").digest == data.digest
    assert replace(data, images=np.asfortranarray(data.images)).digest == data.digest
    other_images, other_labels = data.images.copy(), data.labels.copy()
    other_images[3, 2, 1, 0] ^= 1
    other_labels[5] = (other_labels[5] + 1) % 3
    reshaped = data.images.reshape(20, 5, 4, 3)
    changed = [{"images": other_images}, {"labels": other_labels}, {"images": reshaped}]
    digests = {replace(data, **change).digest for change in changed} | {data.digest}
    assert len(digests) == 4


def test_the_digest_stays_what_it_was() -> None:
    """It is written into checkpoints: another digest for the same data would break every resume."""
    data = Dataset("x", np.arange(12, dtype=np.uint8).reshape(2, 2, 3, 1), np.array([0, 1], np.uint8), ("a", "b"))
    assert data.digest == "0309b02efbfbacea32deb8bb955e36a9adc18ae8468f40fcba9777fbc471bdf6"


@given(
    arrays(
        np.float64,
        st.tuples(st.integers(1, 5), st.just(3), st.just(2), st.sampled_from([1, 2, 5])),
        elements=st.floats(-1e4, 1e4, width=32),
    )
)
def test_mean_and_std_of_floats_are_on_their_own_scale(images: np.ndarray) -> None:
    data = Dataset("made", images, np.zeros(len(images), np.int64), ("only",))
    assert data.images.dtype == np.float32
    pixels = images.reshape(-1, images.shape[3])
    np.testing.assert_allclose(data.mean, pixels.mean(axis=0), rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(data.std, pixels.std(axis=0), rtol=1e-9, atol=1e-9)
    with pytest.raises(UsageError, match="float images"):
        data.histogram  # noqa: B018


@pytest.mark.parametrize(("classes", "dtype"), [(256, "uint8"), (257, "int32"), (70_000, "int32")])
@pytest.mark.parametrize("given_as", ["uint8", "int16", "int64", "uint64", "big-endian", "list"])
def test_labels_of_any_integers_are_kept_as_small_as_the_classes_allow(classes: int, dtype: str, given_as: str) -> None:
    values = np.array([0, 3, 200]) if given_as in ("uint8", "list") else np.array([0, 3, 255])
    labels = {"list": values.tolist(), "big-endian": values.astype(">i4")}.get(given_as)
    labels = values.astype(given_as) if labels is None else labels
    data = Dataset("made", np.zeros((3, 2, 2, 7), np.uint8), labels, tuple(map(str, range(classes))))
    assert (data.labels.dtype, data.labels.tolist(), data.num_classes) == (dtype, values.tolist(), classes)


PIXELS = np.arange(24, dtype=np.uint8).reshape(4, 3, 2)
FROM_ARRAYS = [
    (PIXELS, [0, 1, 2, 1], None, {}, ("0", "1", "2"), [0, 1, 2, 1]),
    (PIXELS.tolist(), np.array([[7], [-3], [7], [7]]), None, {}, ("-3", "7"), [1, 0, 1, 1]),
    (PIXELS[..., None].astype(np.int64), ["dog", "cat", "dog", "dog"], None, {}, ("cat", "dog"), [1, 0, 1, 1]),
    (PIXELS, np.array(["b", "a"] * 2, object), ("c", "b", "a"), {}, ("c", "b", "a"), [1, 2, 1, 2]),
    (PIXELS, [7, -3, 7, 7], ("-3", "7", "9"), {}, ("-3", "7", "9"), [1, 0, 1, 1]),
    (PIXELS, [2, 0, 2, 2], ("x", "y", "z"), {}, ("x", "y", "z"), [2, 0, 2, 2]),
    (PIXELS, [True, False, True, True], None, {}, ("False", "True"), [1, 0, 1, 1]),
    (PIXELS, np.array([True, False, True, True]), ("no", "yes"), {}, ("no", "yes"), [1, 0, 1, 1]),
    (PIXELS / 255, [0, 1, 2, 1], None, {"scale": 255}, ("0", "1", "2"), [0, 1, 2, 1]),
    ((PIXELS / 255).astype(np.float32), [0, 1, 2, 1], None, {"scale": 255}, ("0", "1", "2"), [0, 1, 2, 1]),
]


@pytest.mark.parametrize(("images", "labels", "classes", "how", "names", "numbers"), FROM_ARRAYS)
def test_arrays_as_they_come(
    images: object, labels: object, classes: object, how: dict[str, float], names: object, numbers: object
) -> None:
    data = Dataset.from_arrays(images, labels, classes, **how)
    assert (data.images.dtype, data.classes, data.labels.tolist()) == (np.uint8, names, numbers)
    assert np.array_equal(data.images, PIXELS[..., None])


def test_float_arrays_keep_their_scale() -> None:
    images = np.linspace(-3, 5, 24).reshape(4, 3, 2)
    data = Dataset.from_arrays(images, [0, 1, 0, 1], name="floats")
    assert np.array_equal(data.images, images.astype(np.float32)[..., None])
    assert data.digest != Dataset.from_arrays(images + 1, [0, 1, 0, 1]).digest


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images": np.zeros((4, 3, 32, 32))}, "arrays: images (4, 3, 32, 32) have 32 channels"),
        ({"images": np.zeros((4, 1, 28, 28), np.uint8)}, "give images.transpose(0, 2, 3, 1)"),
        ({"images": np.zeros((4, 784), np.uint8)}, "uint8 (4, 784)"),
        ({"images": [[[1, 2]], [[3]]]}, "images are no NumPy array"),
        ({"images": np.full((4, 3, 2), 65535, np.uint16)}, "give scale=0.00389105"),
        ({"images": np.full((4, 3, 2), -1)}, "whole numbers from -1 to -1"),
        ({"images": np.full((4, 3, 2), 17.0), "scale": 255}, "times scale = 255 are not 0 to 255"),
        ({"images": np.full((4, 3, 2), np.nan), "scale": 255}, "are not 0 to 255"),
        ({"labels": np.zeros(4)}, "float64 (4,): give integers or texts"),
        ({"labels": np.eye(4)}, "labels.argmax(axis=1)"),
        ({"labels": [0, 1, 2]}, "int64 (3,) for 4 images"),
        ({"labels": ["a", "b", "a", "?"], "classes": ("a", "b")}, "the label '?' is none of the 2 classes"),
        ({"labels": [0, 1, 2, 3], "classes": "ab"}, "give the name of each"),
        ({"labels": [0, 1, 2, 3], "classes": ("a", "b", "c")}, "image 3 has label 3"),
        ({"labels": ["a", None, "b", "c"]}, "object"),
    ],
)
def test_arrays_that_are_no_data_set(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(DataError) as caught:
        Dataset.from_arrays(**{"images": PIXELS, "labels": [0, 1, 2, 3], **arguments})
    assert message in str(caught.value)


@given(st.integers(2, 40), st.data())
def test_a_validation_set_takes_images_off(count: int, data: st.DataObject) -> None:
    size, seed = data.draw(st.integers(1, count - 1)), data.draw(st.integers(0, 2**63))
    numbered = np.arange(count, dtype=np.uint8).reshape(-1, 1, 1, 1)
    whole = Dataset("made", numbered, np.arange(count, dtype=np.uint8), tuple(map(str, range(count))))
    train, validation = split_validation(whole, size, seed)
    assert (len(train), len(validation)) == (count - size, size)
    both = [part.images[:, 0, 0, 0].tolist() for part in (train, validation)]
    assert sorted(both[0] + both[1]) == list(range(count))
    for part, kept in zip((train, validation), both, strict=True):
        assert kept == sorted(kept) == part.labels.tolist()
        assert (part.name, part.classes) == (whole.name, whole.classes)
    assert split_validation(whole, size, seed)[1].digest == validation.digest


def test_another_seed_takes_other_images() -> None:
    chosen = {split_validation(make(200), 50, seed)[1].digest for seed in range(5)}
    assert len(chosen) == 5


@pytest.mark.parametrize("count", [-1, 0, 20, 21])
def test_neither_part_may_be_empty(count: int) -> None:
    with pytest.raises(UsageError, match=f"{count} images of made: give a number from 1 to 19"):
        split_validation(make(), count, 0)


def test_a_data_set_prints_as_a_line() -> None:
    found = Dataset.from_arrays(np.zeros((4, 2, 3), np.uint8), ["a", "b"] * 2, name="mine")
    assert repr(found) == "mine: 4 images 2 x 3 x 1, uint8, in 2 classes"
