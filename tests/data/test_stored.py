"""Images in a file: the same values, bits and statistics as in memory, and one line about a file that is damaged."""

import os
import pickle
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpucnn.data import Dataset, split_validation
from gpucnn.data.stored import StoredImages, StoredWriter, free_memory, spill, within
from gpucnn.errors import DataError, UsageError

SHAPE = (23, 4, 3, 2)


def noise(dtype: str = "uint8") -> np.ndarray:
    values = np.random.default_rng(0).integers(0, 256, SHAPE)
    return values.astype(np.uint8) if dtype == "uint8" else (values / 7).astype(dtype)


@pytest.fixture
def stored(tmp_path: Path) -> StoredImages:
    return spill(noise(), tmp_path / "set.h5")


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_it_is_like_the_array(tmp_path: Path, dtype: str) -> None:
    images, found = noise(dtype), spill(noise(dtype), tmp_path / "set.h5")
    for name in ("shape", "dtype", "ndim", "size", "nbytes"):
        assert getattr(found, name) == getattr(images, name)
    assert len(found) == len(images)
    mask = np.arange(23) % 3 == 0
    keys = [0, -1, 22, np.int64(5), slice(None), slice(20, 2, -3), slice(4, 4), [], [3], [5, 5, 1, 2, 3, -23], mask,
            np.array([[1, 2], [9, 0]]), (slice(2, 5), slice(1, 3)), (4, ..., 1), np.zeros(23, bool)]  # fmt: skip
    for key in keys:
        assert np.array_equal(found[key], images[key])
        assert found[key].dtype == images.dtype
    assert np.array_equal(np.asarray(found), images)
    assert np.array_equal(pickle.loads(pickle.dumps(found))[:], images)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.lists(st.integers(0, 22), min_size=1), st.data())
def test_views_of_views_read_the_images_they_name(stored: StoredImages, places: list[int], data: st.DataObject) -> None:
    view = stored.select(np.array(places))
    assert np.array_equal(view[:], noise()[places])
    some = data.draw(st.lists(st.integers(0, len(places) - 1), min_size=1))
    assert np.array_equal(view.select(np.array(some))[::-1], noise()[places][some][::-1])
    assert np.array_equal(view.select(slice(1, 9, 2))[:], noise()[places][1:9:2])


def test_more_neighbours_than_one_call_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpucnn.data.stored.MOST_BUFFERS", 4)
    read = os.preadv
    monkeypatch.setattr(os, "preadv", lambda file, buffers, offset: read(file, [memoryview(buffers[0])[:17]], offset))
    assert np.array_equal(spill(noise(), tmp_path / "set.h5")[::-1], noise()[::-1])


@pytest.mark.parametrize("key", [23, -24, [23], "text", ..., None, 1.5])
def test_what_names_no_image_is_refused(stored: StoredImages, key: object) -> None:
    with pytest.raises((IndexError, UsageError)):
        stored[key]


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_a_stored_data_set_is_the_one_in_memory(tmp_path: Path, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpucnn.data.stored.CHUNK", 100)
    data = Dataset("made", noise(dtype), np.arange(23), tuple(map(str, range(23))))
    on_disk = replace(data, images=spill(data.images, tmp_path / "set.h5"))
    assert isinstance(on_disk.images, StoredImages)
    for one, other in [
        (data, on_disk),
        *zip(split_validation(data, 5, 1), split_validation(on_disk, 5, 1), strict=True),
    ]:
        assert (other.digest, other.mean, other.std) == (one.digest, one.mean, one.std)
        assert other.labels.tolist() == one.labels.tolist()
        assert isinstance(other.images, StoredImages)


def test_a_limit_decides_what_is_read(stored: StoredImages) -> None:
    assert within(stored, stored.nbytes - 1) is stored
    assert np.array_equal(within(stored, stored.nbytes), noise())
    images = noise()
    assert within(images, 0) is images
    assert free_memory() > 2**20


def test_several_arrays_in_one_file(tmp_path: Path) -> None:
    with StoredWriter(tmp_path / "new" / "set.h5") as writer:
        append = writer.images("train/images", SHAPE)
        test = writer.images("test/images", (2, *SHAPE[1:]))
        writer.array("train/labels", np.arange(23))
        writer.attributes({"classes": "a b"})
        for start in range(0, 23, 5):
            append(noise()[start : start + 5])
        test(noise()[:2])
    assert np.array_equal(StoredImages(writer.path, "train/images")[:], noise())
    assert np.array_equal(StoredImages(writer.path, "test/images")[:], noise()[:2])
    with h5py.File(writer.path) as file:
        assert file["train/labels"][:].tolist() == list(range(23))
        assert file.attrs["classes"] == "a b"


@pytest.mark.parametrize("problem", ["too few", "too many", "another shape", "another dtype", "exception"])
def test_what_is_not_written_to_its_end_leaves_nothing(tmp_path: Path, problem: str) -> None:
    path = tmp_path / "set.h5"
    path.write_bytes(b"before")
    images = {"too few": noise()[:5], "another shape": noise()[:, :2], "another dtype": noise().astype("float32")}
    with pytest.raises((DataError, KeyError)) as caught, StoredWriter(path) as writer:  # noqa: PT012
        append = writer.images("images", SHAPE)
        append(images.get(problem, noise()))
        if problem == "too many":
            append(noise()[:1])
        if problem == "exception":
            raise KeyError
    assert problem == "exception" or "'images' in " in str(caught.value)
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("set.h5", b"before")]


def test_a_place_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError, match=r"cannot write images to .*file/set\.h5"):
        spill(noise(), tmp_path / "file" / "set.h5")


def broken(path: Path, how: str) -> None:
    if how == "gone":
        path.unlink()
    elif how == "shorter":
        os.truncate(path, path.stat().st_size - 1)
    else:
        path.write_bytes(path.read_bytes())
        os.utime(path, ns=(0, 0))


@pytest.mark.parametrize(
    ("how", "message"), [("gone", "cannot read images from"), ("shorter", "changed"), ("other", "changed")]
)
def test_a_file_that_changes_is_noticed_before_it_is_read(stored: StoredImages, how: str, message: str) -> None:
    broken(stored.path, how)
    with pytest.raises(DataError, match=message) as caught:
        stored[:3]
    assert str(stored.path) in str(caught.value)


def test_a_file_that_shrinks_while_it_is_read(stored: StoredImages) -> None:
    with stored.reading() as read:
        os.truncate(stored.path, stored.offset + 5)
        with pytest.raises(DataError, match="is shorter than when it was opened"):
            read(np.array([0, 9]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"chunks": True}, "compressed, in chunks"),
        ({"compression": "gzip"}, "compressed, in chunks"),
        ({"dtype": "int16"}, "not uint8 or float32"),
        ({"dtype": ">f4"}, "not uint8 or float32"),
    ],
)
def test_what_has_no_rows_to_read_is_refused_and_can_be_copied(
    tmp_path: Path, options: dict[str, object], message: str
) -> None:
    path = tmp_path / "other.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("images", data=noise(), **options)
    with pytest.raises(DataError, match=message):
        StoredImages(path)
    with h5py.File(path) as file:
        assert np.array_equal(spill(file["images"], tmp_path / "copy.h5")[:], noise())


@pytest.mark.parametrize(
    ("content", "message"), [(None, "cannot read"), (b"no HDF5", "cannot read"), ("group", "has no array 'images'")]
)
def test_what_is_no_file_of_images(tmp_path: Path, content: object, message: str) -> None:
    path = tmp_path / "set.h5"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content:
        with h5py.File(path, "w") as file:
            file.create_group("images")
    with pytest.raises(DataError, match=message):
        StoredImages(path)


@pytest.mark.parametrize("locking", [True, False])
def test_a_file_that_is_open_already_can_be_read(stored: StoredImages, locking: bool) -> None:
    with h5py.File(stored.path, "r", locking=locking):
        assert np.array_equal(StoredImages(stored.path)[:], noise())
