"""The real data sets, where GPUCNN_DATA_DIR has them."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gpucnn.data import DATASETS, Dataset, load_dataset
from gpucnn.data.files.sources import RemoteFile, locate, open_bytes
from gpucnn.data.files.verify import BYTES, OTHER, verify
from gpucnn.data.registry import load_parts

pytestmark = pytest.mark.data

WITH_FILES = [name for name, source in DATASETS.items() if not source.built_in]


def place_of(name: str) -> Path:
    """Where it lies; a skip where it does not."""
    if not os.environ.get("GPUCNN_DATA_DIR"):
        pytest.skip("GPUCNN_DATA_DIR is not set")
    place = locate(DATASETS[name])
    if place is None:
        pytest.skip(f"GPUCNN_DATA_DIR has no {name}")
    return place


def real(name: str) -> tuple[Dataset, Dataset]:
    place_of(name)
    return load_dataset(name, download=False)


PUBLISHED = {  # name -> image shape, training images per class (None: not equal), mean, std
    "mnist": ((28, 28, 1), None, (0.1307,), (0.3081,)),
    "fashion_mnist": ((28, 28, 1), 6000, (0.2860,), (0.3530,)),
    "cifar10": ((32, 32, 3), 5000, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((32, 32, 3), 500, (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}
MNIST_TRAIN_COUNTS = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
MNIST_TEST_COUNTS = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


@pytest.mark.parametrize("name", WITH_FILES)
def test_shapes_counts_and_statistics(name: str) -> None:
    train, test = real(name)
    shape, per_class, mean, std = PUBLISHED[name]
    assert (train.image_shape, test.image_shape) == (shape, shape)
    total = 50_000 if name.startswith("cifar") else 60_000
    assert (len(train), len(test)) == (total, 10_000)
    counts = [np.bincount(part.labels, minlength=part.num_classes).tolist() for part in (train, test)]
    if per_class:
        assert counts == [[per_class] * train.num_classes, [10_000 // train.num_classes] * train.num_classes]
    else:
        assert counts == [MNIST_TRAIN_COUNTS, MNIST_TEST_COUNTS]
    np.testing.assert_allclose(train.mean, mean, rtol=0, atol=6e-5)
    np.testing.assert_allclose(train.std, std, rtol=0, atol=6e-5)


@pytest.mark.parametrize("file", DATASETS["mnist"].remote, ids=lambda file: Path(file.path).stem)
def test_mnist_s_decompressed_bytes(file: RemoteFile) -> None:
    path = next(path for path in DATASETS["mnist"].files(place_of("mnist")) if path.stem in file.path)
    with open_bytes(path) as content:
        assert hashlib.file_digest(content, "sha256").hexdigest() == file.content_sha256


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_they_are_the_publisher_s_images(name: str) -> None:
    answers = {verdict.answer for verdict in verify(DATASETS[name], place_of(name))}
    assert OTHER not in answers
    if name == "mnist":
        assert answers == {BYTES}


def test_mnist_looks_like_digits() -> None:
    """The pictures are upright and belong to their labels: a one is a tall stroke, a zero has a hole."""
    train, _ = real("mnist")
    means = [train.images[train.labels == digit].mean(axis=0)[..., 0] for digit in (0, 1)]
    assert means[0][14, 14] < 30 < 100 < means[1][14, 14]
    rows, columns = means[1].max(axis=1) > 60, means[1].max(axis=0) > 60
    assert 2 * rows.sum() > 3 * columns.sum()


def test_cifar_10_looks_like_photographs() -> None:
    """Neighbouring pixels are alike, across and down, and ships and planes are bluer than frogs and deer."""
    train, _ = real("cifar10")
    some = train.images[:2000].astype(np.float64)
    for axis in (1, 2):
        assert np.abs(np.diff(some, axis=axis)).mean() < 0.3 * np.abs(some - some.mean()).mean()
    blue = {
        name: np.subtract(*train.images[train.labels == k][:, :16, :, ::2].mean(axis=(0, 1, 2))[::-1])
        for k, name in enumerate(train.classes)
    }
    assert min(blue["airplane"], blue["ship"]) > 0 > max(blue["frog"], blue["deer"])


def test_mnist_in_other_files_has_the_digest_of_the_publishers(tmp_path: Path) -> None:
    train, test = real("mnist")
    arrays = {"x_train": train.images[..., 0], "y_train": train.labels}
    np.savez(tmp_path / "mnist.npz", **arrays, x_test=test.images[..., 0], y_test=test.labels)
    assert [part.digest for part in load_dataset(tmp_path / "mnist.npz")] == [train.digest, test.digest]
    rows = np.concatenate([test.labels[:, None], test.images.reshape(len(test), -1)], axis=1)
    np.savetxt(tmp_path / "mnist.csv", rows, fmt="%d", delimiter=",")
    assert load_parts(str(tmp_path / "mnist.csv")).train.digest == test.digest


def test_a_folder_of_cifar10_has_the_digest_of_the_same_images_in_its_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    train, _ = real("cifar10")
    chosen = train.split_off(range(1000))[1]
    for number, (image, label) in enumerate(zip(chosen.images, chosen.labels, strict=True)):
        (folder := tmp_path / "cifar" / chosen.classes[label]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{number:04d}.png")
    order = np.argsort(chosen.labels, kind="stable")
    wanted = Dataset("cifar", chosen.images[order], chosen.labels[order], chosen.classes).digest
    for _ in ("decoded", "from the cache"):
        assert load_parts(str(tmp_path / "cifar")).train.digest == wanted
