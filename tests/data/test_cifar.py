"""CIFAR in four versions, each from a folder and from an archive."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from data_samples import (
    HUNDRED_BINARY,
    HUNDRED_PYTHON,
    TEN_BINARY,
    TEN_PYTHON,
    cifar_contents,
    cifar_planes,
    python2_pickle,
    tiny_cifar10,
    write_archive,
    write_folder,
)

from gpucnn.data import Dataset
from gpucnn.data.cifar import (
    CIFAR10_CLASSES,
    CIFAR10_LAYOUTS,
    CIFAR100_CLASSES,
    CIFAR100_LAYOUTS,
    Layout,
)
from gpucnn.errors import DataError

VERSIONS = [TEN_BINARY, TEN_PYTHON, HUNDRED_BINARY, HUNDRED_PYTHON]


def name_of(value: object) -> str:
    return value.folder if isinstance(value, Layout) else str(value)


def put(folder: Path, layout: Layout, form: str, contents: dict[str, bytes] | None = None) -> Path:
    contents = contents or cifar_contents(layout)
    if form == "folder":
        return write_folder(folder / layout.folder, contents)
    return write_archive(folder / layout.archive, contents, layout.folder)


@pytest.mark.parametrize("layout", VERSIONS, ids=name_of)
@pytest.mark.parametrize("form", ["folder", "archive"])
def test_every_version(tmp_path: Path, layout: Layout, form: str) -> None:
    put(tmp_path, layout, form)
    before = sorted(tmp_path.rglob("*"))
    place = layout.find(tmp_path)
    assert place is not None
    planes = cifar_planes(layout)
    for dataset, files in zip(layout.load(place), (layout.train, layout.test), strict=True):
        wanted = np.concatenate([planes[name][0] for name in files])  # (N,3,32,32)
        assert dataset.images.shape == (len(wanted), 32, 32, 3)
        for n, row, column, channel in [(0, 0, 0, 0), (1, 31, 0, 2), (2, 5, 30, 1), (-1, 31, 31, 2)]:
            assert dataset.images[n, row, column, channel] == wanted[n, channel, row, column]
        assert np.array_equal(dataset.images[..., 1], wanted[:, 1])
        assert dataset.labels.tolist() == [int(one) for name in files for one in planes[name][1]]
        assert (dataset.name, dataset.classes) == (layout.name, layout.classes)
    assert sorted(tmp_path.rglob("*")) == before  # nothing was extracted


def test_folders_come_before_archives_and_binary_before_python(tmp_path: Path) -> None:
    both = tiny_cifar10()
    for layout, form in (
        (TEN_PYTHON, "archive"),
        (TEN_PYTHON, "folder"),
        (TEN_BINARY, "archive"),
        (TEN_BINARY, "folder"),
    ):
        place = put(tmp_path, layout, form)
        assert both.find(tmp_path) == place
    assert [path.name for path in both.files(place)] == [*TEN_BINARY.train, *TEN_BINARY.test]


def test_a_folder_that_lacks_a_batch_is_passed_over(tmp_path: Path) -> None:
    place = put(tmp_path, TEN_BINARY, "folder")
    (place / "data_batch_3.bin").unlink()
    assert TEN_BINARY.find(tmp_path) is None
    archive = put(tmp_path, TEN_BINARY, "archive")
    assert TEN_BINARY.find(tmp_path) == archive
    assert TEN_BINARY.files(archive) == [archive]


def test_records_may_lie_in_any_order(tmp_path: Path) -> None:
    contents = cifar_contents(TEN_BINARY)
    name = "data_batch_1.bin"
    records = [contents[name][start : start + 3073] for start in range(0, len(contents[name]), 3073)]
    contents[name] = b"".join(reversed(records))
    train, _ = TEN_BINARY.load(put(tmp_path, TEN_BINARY, "folder", contents))
    planes, labels = cifar_planes(TEN_BINARY)[name]
    assert train.labels[:4].tolist() == labels[::-1].tolist()
    assert np.array_equal(train.images[0, :, :, 0], planes[3, 0])


@pytest.mark.parametrize("layout", [TEN_BINARY, HUNDRED_BINARY], ids=name_of)
@pytest.mark.parametrize("form", ["folder", "archive"])
@pytest.mark.parametrize("change", [-1, 1, -3073, 3073, -(10**9)])
def test_files_of_another_size(tmp_path: Path, layout: Layout, form: str, change: int) -> None:
    contents = cifar_contents(layout)
    name = next(iter(layout.test))
    content = contents[name]
    contents[name] = content + b"\0" * change if change > 0 else content[:change]
    with pytest.raises(DataError) as caught:
        layout.load(put(tmp_path, layout, form, contents))
    wanted = 3 * (layout.label_bytes + 3072)
    assert name in str(caught.value)
    assert f"instead of {wanted:,}" in str(caught.value)
    assert "download it again" in str(caught.value)


@pytest.mark.parametrize("form", ["folder", "archive"])
@pytest.mark.parametrize(("layout", "label", "at"), [(TEN_BINARY, 10, 3073), (HUNDRED_BINARY, 100, 3075)], ids=name_of)
def test_a_label_without_a_class(tmp_path: Path, layout: Layout, label: int, at: int, form: str) -> None:
    contents = cifar_contents(layout)
    name = next(iter(layout.test))
    changed = bytearray(contents[name])
    changed[at] = label
    contents[name] = bytes(changed)
    with pytest.raises(
        DataError, match=f"{name} is damaged: record 1 has label {label}, but {layout.name} has {label} classes"
    ):
        layout.load(put(tmp_path, layout, form, contents))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (python2_pickle(np.zeros((2, 3072), np.uint8), [0, 1]), "bytes instead of"),
        (python2_pickle(np.zeros((4, 3072), np.uint8), [0, 1, 2]), "has 4 images and 3 labels instead of 4"),
        (python2_pickle(np.zeros((5, 3072), np.uint8), [0] * 5), "has 5 images and 5 labels instead of 4"),
        (python2_pickle(np.zeros((4, 3072), np.uint8), [0, 1, 2, 10]), "record 3 has label 10"),
        (python2_pickle(np.zeros((4, 3072), np.uint8), [0] * 4, "names"), "not a list of class numbers"),
        (b"\x80\x02cos\nsystem\nU\x02id\x85R." + bytes(13_000), "asks for os.system"),
    ],
)
@pytest.mark.parametrize("form", ["folder", "archive"])
def test_pickles_that_do_not_fit(tmp_path: Path, content: bytes, message: str, form: str) -> None:
    contents = cifar_contents(TEN_PYTHON) | {"data_batch_2": content}
    with pytest.raises(DataError) as caught:
        TEN_PYTHON.load(put(tmp_path, TEN_PYTHON, form, contents))
    assert message in str(caught.value)
    assert "data_batch_2" in str(caught.value)


def test_the_two_versions_hold_the_same(tmp_path: Path) -> None:
    sets = []
    for layout in (TEN_BINARY, TEN_PYTHON):
        planes = dict(zip([*layout.train, *layout.test], cifar_planes(TEN_BINARY).values(), strict=True))
        contents = (
            cifar_contents(layout)
            if layout.label_bytes
            else {n: python2_pickle(p.reshape(len(p), -1), labels.tolist()) for n, (p, labels) in planes.items()}
        )
        sets.append(layout.load(put(tmp_path, layout, "folder", contents)))
    assert [one.digest for one in sets[0]] == [one.digest for one in sets[1]]


def test_the_registry_finds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gpucnn.data import DATASETS, load_dataset

    monkeypatch.setitem(DATASETS, "cifar10", tiny_cifar10())
    put(tmp_path, TEN_PYTHON, "archive")
    train, test = load_dataset("cifar10", tmp_path, download=False)
    assert (len(train), len(test)) == (20, 3)
    assert isinstance(train, Dataset)


def test_the_publishers_sizes() -> None:
    """10,000 records to a file of CIFAR-10, 50,000 and 10,000 of CIFAR-100."""
    assert CIFAR10_LAYOUTS[0].sizes(10_000) == (30_730_000, 30_730_000)
    assert CIFAR100_LAYOUTS[0].sizes(50_000) == (153_700_000, 153_700_000)
    for layout in CIFAR10_LAYOUTS + CIFAR100_LAYOUTS:
        assert (sum(layout.train.values()), sum(layout.test.values())) == (50_000, 10_000)
    smallest, largest = CIFAR10_LAYOUTS[1].sizes(10_000)
    assert smallest < 31_035_999 < largest  # what a python batch has
    assert CIFAR100_LAYOUTS[1].sizes(50_000)[1] > 155_249_918
    assert replace(CIFAR10_LAYOUTS[0], label_bytes=2).sizes(1) == (3074, 3074)


def test_the_classes() -> None:
    assert len(CIFAR10_CLASSES) == len(set(CIFAR10_CLASSES)) == 10
    assert len(CIFAR100_CLASSES) == len(set(CIFAR100_CLASSES)) == 100
    assert list(CIFAR100_CLASSES) == sorted(CIFAR100_CLASSES)  # the publisher numbers them by the alphabet
