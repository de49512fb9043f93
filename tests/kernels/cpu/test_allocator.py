"""Memory that comes back: never while somebody holds it, always aligned, never without bound."""

import gc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

pytest.importorskip("numba")

from gpucnn.kernels.cpu.engine import allocator


@pytest.fixture(autouse=True)
def _fresh_pool():
    gc.collect()
    allocator.clear()
    yield
    allocator.clear()


@pytest.mark.parametrize("shape", [(0,), (3,), (100, 41), (7, 1000, 3), (1, 1 << 15)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
def test_arrays_are_as_asked_for(shape, dtype) -> None:
    for _ in range(2):
        array = allocator.empty(shape, dtype)
        assert array.shape == shape
        assert array.dtype == np.dtype(dtype)
        assert array.flags.c_contiguous
        assert array.flags.writeable
        if array.nbytes >= allocator.SMALLEST:
            assert array.ctypes.data % allocator.ALIGNMENT == 0
        array[...] = 1


def test_arrays_that_are_held_share_nothing() -> None:
    held = []
    for i in range(30):
        array = allocator.empty((64, 100))
        array[...] = i
        if i % 3:
            held.append((array[i:] if i % 2 else array.T, i))
        del array
    for array, i in held:
        assert (array == i).all()


def test_memory_is_used_again_when_its_last_view_is_gone() -> None:
    array = allocator.empty((64, 100))
    place = array.ctypes.data
    view = array.reshape(-1)[5:10]
    del array
    assert allocator.empty((64, 100)).ctypes.data != place
    del view
    again = [allocator.empty((64, 100)) for _ in range(3)]
    assert place in {a.ctypes.data for a in again}


def test_unused_memory_is_bounded_and_can_be_given_back(monkeypatch) -> None:
    monkeypatch.setattr(allocator, "LIMIT", 100_000)
    held = [allocator.empty((10_000,)) for _ in range(10)]
    held.clear()
    assert sum(block.nbytes for blocks in allocator._free.values() for block in blocks) == allocator._unused <= 100_000
    allocator.clear()
    assert allocator._unused == 0
    assert not allocator._free


def test_several_threads_may_ask_at_once() -> None:
    def work(who):
        for _ in range(300):
            array = allocator.empty((5000,))
            array[...] = who
            assert (array == who).all()

    with ThreadPoolExecutor(4) as team:
        list(team.map(work, range(4)))


def test_large_arrays_are_written_past_the_caches() -> None:
    assert allocator.streams(allocator.empty((1 << 18,)))
    assert not allocator.streams(allocator.empty((1 << 10,)))
    assert not allocator.streams(allocator.empty((1 << 19,))[1:])  # not on a line of the cache
