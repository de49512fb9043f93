"""The pictures of an evaluation."""

from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gpucnn.cli.main import main
from gpucnn.plots.feature_maps import signed
from gpucnn.plots.report import heat, save_calibration, save_confusion, save_filters


def test_signed_colours_have_white_for_zero_and_red_and_blue_for_the_ends() -> None:
    colours = signed(np.array([0.0, 2.0, -2.0, 9.0, np.nan]), 2.0)
    assert colours.tolist() == [[255, 255, 255], [179, 38, 30], [28, 95, 184], [179, 38, 30], [255, 255, 255]]


def test_the_calibration_error_by_hand(tmp_path: Path) -> None:
    confidence = np.array([0.95, 0.95, 0.95, 0.95, 0.55, 0.55])
    right = np.array([True, True, True, False, True, False])
    wanted = 4 / 6 * abs(0.75 - 0.95) + 2 / 6 * abs(0.5 - 0.55)
    assert save_calibration(tmp_path / "calibration.png", confidence, right) == pytest.approx(wanted)


@pytest.mark.parametrize("count", [2, 10, 100])
def test_a_confusion_matrix_of_any_size_is_one_picture(tmp_path: Path, count: int) -> None:
    matrix = np.eye(count, dtype=int) * 90 + 1
    save_confusion(tmp_path / "confusion.png", matrix, [f"class {i}" for i in range(count)])
    with Image.open(tmp_path / "confusion.png") as picture:
        assert 400 < picture.width < 1200
        assert picture.height < 1200


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_filters_of_any_channels(tmp_path: Path, channels: int) -> None:
    weight = np.random.default_rng(0).standard_normal((9, 3, 3, channels))
    save_filters(tmp_path / "filters.png", weight, "stem.0.weight")
    assert (tmp_path / "filters.png").stat().st_size > 1000


def test_a_map_of_nothing_leaves_the_image_grey() -> None:
    picture = heat(np.zeros((3, 3)), np.full((28, 28, 1), 200, np.uint8))
    assert picture.shape == (112, 112, 3)
    assert (picture == 200).all()


class Pictures(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.sources.append(str(dict(attrs)["src"]))
            assert dict(attrs)["alt"]


def test_evaluate_writes_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert main(["train", "--dataset", "digits", "--model", "mnist_cnn", "--epochs", "1", "--output", str(run)]) == 0
    out = tmp_path / "report"
    plain = ["evaluate", "--checkpoint", str(run / "last.h5"), "--json"]
    capsys.readouterr()
    assert main(plain) == 0
    wanted = capsys.readouterr().out
    assert main([*plain, "--report", str(out)]) == 0
    shown = capsys.readouterr()
    assert shown.out == wanted  # the numbers are the same bits
    assert str(out / "index.html") in shown.err
    pictures = Pictures()
    pictures.feed((out / "index.html").read_text(encoding="utf-8"))
    assert {"confusion.png", "calibration.png", "attention.png", "filters.png"} <= set(pictures.sources)
    assert all((out / source).is_file() for source in pictures.sources)
    (tmp_path / "file").write_text("")
    assert main([*plain, "--report", str(tmp_path / "file")]) == 2
    assert "--report" in capsys.readouterr().err
