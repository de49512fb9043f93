"""``gpucnn predict``: image files in, class names and probabilities out."""

import json
from pathlib import Path

import numpy as np
import pytest
from drawn_digits import forty
from PIL import Image

from gpucnn.cli.main import main
from gpucnn.cli.predict import looks_inverted
from gpucnn.runs.config import Config
from gpucnn.runs.state import load_trained


def predict(capsys, trained, *words: object) -> tuple[list[dict], str]:
    """The predictions, and what was said on standard error."""
    line = ["predict", "--checkpoint", str(trained.path), "--device", "reference", "--json"]
    assert main([*line, *map(str, words)]) == 0
    captured = capsys.readouterr()
    return json.loads(captured.out)["predictions"], captured.err


def test_probabilities_are_the_softmax_of_the_model(trained, digit_file, capsys) -> None:
    (answer,), said = predict(capsys, trained, digit_file, "--top", 10)
    model, _, _ = load_trained(trained.path)
    mean, std = (np.float64(v) for v in (trained.train.mean, trained.train.std))
    logits = model(((trained.test.images[:1] / 255.0 - mean) / std).astype(np.float32))[0].astype(np.float64)
    wanted = dict(zip(trained.test.classes, np.exp(logits) / np.exp(logits).sum(), strict=True))
    got = {row["class"]: row["probability"] for row in answer["classes"]}
    assert got == pytest.approx(wanted, abs=1e-5)
    assert list(got.values()) == sorted(got.values(), reverse=True)
    assert (answer["note"], said) == ("", "")


def test_views_are_averaged_before_the_softmax(trained, digit_file, capsys) -> None:
    (answer,), _ = predict(capsys, trained, digit_file, "--top", 10, "--tta", "flip")
    model, _, _ = load_trained(trained.path)
    mean, std = (np.float64(v) for v in (trained.train.mean, trained.train.std))
    x = ((trained.test.images[:1] / 255.0 - mean) / std).astype(np.float32)
    logits = (model(x)[0].astype(np.float64) + model(x[:, :, ::-1])[0]) / 2
    wanted = dict(zip(trained.test.classes, np.exp(logits) / np.exp(logits).sum(), strict=True))
    assert {row["class"]: row["probability"] for row in answer["classes"]} == pytest.approx(wanted, abs=1e-5)


def test_predictions_of_many_files_agree_with_evaluation(trained, tmp_path: Path, capsys) -> None:
    paths = [tmp_path / f"{i}.png" for i in range(70)]  # more than one batch
    for path, image in zip(paths, trained.test.images, strict=False):
        Image.fromarray(np.asarray(image[:, :, 0])).save(path)
    answers, _ = predict(capsys, trained, *paths, "--top", 1)
    assert [answer["image"] for answer in answers] == list(map(str, paths))
    right = [a["classes"][0]["class"] == str(label) for a, label in zip(answers, trained.test.labels, strict=False)]
    assert np.mean(right) > 0.7


def test_white_paper_gets_a_hint_and_can_be_inverted(trained, digit_file, tmp_path: Path, capsys) -> None:
    digit = np.asarray(Image.open(digit_file))
    paper = tmp_path / "paper.png"
    Image.fromarray(255 - digit).convert("RGB").save(paper)
    (plain,), _ = predict(capsys, trained, digit_file)
    (white,), said = predict(capsys, trained, paper)
    assert "try --invert" in said
    assert white["note"] == "colour made grey"
    assert white["classes"] != plain["classes"]
    (inverted,), said = predict(capsys, trained, paper, "--invert")
    assert inverted["classes"] == plain["classes"]
    assert said == ""


def test_larger_images_are_cropped_and_resized_with_a_note(trained, digit_file, tmp_path: Path, capsys) -> None:
    digit = np.kron(np.asarray(Image.open(digit_file)), np.ones((20, 20), np.uint8))
    wide = np.zeros((160, 260), np.uint8)
    wide[:, 50:210] = digit
    Image.fromarray(wide).save(tmp_path / "wide.jpg", quality=95)
    (plain,), _ = predict(capsys, trained, digit_file)
    (answer,), _ = predict(capsys, trained, tmp_path / "wide.jpg")
    assert answer["note"] == "cut to the middle and resized from 260 x 160 to 8 x 8"
    assert answer["classes"][0]["class"] == plain["classes"][0]["class"]
    assert answer["classes"][0]["probability"] == pytest.approx(plain["classes"][0]["probability"], abs=0.15)


def test_text_is_a_bar_per_class(trained, digit_file, capsys) -> None:
    line = ["predict", "--checkpoint", str(trained.path), str(digit_file), "--top", "2"]
    assert main(line) == 0
    first, *bars = capsys.readouterr().out.splitlines()
    assert first == str(digit_file)
    assert len(bars) == 2
    assert "#" in bars[0]
    assert all("%" in bar and len(bar) <= 80 for bar in bars)


@pytest.mark.parametrize("name", ["text.png", "cut.png", "absent.png", "folder", "bomb.png", "picture.ppm"])
def test_a_bad_file_is_one_line_that_names_it(trained, digit_file, tmp_path: Path, capsys, name) -> None:
    path = tmp_path / name
    if name == "text.png":
        path.write_text("not a picture")
    elif name == "cut.png":
        path.write_bytes(digit_file.read_bytes()[:-40])
    elif name == "folder":
        path.mkdir()
    elif name == "bomb.png":  # a header that claims 100,000 x 100,000 pixels, its checksum right
        import zlib

        data = bytearray(digit_file.read_bytes())
        data[16:24] = (100_000).to_bytes(4, "big") * 2
        data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
        path.write_bytes(data)
    elif name == "picture.ppm":
        Image.open(digit_file).save(path)
    line = ["predict", "--checkpoint", str(trained.path), str(digit_file), str(path)]
    assert main(line) == 3
    captured = capsys.readouterr()
    assert captured.out == ""
    assert name in captured.err
    assert captured.err.count("\n") == 1


def test_a_model_without_its_training_mean_gives_no_hint() -> None:
    config = Config().updated({"model": {"input_shape": [8, 8, 1]}})
    white = np.full((8, 8, 1), 255, np.uint8)
    assert not looks_inverted(white, config)
    assert looks_inverted(white, config.updated({"data": {"mean": [0.1]}}))


def test_invalid_arguments_exit_2(trained, digit_file) -> None:
    assert main(["predict", "--checkpoint", str(trained.path), str(digit_file), "--top", "0"]) == 2


LENET = Path(__file__).parents[2] / "gpucnn" / "pretrained" / "mnist_lenet.h5"


def test_a_digit_in_a_photograph_is_prepared(tmp_path: Path, capsys) -> None:
    digit, _, picture = list(forty())[2]
    picture.save(tmp_path / "photo.jpg", quality=90)
    line = ["predict", "--checkpoint", str(LENET), "--device", "reference", "--json", str(tmp_path / "photo.jpg")]
    assert main([*line, "--prepare", "digit"]) == 0
    captured = capsys.readouterr()
    (answer,) = json.loads(captured.out)["predictions"]
    assert answer["classes"][0]["class"] == str(digit)
    assert answer["note"].startswith("dark strokes made light, digit of ")
    assert captured.err == ""
    assert main(line) == 0  # without the preparation a hint names it
    assert "try --prepare digit or --invert" in capsys.readouterr().err


def test_what_was_done_to_a_picture_is_said_once(tmp_path: Path, capsys) -> None:
    strokes = np.zeros((60, 60, 4), np.uint8)
    strokes[10:50, 28:33] = 255  # white on transparency
    Image.fromarray(strokes).convert("LA").save(tmp_path / "ink.png")
    assert main(["predict", "--checkpoint", str(LENET), "--device", "reference", str(tmp_path / "ink.png")]) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines()[0] == f"{tmp_path / 'ink.png'} (laid on black, resized from 60 x 60 to 28 x 28)"
    assert captured.err == ""


def test_a_blank_page_is_one_line_that_names_it(tmp_path: Path, capsys) -> None:
    Image.new("L", (90, 90), 250).save(tmp_path / "blank.png")
    line = ["predict", "--checkpoint", str(LENET), "--prepare", "digit", str(tmp_path / "blank.png")]
    assert main(line) == 3
    captured = capsys.readouterr()
    assert "blank.png: no strokes stand out from the paper" in captured.err
    assert (captured.out, captured.err.count("\n")) == ("", 1)


def test_preparation_needs_a_model_of_mnist_s_size_and_no_inversion(trained, digit_file, capsys) -> None:
    assert main(["predict", "--checkpoint", str(trained.path), str(digit_file), "--prepare", "digit"]) == 2
    assert "the model takes 8 x 8 x 1" in capsys.readouterr().err
    assert main(["predict", "--checkpoint", str(LENET), str(digit_file), "--prepare", "digit", "--invert"]) == 2
    assert "leave --invert out" in capsys.readouterr().err
