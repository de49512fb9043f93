"""Every way through a kernel gives the same bits: past the caches or not, by one thread or several; and it is taken."""

import numpy as np
import pytest

pytest.importorskip("numba")

from kernel_samples import BIG, SMALL
from outcomes import accepts, doubled, outcome

from gpucnn.devices import cpu
from gpucnn.kernels.cpu.engine import allocator, threads
from gpucnn.kernels.cpu.engine.simd import LANES

if reason := cpu.problem():
    pytest.skip(reason, allow_module_level=True)

TABLE = cpu.table()


@pytest.mark.parametrize("sample", SMALL + BIG, ids=str)
def test_a_kernel_takes_float32_and_no_other(sample) -> None:
    args = sample.arguments()
    # images go by bytes, an image of fewer than a vector's numbers is the reference's
    small = sample.op.__name__.startswith("gather") and args[0][0].size < LANES
    assert accepts(TABLE, sample.op, *args) != small
    if any(isinstance(a, np.ndarray) and a.dtype == np.float32 for a in args):
        assert not accepts(TABLE, sample.op, *doubled(args))
        for place, one in enumerate(args):  # a single array of another type, or an empty one, is enough
            if isinstance(one, np.ndarray) and one.dtype == np.float32:
                for other in (one.astype(np.float64), one[:0]):
                    assert not accepts(TABLE, sample.op, *args[:place], other, *args[place + 1 :]), place


@pytest.mark.parametrize("sample", SMALL + BIG, ids=str)
def test_every_way_gives_the_same_bits(sample, monkeypatch) -> None:
    args = sample.arguments()
    if not accepts(TABLE, sample.op, *args):
        return
    ways = []
    try:
        for streamed, small, count in ((1 << 60, 1 << 60, 1), (0, 1 << 60, 1), (1 << 60, 0, 3), (0, 0, 2)):
            monkeypatch.setattr(allocator, "STREAMED", streamed)  # bytes from which on arrays go past the caches
            monkeypatch.setattr(threads, "SMALL", small)  # numbers from which on work is shared
            threads.TEAM.resize(count)
            ways.append([part.tobytes() for part in outcome(sample.op, TABLE[sample.op].run, args)])
    finally:
        threads.TEAM.resize(2)
    assert ways[0] == ways[1] == ways[2] == ways[3]
