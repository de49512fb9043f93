"""``gpucnn evaluate``: the numbers of training, and the same numbers counted by hand."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gpucnn.checkpoint import load_checkpoint, save_checkpoint
from gpucnn.cli.evaluate import as_lines, confusions
from gpucnn.cli.main import main
from gpucnn.runs.state import load_trained


def evaluate(capsys, *words: object) -> dict:
    assert main(["evaluate", "--device", "reference", "--json", *map(str, words)]) == 0
    return json.loads(capsys.readouterr().out)


def test_loss_and_accuracy_are_those_of_training_to_the_last_digit(trained, capsys) -> None:
    report = evaluate(capsys, "--checkpoint", trained.path)
    assert (report["loss"], report["accuracy"]) == (trained.report.test_loss, trained.report.test_accuracy)
    assert report["epoch"] == 2
    assert report["examples"] == len(trained.test.labels)
    assert (report["dataset"], report["split"], report["device"]) == ("digits", "test", "reference")


def test_every_number_matches_a_count_by_hand(trained, capsys) -> None:
    report = evaluate(capsys, "--checkpoint", trained.path)
    model, _, _ = load_trained(trained.path)
    mean, std = (np.float64(v) for v in (trained.train.mean, trained.train.std))
    logits = model(((trained.test.images / 255.0 - mean) / std).astype(np.float32)).astype(np.float64)
    true, answers = trained.test.labels, logits.argmax(axis=1)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert report["loss"] == pytest.approx(-np.log(p[np.arange(len(true)), true]).mean(), rel=1e-4)
    for i, name in enumerate(trained.test.classes):
        for j in range(10):
            assert report["confusion_matrix"][i][j] == np.sum((true == i) & (answers == j))
        hits, said, there = np.sum((true == i) & (answers == i)), np.sum(answers == i), np.sum(true == i)
        row = report["per_class"][name]
        assert row["precision"] == pytest.approx(hits / max(said, 1))
        assert row["recall"] == pytest.approx(hits / there)
        assert row["f1"] == pytest.approx(2 * hits / (said + there))
        assert row["support"] == there


def test_views_are_averaged_before_the_loss(trained, capsys) -> None:
    report = evaluate(capsys, "--checkpoint", trained.path, "--tta", "flip")
    model, _, _ = load_trained(trained.path)
    mean, std = (np.float64(v) for v in (trained.train.mean, trained.train.std))
    x = ((trained.test.images / 255.0 - mean) / std).astype(np.float32)
    logits = (model(x).astype(np.float64) + model(x[:, :, ::-1])) / 2
    true = trained.test.labels
    assert report["accuracy"] == np.mean(logits.argmax(axis=1) == true)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert report["loss"] == pytest.approx(-np.log(p[np.arange(len(true)), true]).mean(), rel=1e-4)
    assert main(["evaluate", "--checkpoint", str(trained.path), "--device", "reference", "--tta", "flip"]) == 0
    assert "on reference, flip views of each" in capsys.readouterr().out


def test_held_out_images_are_the_default_where_training_held_some_out(validated, capsys) -> None:
    by_default = evaluate(capsys, "--checkpoint", validated.path)
    assert by_default["split"] == "validation"
    assert by_default["examples"] == 150
    assert by_default["loss"] == validated.report.test_loss
    train = evaluate(capsys, "--checkpoint", validated.path, "--split", "train")
    assert train["examples"] == len(validated.train.labels)
    test = evaluate(capsys, "--checkpoint", validated.path, "--split", "test")
    assert test["examples"] not in (150, train["examples"])


def test_a_split_that_was_not_held_out_is_an_error(trained, capsys) -> None:
    assert main(["evaluate", "--checkpoint", str(trained.path), "--split", "validation"]) == 2
    assert "held" in one_error_line(capsys)


def test_the_text_fits_80_columns_and_names_every_class(trained, capsys, monkeypatch) -> None:
    monkeypatch.chdir(trained.path.parent)  # the path is as long as the user's
    assert main(["evaluate", "--checkpoint", trained.path.name, "--device", "reference"]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    assert f"accuracy  {trained.report.test_accuracy:.4f}" in text
    assert "confusion matrix" in text
    report = evaluate(capsys, "--checkpoint", trained.path.name)
    many = {f"class {i} with a long name": report["per_class"]["0"] for i in range(100)}
    matrix = (np.eye(100, dtype=int) * 100).tolist()
    matrix[3][70] = 8
    text = "\n".join(as_lines({**report, "per_class": many, "confusion_matrix": matrix}, "mlp"))
    assert max(map(len, text.splitlines())) <= 80


def test_the_most_frequent_mistakes_come_first() -> None:
    matrix = np.array([[9, 1, 0], [0, 9, 0], [5, 0, 9]])
    lines = confusions(matrix, ["a", "b", "c"])
    assert [line.split() for line in lines[1:]] == [
        ["5", "c", "taken", "for", "a"],
        ["1", "a", "taken", "for", "b"],
    ]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--dataset", "synthetic"], 3, "name the matching set with --dataset"),
        (["--dataset", "digit"], 2, "did you mean 'digits'"),
    ],
)
def test_data_that_does_not_fit_is_one_line(trained, capsys, words, code, said) -> None:
    assert main(["evaluate", "--checkpoint", str(trained.path), *words]) == code
    assert said in one_error_line(capsys)


def test_a_damaged_checkpoint_is_one_line(trained, tmp_path: Path, capsys) -> None:
    damaged = bytearray(trained.path.read_bytes())
    damaged[-100] ^= 1
    (tmp_path / "damaged.h5").write_bytes(damaged)
    assert main(["evaluate", "--checkpoint", str(tmp_path / "damaged.h5")]) == 4
    assert "damaged.h5" in one_error_line(capsys)


def test_a_loss_that_is_no_number_is_no_success(trained, tmp_path: Path, capsys) -> None:
    checkpoint = load_checkpoint(trained.path)
    huge = {name: array * np.float32(1e30) for name, array in checkpoint.parameters.items()}
    save_checkpoint(tmp_path / "huge.h5", replace(checkpoint, parameters=huge))
    with np.errstate(all="ignore"):
        assert main(["evaluate", "--device", "reference", "--checkpoint", str(tmp_path / "huge.h5")]) == 5
    assert "huge.h5 gives NaN or infinity" in one_error_line(capsys)


def test_the_script_works_from_anywhere(trained, tmp_path: Path) -> None:
    script = Path(__file__).resolve().parents[2] / "scripts" / "evaluate.py"
    words = [sys.executable, "-I", str(script), "--checkpoint", str(trained.path), "--json"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["accuracy"] == pytest.approx(trained.report.test_accuracy, abs=0.01)


def one_error_line(capsys) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("gpucnn: error: ")
    assert captured.err.count("\n") == 1
    return captured.err
