"""Convolution against seven loops, against PyTorch, and against its own definition as an adjoint."""

import naive
import numpy as np
import pytest
from shapes import CONVOLUTIONS, convolution

from gpucnn.errors import ShapeError, UsageError
from gpucnn.layers import Conv2D
from gpucnn.layers.conv2d import bias_grad, conv2d, conv2d_input_grad, conv2d_weight_grad
from gpucnn.layers.windows import add_windows, as_padding, output_size, view_windows

RNG = np.random.default_rng(1)


def arrays(case):
    x_shape, w_shape, stride, padding = convolution(case)
    x, w, b = RNG.standard_normal(x_shape), RNG.standard_normal(w_shape), RNG.standard_normal(w_shape[0])
    dy = RNG.standard_normal(naive.conv2d(x, w, b, stride, padding).shape)
    for array in (x, w, b, dy):
        array.setflags(write=False)  # ops never modify what they are given
    return x, w, b, dy, stride, padding


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_against_seven_loops(case) -> None:
    x, w, b, dy, stride, padding = arrays(case)
    dx, dw, db = naive.conv2d_grads(dy, x, w, stride, padding)
    close = {"rtol": 1e-12, "atol": 1e-12}
    np.testing.assert_allclose(conv2d(x, w, b, stride, padding), naive.conv2d(x, w, b, stride, padding), **close)
    np.testing.assert_allclose(conv2d(x, w, None, stride, padding) + b, conv2d(x, w, b, stride, padding), **close)
    np.testing.assert_allclose(conv2d_input_grad(dy, w, x.shape, stride, padding), dx, **close)
    np.testing.assert_allclose(conv2d_weight_grad(dy, x, w.shape, stride, padding), dw, **close)
    np.testing.assert_allclose(bias_grad(dy), db, **close)


@pytest.mark.torch
@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_against_pytorch(case) -> None:
    import torch

    x, w, b, dy, stride, padding = arrays(case)
    tensors = [
        torch.from_numpy(a.copy()).requires_grad_() for a in (x.transpose(0, 3, 1, 2), w.transpose(0, 3, 1, 2), b)
    ]
    (top, bottom), (left, right) = padding
    padded = torch.nn.functional.pad(tensors[0], (left, right, top, bottom))
    y = torch.nn.functional.conv2d(padded, tensors[1], tensors[2], stride=stride)
    y.backward(torch.from_numpy(dy.transpose(0, 3, 1, 2).copy()))
    close = {"rtol": 1e-10, "atol": 1e-10}
    np.testing.assert_allclose(conv2d(x, w, b, stride, padding), y.detach().permute(0, 2, 3, 1), **close)
    dx, dw, db = (tensor.grad.numpy() for tensor in tensors)
    np.testing.assert_allclose(conv2d_input_grad(dy, w, x.shape, stride, padding), dx.transpose(0, 2, 3, 1), **close)
    np.testing.assert_allclose(conv2d_weight_grad(dy, x, w.shape, stride, padding), dw.transpose(0, 2, 3, 1), **close)
    np.testing.assert_allclose(bias_grad(dy), db, **close)


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_the_input_gradient_is_the_transpose_of_the_convolution(case) -> None:
    x, w, _, dy, stride, padding = arrays(case)
    forward = (conv2d(x, w, None, stride, padding) * dy).sum()
    assert forward == pytest.approx((x * conv2d_input_grad(dy, w, x.shape, stride, padding)).sum(), rel=1e-10)
    assert forward == pytest.approx((w * conv2d_weight_grad(dy, x, w.shape, stride, padding)).sum(), rel=1e-10)


@pytest.mark.parametrize(("kernel", "stride"), [((3, 3), (1, 1)), ((2, 3), (2, 1)), ((1, 1), (3, 2))])
def test_adding_windows_is_the_transpose_of_viewing_them(kernel, stride) -> None:
    x = RNG.standard_normal((2, 7, 6, 3))
    viewed = view_windows(x, kernel, stride)
    v = RNG.standard_normal(viewed.shape)
    assert (viewed * v).sum() == pytest.approx((x * add_windows(v, x.shape, stride)).sum(), rel=1e-12)
    assert np.shares_memory(viewed, x)


def test_output_sizes_by_the_equation() -> None:
    # (L2), and the slides' second erratum: 5x5, k = 3, p = 2, s = 1 is 7x7
    assert output_size((5, 5, 1), (3, 3), (1, 1), ((2, 2), (2, 2))) == (7, 7)
    assert output_size((5, 6, 1), (3, 2), (2, 3), ((0, 0), (1, 1))) == (2, 3)
    for size in range(1, 12):
        for kernel in (1, 2, 3, 4, 7):
            assert output_size(
                (size, size, 1), (kernel, kernel), (1, 1), as_padding("same", (kernel, kernel), (1, 1))
            ) == (size, size)


def test_the_layer_uses_the_ops_on_every_backend(backend) -> None:
    layer = Conv2D(3, 4, 3, stride=2, padding=1).initialize(5, backend)
    x = RNG.standard_normal((2, 7, 6, 3)).astype(np.float32)
    y = layer(backend.to_device(x))
    dy = RNG.standard_normal(y.shape).astype(np.float32)
    dx = layer.backward(backend.to_device(dy))
    state = {name: a.astype(np.float64) for name, a in layer.state_dict().items()}
    w, b = state["weight"], state["bias"]
    np.testing.assert_allclose(
        backend.to_host(y), naive.conv2d(x, w, b, (2, 2), ((1, 1), (1, 1))), rtol=1e-5, atol=1e-5
    )
    want = naive.conv2d_grads(dy, x, w, (2, 2), ((1, 1), (1, 1)))
    for got, wanted in zip((dx, layer.weight.grad, layer.bias.grad), want, strict=True):
        assert str(got.dtype) == "float32"
        np.testing.assert_allclose(backend.to_host(got), wanted, rtol=1e-4, atol=1e-4)


def test_nobody_computes_an_input_gradient_that_is_not_needed() -> None:
    layer = Conv2D(1, 2, 3).initialize()
    layer.skip_input_grad()
    y = layer(np.ones((1, 4, 4, 1), np.float32))
    assert layer.backward(y) is None
    assert layer.weight.grad.any()


def test_shapes_that_do_not_fit_are_named() -> None:
    layer = Conv2D(64, 8, 3).initialize()
    with pytest.raises(ShapeError, match=r"Conv2D\(in_channels=64\) got x of shape \(32, 32, 3\)"):
        layer(np.zeros((1, 32, 32, 3), np.float32))
    with pytest.raises(ShapeError, match=r"kernel of \(5, 5\) does not fit into an image of \(3, 4, 1\)"):
        Conv2D(1, 1, 5).initialize()(np.zeros((1, 3, 4, 1), np.float32))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"stride": 0}, "stride=0"),
        ({"kernel_size": (3, 3, 3)}, "kernel_size"),
        ({"padding": -1}, "padding=-1"),
        ({"padding": "valid"}, "padding='valid'"),
        ({"padding": "same", "stride": 2}, "needs stride 1"),
    ],
)
def test_arguments_that_make_no_sense_are_named(words, message) -> None:
    with pytest.raises(ShapeError, match=message.replace("(", r"\(")):
        Conv2D(1, 1, **{"kernel_size": 3, **words})


def test_a_layer_without_values_says_how_to_get_them() -> None:
    with pytest.raises(UsageError, match="initialize"):
        Conv2D(1, 1, 1)(np.zeros((1, 2, 2, 1)))
