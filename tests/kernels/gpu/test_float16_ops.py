"""Reference implementations on float16 arrays: sums and statistics in float32; 0.6 percent from float64 at most."""

import inspect

import numpy as np
import pytest
from gpu_samples import SAMPLES, STORED, halved, result_types
from outcomes import doubled, outcome

from gpucnn import losses
from gpucnn.layers import activations, containers, conv2d, gelu, linear, pooling, softmax, upsample

CASES = {}  # label -> (op, arguments): some of each op that the GPU's kernels take in float16
for sample in SAMPLES:
    if sample.op in STORED and sum(op is sample.op for op, _ in CASES.values()) < 4:
        CASES[str(sample)] = sample.op, sample.arguments()

rng = np.random.default_rng(0)
x, dy = (rng.standard_normal((40, 10)).astype(np.float32) * 3 for _ in range(2))
image, filters = rng.standard_normal((2, 6, 5, 3)).astype(np.float32), rng.standard_normal((4, 3, 3, 3), np.float32)
windows = ((1, 1), ((1, 1), (1, 1)))
OTHERS = [
    (gelu.gelu, x),
    (gelu.gelu_grad, dy, x),
    (gelu.gelu_tanh, 20 * x),  # the cube is beyond float16
    (gelu.gelu_tanh_grad, dy, 100 * x),
    (activations.tanh, x),
    (activations.sigmoid, x),
    (activations.silu, x),
    (activations.silu_grad, dy, x),
    (conv2d.grouped_conv2d, image, filters[:3, ..., :1].copy(), None, *windows, (1, 1), 3),
    (conv2d.grouped_conv2d_input_grad, image, filters[:3, ..., :1].copy(), image.shape, *windows, (1, 1), 3),
    (conv2d.grouped_conv2d_weight_grad, image, image, (3, 3, 3, 1), *windows, (1, 1), 3),
    (activations.elu, x, 0.7),
    (activations.elu_grad, dy, x, 0.7),
    (activations.hardsigmoid, x),
    (activations.hardsigmoid_grad, dy, x),
    (upsample.upsample, image, (2, 3), True),
    (upsample.upsample_grad, image, (2, 1), True),
    (pooling.adaptive_avg_pool2d, 1000 * image, (4, 3)),
    (pooling.adaptive_avg_pool2d_grad, image, (2, 7, 9, 3)),
    (pooling.weighted, image, image[0, :, 0, 0].copy(), image[0, 0, :, 0].copy()),
    (containers.gated, image, image[:, 0, 0].copy()),
    (containers.gate_grad, image, image),
    (softmax.softmax, x),
    (softmax.softmax_grad, dy, np.abs(x)),
    (linear.linear, x, dy, dy[:, 0].copy()),
    (linear.linear_weight_grad, dy, x),
    (linear.linear_input_grad, dy, rng.standard_normal((10, 7)).astype(np.float32)),
    (conv2d.conv2d, image, filters, filters[:, 0, 0, 0].copy(), *windows),
    (conv2d.conv2d_weight_grad, rng.standard_normal((2, 6, 5, 4)).astype(np.float32), image, filters.shape, *windows),
    (conv2d.conv2d_input_grad, rng.standard_normal((2, 6, 5, 4)).astype(np.float32), filters, image.shape, *windows),
]


def far(got: np.ndarray, wanted: np.ndarray) -> float:
    return np.linalg.norm(got.astype(np.float64) - wanted) / max(np.linalg.norm(wanted), 1e-6)


@pytest.mark.parametrize("case", CASES)
def test_an_op_with_a_kernel_gives_what_its_kernel_does(case) -> None:
    op, args = CASES[case]
    args = halved(op, args)
    got = outcome(op, op, args)
    assert [part.dtype for part in got] == result_types(op, args, len(got))
    for part, wanted in zip(got, outcome(op, op, doubled(args)), strict=True):
        assert far(part, wanted) < 6e-3


@pytest.mark.parametrize("case", OTHERS, ids=lambda case: case[0].__name__)
def test_the_other_ops(case) -> None:
    op, *args = case
    args = tuple(a.astype(np.float16) if isinstance(a, np.ndarray) else a for a in args)
    got = op(*args)
    assert got.dtype == np.float16
    assert far(got, op(*doubled(args))) < 6e-3


def test_a_sum_of_many_does_not_overflow() -> None:
    ones = np.ones((100_000, 2), np.float16)
    np.testing.assert_array_equal(conv2d.bias_grad(ones), [100_000, 100_000])
    loss, _ = losses.softmax_cross_entropy(np.zeros((70_000, 2), np.float16), np.zeros(70_000, np.int64))
    assert loss == pytest.approx(np.log(2))


NO_OPS = {"im2col", "normal_cdf", "sigmoid_and_slope", "check_groups", "ops_of", "grouped_im2col"}


def test_every_op_of_the_layers_is_here() -> None:
    tested = {op for op, _ in CASES.values()} | {op for op, *_ in OTHERS}
    grads = {gelu.gelu, activations.tanh_grad, activations.sigmoid_grad}  # one product more than an op above
    for module in (gelu, activations, softmax, linear, conv2d):
        for name, op in inspect.getmembers(module, inspect.isfunction):
            if op.__module__ == module.__name__ and name not in NO_OPS:
                assert op in tested | grads, name
