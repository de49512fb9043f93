"""``benchmarks/speedrun.py`` in small: what it counts, and what it says in the end."""

import re
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from statistics import mean, stdev
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "speedrun.py"
CONFIG = """
[data]
dataset = "digits"
[model]
name = "mlp"
[train]
epochs = 2
batch_size = 256
"""


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = spec_from_file_location("speedrun_script", SCRIPT)
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "speedrun_script", module)  # its dataclass looks itself up there
    monkeypatch.setattr(sys, "path", sys.path[:])
    spec.loader.exec_module(module)
    return module


def run(script: ModuleType, monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["speedrun.py", *map(str, words)])
    return script.main()


def test_a_first_run_is_not_counted_and_the_others_have_seeds_of_their_own(
    script, tmp_path, monkeypatch, capsys
) -> None:
    config = tmp_path / "small.toml"
    config.write_text(CONFIG, encoding="utf-8")
    assert run(script, monkeypatch, "--config", config, "--runs", 2, "--device", "reference") == 0
    first, *counted, accuracy, seconds = capsys.readouterr().out.splitlines()
    assert [line[:6] for line in (first, *counted)] == ["first ", "seed 0", "seed 1"]
    assert first.split()[1:3] == counted[0].split()[2:4]  # the same seed ends in the same accuracy
    finals = [float(line.split()[2]) for line in counted]
    assert finals[0] != finals[1]
    numbers = [float(number) for number in re.findall(r"\d\.\d{4}", accuracy)]
    assert numbers == [pytest.approx(value, abs=1e-4) for value in (mean(finals), stdev(finals))]
    for line in counted:
        total, *parts = map(float, re.findall(r"(\d+\.\d{3})(?: s)?(?: [=+]|$)", line))
        assert total == pytest.approx(sum(parts), abs=2e-3)
        assert parts[1] > 0
    assert seconds.endswith("n = 2)")


def test_what_cannot_be_counted_is_said(script, tmp_path, monkeypatch, capsys) -> None:
    with pytest.raises(SystemExit):
        run(script, monkeypatch, "--config", tmp_path / "none.toml", "--runs", 0)
    assert "--runs: give at least 1" in capsys.readouterr().err
    assert run(script, monkeypatch, "--config", tmp_path / "none.toml") == 2
    assert "speedrun.py: error:" in capsys.readouterr().err
