"""``gpucnn features``: the pictures show the numbers, and the numbers show edges."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gpucnn.cli.main import main
from gpucnn.data.image_files import open_image
from gpucnn.plots import feature_maps, lecture_demo

STAGES = ("conv", "relu", "max_pool", "avg_pool")


def scene() -> np.ndarray:
    """A bright disc before a dim slope (200,300), uint8: flat areas and one clear edge."""
    y, x = np.mgrid[:200, :300]
    disc = (y - 100) ** 2 + (x - 150) ** 2 < 70**2
    return np.where(disc, 200, 20 + x // 10).astype(np.uint8)


def gradient(photo: np.ndarray) -> np.ndarray:
    """The magnitude of the gradient (H,W) of a photo."""
    return np.hypot(*np.gradient(photo.astype(float)))


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("features")
    Image.fromarray(scene()).save(folder / "scene.png")
    assert main(["features", str(folder / "scene.png"), "--out", str(folder / "out")]) == 0
    return folder / "out"


def test_stages_are_the_lecture_by_seven_loops() -> None:
    photo = np.random.default_rng(0).random((5, 7))
    kernels, stages = lecture_demo.run(photo)
    np.random.seed(24)  # noqa: NPY002  (the slides' own words)
    wanted = np.random.randn(8, 3, 3) * np.sqrt(2 / 9)  # noqa: NPY002
    np.testing.assert_allclose(kernels, wanted)
    padded = np.pad(photo, 2)
    z = np.zeros((7, 9, 8))
    for i, j, f in np.ndindex(z.shape):
        for m in range(3):
            for n in range(3):
                z[i, j, f] += padded[i + m, j + n] * wanted[f, m, n]
    conv, relu, maximum, average = (stage.values for stage in stages)
    np.testing.assert_allclose(conv, z, atol=1e-12)
    np.testing.assert_allclose(relu, np.where(z > 0, z, 0), atol=1e-12)
    for i, j, f in np.ndindex(3, 4, 8):
        window = relu[2 * i : 2 * i + 2, 2 * j : 2 * j + 2, f]
        assert maximum[i, j, f] == window.max()
        assert average[i, j, f] == pytest.approx(window.mean())
    assert maximum.shape == average.shape == (3, 4, 8)


def test_a_filter_that_sums_to_nearly_zero_finds_edges() -> None:
    photo = scene() / 255.0
    _, stages = lecture_demo.run(photo)
    inner = np.abs(stages[0].values[1:-1, 1:-1])
    edge = gradient(photo) > 0.05
    contrast = inner[edge].mean(axis=0) / inner[~edge].mean(axis=0)  # (8,)
    # filter 6's weights add up to 0.13, filter 1's to 3.2: the one sees edges, the other brightness
    assert contrast[6] > 4
    assert contrast[1] < 2
    assert correlation(inner[:, :, 6], gradient(photo)) > 0.4
    assert correlation(inner[:, :, 1], photo) > 0.95


def test_the_photograph_that_comes_along_shows_its_edges() -> None:
    from gpucnn.cli.features import photograph

    photo, title = photograph(None)
    assert photo.shape == (427, 640)
    assert "427 x 640" in title
    _, stages = lecture_demo.run(photo)
    edges = gradient(photo)
    assert correlation(stages[1].values[1:-1, 1:-1, 7], edges) > 0.1
    assert correlation(np.abs(stages[0].values[1:-1, 1:-1, 6]), edges) > 0.2


@pytest.mark.parametrize("number", range(4))
def test_each_tile_shows_its_channel(pictures: Path, number) -> None:
    _, stages = lecture_demo.run(scene() / 255.0)
    sheet = np.asarray(Image.open(pictures / f"{STAGES[number]}.png").convert("L"), dtype=float)
    values = stages[number].values
    height, width = values.shape[:2]
    tile_w = min(width, 300)
    tile_h = round(tile_w * height / width)
    for f in range(8):
        x, y = 12 + f % 4 * (tile_w + 12), 74 + f // 4 * (tile_h + 20 + 12)
        tile = sheet[y : y + tile_h, x : x + tile_w]
        low, high = feature_maps.grey_scale(values[:, :, f])
        shown = Image.fromarray(np.clip((values[:, :, f] - low) / (high - low), 0, 1).astype(np.float32))
        wanted = np.asarray(shown.resize((tile_w, tile_h), Image.Resampling.BILINEAR))
        if wanted.std() < 0.02:  # a filter that this scene leaves dark
            assert tile.mean() < 20
        else:
            assert tile.std() > 10
            assert correlation(tile[3:-3, 3:-3], wanted[3:-3, 3:-3]) > 0.9
    assert sheet.shape[1] == 12 + 4 * (tile_w + 12)


def test_the_overview_is_neither_blank_nor_noise(pictures: Path) -> None:
    image = Image.open(pictures / "overview.png")
    assert (pictures / "overview.png").stat().st_size < 300_000
    sheet = np.asarray(image.convert("L"), dtype=float)
    assert sheet.std() > 40
    assert correlation(sheet[:, 1:], sheet[:, :-1]) > 0.9
    column = sheet[:, 20:350]  # where the photograph stands, 330 x 220 pixels of 300 x 200
    top = int(np.flatnonzero((column < 128).mean(axis=1) > 0.3)[0])
    photo = np.asarray(Image.fromarray(scene()).resize((330, 220)), dtype=float)
    assert correlation(column[top : top + 220], photo) > 0.95


def test_a_trained_model_gets_a_picture_per_layer(trained, tmp_path: Path, capsys) -> None:
    line = ["features", "--checkpoint", str(trained.path), "--index", "3", "--out", str(tmp_path)]
    assert main(line) == 0
    out = capsys.readouterr().out
    assert (tmp_path / "index.html").is_file()
    assert (tmp_path / "attention.png").is_file()
    names = sorted(path.name for path in tmp_path.glob("[0-9]*.png"))
    assert names[0] == "00_input_normalised.png"
    assert [name.partition("_")[0] for name in names] == [f"{i:02d}" for i in range(len(names))]
    kinds = [name.removesuffix(".png").rpartition("_")[2] for name in names]
    assert kinds.count("Conv2D") == 3
    assert kinds.count("MaxPool2D") == 2
    assert kinds[-1] == "Linear"
    assert all(str(tmp_path / name) in out for name in names)
    assert "features.8 Flatten, classifier.2 Dropout" in out
    assert "8 x 8 x 32" in out
    for name in names:
        assert np.asarray(Image.open(tmp_path / name).convert("L")).std() > 5, name


def test_an_image_file_goes_through_a_trained_model(trained, digit_file, tmp_path: Path) -> None:
    for words, folder in ((["--index", "0"], "a"), ([str(digit_file)], "b")):
        line = ["features", *words, "--checkpoint", str(trained.path), "--out", str(tmp_path / folder)]
        assert main(line) == 0
    for path in (tmp_path / "a").glob("*.png"):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_more_than_64_channels_are_counted_not_drawn(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((8, 8, 70))
    feature_maps.save_grid(tmp_path / "all.png", feature_maps.Stage("x", "many", values))
    feature_maps.save_grid(tmp_path / "capped.png", feature_maps.Stage("x", "many", values[:, :, :64]))
    sizes = {open_image(tmp_path / name)[0].size for name in ("all.png", "capped.png")}
    assert len(sizes) == 1


@pytest.mark.parametrize("count", [1, 3, 8, 16, 32, 64])
def test_sheets_have_full_rows(count) -> None:
    assert count % feature_maps.best_columns(count, 1.0) == 0


def test_a_flat_picture_has_a_scale() -> None:
    for value in (0.0, 3.0, -2.0):
        low, high = feature_maps.grey_scale(np.full((4, 4), value))
        assert np.isfinite([low, high]).all()
        assert low < high


@pytest.mark.parametrize("shape", [(1, 1), (1, 400), (400, 1), (3, 2)])
def test_odd_pictures_make_sheets_of_sane_size(tmp_path: Path, shape) -> None:
    Image.fromarray(np.full(shape, 99, np.uint8)).save(tmp_path / "odd.png")
    assert main(["features", str(tmp_path / "odd.png"), "--out", str(tmp_path / "out")]) == 0
    for path in (tmp_path / "out").iterdir():
        assert max(open_image(path)[0].size) < 6000


def test_large_photographs_are_made_smaller_and_it_is_said(tmp_path: Path, capsys) -> None:
    Image.fromarray(np.tile(scene(), (8, 8))).save(tmp_path / "large.jpg")
    assert main(["features", str(tmp_path / "large.jpg"), "--out", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert "made smaller, from 1600 x 2400" in out
    assert "685 x 1026 x 8" in out


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["absent.jpg"], 3, "absent.jpg: no such file"),
        (["--index", "3"], 2, "add --checkpoint"),
        (["--dataset", "digits"], 2, "add --index and --checkpoint"),
        (["--checkpoint", "CHECKPOINT"], 2, "needs one image"),
        (["--checkpoint", "CHECKPOINT", "--index", "100000"], 2, "has images 0 to"),
        (["--checkpoint", "CHECKPOINT", "--index", "-1"], 2, "has images 0 to"),
        (["--checkpoint", "absent.h5", "--index", "0"], 4, "absent.h5"),
    ],
)
def test_errors_are_one_line(trained, tmp_path: Path, capsys, words, code, said) -> None:
    words = [str(trained.path) if word == "CHECKPOINT" else word for word in words]
    assert main(["features", *words, "--out", str(tmp_path / "out")]) == code
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_picture_of_somebody_else_is_not_replaced(tmp_path: Path, capsys) -> None:
    assert main(["features", "--out", str(tmp_path)]) == 0
    assert main(["features", "--out", str(tmp_path)]) == 0  # its own
    Image.new("L", (9, 9)).save(tmp_path / "overview.png")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    capsys.readouterr()
    assert main(["features", "--out", str(tmp_path)]) == 2
    assert f"{tmp_path / 'overview.png'} is there, and is no picture of gpucnn" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path, capsys) -> None:
    (tmp_path / "file").write_text("")
    assert main(["features", "--out", str(tmp_path / "file" / "out")]) == 2
    assert "--out" in capsys.readouterr().err


def test_without_the_extra_the_error_names_it(monkeypatch, tmp_path: Path, capsys) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert main(["features", "--out", str(tmp_path)]) == 2
    assert "pip install 'gpucnn[viz]'" in capsys.readouterr().err


def test_the_script_works_from_anywhere(tmp_path: Path) -> None:
    script = Path(__file__).resolve().parents[2] / "scripts" / "feature_maps.py"
    done = subprocess.run(
        [sys.executable, "-I", str(script), "--out", "pictures"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    wanted = {f"{name}.png" for name in (*STAGES, "overview")}
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == wanted
    assert "conv.png   429 x 642 x 8, -2.72 to 3.16" in done.stdout


def test_where_it_looks_for_a_class_of_choice(trained, tmp_path: Path, capsys) -> None:
    line = ["features", "--checkpoint", str(trained.path), "--index", "3", "--out", str(tmp_path), "--label"]
    assert main([*line, "8"]) == 0
    assert "attention.png   where it looks for 8" in capsys.readouterr().out
    eight = (tmp_path / "attention.png").read_bytes()
    assert main([*line, "3"]) == 0
    assert (tmp_path / "attention.png").read_bytes() != eight
    assert main([*line, "x"]) == 2
    assert "--label x: the model has no such class" in capsys.readouterr().err
    assert main(["features", "--label", "8"]) == 2
