"""Some of the kills that ``kill_runs.py`` has thousands of, and that it would notice a difference."""

import subprocess
import sys
from pathlib import Path

import kill_runs
import pytest

from gpucnn.cli.main import main

SCRIPT = Path(kill_runs.__file__)


def test_killed_and_resumed_runs_end_as_the_uninterrupted_ones() -> None:
    command = [sys.executable, str(SCRIPT), "--kills", "16", "--settings", "ema", "all"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ", 0 differences" in done.stdout.splitlines()[-1]


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    return trained(tmp_path / "whole", 0)


def trained(folder: Path, seed: int) -> Path:
    words = ["--device", "reference", "--model", "mlp", "--set", "model.options.width=8", "--epochs", "2"]
    assert main(["train", *words, "--seed", str(seed), "--output", str(folder)]) == 0
    return folder


def test_it_notices_what_differs(whole: Path, tmp_path: Path) -> None:
    assert kill_runs.differences(trained(tmp_path / "same", 0), whole) == []
    found = kill_runs.differences(trained(tmp_path / "other", 1), whole)
    for part in ("last.h5 differs in model/1.weight", "best.h5 differs in history", "metrics.csv has other rows"):
        assert part in found
    (whole / ".last.h5.0123abcd.tmp").write_bytes(b"")
    assert kill_runs.differences(whole, tmp_path / "same") == [".last.h5.0123abcd.tmp was left"]


def test_it_notices_a_row_that_was_lost(whole: Path, tmp_path: Path) -> None:
    other = trained(tmp_path / "other", 0)
    assert kill_runs.state(other, whole) == (46, [])
    log = other / "metrics.jsonl"
    log.write_text(log.read_text().splitlines(keepends=True)[1])
    assert kill_runs.state(other, whole) == (46, ["metrics.jsonl has no row of epoch 1, or another one"])
    (other / "last.h5").unlink()
    assert kill_runs.state(other, whole)[1]
