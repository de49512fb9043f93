"""The record of what a run runs on."""

import json
import subprocess
import sys

import numpy as np
import pytest

import gpucnn
from gpucnn.runs.environment import environment, installed, stable_part


def test_it_names_versions_machine_and_device() -> None:
    about = environment("gpu", "cpu", "no CUDA driver")
    assert about["gpucnn"] == gpucnn.__version__
    assert about["numpy"] == np.__version__
    assert about["python"] == ".".join(map(str, sys.version_info[:3]))
    assert (about["device_requested"], about["device_used"]) == ("gpu", "cpu")
    assert about["device_reason"] == "no CUDA driver"
    assert about["command"] == sys.argv
    assert about["cpu"]
    assert about["cores"] >= 1
    assert json.loads(json.dumps(about)) == about


def test_the_part_for_checkpoints_knows_no_date_and_no_command(monkeypatch: pytest.MonkeyPatch) -> None:
    before = environment("auto", "cpu")
    monkeypatch.setattr(sys, "argv", ["gpucnn", "train", "--resume", "auto"])
    after = environment("auto", "cpu")
    assert before["command"] != after["command"]
    assert stable_part(before) == stable_part(after)
    assert stable_part(before)["numpy"] == np.__version__


def test_packages_are_looked_up_not_imported() -> None:
    assert installed("no-such-distribution", "numpy") == np.__version__
    assert installed("no-such-distribution") is None
    code = (
        "import sys; from gpucnn.runs.environment import environment; environment('auto', 'cpu'); "
        "sys.exit(bool({'cupy', 'numba', 'h5py'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
