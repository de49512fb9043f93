"""Shapes of a convolution, what is none, and what is asked of cuDNN for it."""

import naive
import numpy as np
import pytest
from fake_cudnn import Cudnn
from shapes import CONVOLUTIONS, GROUPED, convolution, grouped

from gpucnn.kernels.gpu.cudnn import graph as cudnn_graph
from gpucnn.kernels.gpu.cudnn.geometry import DGRAD, FPROP, WGRAD, Geometry
from gpucnn.kernels.gpu.cudnn.options import Options

HALF, SINGLE = np.dtype("float16"), np.dtype("float32")
ONE = ((1, 1), (1, 1))


def geometry(
    op=FPROP, x=(2, 5, 6, 3), w=(4, 3, 3, 3), stride=(1, 1), padding=ONE, dtype=SINGLE, bias=False, **more
) -> Geometry:
    return Geometry(op, x, w, stride, padding, dtype, bias, **more)


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_the_output_is_as_large_as_counting_says(case) -> None:
    x_shape, w_shape, stride, padding = convolution(case)
    y_shape = (x_shape[0], *naive.sizes(x_shape, w_shape[1:3], stride, padding), w_shape[0])
    outputs = {FPROP: y_shape, DGRAD: x_shape, WGRAD: w_shape}
    inputs = {FPROP: [x_shape, w_shape], DGRAD: [y_shape, w_shape], WGRAD: [y_shape, x_shape]}
    for op, output in outputs.items():
        one = Geometry(op, x_shape, w_shape, stride, padding, SINGLE)
        assert one.output_shape == output
        assert one.input_shapes == inputs[op]
        assert one.problem() == ""
    assert geometry(bias=True).input_shapes[2] == (4,)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"dtype": np.dtype("float64")}, "dtype float64"),
        ({"dtype": np.dtype("int8")}, "dtype int8"),
        ({"w": (4, 3, 3, 1)}, "do not fit together"),  # cuDNN would take it for a grouped convolution
        ({"x": (5, 6, 3)}, "do not fit together"),
        ({"x": (0, 5, 6, 3)}, "without elements"),
        ({"w": (4, 0, 3, 3)}, "without elements"),
        ({"w": (4, 8, 3, 3)}, "does not fit into"),
        ({"w": (4, 3, 9, 3)}, "does not fit into"),
        ({"dilation": (4, 1)}, "does not fit into"),
        ({"groups": 3}, "do not fit together"),
        ({"groups": 3, "w": (4, 3, 3, 1)}, "4 filters cannot be cut into 3 groups"),
    ],
)
def test_what_is_no_convolution_for_cudnn(change, reason) -> None:
    assert reason in geometry(**change).problem()


def test_every_field_is_part_of_the_key() -> None:
    base = geometry(stride=(1, 2), padding=((1, 2), (3, 4)))
    others = [
        base._replace(op=DGRAD),
        base._replace(x_shape=(2, 6, 5, 3)),
        base._replace(w_shape=(3, 3, 3, 3)),
        base._replace(stride=(2, 1)),
        base._replace(padding=((1, 2), (4, 3))),
        base._replace(dtype=HALF),
        base._replace(dilation=(1, 2)),
        base._replace(groups=2),
        base._replace(bias=True),
    ]
    assert len({base, *others}) == len({str(one) for one in (base, *others)}) == 10
    assert str(others[-2]).endswith(" padding=1,2,3,4 dilation=1,1 groups=2")
    assert str(others[-1]) == "fprop float32 x=2,5,6,3 w=4,3,3,3 stride=1,2 padding=1,2,3,4 bias"


@pytest.mark.parametrize("shape", [(2, 5, 6, 3), (7, 1, 4, 2), (4,)])
def test_memory_is_described_as_numpy_sees_it(shape) -> None:
    array = np.zeros(shape if len(shape) == 4 else (1, 1, 1, *shape), np.float32)
    turned = array.transpose(0, 3, 1, 2)
    strides = [stride // array.itemsize for stride in turned.strides]
    assert cudnn_graph.channels_last(shape) == {"dim": list(turned.shape), "stride": strides}


@pytest.mark.parametrize("case", GROUPED, ids=str)
def test_sizes_with_groups_and_dilation(case) -> None:
    x_shape, w_shape, how = grouped(case)
    stride, padding, dilation, groups = how
    one = Geometry(FPROP, x_shape, w_shape, stride, padding, SINGLE, False, dilation, groups)
    y, *_ = naive.grouped_conv2d(np.zeros(x_shape), np.zeros(w_shape), None, *how)
    assert (one.output_shape, one.problem()) == (y.shape, "")
    assert cudnn_graph.build(Cudnn(), one, handle=77).how["dilation"] == list(dilation)


@pytest.mark.parametrize("op", [FPROP, DGRAD, WGRAD])
def test_padding_and_stride_are_given_by_side_and_axis(op) -> None:
    cudnn = Cudnn()
    one = geometry(op, x=(2, 9, 8, 3), stride=(3, 2), padding=((1, 2), (3, 4)))
    graph = cudnn_graph.build(cudnn, one, handle=77)
    assert graph.how == {"pre_padding": [1, 3], "post_padding": [2, 4], "stride": [3, 2], "dilation": [1, 1]}
    assert [tensor.dim for tensor in graph.operands] == [
        cudnn_graph.channels_last(shape)["dim"] for shape in one.input_shapes
    ]
    assert graph.result.uid == 3
    assert graph.target == {"handle": 77}
    assert graph.kind == SINGLE


def test_the_question_is_put_in_an_order_in_which_it_means_something() -> None:
    cudnn = Cudnn()
    graph = cudnn_graph.build(cudnn, geometry(), handle=77)
    assert cudnn_graph.ask(cudnn, graph, Options(), "float32") == ""
    assert graph.calls == ["validate", "build_operation_graph", "create_execution_plans", "check_support"]
    left = [engine.name for engine, allowed in zip(cudnn.engines, graph.allowed, strict=True) if allowed]
    assert left == ["guess", "broken", "hungry", "fast", "stubborn"]
    assert graph.limit == 512 << 20


@pytest.mark.parametrize("error", [Cudnn.cudnnGraphNotSupportedError, RuntimeError, ValueError])
def test_a_refusal_is_an_answer(error, monkeypatch) -> None:
    cudnn = Cudnn()
    graph = cudnn_graph.build(cudnn, geometry(), handle=77)

    def refuse() -> None:
        raise error("CUDNN_STATUS_BAD_PARAM\nmore")

    monkeypatch.setattr(graph, "build_operation_graph", refuse)
    assert cudnn_graph.ask(cudnn, graph, Options(), "float32") == "CUDNN_STATUS_BAD_PARAM"


@pytest.mark.parametrize(
    ("options", "dtype", "more"),
    [
        (Options(), "float32", {"NONDETERMINISTIC", "TENSOR_CORE"}),
        (Options(), "float16", {"NONDETERMINISTIC"}),
        (Options(tf32=True), "float32", {"NONDETERMINISTIC"}),
        (Options(deterministic=False), "float32", {"TENSOR_CORE"}),
        (Options(deterministic=False, tf32=True), "float16", set()),
    ],
)
def test_which_engines_are_ruled_out(options, dtype, more) -> None:
    assert set(cudnn_graph.unwanted(options, dtype)) == set(cudnn_graph.NEVER) | more
