"""Checkpoints of version 0.1.0, before the redesign, load, evaluate and resume to the numbers that it gave.

``fixtures/expected.json`` has what that version's ``evaluate`` said of each file, and of its run resumed by one epoch.

    wide_resnet.h5     after epoch 1: depth 10, widen 1, SGD with momentum, an average of the weights, a rule for norms
    mlp.h5             after epoch 2 of width 16: Adam, ema, lookahead, a rule for biases that fades; flip, crop, cutout
                       and mixup
    mnist_cnn_half.h5  exported with --half after epoch 2
"""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from gpucnn.checkpoint import load_checkpoint
from gpucnn.cli.main import main

FIXTURES = Path(__file__).parent / "fixtures"
EXPECTED: dict[str, dict[str, Any]] = json.loads((FIXTURES / "expected.json").read_text(encoding="utf-8"))
RESUMABLE = [name for name, wanted in EXPECTED.items() if "resumed" in wanted]


def digest(path: Path) -> str:
    """SHA-256 of all tensors of a checkpoint: names, types, shapes and bytes."""
    found = hashlib.sha256()
    for name, array in sorted(load_checkpoint(path).tensors().items()):
        found.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    return found.hexdigest()


def same_machine(one: Path, other: Path) -> bool:
    """Whether matrix products have the same bits in both: BLAS chooses its code by the processor."""
    kinds = [json.loads(load_checkpoint(path).environment) for path in (one, other)]
    return all(kinds[0].get(name) == kinds[1].get(name) for name in ("cpu", "numpy", "numba", "python"))


@pytest.mark.parametrize("name", EXPECTED)
def test_tensors_load_bit_for_bit(name: str) -> None:
    assert digest(FIXTURES / f"{name}.h5") == EXPECTED[name]["tensors"]


@pytest.mark.parametrize("name", EXPECTED)
def test_evaluation_gives_the_same_numbers(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--checkpoint", str(FIXTURES / f"{name}.h5"), "--json", "--device", "cpu"]) == 0
    found, wanted = json.loads(capsys.readouterr().out), EXPECTED[name]
    assert found["loss"] == pytest.approx(wanted["loss"], rel=1e-6)
    assert (found["accuracy"], found["epoch"]) == (wanted["accuracy"], wanted["epoch"])


@pytest.mark.parametrize("name", RESUMABLE)
def test_a_run_goes_on_as_before(name: str, tmp_path: Path) -> None:
    start, wanted = tmp_path / "start.h5", EXPECTED[name]["resumed"]
    shutil.copy(FIXTURES / f"{name}.h5", start)
    words = ["--epochs", str(wanted["epochs"]), "--device", "cpu", "--output", str(tmp_path / "run")]
    assert main(["train", "--resume", str(start), *words]) == 0
    last = tmp_path / "run" / "last.h5"
    found = load_checkpoint(last)
    assert found.progress["epoch"] == wanted["epochs"]
    assert found.history["train_loss"][-1] == pytest.approx(wanted["train_loss"], abs=1e-4)
    assert found.history["test_loss"][-1] == pytest.approx(wanted["test_loss"], abs=1e-4)
    if same_machine(start, last):
        assert digest(last) == wanted["tensors"]


def test_an_exported_model_cannot_be_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--epochs", "3", "--device", "cpu", "--output", str(tmp_path / "run")]
    assert main(["train", "--resume", str(FIXTURES / "mnist_cnn_half.h5"), *words]) == 4
    err = capsys.readouterr().err
    assert "export" in err
    assert "for evaluation" in err
