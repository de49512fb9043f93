"""The second process that compiles: what it runs, and that it starts once, where there is a second core."""

import os
import sys
from pathlib import Path

import pytest

pytest.importorskip("numba")

from gpucnn.devices import cpu
from gpucnn.kernels.cpu import precompile
from gpucnn.kernels.cpu.engine import compile


def test_its_calls_are_those_that_the_kernels_take() -> None:
    for kernel, arguments in precompile.last_first():
        kernel(*arguments)


@pytest.mark.parametrize(("cores", "first", "started"), [(2, True, 1), (1, True, 0), (2, False, 0)])
def test_it_starts_once_where_it_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cores: int, first: bool, started: int
) -> None:
    calls: list[tuple[str, list[str], dict[str, str]]] = []
    monkeypatch.setattr(os, "posix_spawn", lambda path, words, env, **rest: calls.append((path, words, env)))
    monkeypatch.setattr(compile, "CACHE", tmp_path)
    monkeypatch.setattr(cpu, "usable_cores", lambda: cores)
    if not first:
        (tmp_path / "x.nbc").touch()
    cpu.cpu_backend()
    cpu.cpu_backend()  # and not a second time, though nothing has been compiled yet
    assert len(calls) == started
    for path, words, env in calls:
        assert (path, words[1:]) == (sys.executable, ["-m", "gpucnn.kernels.cpu.precompile"])
        assert Path(env["PYTHONPATH"].split(os.pathsep)[0], "gpucnn", "kernels").is_dir()


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "posix_spawn", lambda *words, **rest: pytest.fail("nothing could be kept"))
    monkeypatch.setattr(compile, "CACHE", tmp_path / "missing")
    compile.compile_ahead()
