"""Several seeds of one recipe: folders, summary, going on after a stop."""

import json
from pathlib import Path
from statistics import mean, stdev

import pytest

from gpucnn.cli import repeat
from gpucnn.cli import train as train_command
from gpucnn.cli.main import main
from gpucnn.errors import UsageError

QUICK = ["train", "--device", "reference", "--model", "mlp", "--epochs", "2", "--seed", "3"]


def test_each_seed_has_its_run_and_the_summary_is_theirs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*QUICK, "--repeat", "3", "--output", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "repeat.json").read_text())
    last = []
    for seed in (3, 4, 5):
        rows = (tmp_path / f"seed-{seed}" / "metrics.jsonl").read_text().splitlines()
        last.append(json.loads(rows[-1])["test_accuracy"])
    assert [row["test_accuracy"] for row in found["runs"]] == last
    assert len(set(last)) > 1  # other seeds, other weights
    assert found["mean"] == pytest.approx(mean(last))
    assert found["std"] == pytest.approx(stdev(last))
    assert f"mean {100 * mean(last):.2f} %" in capsys.readouterr().out


def test_views_of_test_images_are_summed_up_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*QUICK, "--repeat", "2", "--tta", "multicrop", "--output", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "repeat.json").read_text())
    results = [json.loads((tmp_path / f"seed-{seed}" / "result.json").read_text()) for seed in (3, 4)]
    accuracies = [result["test_accuracy"] for result in results]
    assert [row["tta_accuracy"] for row in found["runs"]] == accuracies
    assert found["tta"] == {"mean": pytest.approx(mean(accuracies)), "std": pytest.approx(stdev(accuracies))}
    assert found["mean"] == pytest.approx(mean(row["test_accuracy"] for row in found["runs"]))
    assert f"with test-time augmentation {100 * mean(accuracies):.2f} %" in capsys.readouterr().out


def test_a_single_run_with_that_seed_is_the_same(tmp_path: Path) -> None:
    assert main([*QUICK, "--repeat", "2", "--output", str(tmp_path / "several")]) == 0
    assert main([*QUICK, "--seed", "4", "--output", str(tmp_path / "one")]) == 0
    one, several = tmp_path / "one" / "last.h5", tmp_path / "several" / "seed-4" / "last.h5"
    assert one.read_bytes() == several.read_bytes()


def test_a_stopped_repetition_goes_on_and_keeps_what_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = train_command.run_once
    calls = []

    def stopped(args):
        calls.append(args.output)
        return 130 if len(calls) == 2 else whole(args)

    monkeypatch.setattr(train_command, "run_once", stopped)
    words = [*QUICK, "--repeat", "2", "--output", str(tmp_path)]
    assert main(words) == 130
    assert f"the same command with --resume auto --output {tmp_path}" in capsys.readouterr().out
    assert not (tmp_path / "repeat.json").exists()
    before = (tmp_path / "seed-3" / "last.h5").read_bytes()
    assert main([*words, "--resume", "auto"]) == 0
    assert (tmp_path / "seed-3" / "last.h5").read_bytes() == before
    assert len(json.loads((tmp_path / "repeat.json").read_text())["runs"]) == 2


def test_what_is_there_is_not_replaced_and_nothing_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*QUICK, "--epochs", "1", "--repeat", "2", "--output", str(tmp_path)]
    (tmp_path / "seed-4").mkdir()
    (tmp_path / "seed-4" / "metrics.csv").write_text("mine")
    assert main(words) == 2
    assert f"{tmp_path / 'seed-4' / 'metrics.csv'} is there" in capsys.readouterr().err
    assert not (tmp_path / "seed-3").exists()
    (tmp_path / "seed-4" / "metrics.csv").unlink()
    assert main(words) == 0
    before = (tmp_path / "repeat.json").read_bytes()
    assert main([*words, "--seed", "5"]) == 2
    assert f"{tmp_path / 'repeat.json'} is there" in capsys.readouterr().err
    assert main([*words, "--seed", "5", "--resume", "auto"]) == 2
    assert "has seed 3 as well" in capsys.readouterr().err
    assert (tmp_path / "repeat.json").read_bytes() == before
    assert main([*words, "--repeat", "3", "--resume", "auto"]) == 0
    assert len(json.loads((tmp_path / "repeat.json").read_text())["runs"]) == 3
    (tmp_path / "repeat.json").write_text("mine")
    assert main([*words, "--resume", "auto"]) == 2
    assert (tmp_path / "repeat.json").read_text() == "mine"


def test_views_of_an_earlier_epoch_do_not_count(tmp_path: Path) -> None:
    words = [*QUICK, "--repeat", "2", "--output", str(tmp_path), "--resume", "auto"]
    assert main([*words, "--tta", "flip"]) == 0
    assert main([*words, "--epochs", "3", "--tta", "none"]) == 0
    assert json.loads((tmp_path / "seed-3" / "result.json").read_text())["epoch"] == 2
    found = json.loads((tmp_path / "repeat.json").read_text())
    assert "tta" not in found
    assert [row["epoch"] for row in found["runs"]] == [3, 3]


def test_a_loss_that_is_no_number_does_not_lose_the_summary(tmp_path: Path) -> None:
    log = tmp_path / "metrics.jsonl"
    log.write_text('{"epoch": 1, "train_loss": 1.0, "test_loss": null, "test_accuracy": 0.1, "seconds": 6.0}\n')
    rows = [{"seed": 0, **repeat.outcome(tmp_path)}]
    assert repeat.table(rows)[1].split() == ["0", "1", "none", "10.00", "%", "0.1"]
    for result in ("{", "[]", '{"epoch": 1}', "[" * 9999):
        (tmp_path / "result.json").write_text(result)
        with pytest.raises(UsageError, match="is none of a run"):
            repeat.outcome(tmp_path)
    (tmp_path / "result.json").unlink()
    log.write_text('{"epoch": 1, "test_accuracy": "all"}')
    with pytest.raises(UsageError, match="is none of a run"):
        repeat.outcome(tmp_path)
    log.unlink()
    with pytest.raises(UsageError, match="has no epoch"):
        repeat.outcome(tmp_path)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--repeat", "0"], "--repeat 0: give a number from 1 to 1,000"),
        (["--repeat", "2", "--resume", "auto"], "the same --output DIR"),
        (["--repeat", "2", "--resume", "runs/x/last.h5"], "the same --output DIR"),
    ],
)
def test_what_cannot_be_repeated_is_said(words: list[str], reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*QUICK, *words]) == 2
    assert reason in capsys.readouterr().err
