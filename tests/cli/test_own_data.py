"""A folder of one's own from the first look to predictions: inspect, train, evaluate, predict, resume."""

import csv
import json
import os
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from readme import README, blocks

from gpucnn.cli.main import main
from gpucnn.data import load_dataset
from gpucnn.runs.state import load_run

Out = pytest.CaptureFixture[str]
NAMES = ("nought", "one", "two")


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("home")))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """The digits 0, 1 and 2, the first 30 of each, in folders; one is there twice, and one is broken."""
    train, _ = load_dataset("digits")
    for label, name in enumerate(NAMES):
        (tmp_path / "digits_png" / name).mkdir(parents=True)
        for number, place in enumerate(np.flatnonzero(train.labels == label)[:30]):
            Image.fromarray(train.images[place, :, :, 0]).save(tmp_path / f"digits_png/{name}/{number:02}.png")
    folder = tmp_path / "digits_png"
    (folder / "two/99.png").write_bytes((folder / "one/00.png").read_bytes())
    (folder / "one/bad.png").write_text("no picture")
    (folder / "one/note.txt").write_text("no picture")
    return folder


def test_predictions_that_cannot_be_written_or_made(tmp_path: Path, capsys: Out) -> None:
    os.mkfifo("pipe.csv")
    Path("folder.csv").mkdir()
    Path("loop.png").symlink_to("loop.png")
    Path("bad.png").write_text("no picture")
    for words, code, reason in (
        (["--output", "pipe.csv", "bad.png"], 2, "--output pipe.csv: not a regular file"),
        (["--output", "folder.csv", "bad.png"], 2, "--output folder.csv: this is a folder"),
        (["--skip-broken", "bad.png", "--output", "new.csv"], 3, "none of 1 image can be read"),
        (["--skip-broken", "loop.png", "bad.png"], 3, "none of 2 images can be read: loop.png: Too many levels"),
        (["x" * 5000], 3, "File name too long"),
    ):
        assert reason in run(capsys, "predict", "--checkpoint", "mnist_lenet", *words, code=code)[1]
    assert not Path("new.csv").exists()


def test_slips_in_the_name_of_a_folder(digits: Path, capsys: Out) -> None:
    Path("outer").mkdir()
    digits.rename("outer/digits")
    err = run(capsys, *TRAIN, "--dataset", "./outer", code=3)[1]
    assert "./outer has one class, digits, and a network tells at least two apart" in err
    assert "unknown data set 'digitss'" in run(capsys, *TRAIN, "--dataset", "digitss", code=2)[1]
    assert (
        "--skip-broken has no effect: digits has no image files"
        in run(capsys, *TRAIN, "--dataset", "digits", code=2)[1]
    )


def test_empty_names_are_no_defaults(capsys: Out) -> None:
    for flag, reason in (("--recipe", "give a name of gpucnn recipes"), ("--init", "give a checkpoint")):
        assert reason in run(capsys, "train", flag, "", code=2)[1]
    assert "--init .: not a regular file" not in run(capsys, "train", "--init", ".", code=2)[1]
    os.mkfifo("pipe.h5")
    assert "pipe.h5: not a regular file" in run(capsys, "train", "--init", "pipe.h5", code=2)[1]


TRAIN = ("train", "--epochs", "2", "--batch-size", "16", "--skip-broken")


def run(capsys: Out, *words: object, code: int = 0) -> tuple[str, str]:
    device = ["--device", "reference"] if words[0] in ("train", "evaluate", "predict") else []
    assert main([*map(str, words), *device]) == code
    captured = capsys.readouterr()
    return captured.out, captured.err


def test_from_a_folder_to_predictions(digits: Path, tmp_path: Path, capsys: Out) -> None:
    assert "one/bad.png" in run(capsys, *TRAIN[:-1], "--dataset", digits, code=3)[1]
    out, err = run(capsys, *TRAIN, "--dataset", digits)
    assert "digits_png: 73 training and 18 test images 8 x 8 x 1, 3 classes" in out
    assert "left out 1 of 92 images" in err
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.endswith("digits_png_mnist_cnn")
    last = out.splitlines()[-1]
    assert last == f"       gpucnn predict --checkpoint runs/{folder.name}/best.h5 {digits}"
    best = folder / "best.h5"
    config = load_run(best)[1]
    assert (config.data.dataset, config.data.classes) == (str(digits), NAMES)

    report = json.loads(run(capsys, "evaluate", "--checkpoint", best, "--json")[0])
    history = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert report["accuracy"] == max(row["test_accuracy"] for row in history)
    assert (report["examples"], tuple(report["per_class"])) == (18, NAMES)

    for name in NAMES[:2]:  # a part of the classes, in a folder of no parts: all of it is looked at
        (tmp_path / "others" / name).mkdir(parents=True)
        (tmp_path / f"others/{name}/1.png").write_bytes((digits / f"{name}/01.png").read_bytes())
    report = json.loads(run(capsys, "evaluate", "--checkpoint", best, "--dataset", tmp_path / "others", "--json")[0])
    assert [row["support"] for row in report["per_class"].values()] == [1, 1, 0]
    assert (
        "no images were held out" in run(capsys, "evaluate", "--checkpoint", best, "--split", "validation", code=2)[1]
    )

    out, err = run(capsys, "predict", "--checkpoint", best, digits, "--skip-broken", "--output", "found.csv")
    assert out == "found.csv   91 images\n"
    assert "left out 1 of 92 images that cannot be read" in err
    rows = list(csv.DictReader((tmp_path / "found.csv").read_text().splitlines()))
    assert [row["image"] for row in rows[:2]] == [str(digits / f"nought/0{i}.png") for i in (0, 1)]
    assert all(0.999 < sum(float(row[f"probability{n}"]) for n in ("", "_2", "_3")) < 1.001 for row in rows)
    assert {row["class"] for row in rows} <= set(NAMES)
    run(capsys, "predict", "--checkpoint", best, digits / "two", "--output", "found.jsonl", "--top", 1)
    lines = [json.loads(line) for line in (tmp_path / "found.jsonl").read_text().splitlines()]
    assert [line["classes"][0]["class"] for line in lines] == [row["class"] for row in rows[-31:]]
    assert (
        "must end in .csv or .jsonl"
        in run(capsys, "predict", "--checkpoint", best, digits, "--output", "found.txt", code=2)[1]
    )

    (digits / "two/98.png").write_bytes((digits / "two/05.png").read_bytes())
    said = run(capsys, "train", "--resume", folder, "--epochs", 3, code=2)[1]
    assert "was trained on other images" in said


def test_a_fraction_of_each_class_is_held_out_instead(digits: Path, tmp_path: Path, capsys: Out) -> None:
    out, _ = run(capsys, *TRAIN, "--dataset", digits, "--validation", "0.5", "--output", "run")
    assert "45 training and 46 validation images" in out
    report = json.loads(run(capsys, "evaluate", "--checkpoint", "run/best.h5", "--json")[0])
    assert (report["split"], report["examples"]) == ("validation", 46)
    assert "has no test part" in run(capsys, "evaluate", "--checkpoint", "run/best.h5", "--split", "test", code=2)[1]


def test_size_and_memory_limit(digits: Path, tmp_path: Path, capsys: Out) -> None:
    out, _ = run(capsys, *TRAIN, "--dataset", digits, "--size", "12x16", "--output", "a")
    assert "images 12 x 16 x 1" in out
    run(capsys, *TRAIN, "--dataset", digits, "--size", "12 16", "--output", "b", "--data-memory", "0.000001")
    one, other = (load_run(Path(folder) / "last.h5")[0].parameters for folder in ("a", "b"))
    for name, value in one.items():
        np.testing.assert_array_equal(other[name], value)
    for words, reason in (
        (["--size", "big"], "as 64x48"),
        (["--size", "1x2x3"], "give [height, width]"),
        (["--dataset", "digits", "--fit", "pad"], "has no effect"),
        (["--data-dir", "."], "is not used"),
    ):
        try:
            code = main([*TRAIN[:-1], "--dataset", str(digits), *words])
        except SystemExit as stop:
            code = stop.code
        assert (code, reason in capsys.readouterr().err) == (2, True), words


def test_inspect_shows_what_is_there(digits: Path, tmp_path: Path, capsys: Out) -> None:
    out, err = run(capsys, "data", "inspect", digits, "--sheet", "sheet.png")
    lines = out.splitlines()
    assert [line.split() for line in lines[2:7]] == [
        ["class", "train"], ["nought", "30"], ["one", "30"], ["two", "31"], ["all", "91"]
    ]  # fmt: skip
    assert "sizes   8 x 8 grey (91)" in out
    assert "equal   1 within train, 1 of several classes" in out
    assert "one/00.png = two/99.png" in out
    assert "broken  1 file" in out
    assert "passed over: .txt (1)" in out
    assert err == ""
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 500
    report = json.loads(run(capsys, "data", "inspect", digits, "--json")[0])
    assert report["equal_images"] == [["one/00.png", "two/99.png"]]
    assert report["classes"]["two"] == {"train": 31}


def test_inspect_finds_test_images_in_the_training_set(digits: Path, tmp_path: Path, capsys: Out) -> None:
    (tmp_path / "set").mkdir()
    (digits / "one/bad.png").unlink()
    digits.rename(tmp_path / "set/train")
    (tmp_path / "set/test/one").mkdir(parents=True)
    for name in ("00", "03"):
        (tmp_path / f"set/test/one/{name}.png").write_bytes((tmp_path / f"set/train/one/{name}.png").read_bytes())
    out, _ = run(capsys, "data", "inspect", "set")
    assert "equal   1 within train, 2 in test and train, 1 of several classes" in out
    assert "train/one/03.png = test/one/03.png" in out
    out, _ = run(capsys, "data", "inspect", "digits")
    assert "equal   no two images are the same" in out


def test_the_session_on_the_page(capsys: Out) -> None:
    page = README.parent / "docs" / "own_data.md"
    draw, load = blocks("python", page=page)
    exec(compile(draw, "draw.py", "exec"), {"__name__": "draw"})
    for line in "".join(blocks("bash", page=page)).splitlines():
        words = shlex.split(line)[1:]
        assert main([*words, "--device", "cpu"] if words[0] == "train" else words) == 0, line
    capsys.readouterr()
    exec(compile(load, str(page), "exec"), {"__name__": "session"})
    assert capsys.readouterr().out == "('bar', 'cross', 'disc')\n['bar', 'cross', 'disc']\n"
    with Path("found.csv").open() as file:
        assert [row["class"] for row in csv.DictReader(file)] == ["bar", "cross", "disc"]


@pytest.mark.parametrize(("labels", "wanted"), [("abbbba", 4), ("a" * 30, 10)])
def test_a_sheet_is_as_wide_as_its_largest_class(tmp_path: Path, monkeypatch, labels: str, wanted: int) -> None:
    np.savez(tmp_path / "few.npz", images=np.zeros((len(labels), 8, 8), np.uint8), labels=list(labels))
    drawn = []
    monkeypatch.setattr("gpucnn.plots.feature_maps.save_columns", lambda *args: drawn.append(len(args[-1])))
    assert main(["data", "inspect", str(tmp_path / "few.npz"), "--sheet", str(tmp_path / "few.png")]) == 0
    assert drawn == [wanted]
