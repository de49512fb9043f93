"""The three kernels on doubles of cuDNN and CuPy: right numbers, right choices, and what is left to the op."""

import inspect
from dataclasses import replace

import numpy as np
import pytest
from fake_cudnn import ENGINES, Engine, aligned, install
from kernel_samples import CONVOLUTIONS, GROUPED, SMALL, convolution_arrays, convolution_calls

from gpucnn.backend import guarded
from gpucnn.bench.profiler import algorithm
from gpucnn.devices import gpu
from gpucnn.kernels.gpu.cudnn import conv2d as fast
from gpucnn.kernels.gpu.cudnn.library import ALIGNMENT, Library, pack
from gpucnn.kernels.gpu.cudnn.options import Options
from gpucnn.layers.conv2d import (
    conv2d,
    conv2d_input_grad,
    conv2d_weight_grad,
    grouped_conv2d,
    grouped_conv2d_input_grad,
    grouped_conv2d_weight_grad,
)

GENERAL = (grouped_conv2d, grouped_conv2d_input_grad, grouped_conv2d_weight_grad)
OPS = (conv2d, conv2d_input_grad, conv2d_weight_grad, *GENERAL)
BY_CUDNN = Options(stem=False)  # few channels too
ONE = ((1, 1), (1, 1))


@pytest.fixture
def doubles(monkeypatch, tmp_path):
    return install(monkeypatch, tmp_path)


def rows(options=BY_CUDNN):
    """Op -> kernel, on doubles that are installed by now."""
    table = gpu.table(options)
    return {op: table[op] for op in OPS}


def convolutions(options=BY_CUDNN):
    return fast.Convolutions(Library(options))


def arrays(case=((2, 6, 7, 3), 4, 3, 2, 1), dtype="float32"):
    return tuple(aligned(a) if isinstance(a, np.ndarray) else a for a in convolution_arrays(case, dtype))


def exact(op, args):
    return op(*(np.asarray(a, np.float64) if isinstance(a, np.ndarray) else a for a in args))


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.__name__)
def test_a_kernel_takes_what_its_op_takes(op) -> None:
    wanted = [(p.name, p.default, p.kind) for p in inspect.signature(op).parameters.values()]
    row = rows()[op]
    for kernel in (row.run, guarded(op, row)):
        assert [(p.name, p.default, p.kind) for p in inspect.signature(kernel).parameters.values()] == wanted
        assert kernel.__module__ == "gpucnn.kernels.gpu.cudnn.conv2d"
    assert set(fast.REQUESTS) == {op.__name__ for op in OPS}
    assert list(inspect.signature(fast.REQUESTS[op.__name__]).parameters) == [name for name, *_ in wanted]


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-6), ("float16", 2e-3)])
@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_every_sample_shape_is_computed_right(doubles, case, dtype, tolerance) -> None:
    for op, args in convolution_calls(*arrays(case, dtype)):
        row = rows()[op]
        assert row.accepts(*args)
        for array in args:
            if isinstance(array, np.ndarray):
                array.setflags(write=False)
        got, wanted = row.run(*args), exact(op, args)
        assert got.dtype == dtype
        assert got.shape == wanted.shape
        assert np.abs(got - wanted).max() <= tolerance * max(np.abs(wanted).max(), 1), op.__name__
    assert doubles[0].launched


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-6), ("float16", 2e-3)])
def test_groups_and_dilation_are_computed_right(doubles, dtype, tolerance) -> None:
    samples = [sample for sample in SMALL if sample.op in GENERAL]
    assert len(samples) == 4 * len(GROUPED)
    table = rows()
    for sample in samples:
        args = tuple(aligned(a.astype(dtype)) if isinstance(a, np.ndarray) else a for a in sample.arguments())
        row = table[sample.op]
        assert row.accepts(*args), str(sample)
        assert row.plan(*args).startswith("cudnn ")
        got, wanted = row.run(*args), exact(sample.op, args)
        assert (got.dtype, got.shape) == (dtype, wanted.shape)
        assert np.abs(got - wanted).max() <= tolerance * max(np.abs(wanted).max(), 1), str(sample)
    assert doubles[0].launched


def test_few_channels_with_groups_are_not_the_stems(doubles) -> None:
    x, w = aligned(np.ones((2, 8, 8, 3), np.float32)), aligned(np.ones((6, 3, 3, 1), np.float32))
    assert rows(Options())[grouped_conv2d].plan(x, w, None, (1, 1), ONE, (1, 1), 3) == "cudnn fprop"
    w = aligned(np.ones((6, 3, 3, 3), np.float32))
    assert rows(Options())[grouped_conv2d].plan(x, w, None, (1, 1), ONE, (2, 2), 1) == "cudnn fprop"


def turned(array):
    """The same values with the axes in the other order in memory."""
    return np.asfortranarray(array).view(type(array))


def sparse(array):
    """The same values as every second one of a larger array."""
    wide = aligned(np.full((*array.shape[:-1], 2 * array.shape[-1]), 7, array.dtype))
    wide[..., ::2] = array
    return wide[..., ::2]


def shifted(array):
    """The same values at an address that cuDNN does not take."""
    return aligned(array, offset=array.itemsize)


@pytest.mark.parametrize("spread", [turned, sparse, shifted])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_views_are_as_good_as_arrays(doubles, spread, dtype) -> None:
    for op, args in convolution_calls(*arrays(dtype=dtype)):
        views = [spread(a) if isinstance(a, np.ndarray) else a for a in args]
        np.testing.assert_array_equal(rows()[op].run(*views), rows()[op].run(*args))


def test_an_array_in_place_is_not_copied() -> None:
    array = aligned(np.ones((2, 3), np.float32))
    assert pack(array) is array
    assert pack(shifted(array)).ctypes.data % ALIGNMENT == 0


def test_the_choice_has_names(doubles) -> None:
    for (op, args), wanted in zip(
        convolution_calls(*arrays()), ["cudnn fprop + bias", "cudnn fprop", "cudnn dgrad", "cudnn wgrad"], strict=True
    ):
        assert rows()[op].plan(*args) == wanted
        assert algorithm(guarded(op, rows()[op]), args) == wanted
    assert doubles[0].launched == []


def test_a_bias_that_no_engine_adds_is_added_afterwards(monkeypatch, tmp_path, capsys) -> None:
    install(monkeypatch, tmp_path, fuses_bias=False)
    args = (*arrays()[:3], (2, 2), ONE)
    row = rows()[conv2d]
    assert row.plan(*args) == "cudnn fprop, then bias"
    np.testing.assert_allclose(row.run(*args), exact(conv2d, args), rtol=1e-5, atol=1e-5)
    assert "does not compute fprop float32" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda x, w, b: (x.astype(float), w.astype(float), b.astype(float)), "dtype float64"),
        (lambda x, w, b: (x, w.astype(np.float16), b), "float16"),
        (lambda x, w, b: (x, w, b.astype(np.float16)), "float16"),
        (lambda x, w, b: (x, w, b[:1]), "(1,)"),  # the op broadcasts it
        (lambda x, w, b: (x[:0], w, b), "without elements"),
    ],
)
def test_what_cudnn_does_not_accept_runs_on_the_reference_implementation(doubles, change, reason) -> None:
    x, w, b, _, stride, padding = arrays()
    args = (*change(x, w, b), stride, padding)
    row = rows()[conv2d]
    assert row.plan(*args) == "im2col + cublas"
    assert reason in convolutions().refusal(*fast.forward(*args))
    np.testing.assert_array_equal(guarded(conv2d, row)(*args), conv2d(*args))
    assert doubles[0].launched == []


def test_tf32_may_be_allowed_by_a_run_or_for_all_runs() -> None:
    for allowed in (True, False):
        assert Options().with_tf32(allowed) == Options(tf32=allowed)
        assert Options.from_environment({"GPUCNN_TF32": "1"}).with_tf32(allowed).tf32


def test_what_runs_on_cublas_is_named_since_no_cuda_graph_can_hold_it(doubles) -> None:
    uncapturable = gpu.UncapturableOps()
    chosen = gpu.kernels(BY_CUDNN, uncapturable)[conv2d]
    x, w, b, _, stride, padding = arrays()
    chosen(x, w, b, stride, padding)
    assert uncapturable.pop() == []
    chosen(*exact_arrays(x, w, b), stride, padding)
    assert uncapturable.pop() == ["conv2d"]
    assert uncapturable.pop() == []


def exact_arrays(*values):
    return [value.astype(np.float64) for value in values]


@pytest.mark.parametrize("op", [conv2d_input_grad, conv2d_weight_grad])
def test_a_gradient_of_another_shape_is_not_read_past_its_end(doubles, op) -> None:
    x, w, _, dy, stride, padding = arrays()
    other, shape = (w, x.shape) if op is conv2d_input_grad else (x, w.shape)
    accepts = rows()[op].accepts
    assert accepts(dy, other, shape, stride, padding)
    for wrong in (dy[:1], dy[:, 1:], dy[..., :2]):
        assert not accepts(aligned(wrong), other, shape, stride, padding)


def test_an_array_of_another_gpu_is_left_to_cupy(doubles, monkeypatch) -> None:
    monkeypatch.setattr(doubles[1].cuda.runtime, "getDevice", lambda: 1)
    request = fast.forward(*arrays()[:3], (2, 2), ONE)
    assert "an array of GPU 0 while GPU 1 is current" in convolutions().refusal(*request)


def test_arguments_by_name_are_looked_at_too(doubles) -> None:
    x, w, b, _, stride, padding = arrays()
    named = {"x": x, "w": w, "b": b, "stride": stride, "padding": padding}
    row = rows()[conv2d]
    np.testing.assert_array_equal(guarded(conv2d, row)(**named), row.run(**named))


def test_a_kernel_that_does_not_fit_is_the_ops_error(doubles) -> None:
    from gpucnn.errors import ShapeError

    x, w, b, *_ = arrays()
    with pytest.raises(ShapeError):
        guarded(conv2d, rows()[conv2d])(x[:, :2], w, b, (1, 1), ((0, 0), (0, 0)))


def test_where_no_engine_is_left_the_op_runs_and_says_so(monkeypatch, tmp_path, capsys) -> None:
    install(monkeypatch, tmp_path, engines=[Engine("tensor cores", notes=("TENSOR_CORE",))])
    x, w, b, _, stride, padding = arrays()
    plan = rows()[conv2d].plan
    assert plan(x, w, b, stride, padding) == plan(x, w, b, stride, padding) == "im2col + cublas"
    message = "gpucnn: cuDNN does not compute fprop float32 x=2,6,7,3 w=4,3,3,3 stride=2,2 padding=1,1,1,1: "
    assert capsys.readouterr().err.count(message) == 1
    assert rows(replace(BY_CUDNN, tf32=True))[conv2d].plan(x, w, b, stride, padding) == "cudnn fprop + bias"


def test_switched_off(monkeypatch, tmp_path) -> None:
    cudnn, _ = install(monkeypatch, tmp_path, engines=ENGINES)
    monkeypatch.setenv("GPUCNN_CUDNN", "0")
    args = (*arrays()[:3], (2, 2), ONE)
    assert rows(Options.from_environment())[conv2d].plan(*args) == "im2col + cublas"
    assert gpu.convolution_engine() == "im2col + cublas: it is switched off (GPUCNN_CUDNN=0)"
    monkeypatch.delenv("GPUCNN_CUDNN")
    assert rows(Options.from_environment())[conv2d].plan(*args) == "cudnn fprop + bias"
    assert gpu.convolution_engine().startswith("cuDNN 91900, frontend 1.23.0: the fastest engines by timing, tf32=0")
    assert cudnn.launched == []
