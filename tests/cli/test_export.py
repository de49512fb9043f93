"""``gpucnn export``: smaller, and the same model."""

import hashlib
import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from gpucnn.checkpoint import load_checkpoint
from gpucnn.cli.main import main
from gpucnn.runs.state import expected_tensors


def evaluated(path: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, float]:
    assert main(["evaluate", "--checkpoint", str(path), "--json"]) == 0
    found: dict[str, float] = json.loads(capsys.readouterr().out)
    return found


def test_the_exported_model_answers_as_the_checkpoint_does(trained, tmp_path: Path, capsys) -> None:
    out = tmp_path / "model.h5"
    assert main(["export", "--checkpoint", str(trained.path), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert hashlib.sha256(out.read_bytes()).hexdigest() in said
    before, after = evaluated(trained.path, capsys), evaluated(out, capsys)
    assert (after["loss"], after["accuracy"]) == (before["loss"], before["accuracy"])
    assert out.stat().st_size < trained.path.stat().st_size
    assert not load_checkpoint(out, expected_tensors).optimizer


def test_half_precision_is_for_the_disk_only(trained, tmp_path: Path, capsys) -> None:
    out = tmp_path / "half.h5"
    assert main(["export", "--checkpoint", str(trained.path), "--out", str(out), "--half"]) == 0
    capsys.readouterr()
    whole, half = (load_checkpoint(path, expected_tensors) for path in (trained.path, out))
    with h5py.File(out) as file:  # any viewer reads it
        kinds = {str(item.dtype) for item in file["model"].values()}
        assert kinds == {"float16"}
        assert {str(item.dtype) for item in file["buffers"].values()} == {"float32"}
    for name, array in half.parameters.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, whole.parameters[name].astype(np.float16).astype(np.float32))
    for name, array in half.buffers.items():
        np.testing.assert_array_equal(array, whole.buffers[name])
    assert abs(evaluated(out, capsys)["accuracy"] - evaluated(trained.path, capsys)["accuracy"]) < 0.01


def test_averaged_weights_replace_the_trained_ones(tmp_path: Path, capsys) -> None:
    run, out = tmp_path / "run", tmp_path / "model.h5"
    words = ["train", "--device", "reference", "--model", "mlp", "--epochs", "1", "--ema", "0.9"]
    assert main([*words, "--output", str(run)]) == 0
    assert main(["export", "--checkpoint", str(run / "last.h5"), "--out", str(out)]) == 0
    capsys.readouterr()
    assert evaluated(out, capsys)["loss"] == evaluated(run / "last.h5", capsys)["loss"]
    whole, slim = (load_checkpoint(path, expected_tensors) for path in (run / "last.h5", out))
    assert not slim.averages
    for name, array in whole.averages["ema"].items():
        np.testing.assert_array_equal({**slim.parameters, **slim.buffers}[name], array)


def test_a_run_cannot_be_resumed_from_it(trained, tmp_path: Path, capsys) -> None:
    out = tmp_path / "model.h5"
    assert main(["export", "--checkpoint", str(trained.path), "--out", str(out)]) == 0
    assert main(["train", "--resume", str(out), "--epochs", "3", "--output", str(tmp_path / "run")]) == 4
    said = capsys.readouterr().err
    assert "optimizer state" in said
    assert "resume from last.h5 of a run with the same settings" in said


def test_other_suffixes_and_existing_files_are_refused(trained, tmp_path: Path, capsys) -> None:
    for name, reason in (("model.bin", "must end in .h5"), ("there.h5", "exists: choose another name")):
        (tmp_path / "there.h5").write_text("mine")
        assert main(["export", "--checkpoint", str(trained.path), "--out", str(tmp_path / name)]) == 2
        assert reason in capsys.readouterr().err
    assert (tmp_path / "there.h5").read_text() == "mine"
