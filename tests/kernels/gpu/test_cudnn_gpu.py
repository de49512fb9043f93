"""Convolutions on a real GPU with a real cuDNN: right by every engine, the same bits, captures, no allocations."""

import json
from dataclasses import replace

import numpy as np
import pytest
from kernel_samples import CONVOLUTIONS, MANY_PIXELS, convolution_arrays, convolution_calls

from gpucnn.backend import guarded
from gpucnn.devices import get_backend, gpu
from gpucnn.errors import DeviceError
from gpucnn.kernels.gpu.cudnn import conv2d as fast
from gpucnn.kernels.gpu.cudnn import graph as cudnn_graph
from gpucnn.kernels.gpu.cudnn import library, plans
from gpucnn.kernels.gpu.cudnn.library import Library
from gpucnn.kernels.gpu.cudnn.options import Options

pytestmark = pytest.mark.gpu

MODES = {  # dtype, options, tolerance as a fraction of the largest value
    "float32": ("float32", Options(stem=False), 2e-5),
    "TF32": ("float32", Options(tf32=True, stem=False), 1e-2),
    "float16": ("float16", Options(stem=False), 2e-2),
}
DEEP = [((8, 15, 15, 64), 256, 3, 1, 1), ((16, 16, 16, 64), 128, 3, 2, 1), ((16, 16, 16, 64), 128, 1, 2, 0)]

ODD = ((1, 7, 6, 20), 33, 4, 1, "same")
"""Where an engine of cuDNN 9.19 for the gradient of the weights gave something else on an H200, with TF32."""


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """CuPy, with cuDNN as in a new process, an empty cache, and new arrays full of NaN."""
    cupy = get_backend("gpu").xp
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("GPUCNN_STEM", "0")  # that every convolution is cuDNN's
    forget(monkeypatch)
    if isinstance(reason := Library(Options.from_environment()).current(), str):
        pytest.skip(reason)
    monkeypatch.setattr(cupy, "empty", lambda shape, dtype=float, order="C": cupy.full(shape, np.nan, dtype, order))
    return cupy


def forget(monkeypatch) -> None:
    monkeypatch.setattr(library, "_opened", {})


def convolution(op, options=None):
    """The kernel under these options, or the environment's."""
    return gpu.table(options or Options.from_environment())[op].run


def current_plans(options=None):
    """The plans of all kernels under these options."""
    return Library(options or Options.from_environment()).plans()


def samples(case, dtype):
    """(op, arguments on the GPU, result in float64) for each op."""
    cupy = get_backend("gpu").xp
    for op, args in convolution_calls(*convolution_arrays(case, dtype)):
        exact = op(*(a.astype(np.float64) if isinstance(a, np.ndarray) else a for a in args))
        yield op, tuple(cupy.asarray(a) if isinstance(a, np.ndarray) else a for a in args), exact


def close(got, exact, dtype, tolerance, what) -> None:
    cupy = get_backend("gpu").xp
    got = cupy.asnumpy(got)
    assert (got.shape, got.dtype) == (exact.shape, np.dtype(dtype))
    assert np.abs(got.astype(np.float64) - exact).max() <= tolerance * np.abs(exact).max(), what


@pytest.mark.parametrize("autotune", [True, False], ids=["timed", "heuristic"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", [*CONVOLUTIONS, *MANY_PIXELS, *DEEP], ids=str)
def test_parity_with_the_op_in_float64(fresh, case, mode, autotune) -> None:
    dtype, options, tolerance = MODES[mode]
    options = replace(options, autotune=autotune)
    for op, args, exact in samples(case, dtype):
        assert gpu.table(options)[op].plan(*args).startswith("cudnn")
        close(guarded(op, gpu.table(options)[op])(*args), exact, dtype, tolerance, op.__name__)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", [*DEEP, MANY_PIXELS[1], ODD], ids=str)
def test_every_engine_that_could_be_chosen_is_right(fresh, case, mode) -> None:
    dtype, options, tolerance = MODES[mode]
    for op, args, exact in samples(case, dtype):
        convolution(op, options)(*args)  # the plan has an engine from now on
        geometry, _ = fast.REQUESTS[op.__name__](*args)
        found = current_plans(options)
        plan = found.find(geometry)
        names = cudnn_graph.names(plan.graph)
        candidates = [i for i in range(len(names)) if cudnn_graph.buildable(found.cudnn, plan.graph, i)]

        def compute(index):
            try:
                plan.take(index, names[index])  # noqa: B023
                return convolution(op, options)(*args)  # noqa: B023
            except DeviceError:  # it does not start
                return None

        for index in found.right(geometry, names, candidates, compute):
            close(compute(index), exact, dtype, tolerance, f"{op.__name__} by {names[index]}")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", DEEP, ids=str)
def test_the_same_bits_each_time(fresh, case, mode) -> None:
    dtype, options, _ = MODES[mode]
    for op, args, _ in samples(case, dtype):
        first = fresh.asnumpy(convolution(op, options)(*args)).tobytes()
        for _ in range(5):
            assert fresh.asnumpy(convolution(op, options)(*args)).tobytes() == first, op.__name__


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_views_are_as_good_as_arrays(fresh, dtype) -> None:
    for op, args, _ in samples(CONVOLUTIONS[0], dtype):
        wanted = fresh.asnumpy(convolution(op)(*args))
        for spread in (sparse, shifted, turned):
            views = [spread(a, fresh) if isinstance(a, fresh.ndarray) else a for a in args]
            np.testing.assert_array_equal(fresh.asnumpy(convolution(op)(*views)), wanted)


def sparse(array, cupy):
    wide = cupy.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
    wide[..., ::2] = array
    return wide[..., ::2]


def shifted(array, cupy):
    """At an address that 16 does not divide."""
    view = cupy.zeros(array.size + 1, array.dtype)[1:].reshape(array.shape)
    view[...] = array
    assert view.data.ptr % 16
    return view


def turned(array, cupy):
    return cupy.asfortranarray(array)


def test_choices_are_found_again_and_not_timed_twice(fresh, monkeypatch, capsys) -> None:
    op, args, exact = next(samples(DEEP[0], "float16"))
    convolution(op)(*args)
    path = current_plans().cache.path
    ((key, choice),) = json.loads(path.read_text())["choices"].items()
    assert key.startswith("fprop float16 x=8,15,15,64 w=256,3,3,64 stride=1,1 padding=1,1,1,1 bias tf32=0")
    assert choice["milliseconds"] > 0
    assert choice["candidates"] > 1
    assert "timing cuDNN's engines" in capsys.readouterr().err

    def never(*_: object) -> None:
        raise AssertionError("timed again")

    monkeypatch.setattr(plans, "fastest", never)
    forget(monkeypatch)
    close(convolution(op)(*args), exact, "float16", 2e-2, "from the cache")
    geometry, _ = fast.REQUESTS[op.__name__](*args)
    assert current_plans().find(geometry).engine == choice["engine"]
    assert capsys.readouterr().err == ""


def test_a_captured_step_replays_on_new_numbers(fresh) -> None:
    x, w, b, dy, stride, padding = (
        fresh.asarray(a) if isinstance(a, np.ndarray) else a for a in convolution_arrays(DEEP[0], "float16")
    )
    stream = fresh.cuda.Stream(non_blocking=True)
    with stream:
        step = lambda: [convolution(op)(*args) for op, args in convolution_calls(x, w, b, dy, stride, padding)]  # noqa: E731
        step()  # chooses engines, and makes this stream's scratch memory
        stream.begin_capture()
        results = step()
        graph = stream.end_capture()
        for factor in (1, 2):
            x *= factor
            dy *= factor
            graph.launch(stream)
            stream.synchronize()
            captured = [fresh.asnumpy(array) for array in results]
            for got, wanted in zip(captured, step(), strict=True):
                np.testing.assert_array_equal(got, fresh.asnumpy(wanted))


def test_a_shape_that_was_never_computed_is_refused_during_a_capture(fresh) -> None:
    op, args, _ = next(samples(DEEP[0], "float16"))
    stream = fresh.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        try:
            with pytest.raises(DeviceError, match="run the same step once before capturing"):
                convolution(op)(*args)
        finally:
            stream.end_capture()


def test_a_steady_state_allocates_nothing(fresh) -> None:
    pool = fresh.get_default_memory_pool()
    work = list(samples(DEEP[1], "float16"))
    sizes = []
    for _ in range(4):
        for op, args, _ in work:
            convolution(op)(*args)
        sizes.append((pool.total_bytes(), len(current_plans().workspace.sizes)))
    assert len(set(sizes[1:])) == 1


def test_two_streams_at_once_do_not_share_scratch_memory(fresh) -> None:
    op, args, exact = list(samples(DEEP[0], "float32"))[3]
    streams = [fresh.cuda.Stream(non_blocking=True) for _ in range(2)]
    convolution(op)(*args)
    fresh.cuda.Device().synchronize()
    results = []
    for _ in range(10):
        for stream in streams:
            with stream:
                results.append(convolution(op)(*args))
    fresh.cuda.Device().synchronize()
    for got in results:
        close(got, exact, "float32", 2e-5, "two streams")


def test_the_backend_uses_it_and_says_so(fresh) -> None:
    backend = get_backend("gpu")
    op, args, exact = next(samples(CONVOLUTIONS[0], "float32"))
    assert backend.kernels[op].__module__ == "gpucnn.kernels.gpu.cudnn.conv2d"
    close(backend.run(op, *args), exact, "float32", 2e-5, "by the backend")
    assert gpu.convolution_engine().startswith("cuDNN 9")
    assert current_plans().cudnn.__version__ == "1.23.0"
