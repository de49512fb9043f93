"""Every way through a kernel gives the same bits: past the caches or not, by one thread or several; and it is taken."""

import sys
from itertools import groupby

import numpy as np
import pytest

pytest.importorskip("numba")

from kernel_samples import BIG, SMALL
from outcomes import accepts, doubled, outcome

from gpucnn.devices import cpu
from gpucnn.kernels.cpu import batchnorm, elementwise, fused, pooling
from gpucnn.kernels.cpu.conv import conv2d
from gpucnn.kernels.cpu.engine import allocator, threads
from gpucnn.kernels.cpu.engine.simd import LANES

if reason := cpu.problem():
    pytest.skip(reason, allow_module_level=True)

TABLE = cpu.table()
real_empty = allocator.empty


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


def dirty(shape, dtype="float32") -> np.ndarray:
    """Memory as the allocator gives it, with what no kernel may leave there."""
    array = real_empty(shape, dtype)
    array.fill(np.nan if array.dtype.kind == "f" else 0xAB)
    return array


@pytest.fixture
def dirty_memory(monkeypatch) -> None:
    for name, module in list(sys.modules.items()):
        if name.startswith("gpucnn.kernels.cpu.") and getattr(module, "empty", None) is real_empty:
            monkeypatch.setattr(module, "empty", dirty)


@pytest.mark.usefixtures("dirty_memory")
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
    floats = (part for part in outcome(sample.op, TABLE[sample.op].run, args) if part.dtype.kind == "f")
    assert all(np.isfinite(part).all() for part in floats)


WINDOWS = [  # (H, W, C), kernel, stride, padding, whether they are the usual ones, whether channels fill vectors
    ((4, 6, 16), (2, 2), (2, 2), ((0, 0), (0, 0)), True, True),
    ((5, 7, 32), (2, 2), (2, 2), ((0, 0), (0, 0)), True, True),
    ((2, 2, 16), (2, 2), (2, 2), ((0, 0), (0, 0)), True, True),
    ((4, 6, 17), (2, 2), (2, 2), ((0, 0), (0, 0)), True, False),
    ((4, 6, 16), (2, 2), (1, 1), ((0, 0), (0, 0)), False, True),
    ((4, 6, 16), (3, 3), (3, 3), ((0, 0), (0, 0)), False, True),
    ((4, 6, 16), (2, 2), (2, 2), ((0, 0), (0, 1)), False, True),
    ((4, 6, 16), (2, 1), (2, 2), ((0, 0), (0, 0)), False, True),
]


@pytest.mark.parametrize("case", WINDOWS, ids=str)
def test_the_usual_pooling_goes_the_short_way(case, monkeypatch) -> None:
    shape, kernel, stride, padding, usual, whole = case
    ran = []
    for module in (pooling, fused, elementwise, batchnorm):
        monkeypatch.setattr(module, "parallel", lambda kernel, *args, work=0.0: ran.append(kernel))

    def runs(function, *args) -> list[str]:
        ran.clear()
        function(*args)
        return [kernel.py_func.__name__ for kernel in ran]

    x = np.zeros((2, *shape), np.float32)
    how = (kernel, stride, padding)
    dy, c = np.zeros_like(pooling._output(x, *how)), np.ones(shape[2], np.float32)
    short, long = ["_max_pool_2x2"], ["_max_pool"]
    assert runs(pooling.max_pool2d, x, *how) == (short if usual else long)
    assert runs(pooling.relu_max_pool2d, x, *how) == (short if usual else ["_relu", *long])
    short, long = ["_max_pool_2x2_grad"], ["_max_pool_grad"]
    assert runs(pooling.max_pool2d_grad, dy, x, *how) == (short if usual else long)
    assert runs(pooling.relu_max_pool2d_grad, dy, x, *how) == (short if usual else ["_relu", *long, "_relu_grad"])
    one_pass = usual and whole
    apart = "_max_pool_2x2" if usual else "_max_pool"
    train = runs(fused.batchnorm_relu_max_pool2d, x, c, c, 1e-5, *how)
    train = [name for name, _ in groupby(train)]  # a second pass of the moments where the first one finds nothing
    assert train == ["_moments", *(["_pool"] if one_pass else ["_apply", apart])]
    found = runs(fused.batchnorm_relu_max_pool2d_eval, x, c, c, c, c, 1e-5, *how)
    assert found == (["_pool"] if one_pass else ["_apply", apart])
    found = runs(fused.batchnorm_relu_max_pool2d_grad, dy, x, c, c, c, c, 1e-5, *how)
    assert found == (
        ["_pool_sums", "_pool_grad"] if one_pass else ["_apply", f"{apart}_grad", "_grad_sums", "_grad_apply"]
    )


@pytest.mark.parametrize(("channels", "way"), [(64, "winograd"), (48, "winograd"), (50, "winograd"), (33, "direct")])
def test_convolutions_go_the_way_of_their_plan(channels, way, monkeypatch) -> None:
    calls = []
    for name, module in (("winograd", conv2d.winograd), ("direct", conv2d.direct)):
        for part in ("forward", "input_grad", "weight_grad"):
            real = getattr(module, part)
            monkeypatch.setattr(module, part, lambda *a, n=name, p=part, real=real: calls.append((n, p)) or real(*a))
    x, w = np.ones((4, 16, 16, channels), np.float32), np.ones((64, 3, 3, channels), np.float32)
    how = ((1, 1), ((1, 1), (1, 1)))
    dy = conv2d.conv2d(x, w, None, *how)
    conv2d.conv2d_input_grad(dy, w, x.shape, *how)
    conv2d.conv2d_weight_grad(dy, x, w.shape, *how)
    assert calls == [(way, "forward"), (way, "input_grad"), (way, "weight_grad")]
    assert conv2d.resize(x, channels) is x
    monkeypatch.setattr(conv2d, "empty", dirty)
    wider = conv2d.resize(x, channels + 3)
    assert wider.shape == (4, 16, 16, channels + 3)
    assert (wider[..., :channels] == 1).all()
    assert not wider[..., channels:].any()
