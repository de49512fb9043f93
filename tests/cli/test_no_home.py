"""Users without a home: no HOME, no entry in the list of users, and folders that cannot be written to."""

import os
import pwd
import subprocess
import sys
import tempfile
from pathlib import Path
from shutil import which

import pytest
from signal_storm import MODULE, WEIGHTS, environment

from gpucnn.cli.data import listing
from gpucnn.data.files.sources import NO_PLACE, download_place, search_places
from gpucnn.data.registry import load_dataset
from gpucnn.devices import gpu
from gpucnn.errors import DataError, UsageError
from gpucnn.kernels.gpu.cudnn.plan_cache import Choice, Environment, PlanCache, default_folder


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for a user of a container whom /etc/passwd does not know."""

    def unknown(uid: int) -> object:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "XDG_CACHE_HOME", "GPUCNN_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("homeless")
def test_it_is_a_place_less_for_data_sets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert search_places() == []
    assert search_places("here") == [Path("here")]
    assert f"  {NO_PLACE}" in listing(None)
    assert len(load_dataset("digits")[0]) == 1437
    for download in (False, True):
        with pytest.raises(DataError, match="--data-dir or GPUCNN_DATA_DIR"):
            load_dataset("mnist", download=download)
    with pytest.raises(UsageError, match="no home of that user is known"):
        search_places("~/data")
    monkeypatch.setenv("GPUCNN_DATA_DIR", str(tmp_path))
    assert download_place() == tmp_path


@pytest.mark.usefixtures("homeless")
def test_cudnn_engines_are_found_and_not_kept(capsys: pytest.CaptureFixture[str]) -> None:
    assert default_folder() is None
    cache = PlanCache(Environment("Double 1", 91900, "1.23.0"))
    choice = Choice("eng1", 0.5, 0, 3)
    cache.put("a convolution", choice)
    assert cache.get("a convolution") == choice
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("folder", ["~/none", "file/below", "fine"])
def test_cupy_keeps_its_kernels_in_memory_where_it_cannot_write(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(gpu, "find_spec", lambda name: object())
    monkeypatch.setenv("CUPY_CACHE_IN_MEMORY", "")
    monkeypatch.delenv("CUPY_CACHE_IN_MEMORY")
    monkeypatch.setenv("CUPY_CACHE_DIR", str(tmp_path / folder))
    gpu.keep_kernels()
    kept = folder == "fine"
    assert ("CUPY_CACHE_IN_MEMORY" in os.environ) != kept
    said = capsys.readouterr().err
    assert said == "" if kept else str(tmp_path / folder) in said


COMMANDS = {
    "doctor": ["doctor"],
    "data": ["data", "list"],
    "inspect": ["inspect", str(WEIGHTS)],
    "train": ["train", "--device", "reference", "--epochs", "1", "--max-steps", "2"],
    "features": ["features", "--out", "pictures"],
}


@pytest.mark.skipif(os.getuid() != 0 or not which("setpriv"), reason="only root can become another user, by setpriv")
@pytest.mark.parametrize("command", COMMANDS)
def test_a_user_whom_nobody_knows(command: str) -> None:
    variables = {k: v for k, v in environment().items() if k not in ("HOME", "XDG_CACHE_HOME", "GPUCNN_DATA_DIR")}
    become = ["setpriv", "--reuid", "12345", "--clear-groups"]
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        variables["TMPDIR"] = folder
        probe = [*become, sys.executable, "-c", "import gpucnn.backend"]
        if subprocess.run(probe, cwd=folder, env=variables, capture_output=True).returncode:
            pytest.skip(f"other users may not run {sys.executable}, or not read the package")
        words = [*become, *MODULE, *COMMANDS[command]]
        done = subprocess.run(words, cwd=folder, env=variables, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0
    assert all(line.startswith("gpucnn: compil") for line in done.stderr.splitlines())
    assert "problem" not in done.stdout
