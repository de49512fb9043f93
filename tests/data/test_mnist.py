"""MNIST's four files in every layout that people have, and what is wrong with some of them."""

from pathlib import Path

import numpy as np
import pytest
from data_samples import PARTS, idx_bytes, write_mnist

from gpucnn.data import load_dataset
from gpucnn.data.mnist import NAMES
from gpucnn.errors import DataError


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("GPUCNN_DATA_DIR", raising=False)


LAYOUTS = [
    ("mnist", "mnist"),
    ("mnist", "MNIST/raw"),
    ("mnist", "MNIST"),
    ("mnist", ""),
    ("fashion_mnist", "fashion_mnist"),
    ("fashion_mnist", "fashion-mnist"),
    ("fashion_mnist", "FashionMNIST/raw"),
    ("fashion_mnist", "FashionMNIST"),
]


@pytest.mark.parametrize(("name", "layout"), LAYOUTS)
@pytest.mark.parametrize("packed", [True, False])
def test_every_layout(tmp_path: Path, name: str, layout: str, packed: bool) -> None:
    arrays = write_mnist(tmp_path / layout, packed=packed)
    for dataset, (part, count) in zip(load_dataset(name, tmp_path, download=False), PARTS, strict=True):
        assert dataset.images.shape == (count, 28, 28, 1)
        assert np.array_equal(dataset.images[..., 0], arrays[f"{part}-images-idx3-ubyte"])
        assert np.array_equal(dataset.labels, arrays[f"{part}-labels-idx1-ubyte"])
        assert (dataset.name, dataset.num_classes) == (name, 10)


def test_the_two_sets_are_not_taken_for_one_another(tmp_path: Path) -> None:
    write_mnist(tmp_path / "mnist")
    with pytest.raises(DataError, match="fashion_mnist is missing"):
        load_dataset("fashion-mnist", tmp_path, download=False)


def test_a_dash_or_capitals_in_the_name_will_do(tmp_path: Path) -> None:
    write_mnist(tmp_path / "fashion_mnist")
    train, _ = load_dataset("Fashion-MNIST", tmp_path, download=False)
    assert train.classes[9] == "Ankle boot"


def test_files_named_with_a_dot(tmp_path: Path) -> None:
    write_mnist(tmp_path / "mnist", packed=False)
    for name in NAMES:
        (tmp_path / "mnist" / name).rename(tmp_path / "mnist" / name.replace("-idx", ".idx"))
    assert len(load_dataset("mnist", tmp_path, download=False)[0]) == 5


def test_a_folder_that_lacks_a_file_is_passed_over(tmp_path: Path) -> None:
    write_mnist(tmp_path / "mnist")
    (tmp_path / "mnist" / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError) as caught:
        load_dataset("mnist", tmp_path, download=False)
    message = str(caught.value)
    assert "mnist is missing or incomplete" in message
    for remedy in (
        str(tmp_path),
        "t10k-labels-idx1-ubyte.gz",
        "--data-dir",
        "GPUCNN_DATA_DIR",
        "gpucnn data download",
    ):
        assert remedy in message
    write_mnist(tmp_path / "MNIST/raw", seed=1)
    assert len(load_dataset("mnist", tmp_path, download=False)[0]) == 5


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        (NAMES[0], np.zeros((5, 28, 27)), "images of 28 x 27 pixels, mnist has 28 x 28"),
        (NAMES[0], np.zeros((4, 28, 28)), "has 4 images, but train-labels-idx1-ubyte has 5 labels"),
        (NAMES[1], np.zeros(6), "has 5 images, but train-labels-idx1-ubyte has 6 labels"),
        (NAMES[3], np.array([0, 10, 3]), "image 1 has label 10, but there are 10 classes"),
        (NAMES[3], np.zeros((3, 1)), "is damaged: it starts with 00 00 08 02"),
    ],
)
def test_files_that_do_not_fit(tmp_path: Path, name: str, array: np.ndarray, message: str) -> None:
    write_mnist(tmp_path / "mnist", packed=False)
    (tmp_path / "mnist" / name).write_bytes(idx_bytes(array))
    with pytest.raises(DataError) as caught:
        load_dataset("mnist", tmp_path, download=False)
    assert message in str(caught.value)
    assert str(tmp_path / "mnist") in str(caught.value)


def test_an_empty_set(tmp_path: Path) -> None:
    write_mnist(tmp_path / "mnist", packed=False)
    (tmp_path / "mnist" / NAMES[2]).write_bytes(idx_bytes(np.zeros((0, 28, 28))))
    (tmp_path / "mnist" / NAMES[3]).write_bytes(idx_bytes(np.zeros(0)))
    with pytest.raises(DataError, match="no images"):
        load_dataset("mnist", tmp_path, download=False)
