"""What kernels are given: other dtypes, nothing, shapes that do not fit, labels of every kind, and NaN."""

import inspect
import re

import numpy as np
import pytest

pytest.importorskip("numba")

from gpucnn import losses, optim
from gpucnn.devices import cpu
from gpucnn.errors import UsageError
from gpucnn.layers import activations, batchnorm, containers, conv2d, linear, pooling

if reason := cpu.problem():
    pytest.skip(reason, allow_module_level=True)

KERNELS = cpu.cpu_backend().kernels


@pytest.mark.parametrize("dtype", ["float16", "int64", "uint8", "int32", ">f4"])
@pytest.mark.parametrize("op", [activations.relu, activations.relu_grad, containers.add, containers.add_relu])
@pytest.mark.parametrize("shape", [(5,), (3, 7)])
def test_other_dtypes_run_on_the_reference_implementation(op, shape, dtype) -> None:
    one, two = np.arange(np.prod(shape)).reshape(shape), np.full(shape, 3)
    args = (one.astype(dtype), two.astype(dtype))[: len(inspect.signature(op).parameters)]
    wanted = op(*args)
    got = KERNELS[op](*args)
    np.testing.assert_array_equal(got, wanted)
    assert got.dtype == wanted.dtype


def test_arrays_given_by_name_are_looked_at_too() -> None:
    x = np.linspace(-1, 1, 40)
    np.testing.assert_array_equal(KERNELS[activations.relu](x=x), activations.relu(x))


@pytest.mark.parametrize("shape", [(0,), (0, 3), (2, 0, 4)])
def test_nothing_gives_nothing(shape) -> None:
    x = np.zeros(shape, np.float32)
    for op, args in ((activations.relu, (x,)), (containers.add, (x, x)), (activations.relu_grad, (x, x))):
        assert KERNELS[op](*args).shape == shape
    assert KERNELS[pooling.max_pool2d](np.zeros((0, 4, 4, 3), np.float32), (2, 2), (2, 2), ((0, 0), (0, 0))).size == 0


@pytest.mark.parametrize("shape", [(5, 3), (4, 16)])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_relu_hides_nothing(shape, value) -> None:
    x, ones = np.full(shape, value, np.float32), np.ones(shape[1], np.float32)
    assert np.array_equal(KERNELS[activations.relu](x), x, equal_nan=True)
    assert np.array_equal(KERNELS[activations.relu](-x), activations.relu(-x), equal_nan=True)
    assert np.array_equal(KERNELS[containers.add_relu](x, x), x, equal_nan=True)
    args = (x, ones, 0 * ones, 0 * ones, ones, 1e-5)
    assert np.array_equal(KERNELS[batchnorm.batchnorm_relu_eval](*args), x, equal_nan=True)


@pytest.mark.parametrize(
    ("op", "shapes", "others"),
    [
        (conv2d.conv2d, [(2, 8, 8, 16), (16, 3, 3, 32), (16,)], [(1, 1), ((1, 1), (1, 1))]),
        (conv2d.conv2d, [(2, 8, 8, 16), (16, 3, 3, 16), (15,)], [(1, 1), ((1, 1), (1, 1))]),
        (conv2d.conv2d_input_grad, [(2, 8, 8, 16), (32, 3, 3, 16)], [(2, 8, 8, 16), (1, 1), ((1, 1), (1, 1))]),
        (linear.linear, [(128, 300), (100, 400), (100,)], []),
        (linear.linear, [(2, 30), (10, 30), (5,)], []),
        (linear.linear_input_grad, [(128, 300), (400, 100)], []),
        (linear.linear_weight_grad, [(128, 300), (127, 200)], []),
        (containers.add, [(100, 9), (100, 8)], []),
        (containers.add, [(100, 8), (8,)], []),
        (activations.relu_grad, [(10, 8), (8,)], []),
        (batchnorm.batchnorm, [(10, 16), (8,), (8,)], [1e-5]),
        (batchnorm.batchnorm_relu_grad, [(10, 16), (10, 8), *[(16,)] * 4], [1e-5]),
        (optim.sgd_update, [(100,), (99,)], [0.1, 0.0]),
    ],
)
def test_shapes_that_do_not_fit_are_treated_as_the_op_does(op, shapes, others) -> None:
    args = [*(np.ones(shape, np.float32) for shape in shapes), *others]
    try:
        wanted = op(*args)
    except ValueError as error:
        with pytest.raises(ValueError, match=re.escape(str(error))):
            KERNELS[op](*args)
    else:
        np.testing.assert_array_equal(KERNELS[op](*args), wanted)


@pytest.mark.parametrize("c", [1, 6, 16, 17])
@pytest.mark.parametrize(("kernel", "stride"), [((2, 2), (2, 2)), ((3, 2), (1, 1))])
def test_max_pooling_hides_nothing(c, kernel, stride) -> None:
    for pixel in range(36):
        x = np.random.default_rng(pixel).standard_normal((3, 6, 6, c)).astype(np.float32)
        x.reshape(3, 36, c)[:, pixel] = np.nan
        args = (x, kernel, stride, ((0, 0), (0, 0)))
        np.testing.assert_array_equal(KERNELS[pooling.max_pool2d](*args), pooling.max_pool2d(*args))


@pytest.mark.parametrize("labels", [[0, 5], [-1, 2], [100000, 1]])
def test_a_label_of_no_class_is_refused(labels) -> None:
    scores = np.random.default_rng(0).standard_normal((2, 5)).astype(np.float32)
    for smoothing in (0.0, 0.2):
        for op in (KERNELS[losses.softmax_cross_entropy], losses.softmax_cross_entropy):
            with pytest.raises(UsageError, match="labels go from 0 to 4"):
                op(scores, np.array(labels), smoothing)


@pytest.mark.parametrize("kind", ["int64", "int32", "uint8", "one-hot"])
def test_labels_of_every_kind(kind) -> None:
    scores = np.random.default_rng(0).standard_normal((7, 5)).astype(np.float32)
    labels = np.arange(7) % 5
    wanted = losses.softmax_cross_entropy(scores, labels)
    labels = np.eye(5, dtype=np.float32)[labels] if kind == "one-hot" else labels.astype(kind)
    for got, exact in zip(KERNELS[losses.softmax_cross_entropy](scores, labels), wanted, strict=True):
        np.testing.assert_allclose(got, exact, rtol=1e-5, atol=1e-7)
