"""Folders of images: what is a class, a part and an image, the order, sizes, broken files, links, and the cache."""

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gpucnn.data import folders, load_dataset
from gpucnn.data.folders import chosen_size, images_below, load_folder
from gpucnn.data.reading import Reading
from gpucnn.data.registry import load_parts
from gpucnn.data.stored import StoredImages
from gpucnn.errors import DataError, UsageError

RNG = np.random.default_rng(7)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    return home / "gpucnn/decoded"


def noise(height: int = 6, width: int = 6, channels: int = 3) -> np.ndarray:
    pixels = RNG.integers(0, 256, (height, width, channels), dtype=np.uint8)
    return pixels[:, :, 0] if channels == 1 else pixels


def put(path: Path, pixels: np.ndarray | None = None) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = noise() if pixels is None else pixels
    Image.fromarray(pixels).save(path)
    return pixels


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Two classes of six images, whose names are not sorted as they were made."""
    for name in ("dog", "cat"):
        for number in (10, 9, 1, 0, 2, 3):
            put(tmp_path / f"pets/{name}/{number}.png")
    return tmp_path / "pets"


def test_images_are_those_of_the_files_class_by_class_and_by_name(pets: Path) -> None:
    train, validation, test = load_folder(pets, Reading())
    files = [pets / name / f"{n}.png" for name in ("cat", "dog") for n in sorted(map(str, (10, 9, 1, 0, 2, 3)))]
    np.testing.assert_array_equal(train.images, [np.asarray(Image.open(path)) for path in files])
    assert (train.name, train.classes, validation, test) == ("pets", ("cat", "dog"), None, None)
    assert train.labels.tolist() == [0] * 6 + [1] * 6


def test_parts_under_any_of_their_names_and_what_is_passed_over(tmp_path: Path) -> None:
    images = {part: put(tmp_path / part / "a" / "x.bmp") for part in ("Train", "val", "test")}
    put(tmp_path / "Train/b/deeper/y.JPG")
    for name in ("Train/a/.DS_Store", "Train/a/Thumbs.db", "Train/a/._x.jpg", "notes.txt", "Train/readme.md"):
        (tmp_path / name).write_text("no picture")
    for name in ("Train/.git", "Train/__MACOSX", "drafts"):
        (tmp_path / name).mkdir()
    parts = load_folder(tmp_path, Reading())
    assert [len(one) for one in parts] == [2, 1, 1]
    for dataset, part in zip(parts, ("Train", "val", "test"), strict=True):
        np.testing.assert_array_equal(dataset.images[0], images[part])
        assert dataset.classes == ("a", "b")


def test_a_class_may_be_called_like_a_part(tmp_path: Path) -> None:
    for name in ("train", "bus", "plane"):
        put(tmp_path / name / "1.png")
    assert load_folder(tmp_path, Reading()).train.classes == ("bus", "plane", "train")


def test_without_a_test_part_a_fifth_of_each_class_is_held_out(pets: Path) -> None:
    for number in range(20, 34):
        put(pets / f"cat/{number}.png")
    train, test = load_dataset(pets)
    assert np.bincount(train.labels).tolist() == [16, 5]
    assert np.bincount(test.labels).tolist() == [4, 1]
    assert load_dataset(str(pets))[1].digest == test.digest


def test_grey_and_colour_by_what_is_there_or_as_asked(tmp_path: Path) -> None:
    grey = put(tmp_path / "a/1.png", noise(channels=1))
    assert load_folder(tmp_path, Reading()).train.image_shape == (6, 6, 1)
    colour = put(tmp_path / "a/2.png")
    both = load_folder(tmp_path, Reading()).train
    np.testing.assert_array_equal(both.images, [np.stack([grey] * 3, axis=2), colour])
    assert load_folder(tmp_path, Reading(channels=1)).train.image_shape == (6, 6, 1)


def test_images_turned_by_exif_count_as_they_stand(tmp_path: Path) -> None:
    put(tmp_path / "a/1.png", noise(4, 8))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((8, 4, 3), np.uint8)).save(tmp_path / "a/2.jpg", exif=exif)
    assert load_folder(tmp_path, Reading()).train.image_shape == (4, 8, 3)


@pytest.mark.parametrize(
    ("shapes", "wanted"),
    [
        ({(30, 40, 3): 9}, (30, 40)),
        ({(600, 800, 3): 9}, (224, 224)),
        ({(30, 40, 3): 2, (90, 60, 3): 3, (500, 400, 1): 1}, (60, 60)),
        ({(300, 400, 3): 1, (400, 300, 3): 1}, (224, 224)),
    ],
)
def test_the_size_of_images_of_several_sizes(shapes, wanted) -> None:
    size, note = chosen_size(Counter(shapes), "pets", "crop")
    assert size == wanted
    assert bool(note) == (len(shapes) > 1 or wanted == (224, 224))


@pytest.mark.parametrize(
    ("fit", "row"),
    [("crop", [100] * 4), ("pad", [0, 0, 0, 0]), ("stretch", [0, 100, 100, 0])],
)
def test_three_ways_to_another_aspect_ratio(tmp_path: Path, fit, row, capsys) -> None:
    wide = np.zeros((20, 40), np.uint8)
    wide[:, 10:30] = 100
    put(tmp_path / "a/wide.png", wide)
    put(tmp_path / "a/high.png", np.full((40, 20), 7, np.uint8))
    train = load_folder(tmp_path, Reading(size=(4,), fit=fit)).train
    np.testing.assert_allclose(train.images[1, 0, :, 0], row, atol=12)
    assert capsys.readouterr().err == ""
    load_folder(tmp_path, Reading(fit=fit))
    assert "of 2 sizes, 20 x 40 to 40 x 20 (height x width)" in capsys.readouterr().err


def test_broken_files_are_named_or_left_out(pets: Path, tmp_path: Path, capsys) -> None:
    whole = load_folder(pets, Reading()).train
    (pets / "cat/10.png").write_bytes((pets / "cat/10.png").read_bytes()[:60])
    (pets / "dog/9.png").write_text("no picture")
    (pets / "dog/99.png").symlink_to(tmp_path / "secret.png")
    put(tmp_path / "secret.png")
    os.mkfifo(pets / "dog/98.png")
    for how in (Reading(), Reading(memory=1)):
        with pytest.raises(
            DataError, match=r"4 of 14 images that cannot be read: cat/10\.png: .*dog/98\.png: not a reg"
        ) as caught:
            load_folder(pets, how)
        assert "\n" not in str(caught.value)
    capsys.readouterr()
    for memory in (0, 1):
        train = load_folder(pets, Reading(skip_broken=True, memory=memory)).train
        np.testing.assert_array_equal(np.asarray(train.images), np.delete(whole.images, [2, 11], axis=0))
        assert train.labels.tolist() == [0] * 5 + [1] * 5
        assert "left out 4 of 14 images" in capsys.readouterr().err


def test_a_large_picture_is_broken_before_it_is_decoded(pets: Path, monkeypatch) -> None:
    monkeypatch.setattr("gpucnn.data.image_files.LARGEST", 40)
    put(pets / "cat/bomb.png", noise(7, 7))
    with pytest.raises(DataError, match=r"1 of 13 images .*cat/bomb\.png: .*7 x 7 pixels, at most 40"):
        load_folder(pets, Reading())


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda root: root.mkdir(), "has no images: give a folder with a sub-folder"),
        (lambda root: put(root / "1.png"), "has no images: give a folder with a sub-folder"),
        (lambda root: [put(root / "a/1.png"), (root / "b").mkdir()], "b has no images: remove it"),
        (lambda root: [put(root / "train/a/1.png"), put(root / "test/c/1.png")], "training part has no class 'c'"),
        (
            lambda root: [put(root / "train/a/1.png"), put(root / "val/a/1.png"), put(root / "valid/a/1.png")],
            "both the",
        ),
        (lambda root: put(root / "test/a/1.png"), "no folder train"),
        (lambda root: [put(root / "train/a/1.png"), (root / "val/a").mkdir(parents=True)], "val has no images: remove"),
        (lambda root: put(root / "a\x1b[2J/1.png"), "no name for a class"),
        (lambda root: put(root / ("a/" * 23 + "1.png")), "more than 20 folders"),
    ],
)
def test_folders_that_are_no_data_set(tmp_path: Path, make, reason) -> None:
    make(tmp_path / "set")
    with pytest.raises(DataError, match=reason):
        load_folder(tmp_path / "set", Reading())


def test_classes_of_a_model_give_the_labels(pets: Path) -> None:
    dataset = load_folder(pets, Reading(classes=("zebra", "dog", "cat"))).train
    assert dataset.labels.tolist() == [2] * 6 + [1] * 6
    with pytest.raises(DataError, match="the model has no class 'dog'"):
        load_folder(pets, Reading(classes=("cat", "dogs")))


def files(cache: Path) -> list[Path]:
    return [path for path in cache.iterdir() if not path.is_symlink()]


def test_a_second_time_nothing_is_decoded(pets: Path, cache: Path, monkeypatch) -> None:
    first = load_folder(pets, Reading()).train
    (kept,) = files(cache)
    with monkeypatch.context() as patch:
        patch.setattr(folders, "decode", None)
        patch.setattr(folders, "probe", None)
        assert load_folder(pets, Reading()).train.digest == first.digest
        assert load_folder(pets, Reading(size=(6, 6), channels=3)).train.digest == first.digest  # as a model asks
    assert load_folder(pets, Reading(channels=1)).train.image_shape == (6, 6, 1)
    put(pets / "cat/0.png")
    assert load_folder(pets, Reading()).train.digest != first.digest
    for number in range(5):
        put(pets / "cat/0.png")
        load_folder(pets, Reading(size=(number + 2,)))
    assert len(files(cache)) == 4
    assert kept not in files(cache)


@pytest.mark.parametrize("damage", ["cut", "bit", "text"])
def test_a_damaged_cache_is_removed_and_made_anew(pets: Path, cache: Path, capsys, damage) -> None:
    first = load_folder(pets, Reading()).train
    (kept,) = files(cache)
    content = bytearray(kept.read_bytes())
    place = content.index(first.images.tobytes())
    content[place + 5] ^= 1
    kept.write_bytes({"cut": content[: place + 20], "bit": content, "text": b"no HDF5"}[damage])
    assert load_folder(pets, Reading()).train.digest == first.digest
    assert "removed damaged decoded images of pets" in capsys.readouterr().err
    assert load_folder(pets, Reading()).train.digest == first.digest
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("home", ["none", "file"])
def test_without_a_place_for_the_cache(pets: Path, cache: Path, monkeypatch, capsys, home) -> None:
    if home == "none":
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    else:
        cache.parent.write_text("a file in its place")
    assert len(load_folder(pets, Reading()).train) == 12
    assert ("are not kept" in capsys.readouterr().err) == (home == "file")
    with pytest.raises(DataError, match=r"no home|cannot write images"):
        load_folder(pets, Reading(memory=1))


def test_more_than_memory_may_take_stays_in_the_file(pets: Path, monkeypatch) -> None:
    monkeypatch.setattr(folders, "CHUNK", 3 * 6 * 6 * 5)  # five images at a time
    stored, loaded = (load_folder(pets, Reading(memory=memory)).train for memory in (1000, 0))
    assert isinstance(stored.images, StoredImages)
    assert isinstance(loaded.images, np.ndarray)
    assert stored.digest == loaded.digest == replace(loaded, images=loaded.images.copy()).digest


def test_images_below_a_folder(pets: Path) -> None:
    (pets / "cat/note.txt").touch()
    found = images_below(pets)
    assert len(found) == 12
    assert found == sorted(found, key=str)


def test_paths_that_are_no_data_set(tmp_path: Path) -> None:
    (tmp_path / "set.doc").touch()
    (tmp_path / "flowers").mkdir()
    for name, error, reason in (
        (tmp_path / "flower", DataError, "no such folder or file; did you mean .*flowers"),
        (tmp_path / "set.doc", DataError, r"give a folder with a sub-folder per class, or a file of \.npz"),
        ("flowers_not_here", UsageError, "unknown data set 'flowers_not_here'.*named by its path"),
        ("~nobody-of-this-name/x", DataError, "no home of that user"),
    ):
        with pytest.raises(error, match=reason):
            load_parts(str(name))


@pytest.mark.parametrize("wrong", [{"size": (0, 5)}, {"size": (1, 2, 3)}, {"channels": 2}, {"fit": "crops"}])
def test_values_out_of_range(wrong) -> None:
    with pytest.raises(UsageError, match=r"give|did you mean"):
        Reading(**wrong)
