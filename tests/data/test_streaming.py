"""Sets that are not on the device: the same bits as in memory, in the background, and nothing left open behind."""

import os
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from strict_cupy import STRICT

from gpucnn.backend import REFERENCE, Backend
from gpucnn.data import Augmentation, Dataset, Loader
from gpucnn.data.augment.colour import jitter
from gpucnn.data.augment.crop_flip import gather_augment
from gpucnn.data.augment.warp import warp
from gpucnn.data.stored import AHEAD, StoredImages, spill
from gpucnn.devices.select import get_backend
from gpucnn.errors import DataError
from gpucnn.layers import GlobalAvgPool2D, Linear, Sequential
from gpucnn.layers.whitening import Whitening
from gpucnn.optim import SGD
from gpucnn.training.trainer import Trainer, TrainerOptions

COUNT = 23
ALL = Augmentation(flip=True, crop=2, crop_mode="reflect", rotation=20, scale=0.1, elastic=8.0, elastic_sigma=2.0,
                   brightness=0.2, contrast=0.3, cutout=3, mixup=0.5, cutmix=1.0)  # fmt: skip
AUGMENTATIONS = [None, Augmentation(flip=True, crop=1, flip_mode="alternating"), Augmentation(cutout=3),
                 Augmentation(rotation=9, crop_mode="reflect"), Augmentation(elastic=9.0), Augmentation(brightness=0.2),
                 Augmentation(mixup=0.4), ALL]  # fmt: skip


def noise(channels: int = 3, dtype: str = "uint8", count: int = COUNT) -> Dataset:
    images = np.random.default_rng(0).integers(0, 256, (count, 9, 8, channels))
    images = images.astype(np.uint8) if dtype == "uint8" else (images / 50 - 1).astype(dtype)
    return Dataset("noise", images, np.arange(count) % 5, tuple("abcde"))


def on_disk(dataset: Dataset, folder: Path) -> Dataset:
    return replace(dataset, images=spill(dataset.images, folder / f"{dataset.digest[:9]}.h5"))


def make(dataset: Dataset, batch_size: int = 5, **options: Any) -> Loader:
    return Loader(dataset, batch_size, mean=dataset.mean, std=dataset.std, **{"shuffle": True, "seed": 4, **options})


def same(one: Loader, other: Loader, epoch: int = 1, start: int = 0) -> bool:
    batches, others = (
        [tuple(map(loader.backend.to_host, batch)) for batch in loader.epoch(epoch, start)] for loader in (one, other)
    )
    return len(batches) == len(others) > 0 and all(
        np.array_equal(x, y) and x.dtype == y.dtype and np.array_equal(labels, truth)
        for (x, labels), (y, truth) in zip(batches, others, strict=True)
    )


@pytest.mark.parametrize("backend", [REFERENCE, get_backend("cpu"), STRICT], ids=lambda backend: backend.name)
@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_batches_have_the_same_bits_as_in_memory(
    tmp_path: Path, augmentation: Augmentation | None, backend: Backend
) -> None:
    for channels, dtype in [(1, "uint8"), (3, "uint8"), (5, "uint8"), (3, "float32")]:
        dataset = noise(channels, dtype)
        stored = on_disk(dataset, tmp_path)
        for options in ({}, {"drop_last": True}, {"shuffle": False}, {"batch_size": 100}):
            how = {"augmentation": augmentation, "backend": backend, **options}
            assert same(make(dataset, **how), make(stored, **how))
        how = {"augmentation": augmentation, "backend": backend}
        assert same(make(dataset, **how), make(stored, **how), start=3)
        if not backend.synchronous:
            assert same(make(dataset, **how), make(dataset, **how, memory=1))


def test_the_batch_size_changes_no_float_image() -> None:
    how = replace(ALL, mixup=0.0, cutmix=0.0)
    wanted = next(make(noise(dtype="float32"), COUNT, augmentation=how).epoch(0))[0]
    for batch_size in (1, 6):
        batches = make(noise(dtype="float32"), batch_size, augmentation=how).epoch(0)
        assert np.array_equal(np.concatenate([x for x, _ in batches]), wanted)


def test_an_array_too_large_for_the_device_is_gathered_on_the_host() -> None:
    dataset = noise()
    device = replace(REFERENCE, synchronous=False, free_memory=lambda: 2 * dataset.images.nbytes - 1)
    streams = make(dataset, backend=device, augmentation=ALL)
    assert streams.streams
    assert not make(dataset, backend=device, memory=dataset.images.nbytes).streams
    assert not make(dataset, memory=1).streams  # it is where it would go
    assert same(streams, make(dataset, augmentation=ALL))


def net() -> Sequential:
    return Sequential(Whitening(3), GlobalAvgPool2D(), Linear(24, 5))


def weights(trainer: Trainer) -> bytes:
    return b"".join(value.tobytes() for value in trainer.model.state_dict().values())


def trained(train: Dataset, test: Dataset, *epochs: int, max_steps: int = 0) -> tuple[bytes, list[str]]:
    options = TrainerOptions(max_steps=max_steps)
    trainer = Trainer(net(), SGD(lr=0.5), batch_size=4, augmentation=ALL, options=options)
    reports = [report for number in epochs for report in trainer.fit(train, test, epochs=number)]
    if max_steps:
        trainer.options = replace(options, max_steps=0)
        reports += trainer.fit(train, test, epochs=3)
    predictions = trainer.evaluate(test).predictions.tolist()
    return weights(trainer), [f"{r.train_loss} {r.test_loss} {r.test_accuracy}" for r in reports] + predictions


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_training_gives_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str) -> None:
    """Whitening from the file, validation images taken off it, epochs that are left and gone on with."""
    whole = noise(dtype=dtype)
    parts = whole.split_off(np.arange(0, COUNT, 4))
    stored = on_disk(whole, tmp_path).split_off(np.arange(0, COUNT, 4))
    monkeypatch.setattr("gpucnn.layers.whitening.IMAGES", 11)
    wanted = trained(*parts, 3)
    assert trained(*stored, 3) == wanted
    assert trained(*stored, 1, max_steps=7)[0] == wanted[0]


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("end", ["break", "exception", "interrupt", "close", "exhausted", "in training"])
def test_an_epoch_that_is_left_ends_its_thread_and_closes_the_file(tmp_path: Path, end: str) -> None:
    loader = make(on_disk(noise(), tmp_path), batch_size=1)
    threads, files = threading.active_count(), open_files()
    batches = loader.epoch(0)
    next(batches)
    assert (threading.active_count(), open_files()) == (threads + 1, files + 1)
    if end == "close":
        batches.close()
    elif end == "exhausted":
        assert len(list(batches)) == COUNT - 1
    elif end == "break":
        for _ in batches:
            break
        del batches
    elif end == "in training":
        batches.close()
        trainer = Trainer(net(), SGD(lr=0.1), batch_size=1, options=TrainerOptions(log_interval=1))
        with pytest.raises(KeyError) as caught:  # its traceback keeps the frames
            list(trainer.fit(on_disk(noise(), tmp_path), noise(), epochs=1, watch=lambda report: {}[report]))
        assert caught
    else:
        with pytest.raises((KeyError, KeyboardInterrupt)):
            batches.throw(KeyError if end == "exception" else KeyboardInterrupt)
    assert (threading.active_count(), open_files()) == (threads, files)


def test_only_a_few_batches_are_read_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, asked = StoredImages.read, []

    def counted(self: StoredImages, file: int, index: np.ndarray) -> np.ndarray:
        asked.append(len(index))
        return read(self, file, index)

    loader = make(on_disk(noise(), tmp_path), batch_size=1)
    monkeypatch.setattr(StoredImages, "read", counted)
    batches = loader.epoch(0)
    for taken in range(1, 6):
        next(batches)
        assert taken <= len(asked) <= taken + AHEAD
    batches.close()


def test_a_file_that_shrinks_or_goes_is_one_error(tmp_path: Path) -> None:
    stored = on_disk(noise(), tmp_path)
    loader, threads = make(stored, batch_size=1), threading.active_count()
    batches = loader.epoch(0)
    next(batches)
    os.truncate(stored.images.path, stored.images.offset)
    with pytest.raises(DataError, match="is shorter than when it was opened"):
        list(batches)
    with pytest.raises(DataError, match="has changed since it was opened"):
        next(loader.epoch(1))
    stored.images.path.unlink()
    with pytest.raises(DataError, match=r"cannot read images from .*: No such file"):
        next(loader.epoch(1))
    assert threading.active_count() == threads


def test_floats_are_augmented_on_their_own_scale() -> None:
    """By loops in float64, pixel by pixel."""
    rng = np.random.default_rng(1)
    images = rng.normal(0, 100, (3, 5, 4, 2)).astype(np.float32)
    factors = rng.uniform(0.5, 2, (2, 3)).astype(np.float32)
    found = jitter(images, *factors)
    for image, b, c, y in zip(images.astype(float), *factors.astype(float), found, strict=True):
        np.testing.assert_allclose(y, b * (c * (image - image.mean()) + image.mean()), rtol=1e-4, atol=1e-3)
    matrix = np.array([[[0.9, 0.2], [-0.2, 1.1]]] * 3, np.float32)
    found = warp(images, np.array([2, 0, 1]), matrix, None, "zero")
    for image, y in zip(images[[2, 0, 1]].astype(float), found, strict=True):
        for i, j in np.ndindex(5, 4):
            u, v = matrix[0].astype(float) @ [i - 2, j - 1.5] + [2, 1.5]
            total = np.zeros(2)
            for row, column in np.ndindex(5, 4):
                total += max(0, 1 - abs(u - row)) * max(0, 1 - abs(v - column)) * image[row, column]
            np.testing.assert_allclose(y[i, j], total, rtol=1e-4, atol=1e-3)
    mean, std = np.array([3, -7], np.float32), np.array([90, 110], np.float32)
    flip, shift = np.array([True, False]), np.array([[1, 2], [0, 1]])
    found = gather_augment(images, np.array([1, 2]), flip, shift, 1, "zero", mean, 1 / std, np.array([[0, 0]] * 2), 1)
    for image, mirrored, (down, right), y in zip(images[1:].astype(float), flip, shift, found, strict=True):
        window = np.pad(image, ((1, 1), (1, 1), (0, 0)))[down : down + 5, right : right + 4]
        wanted = ((window[:, ::-1] if mirrored else window) - mean) / std
        wanted[0, 0] = 0
        np.testing.assert_allclose(y, wanted, rtol=1e-5, atol=1e-5)


BIG = 96 * 2**20
PEAK = """
import resource, sys
import numpy as np
from gpucnn.data import Augmentation, Dataset, Loader, split_validation
from gpucnn.data.stored import StoredImages, StoredWriter
path, size = sys.argv[1], int(sys.argv[2])
image = np.arange(64 * 64 * 3, dtype=np.uint8).reshape(1, 64, 64, 3)
count = size // image.size
with StoredWriter(path) as writer:
    append = writer.images("images", (count, 64, 64, 3))
    for number in range(0, count, 64):
        append(np.repeat(image, 64, axis=0) + np.uint8(number % 256))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
dataset = Dataset("big", StoredImages(path), np.arange(count) % 10, tuple("0123456789"))
train, test = split_validation(dataset, 100, 0)
dataset.digest, train.mean, test.std
for x, labels in Loader(train, 32, mean=train.mean, std=train.std, shuffle=True).epoch(0):
    pass
print(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))
"""


def test_memory_stays_far_below_the_size_of_the_set(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PEAK, str(tmp_path / "big.h5"), str(BIG)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < BIG // 2
    with suppress(FileNotFoundError):
        (tmp_path / "big.h5").unlink()
