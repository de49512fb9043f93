"""Bounds of checkpoints: what just fits is read, and one more is refused."""

import errno
import os
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from checkpoint_samples import assert_equal, edited, image_of, sample

import gpucnn.checkpoint
from gpucnn.checkpoint import durable, envelope, load_checkpoint, save_checkpoint, structure
from gpucnn.checkpoint.structure import Tree
from gpucnn.errors import CheckpointError, UsageError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "x.h5", sample())
    return tmp_path / "x.h5"


def exact(name: str, path: Path) -> int:
    """What the sample needs, counted without the reader's bounds."""
    tensors = sample().tensors()
    tree = Tree(image_of(path))
    return {
        "MAX_STRUCTURES": len(tree.claims),
        "MAX_DEPTH": 2,  # optimizer/velocity
        "MAX_RANK": max(array.ndim for array in tensors.values()),
        "MAX_ELEMENTS": max(array.size for array in tensors.values()),
        "MAX_NAME": max(len(part) for place in tree.entries for part in place.split("/")),
        "LARGEST": path.stat().st_size,
    }[name]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("MAX_STRUCTURES", "structures, too many"),
        ("MAX_DEPTH", "groups nested deeper than 1: 'optimizer/velocity'"),
        ("MAX_RANK", "rank 4"),
        ("MAX_ELEMENTS", "more elements than allowed"),
        ("MAX_NAME", "unusable name"),
        ("LARGEST", "that a checkpoint may have"),
    ],
)
def test_what_just_fits_is_read(name: str, message: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bound, module = exact(name, path), envelope if name == "LARGEST" else structure
    if name == "MAX_ELEMENTS":
        bound = 72
    monkeypatch.setattr(module, name, bound)
    assert_equal(load_checkpoint(path), sample())
    monkeypatch.setattr(module, name, bound - 1)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(path)


@pytest.mark.parametrize("name", ["MAX_BLOCK", "MAX_MESSAGES"])
def test_the_header_that_just_fits_is_read(name: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    low, high = 0, getattr(structure, name)  # refused, read
    while high - low > 1:
        middle = (low + high) // 2
        monkeypatch.setattr(structure, name, middle)
        try:
            load_checkpoint(path)
            high = middle
        except CheckpointError:
            low = middle
    monkeypatch.setattr(structure, name, low)
    message = f"too long: {high} bytes" if name == "MAX_BLOCK" else "a header that gpucnn does not write"
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(path)
    assert high < 4096


def test_a_file_that_would_be_too_large_is_not_saved(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()
    monkeypatch.setattr(gpucnn.checkpoint, "LARGEST", len(before))
    save_checkpoint(path, sample())
    monkeypatch.setattr(gpucnn.checkpoint, "LARGEST", len(before) - 1)
    with pytest.raises(CheckpointError, match="a checkpoint may have"):
        save_checkpoint(path, sample(seed=1))
    assert path.read_bytes() == before


@pytest.mark.parametrize("rank", [0, 1, 8, 9])
def test_tensors_have_eight_axes_at_most(rank: int, path: Path) -> None:
    made = replace(sample(), buffers={"b": np.full((1,) * rank, 2.5, np.float32)})
    if rank <= 8:
        save_checkpoint(path, made)
        assert_equal(load_checkpoint(path), made)
    else:
        with pytest.raises(CheckpointError, match="rank 9"):
            save_checkpoint(path, made)


@pytest.mark.parametrize("length", [1, 254, 255, 256])
def test_names_have_255_characters_at_most(length: int, path: Path) -> None:
    made = replace(sample(), buffers={"b" * length: np.ones(2, np.float32)})
    if length <= 255:
        save_checkpoint(path, made)
        assert_equal(load_checkpoint(path), made)
    else:
        with pytest.raises(CheckpointError, match="unusable name"):
            save_checkpoint(path, made)


@pytest.mark.parametrize("value", [-(2**63), 2**63 - 1, 0, 1.5, -0.0, 1e308])
def test_numbers_of_64_bits_come_back(value: float, path: Path) -> None:
    made = replace(sample(), progress={**sample().progress, "best_epoch": value})
    save_checkpoint(path, made)
    assert_equal(load_checkpoint(path), made)


@pytest.mark.parametrize("value", [-(2**63) - 1, 2**63])
def test_larger_numbers_are_refused(value: int, path: Path) -> None:
    with pytest.raises(UsageError, match="64 bits"):
        save_checkpoint(path, replace(sample(), progress={**sample().progress, "best_epoch": value}))


@pytest.mark.parametrize("count", [1, 4, 7, 8, 9, 64, 65, 300])
def test_any_number_of_tensors(count: int, path: Path) -> None:
    """HDF5 has eight names in a node of a group, then a tree of nodes."""
    arrays = {f"layer{i}.weight": np.full((i + 1,), i, np.float32) for i in range(count)}
    made = replace(sample(), parameters=arrays, optimizer={}, buffers={})
    save_checkpoint(path, made)
    assert_equal(load_checkpoint(path), made)


@pytest.mark.parametrize("size", [0, 1, 5, 16])
def test_tensors_of_any_size(size: int, path: Path) -> None:
    made = replace(sample(), buffers={"b": np.arange(size, dtype=np.float32), "c": np.ones((3, size), np.float32)})
    save_checkpoint(path, made)
    assert_equal(load_checkpoint(path), made)


@pytest.mark.parametrize("text", ["", "x", "ü" * 100, "a" * 7, "a" * 8, "a" * 9, "line\nline\n"])
def test_texts_of_any_length(text: str, path: Path) -> None:
    made = replace(sample(), config=text, environment=text, dataset_digest=text)
    save_checkpoint(path, made)
    assert_equal(load_checkpoint(path), made)


def test_half_precision_is_for_the_disk_alone(path: Path) -> None:
    halved = {name: array.astype(np.float16) for name, array in sample().parameters.items()}
    save_checkpoint(path, replace(sample(), parameters=halved, optimizer={}))
    loaded = load_checkpoint(path, lambda text: {
        "parameters": {name: (array.shape, "float32") for name, array in halved.items()},
        "buffers": {"features.1.running_mean": ((4,), "float32")},
    })  # fmt: skip
    for name, array in loaded.parameters.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, halved[name].astype(np.float32))


@pytest.mark.parametrize("group", ["model", "buffers", "optimizer/velocity"])
def test_a_text_is_no_tensor(group: str, path: Path) -> None:
    kind = h5py.string_dtype("utf-8", 3)
    edited(
        path, lambda file: file.create_dataset(f"{group}/odd", data=np.bytes_(b"abc"), dtype=kind, track_times=False)
    )
    with pytest.raises(CheckpointError, match=f"tensor '{group}/odd' is a text"):
        load_checkpoint(path)


@pytest.mark.parametrize(("code", "known"), [(errno.EINVAL, True), (errno.ENOTSUP, True), (errno.EIO, False)])
def test_a_folder_that_cannot_be_synced(
    code: int, known: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some file systems cannot; on all others it is an error like any other."""

    def refuse(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(durable.os, "fsync", refuse)
    if known:
        durable.sync_directory(tmp_path)
    else:
        with pytest.raises(OSError, match="Input/output"):
            durable.sync_directory(tmp_path)
