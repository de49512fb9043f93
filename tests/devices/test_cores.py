"""How many cores there are, and how many the CPU's kernels use."""

import subprocess
import sys
from pathlib import Path

import pytest

from gpucnn import get_backend
from gpucnn.devices import cores, cpu
from gpucnn.errors import UsageError


@pytest.mark.parametrize(
    ("quota", "count"), [("max 100000", 6), ("150000 100000", 2), ("20000 100000", 1), ("900000 100000", 6), ("", 6)]
)
def test_a_container_and_the_affinity_bound_them(
    quota: str, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(6)))
    monkeypatch.setattr(cores, "QUOTA", tmp_path / "cpu.max")
    assert cores.usable_cores() == 6
    (tmp_path / "cpu.max").write_text(f"{quota}\n")
    assert cores.usable_cores() == count
    assert cores.thread_count(0) == count
    assert cores.thread_count(40) == 40


COUNT = """
from gpucnn.devices import cores
cores.usable_cores = lambda: 3
from gpucnn import get_backend
from gpucnn.devices import cpu
cpu.usable_cores = cores.usable_cores
from gpucnn.kernels.cpu.engine.threads import TEAM
for words in ({}, {"threads": 2}, {}, {"threads": 1}, {"threads": 0}, {"threads": 99}):
    get_backend("cpu", **words)
    print(1 + len(TEAM.workers))
"""


@pytest.mark.skipif(cpu.problem() is not None, reason="no kernels here")
def test_python_gets_all_usable_cores_as_commands_do_and_keeps_what_was_asked_for() -> None:
    done = subprocess.run([sys.executable, "-c", COUNT], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["3", "2", "2", "1", "3", "8"]


@pytest.mark.parametrize("threads", [-1, "2", 1.5])
def test_what_is_no_number_of_threads(threads: object) -> None:
    with pytest.raises(UsageError, match=r"^threads = .*: give at least 1, or 0"):
        get_backend("cpu", threads=threads)


@pytest.mark.parametrize("name", ["CPU", "", None, 0, "gpu:", "gpu:x"])
def test_what_is_no_device(name: object) -> None:
    with pytest.raises(UsageError, match="give one of"):
        get_backend(name)
