"""``gpucnn inspect``: one page, one JSON object, one line for what is damaged."""

import json
from pathlib import Path

import numpy as np
import pytest

from gpucnn.checkpoint import Checkpoint, save_checkpoint
from gpucnn.cli.main import main
from gpucnn.runs.config import Config


@pytest.fixture
def path(tmp_path: Path) -> Path:
    weight = np.linspace(-1.0, 3.0, 8, dtype="float32").reshape(2, 4)
    parameters = {f"features.{i}.body.{i}.convolution.weight": weight for i in (2, 10)}
    checkpoint = Checkpoint(
        parameters=parameters,
        buffers={"norm.mean": np.zeros(3, "float32")},
        optimizer={"velocity": parameters},
        progress={"epoch": 30, "step": 1234},
        history={"epoch": list(range(1, 31)), "test_loss": [1.0 / i for i in range(1, 31)]},
        config=Config().to_toml(),
        environment=json.dumps({"python": "3.11", "device_used": "cpu"}),
        dataset_digest="ab" * 32,
        seed=7,
    )
    save_checkpoint(tmp_path / "last.h5", checkpoint)
    return tmp_path / "last.h5"


def test_a_page_of_eighty_columns(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(path)]) == 0
    out = capsys.readouterr().out
    for words in (
        "SHA-256 verified",
        "gpucnn-checkpoint 1",
        "epoch 30, step 1,234, seed 7",
        "abababab",
        '[optimizer] name = "sgd"',
        "Parameters (float32)",
        "Optimizer state 'velocity'",
        "16 parameters in all",
    ):
        assert words in out
    lines = out.replace(str(path), "").splitlines()
    assert max(map(len, lines)) <= 80
    rows = [line.split() for line in lines if line.endswith("1.309")]
    assert rows[0] == ["features.2.body.2.convolution.weight", "2x4", "8", "-1", "1", "3", "1.309"]
    assert rows[1][0].startswith("features.10.")  # layer 2 before layer 10
    assert "  30" in out.split("History")[1]
    assert "..." in out.split("History")[1]


def test_json_holds_everything_but_the_numbers(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(path.parent), "--json"]) == 0  # a run folder stands for its last.h5
    found = json.loads(capsys.readouterr().out)
    assert found["attributes"]["step"] == 1234
    assert found["digest"] == "SHA-256 verified"
    assert found["total_parameters"] == 16
    assert len(found["history"]["test_loss"]) == 30
    row = found["tensors"]["optimizer state 'velocity'"]["features.2.body.2.convolution.weight"]
    expected = {"shape": [2, 4], "dtype": "float32", "count": 8, "min": -1.0, "max": 3.0}
    assert {key: row[key] for key in expected} == expected
    assert row["mean"] == pytest.approx(1.0)
    assert row["std"] == pytest.approx(np.std(np.linspace(-1.0, 3.0, 8)))


def test_a_damaged_file_is_one_line_and_exit_4(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert main(["inspect", str(path)]) == 4
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert "SHA-256" in captured.err


def test_escape_codes_do_not_reach_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = Checkpoint({"w": np.zeros(0, "float32")}, {}, config="\x1b[2J\x07", dataset_digest="\x1b]0;x")
    save_checkpoint(tmp_path / "x.h5", checkpoint)
    assert main(["inspect", str(tmp_path / "x.h5")]) == 0
    out = capsys.readouterr().out
    assert "\\x1b[2J\\x07" in out
    assert "\x1b" not in out
