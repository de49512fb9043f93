"""Images in .npz, .csv and HDF5 files: the same bits as arrays, and files that are damaged or lie."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from gpucnn.data import Dataset
from gpucnn.data.reading import Reading
from gpucnn.data.registry import load_parts
from gpucnn.data.stored import StoredImages
from gpucnn.errors import DataError

RNG = np.random.default_rng(3)
IMAGES = RNG.integers(0, 256, (12, 5, 5), dtype=np.uint8)
LABELS = np.arange(12) % 3
TRAIN = Dataset("set", IMAGES[..., None], LABELS.astype(np.uint8), ("0", "1", "2"))
TEST = Dataset("set", IMAGES[:4, ..., None], LABELS[:4].astype(np.uint8), ("0", "1", "2"))


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def digests(path: Path, **how: object) -> list[str | None]:
    return [part and part.digest for part in load_parts(str(path), how=Reading(**how))]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_of_keras_and_others(tmp_path: Path, save) -> None:
    path = tmp_path / "set.npz"
    save(path, x_train=IMAGES, y_train=LABELS, x_test=IMAGES[:4], y_test=LABELS[:4])
    assert digests(path) == [TRAIN.digest, None, TEST.digest]
    save(path, train_images=IMAGES, train_labels=LABELS[:, None], val_images=IMAGES[:4], val_labels=LABELS[:4, None])
    assert digests(path) == [TRAIN.digest, TEST.digest, None]
    save(path, Images=IMAGES[..., None], Labels=LABELS + 7)
    assert load_parts(str(path)).train.classes == ("7", "8", "9")
    save(path, images=IMAGES, labels=LABELS, classes=["ant", "bee", "cow"])
    assert load_parts(str(path)).train.classes == ("ant", "bee", "cow")
    save(path, images=IMAGES / np.float32(255), labels=np.array(["b", "a", "b"] * 4))
    floats = load_parts(str(path)).train
    assert (floats.images.dtype, floats.classes) == (np.float32, ("a", "b"))


def test_labels_of_all_parts_are_one_list_of_classes(tmp_path: Path) -> None:
    path = tmp_path / "set.npz"
    np.savez(path, x_train=IMAGES, y_train=LABELS, x_test=IMAGES[:4], y_test=LABELS[:4] + 1)
    train, _, test = load_parts(str(path))
    assert train.classes == test.classes == ("0", "1", "2", "3")
    assert test.labels.tolist() == [1, 2, 3, 1]
    assert load_parts(str(path), how=Reading(classes=("3", "2", "1", "0"))).train.labels[:3].tolist() == [3, 2, 1]


def lines(head: str = "", delimiter: str = ",", labels: object = LABELS, pixels: np.ndarray = IMAGES) -> str:
    rows = (delimiter.join(map(str, (label, *image.ravel()))) for label, image in zip(labels, pixels, strict=True))
    return "\n".join([*([head] if head else []), *rows]) + "\n"


def test_csv_as_kaggle_s_and_as_spreadsheets_write_them(tmp_path: Path) -> None:
    path, names = tmp_path / "set.csv", [f"pixel{i}" for i in range(25)]
    for text in (
        lines(),
        lines(",".join(["label", *names])),
        lines(";".join(["label", *names]), ";"),
        "\ufeff" + lines(delimiter="\t").replace("\n", "\r\n"),
        lines(pixels=IMAGES.astype(float)),
    ):
        path.write_text(text, encoding="utf-8")
        assert digests(path) == [TRAIN.digest, None, None]
    rows = [",".join([*map(str, image.ravel()), str(label)]) for image, label in zip(IMAGES, LABELS, strict=True)]
    path.write_text("\n".join([",".join([*names, "class"]), *rows]))  # as OpenML's
    assert digests(path) == [TRAIN.digest, None, None]
    path.write_text(lines(labels=['"a, b"', "c", "d"] * 4))
    assert load_parts(str(path)).train.classes == ("a, b", "c", "d")


def test_csv_of_other_shapes(tmp_path: Path) -> None:
    path = tmp_path / "set.csv"
    colour = RNG.integers(0, 256, (12, 2, 3, 3), dtype=np.uint8)
    path.write_text(lines(pixels=colour))
    for how in ({"size": (2, 3), "channels": 3}, {"size": (2, 3)}):
        np.testing.assert_array_equal(load_parts(str(path), how=Reading(**how)).train.images, colour)
    with pytest.raises(DataError, match="18 pixels on a line make no square image: give --size"):
        load_parts(str(path))
    path.write_text(lines(pixels=IMAGES / 512))
    np.testing.assert_allclose(load_parts(str(path)).train.images[..., 0], IMAGES / 512, rtol=1e-6)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no line of a label and pixels"),
        ("label,p0\n", "no line of a label and pixels"),
        ("1,2,3,4,5\n1,2,3\n", "columns"),
        ("1,2,3,4,300\n", "300"),
        ("1,2,3,4,5\n1,2,3,4,x\n", "'x'"),
        ("x" * 101 + ",1\n", "a label of more than 100"),
        ("1,nan\n", "NaN or infinity"),
    ],
)
def test_csv_that_is_no_table_of_images(tmp_path: Path, text, reason) -> None:
    (tmp_path / "set.csv").write_text(text)
    with pytest.raises(DataError, match=reason) as caught:
        load_parts(str(tmp_path / "set.csv"))
    assert "set" in str(caught.value)


def hdf5(path: Path, **arrays: object) -> Path:
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file[name] = values
    return path


def test_hdf5_in_memory_in_its_file_and_in_a_copy(tmp_path: Path) -> None:
    images = IMAGES[..., None]
    arrays = {"images": images, "labels": LABELS, "test_images": images[:4], "test_labels": LABELS[:4]}
    path = hdf5(tmp_path / "set.h5", **arrays)
    assert digests(path) == digests(path, memory=1) == [TRAIN.digest, None, TEST.digest]
    assert isinstance(load_parts(str(path), how=Reading(memory=1)).train.images, StoredImages)
    with h5py.File(tmp_path / "packed.hdf5", "w") as file:
        file.create_dataset("train/images", data=images, chunks=(5, 5, 5, 1), compression="gzip")
        file["train/labels"] = LABELS
        file["classes"] = ["ant", "bee", "cow"]
    for memory in (0, 1, 1):
        found = load_parts(str(tmp_path / "packed.hdf5"), how=Reading(memory=memory)).train
        assert (found.digest, found.classes) == (TRAIN.digest, ("ant", "bee", "cow"))
        assert isinstance(found.images, StoredImages) == bool(memory)
    assert len(list((tmp_path / "cache/gpucnn/decoded").iterdir())) == 1


def linked(path: Path, link: Callable[[Path], object]) -> Path:
    hdf5(path.with_name("other.h5"), images=IMAGES[..., None])
    with h5py.File(path, "w") as file:
        file["images"], file["labels"] = link(path.with_name("other.h5")), LABELS
    return path


def test_hdf5_that_points_elsewhere_or_lies(tmp_path: Path) -> None:
    path = tmp_path / "set.h5"
    layout = h5py.VirtualLayout((12, 5, 5, 1), "u1")
    linked(path, lambda other: h5py.ExternalLink(other, "images"))
    with pytest.raises(DataError, match="give images and labels by the names"):
        load_parts(str(path))
    with h5py.File(path, "w") as file:
        layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "images", (12, 5, 5, 1))
        file.create_virtual_dataset("images", layout)
        file["labels"] = LABELS
    with pytest.raises(DataError, match="in another file"):
        load_parts(str(path))
    with h5py.File(path, "w") as file:
        file.create_dataset("images", (10**9, 28, 28, 1), "u1", chunks=(1, 28, 28, 1))  # nothing is in it
        file["labels"] = LABELS
    with pytest.raises(DataError, match="claims 784,000,000,000 bytes in a file of"):
        load_parts(str(path))
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(900))
    with pytest.raises(DataError, match=r"set\.h5 cannot be read"):
        load_parts(str(path))


def member(values: np.ndarray, shape: tuple[int, ...]) -> bytes:
    """An array as ``numpy.save`` writes it, with another shape in its header."""
    file = io.BytesIO()
    header = {"descr": values.dtype.str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + values.tobytes()


def test_npz_that_is_damaged_or_lies(tmp_path: Path) -> None:
    path = tmp_path / "set.npz"

    def refused(reason: str) -> None:
        with pytest.raises(DataError, match=reason) as caught:
            load_parts(str(path))
        assert "set.npz" in str(caught.value) or "set:" in str(caught.value)

    np.savez(path, images=IMAGES, labels=LABELS)
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    refused("cannot be read")
    content = bytearray(whole)
    content[whole.index(IMAGES.tobytes()) + 3] ^= 1
    path.write_bytes(content)
    refused("CRC")
    np.savez(path, images=IMAGES, labels=np.array([{}] * 12))
    refused("Python objects")
    np.savez(path, pictures=IMAGES)
    refused("has 'pictures': give images and labels by the names")
    np.savez(path, images=IMAGES, labels=LABELS[:5])
    refused("labels are")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", member(IMAGES, (10**9, 28, 28)))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("labels.npy", member(LABELS, (12,)))
    refused(r"claims uint8 \(1000000000, 28, 28\)")


def test_bytes_are_resized_and_other_arrays_are_not(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", images=IMAGES, labels=LABELS)
    assert digests(tmp_path / "set.npz", size=(5, 5), channels=1)[0] == TRAIN.digest
    found = load_parts(str(tmp_path / "set.npz"), how=Reading(size=(6, 4), channels=3, fit="stretch")).train
    wanted = Image.fromarray(TRAIN.images[1, :, :, 0]).convert("RGB").resize((4, 6), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(found.images[1], np.asarray(wanted))
    np.savez(tmp_path / "set.npz", images=IMAGES / 255.0, labels=LABELS)
    with pytest.raises(DataError, match=r"float.* images 5 x 5 x 1, not 6 x 5 x 1: only bytes"):
        load_parts(str(tmp_path / "set.npz"), how=Reading(size=(6, 5)))
