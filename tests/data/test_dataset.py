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
        ({"images": np.zeros((20, 4, 5, 3))}, "float64 (20, 4, 5, 3)"),
        ({"images": np.zeros((20, 4, 5), np.uint8)}, "(20, 4, 5)"),
        ({"images": np.zeros((20, 3, 4, 5), np.uint8)}, "channels last"),
        ({"images": np.zeros((0, 4, 5, 3), np.uint8)}, "no images"),
        ({"images": np.zeros((20, 0, 5, 3), np.uint8)}, "no images"),
        ({"images": np.zeros((19, 4, 5, 3), np.uint8)}, "(20,) for 19 images"),
        ({"labels": np.zeros(20, np.int64)}, "int64"),
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
    monkeypatch.setattr("gpucnn.data.dataset.CHUNK", 7)
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
