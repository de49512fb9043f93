"""``gpucnn augmentations``: the sheet shows the draws of a run, and the images they were made of."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gpucnn.backend import REFERENCE
from gpucnn.cli.augmentations import augmented, some_of_each_class
from gpucnn.cli.main import main
from gpucnn.data import Dataset, load_dataset
from gpucnn.plots import feature_maps
from gpucnn.runs.build import build_trainer, resolve
from gpucnn.runs.config import Config


def test_a_sheet_of_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    sheets = []
    monkeypatch.setattr(
        feature_maps, "save_columns", lambda *args, real=feature_maps.save_columns: (sheets.append(args), real(*args))
    )
    words = ["--set", "data.rotation=20", "--set", "data.crop=1", "--columns", "3", "--images", "5"]
    assert main(["augmentations", *words, "--out", str(tmp_path / "new" / "sheet.png")]) == 0
    with Image.open(tmp_path / "new" / "sheet.png") as image:
        assert image.width > 300
        assert len(image.convert("RGB").getcolors(1 << 20)) > 8
    (_, _, note, names, columns), train = sheets[0], load_dataset("digits")[0]
    assert note == "crop 1, rotation 20"
    assert names == list("01234")
    assert [column.title for column in columns] == ["image", "epoch 1", "epoch 2", "epoch 3"]
    for name, image in zip(names, columns[0].images, strict=True):
        assert any(np.array_equal(image, other) for other in train.images[train.labels == int(name)])
    assert len({column.images.tobytes() for column in columns}) == 4
    assert "crop 1, rotation 20" in capsys.readouterr().out


def test_the_draws_are_those_of_a_run() -> None:
    train, _ = load_dataset("digits")
    changes = {"crop": 2, "cutout": 3, "elastic": 5.0, "rotation": 9.0, "contrast": 0.2}
    config = resolve(Config().updated({"data": changes, "train": {"seed": 3, "batch_size": 100}}), train)
    index = np.array([5, 700, 11])
    columns = augmented(config, train, config.data.augmentation, index, 2)
    batches = build_trainer(config, train, REFERENCE)
    batches.mean, batches.std = train.mean, train.std
    loader = batches.loader(train, training=True)
    for epoch, column in enumerate(columns):
        loader.shuffle = False  # so that an image is found by its number
        images = np.concatenate([x for x, _ in loader.epoch(epoch)])[index]
        pixels = np.rint(255 * (images * np.array(train.std) + np.array(train.mean)))
        assert np.array_equal(column.images, pixels)


def test_mixed_columns_say_how_much_is_their_own() -> None:
    train, _ = load_dataset("digits")
    config = Config().updated({"data": {"mixup": 1.0, "cutmix": 1.0, "mixup_prob": 0.8}})
    notes = [c.note.split()[0] for c in augmented(config, train, config.data.augmentation, np.arange(4), 20)]
    assert set(notes) == {"mixup", "cutmix", "not"}


def test_one_of_each_class_then_the_next() -> None:
    labels = np.array([2, 2, 0, 1, 0, 2, 1], np.uint8)
    dataset = Dataset("few", np.zeros((7, 2, 2, 1), np.uint8), labels, ("a", "b", "c"))
    assert some_of_each_class(dataset, 5).tolist() == [2, 3, 0, 4, 6]
    assert some_of_each_class(dataset, 99).tolist() == [2, 3, 0, 4, 6, 1, 5]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "this recipe has no augmentation"),
        (["--images", "0"], "--images 0: give a number from 1 to 40"),
        (["--columns", "41"], "--columns 41"),
        (["--out", "sheet.jpg"], "--out sheet.jpg: give the name of a PNG file"),
        (["--set", "data.crop=9"], "crop = 9 for images of 8 x 8: give at most 7"),
    ],
)
def test_bad_input_is_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["augmentations", *words]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
