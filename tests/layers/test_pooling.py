"""Pooling against loops and PyTorch; ties; borders."""

import naive
import numpy as np
import pytest
from shapes import POOLINGS, pooling

from gpucnn.errors import ShapeError
from gpucnn.layers import AdaptiveAvgPool2D, AvgPool2D, GlobalAvgPool2D, MaxPool2D, ReLU, Sequential
from gpucnn.layers.pooling import (
    avg_pool2d,
    avg_pool2d_grad,
    global_avg_pool2d,
    global_avg_pool2d_grad,
    max_pool2d,
    max_pool2d_grad,
)

RNG = np.random.default_rng(2)


@pytest.mark.parametrize("case", POOLINGS, ids=str)
@pytest.mark.parametrize("tied", [False, True])
def test_against_loops_on_every_backend(case, tied, backend) -> None:
    shape, *window = pooling(case)
    x = (RNG.integers(-2, 3, shape) if tied else RNG.standard_normal(shape)).astype(np.float32)
    dy = RNG.standard_normal(naive.max_pool2d(x, *window)[0].shape).astype(np.float32)
    run, on, off = backend.run, backend.to_device, backend.to_host
    y, dx = naive.max_pool2d(x, *window, dy)
    np.testing.assert_array_equal(off(run(max_pool2d, on(x), *window)), y)
    np.testing.assert_allclose(off(run(max_pool2d_grad, on(dy), on(x), *window)), dx, rtol=1e-5, atol=1e-6)
    y, dx = naive.avg_pool2d(x, *window, dy)
    np.testing.assert_allclose(off(run(avg_pool2d, on(x), *window)), y, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(off(run(avg_pool2d_grad, on(dy), shape, *window)), dx, rtol=1e-5, atol=1e-6)


@pytest.mark.torch
@pytest.mark.parametrize("case", POOLINGS, ids=str)
def test_against_pytorch(case) -> None:
    import torch

    shape, kernel, stride, padding = pooling(case)
    for op, grad, theirs, last in (
        (max_pool2d, max_pool2d_grad, torch.nn.functional.max_pool2d, lambda x: x),
        (avg_pool2d, avg_pool2d_grad, torch.nn.functional.avg_pool2d, lambda x: x.shape),
    ):
        x = RNG.integers(-3, 4, shape).astype(np.float64)  # with ties: the first maximum, as PyTorch
        t = torch.from_numpy(x.transpose(0, 3, 1, 2).copy()).requires_grad_()
        y = theirs(t, kernel, stride, (padding[0][0], padding[1][0]))
        dy = RNG.standard_normal(y.shape)
        y.backward(torch.from_numpy(dy))
        dy = dy.transpose(0, 2, 3, 1)
        np.testing.assert_allclose(op(x, kernel, stride, padding), y.detach().permute(0, 2, 3, 1), atol=1e-10)
        got = grad(dy, last(x), kernel, stride, padding)
        np.testing.assert_allclose(got, t.grad.permute(0, 2, 3, 1), atol=1e-10)


def test_a_tie_goes_to_the_first_in_row_major_order() -> None:
    x = np.zeros((1, 2, 2, 1))
    dx = max_pool2d_grad(np.ones((1, 1, 1, 1)), x, (2, 2), (2, 2), ((0, 0), (0, 0)))
    assert dx[0, :, :, 0].tolist() == [[1, 0], [0, 0]]


def test_padding_never_wins() -> None:
    x = np.full((1, 2, 2, 1), -5.0)
    assert (max_pool2d(x, (2, 2), (2, 2), ((1, 1), (1, 1))) == -5.0).all()


def test_global_average_is_the_mean_of_the_image(backend) -> None:
    x = RNG.standard_normal((3, 4, 5, 2)).astype(np.float32)
    y = backend.run(global_avg_pool2d, backend.to_device(x))
    np.testing.assert_allclose(backend.to_host(y), x.mean(axis=(1, 2)), rtol=1e-5, atol=1e-6)
    dy = RNG.standard_normal((3, 2)).astype(np.float32)
    dx = backend.to_host(backend.run(global_avg_pool2d_grad, backend.to_device(dy), x.shape))
    np.testing.assert_allclose(dx, np.broadcast_to(dy[:, None, None, :] / 20, x.shape), rtol=1e-5)


@pytest.mark.parametrize("layer", [MaxPool2D(2), AvgPool2D(3, stride=1, padding=1), GlobalAvgPool2D()])
def test_layers_forward_and_backward(layer, backend) -> None:
    layer.initialize(0, backend)
    x = backend.to_device(RNG.standard_normal((2, 6, 6, 3)).astype(np.float32))
    y = layer.train()(x)
    assert layer.backward(y).shape == x.shape
    assert tuple(y.shape[1:]) == layer.output_shape((6, 6, 3))


def test_the_stride_is_the_kernel_where_not_given_and_odd_padding_is_refused() -> None:
    assert MaxPool2D(3).output_shape((9, 9, 4)) == (3, 3, 4)
    with pytest.raises(ShapeError, match="more than half the kernel"):
        MaxPool2D(2, padding=2)
    for layer in (AvgPool2D(2), GlobalAvgPool2D(), AdaptiveAvgPool2D(2)):
        with pytest.raises(ShapeError, match="give images"):
            layer.output_shape((7,))


# (N, H, W, C), kernel, stride, padding: windows over the border, one that would start behind it, none
CEILED = [
    ((1, 6, 7, 2), (3, 3), (2, 2), (0, 0)),
    ((2, 5, 8, 1), (2, 3), (2, 3), (1, 1)),
    ((1, 4, 4, 3), (2, 2), (2, 2), (1, 1)),
    ((1, 7, 6, 1), (3, 2), (3, 5), (1, 0)),
    ((1, 6, 6, 1), (1, 1), (4, 3), (0, 0)),
]


@pytest.mark.torch
@pytest.mark.parametrize("case", CEILED, ids=str)
@pytest.mark.parametrize("kind", [MaxPool2D, AvgPool2D])
def test_ceil_mode_is_pytorchs(kind, case) -> None:
    import torch

    shape, kernel, stride, padding = case
    name = {MaxPool2D: "max_pool2d", AvgPool2D: "avg_pool2d"}[kind]
    x = RNG.standard_normal(shape)
    t = torch.from_numpy(x.transpose(0, 3, 1, 2).copy()).requires_grad_()
    y = getattr(torch.nn.functional, name)(t, kernel, stride, padding, ceil_mode=True)
    dy = RNG.standard_normal(y.shape)
    y.backward(torch.from_numpy(dy))
    layer = kind(kernel, stride=stride, padding=padding, ceil_mode=True).initialize(dtype="float64")
    np.testing.assert_allclose(layer(x), y.detach().permute(0, 2, 3, 1), atol=1e-12)
    np.testing.assert_allclose(layer.backward(dy.transpose(0, 2, 3, 1)), t.grad.permute(0, 2, 3, 1), atol=1e-12)


def test_relu_in_front_of_ceil_mode(backend) -> None:
    """Not fused: its border depends on the image."""
    x = RNG.standard_normal((2, 6, 6, 3)).astype(np.float32)
    model = Sequential(ReLU(), MaxPool2D(3, stride=2, ceil_mode=True)).initialize(0, backend)
    wanted, _ = naive.max_pool2d(np.maximum(x, 0), (3, 3), (2, 2), ((0, 1), (0, 1)))
    np.testing.assert_array_equal(backend.to_host(model(backend.to_device(x))), wanted)


@pytest.mark.torch
@pytest.mark.parametrize("size", [(3, 5), (1, 1), (7, 4), (2, 9)])
def test_adaptive_pooling_has_pytorchs_bins(size) -> None:
    import torch

    x = RNG.standard_normal((2, 7, 8, 2))
    t = torch.from_numpy(x.transpose(0, 3, 1, 2).copy()).requires_grad_()
    y = torch.nn.functional.adaptive_avg_pool2d(t, size)
    dy = RNG.standard_normal(y.shape)
    y.backward(torch.from_numpy(dy))
    layer = AdaptiveAvgPool2D(size).initialize(dtype="float64")
    np.testing.assert_allclose(layer(x), y.detach().permute(0, 2, 3, 1), atol=1e-12)
    np.testing.assert_allclose(layer.backward(dy.transpose(0, 2, 3, 1)), t.grad.permute(0, 2, 3, 1), atol=1e-12)


def test_adaptive_pooling_by_loops(backend) -> None:
    x = RNG.standard_normal((1, 5, 4, 2)).astype(np.float32)
    layer = AdaptiveAvgPool2D((2, 3)).initialize(0, backend)
    y = backend.to_host(layer(backend.to_device(x)))
    for i, rows in enumerate(((0, 3), (2, 5))):  # floor(i 5/2) to ceil((i+1) 5/2)
        for j, columns in enumerate(((0, 2), (1, 3), (2, 4))):
            wanted = np.mean(x[0, slice(*rows), slice(*columns)], axis=(0, 1))
            np.testing.assert_allclose(y[0, i, j], wanted, rtol=1e-5)
