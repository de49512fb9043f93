"""``gpucnn plot``: what is drawn is what was logged."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gpucnn.cli.main import main
from gpucnn.plots import learning_curves


def write_log(folder: Path, rows: list[dict[str, float | None]]) -> Path:
    folder.mkdir()
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def row(epoch: int, **values: float | None) -> dict[str, float | None]:
    numbers = {"train_loss": 1 / epoch, "test_loss": 2 / epoch, "train_accuracy": 0.5, "test_accuracy": 1 - 0.1 / epoch}
    return {"epoch": epoch, **numbers, **values}


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_runs_are_drawn_beside_each_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str, trained
) -> None:
    one = write_log(tmp_path / "one", [row(1), row(2), row(3)])
    out = tmp_path / f"curves.{suffix}"
    assert main(["plot", str(one), str(trained.path), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "test accuracy 0.9667" in said
    assert f"test accuracy {trained.report.test_accuracy:.4f}" in said
    if suffix == "png":
        picture = np.asarray(Image.open(out).convert("RGB")).reshape(-1, 3)
        drawn = {tuple(color) for color in picture}
        wanted = [tuple(int(color[i : i + 2], 16) for i in (1, 3, 5)) for color in learning_curves.COLORS[:2]]
        assert drawn.issuperset(wanted)  # both runs' colours are on the page


def test_an_epoch_that_was_done_again_counts_once(tmp_path: Path) -> None:
    run = learning_curves.read_curves(write_log(tmp_path / "run", [row(1), row(2), row(2, test_loss=7.0)]))
    assert run.columns["test_loss"] == [2.0, 7.0]


def test_points_are_the_logged_numbers(tmp_path: Path) -> None:
    run = learning_curves.read_curves(
        write_log(tmp_path / "run", [row(1), row(2, test_loss=None), row(3, test_accuracy=1.0)])
    )
    assert learning_curves._points(run.columns, "test_loss", "loss") == [(1, 2.0), (3, pytest.approx(2 / 3))]
    assert learning_curves._points(run.columns, "test_accuracy", "accuracy") == [
        (1, pytest.approx(0.1)),
        (2, pytest.approx(0.05)),
    ]


def test_a_last_number_that_was_none_is_said_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_log(tmp_path / "run", [row(1), row(2, test_loss=None, train_accuracy=None)])
    assert main(["plot", str(run), "--out", str(tmp_path / "x.png")]) == 0
    assert "train loss 0.5000   test loss nan   test accuracy 0.9500" in capsys.readouterr().out


def test_a_log_of_something_else_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_log(tmp_path / "run", [{"epoch": 1, "train_loss": 1.0}])
    assert main(["plot", str(run), "--out", str(tmp_path / "x.png")]) == 2
    assert "has no column 'test_accuracy'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("what", "reason"),
    [("nothing", "is no run"), ("empty", "no epoch in its log yet")],
)
def test_what_cannot_be_drawn_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str, reason: str
) -> None:
    write_log(tmp_path / "empty", [])
    assert main(["plot", str(tmp_path / what), "--out", str(tmp_path / "x.png")]) == 2
    assert reason in capsys.readouterr().err


def test_a_name_of_no_picture_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_log(tmp_path / "run", [row(1)])
    assert main(["plot", str(run), "--out", str(tmp_path / "x.txt")]) == 2
    assert "must end in .png" in capsys.readouterr().err


def test_folders_without_an_epoch_are_left_out_beside_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As ``plot runs/*`` finds them: a run that has just begun, or one that was ended before."""
    good, started = write_log(tmp_path / "good", [row(1)]), write_log(tmp_path / "started", [])
    (tmp_path / "empty").mkdir()
    words = ["plot", str(tmp_path / "empty"), str(good), str(started), "--out", str(tmp_path / "x.png")]
    assert main(words) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("good   1 epoch   train loss")
    left_out, other = shown.err.splitlines()
    assert left_out.startswith(f"gpucnn: left out: {tmp_path / 'empty'} is no run")
    assert other.startswith(f"gpucnn: left out: {started} has no epoch in its log yet")
    assert main(["plot", str(good), str(tmp_path / "typo"), "--out", str(tmp_path / "x.png")]) == 2


def test_a_name_with_a_dollar_is_no_formula(tmp_path: Path) -> None:
    run = write_log(tmp_path / r"$\bad{$", [row(1)])
    assert main(["plot", str(run), "--out", str(tmp_path / "x.svg")]) == 0


def test_intervals_within_epochs_are_logged_once_and_drawn_on_request(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, picture = tmp_path / "run", tmp_path / "curves.png"
    words = ["--model", "mlp", "--device", "reference", "--log-interval", "4", "--log-steps", "--set", "run.threads=1"]
    assert main(["train", *words, "--epochs", "3", "--max-steps", "30", "--output", str(run)]) == 0
    with (run / "steps.jsonl").open("a") as log:
        log.write('{"step": 31, "epoch": 1.4, "train_loss": 9.0, "train_accuracy": 0.0}\n{"step": 32, "epo')  # lost
    assert main(["train", "--resume", str(run), "--max-steps", "0"]) == 0
    rows = [json.loads(line) for line in (run / "steps.jsonl").read_text().splitlines()]
    steps = [row["step"] for row in rows]
    assert steps == sorted(set(steps))
    assert max(row["train_loss"] for row in rows) < 5
    epochs = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    images, batches = 1437, 23  # of scikit-learn's digits, in batches of 64
    done = [(step - 1) // batches * images + min(((step - 1) % batches + 1) * 64, images) for step in steps]
    counts = np.diff([0, *done])
    for epoch in epochs:
        own = [(step - 1) // batches + 1 == epoch["epoch"] for step in steps]
        for name in ("train_loss", "train_accuracy"):
            values = np.array([row[name] for row in rows])
            assert np.average(values[own], weights=counts[own]) == pytest.approx(epoch[name], rel=1e-6)
    assert main(["plot", str(run), "--out", str(picture)]) == 0
    plain = picture.read_bytes()
    assert main(["plot", str(run), "--steps", "--out", str(picture)]) == 0
    assert picture.read_bytes() != plain
    other = write_log(tmp_path / "other", [row(1), row(2)])
    assert main(["plot", str(run), str(other), "--steps", "--out", str(picture)]) == 2
    assert "other has no log of intervals (steps.jsonl): train with --log-steps" in capsys.readouterr().err
