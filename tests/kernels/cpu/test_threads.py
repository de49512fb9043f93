"""The team of threads: every kernel gives the same bits on any number of them, and each shard is done once."""

import inspect
import threading

import numpy as np
import pytest

pytest.importorskip("numba")

from kernel_samples import BIG

from gpucnn.devices import cpu
from gpucnn.kernels.cpu.engine import threads
from gpucnn.kernels.cpu.engine.compile import jit


@pytest.fixture(autouse=True)
def _two_threads_afterwards():
    yield
    cpu.set_threads(2)


def bits(sample):
    args = [a.copy() if isinstance(a, np.ndarray) else a for a in sample.arguments()]
    result = cpu.cpu_backend().kernels[sample.op](*args)
    parts = result if isinstance(result, tuple) else (result,)
    changed = [a for a in args if isinstance(a, np.ndarray)]
    return [np.asarray(part).tobytes() for part in (*parts, *changed) if part is not None]


def test_threads_change_no_bit() -> None:
    # all samples for each number of threads: starting threads is what takes time
    results = []
    for count in (1, 2, 4, 3):
        cpu.set_threads(count)
        results.append({str(sample): bits(sample) for sample in BIG})
    for other in results[1:]:
        assert [name for name in results[0] if results[0][name] != other[name]] == []


@jit
def _mark(first, last, marks, who):
    for shard in range(first, last):
        marks[shard] += who


@pytest.mark.parametrize("count", range(1, 12))
def test_each_shard_is_done_once(count) -> None:
    team = threads.Team()
    team.resize(count)
    for who in range(1, 20):
        marks = np.zeros(threads.SHARDS, np.int64)
        team.run(_mark, (marks, who))
        assert marks.tolist() == [who] * threads.SHARDS
    team.dismiss()
    for worker in team.workers:
        worker.join(timeout=60)
        assert not worker.is_alive()


@jit
def _mark_once(first, last, marks, who):
    for shard in range(first, last):
        marks[shard] = marks[shard] * 10 + who


def test_what_is_compiled_first_is_done_by_the_caller() -> None:
    # the workers fall asleep meanwhile, and would wake up late
    team = threads.Team()
    team.resize(3)
    for who, given in ((1, 0), (2, 1), (3, 2)):
        marks = np.zeros(threads.SHARDS, np.int64)
        team.run(_mark_once, (marks, who))
        assert marks.tolist() == [who] * threads.SHARDS
        assert team.mail[:, threads.GIVEN].tolist() == [given] * 2
    team.dismiss()


def test_each_kind_of_arguments_has_its_own_code() -> None:
    team = threads.Team()
    team.resize(2)
    for _ in range(3):
        for marks, who in (
            (np.zeros(threads.SHARDS, np.int64), 3),
            (np.zeros(threads.SHARDS, np.float64), 0.5),
            (np.zeros(2 * threads.SHARDS, np.int64)[::2], 3),
            (np.zeros(threads.SHARDS, np.float32), np.float32(0.25)),
        ):
            team.run(_mark, (marks, who))
            assert marks.tolist() == [who] * threads.SHARDS
    team.dismiss()


def test_a_team_that_has_slept_wakes_up() -> None:
    team = threads.Team()
    team.resize(2)
    for _ in range(3):
        for _ in range(200):
            if team.workers[0].sleeping:
                break
            threading.Event().wait(0.01)
        marks = np.zeros(threads.SHARDS, np.int64)
        team.run(_mark, (marks, 1))
        assert marks.all()
    team.dismiss()


def test_resizing_lets_the_old_workers_go() -> None:
    team = threads.Team()
    team.resize(4)
    old = list(team.workers)
    team.resize(2)
    for worker in old:
        worker.join(timeout=60)
        assert not worker.is_alive()
    assert len(team.workers) == 1
    team.dismiss()


def test_after_a_fork_the_caller_works_alone() -> None:
    team = threads.Team()
    team.resize(2)
    workers, team.process = team.workers, -1  # as a child process finds it
    for _ in range(3):
        marks = np.zeros(threads.SHARDS, np.int64)
        team.run(_mark, (marks, 1))
        assert marks.tolist() == [1] * threads.SHARDS
    assert not team.workers
    team.workers = workers
    team.dismiss()


def test_a_caller_that_finds_the_team_busy_does_every_shard_itself() -> None:
    team = threads.Team()
    team.resize(3)
    marks = np.zeros(threads.SHARDS, np.int64)
    with team.busy:
        team.run(_mark, (marks, 5))
    assert marks.tolist() == [5] * threads.SHARDS
    assert not team.mail.any()  # nobody else was asked
    team.run(_mark, (marks, 1))  # and it is free again
    assert marks.tolist() == [6] * threads.SHARDS
    team.dismiss()


def test_there_are_no_more_threads_than_shards_and_each_has_some() -> None:
    team = threads.Team()
    team.resize(100)
    assert len(team.workers) == threads.SHARDS - 1
    for count in range(1, threads.SHARDS + 1):
        team.resize(count)
        for _ in range(2):  # at first the caller compiles, and does all of it
            team.run(_mark, (np.zeros(threads.SHARDS, np.int64), 1))
        parts = [threads.SHARDS // count, *(part[threads.LAST] - part[threads.FIRST] for part in team.mail)]
        assert sum(parts) == threads.SHARDS
        assert min(parts) >= 1
        assert len(team.mail) == count - 1
    team.dismiss()


def test_the_same_size_keeps_the_workers() -> None:
    team = threads.Team()
    team.resize(3)
    before = list(team.workers)
    team.resize(3)
    assert team.workers == before
    team.dismiss()


def test_little_work_stays_with_the_caller(monkeypatch) -> None:
    asked = []
    monkeypatch.setattr(threads.TEAM, "run", lambda kernel, args: asked.append(kernel))
    marks = np.zeros(threads.SHARDS, np.int64)
    threads.parallel(_mark, marks, 1, work=threads.SMALL - 1)
    assert marks.all()
    assert not asked
    threads.parallel(_mark, marks, 1, work=threads.SMALL)
    assert asked == [_mark]


def test_a_launcher_has_its_source_where_it_says() -> None:
    # Numba reads it for what it keeps on disk; since Python 3.12 half a sentence there is an error
    source = inspect.getsource(threads.launcher(threads.fork).py_func)
    assert source.startswith("def launch_kernel(mail, room, code, *args):")
    assert source.rstrip().endswith("return True")
