"""Convolutions with groups, dilation and four paddings, and transposed ones: against loops, PyTorch and themselves."""

import naive
import numpy as np
import pytest
from shapes import GROUPED, grouped

from gpucnn.errors import ShapeError, UsageError
from gpucnn.layers import Conv2D, ConvTranspose2D
from gpucnn.layers.conv2d import (
    conv2d,
    conv2d_input_grad,
    conv2d_weight_grad,
    grouped_conv2d,
    grouped_conv2d_input_grad,
    grouped_conv2d_weight_grad,
)

CLOSE = {"rtol": 1e-10, "atol": 1e-10}


def arrays(case, seed=1):
    rng = np.random.default_rng(seed)
    x_shape, w_shape, how = grouped(case)
    x, w, b = rng.standard_normal(x_shape), rng.standard_normal(w_shape), rng.standard_normal(w_shape[0])
    dy = rng.standard_normal(grouped_conv2d(x, w, b, *how).shape)
    for array in (x, w, b, dy):
        array.setflags(write=False)  # ops never modify what they are given
    return x, w, b, dy, how


@pytest.mark.parametrize("case", GROUPED, ids=str)
def test_against_loops(case) -> None:
    x, w, b, dy, how = arrays(case)
    y, dx, dw = naive.grouped_conv2d(x, w, dy, *how)
    np.testing.assert_allclose(grouped_conv2d(x, w, b, *how), y + b, **CLOSE)
    np.testing.assert_allclose(grouped_conv2d(x, w, None, *how), y, **CLOSE)
    np.testing.assert_allclose(grouped_conv2d_input_grad(dy, w, x.shape, *how), dx, **CLOSE)
    np.testing.assert_allclose(grouped_conv2d_weight_grad(dy, x, w.shape, *how), dw, **CLOSE)


def test_one_group_without_dilation_is_the_lectures_convolution() -> None:
    x, w, b, dy, (stride, padding, *_) = arrays(((2, 6, 5, 3), 4, 3, 2, ((1, 2), (0, 1)), 1, 1))
    how = stride, padding
    general = (*how, (1, 1), 1)
    np.testing.assert_allclose(grouped_conv2d(x, w, b, *general), conv2d(x, w, b, *how), **CLOSE)
    pairs = (
        (grouped_conv2d_input_grad, conv2d_input_grad, w, x),
        (grouped_conv2d_weight_grad, conv2d_weight_grad, x, w),
    )
    for op, plain, given, wanted in pairs:
        np.testing.assert_allclose(op(dy, given, wanted.shape, *general), plain(dy, given, wanted.shape, *how), **CLOSE)


def random_case(rng):
    """Sizes of a convolution at random, that fit."""
    groups, per, each = (int(rng.choice(some)) for some in ((1, 2, 3, 8), (1, 1, 2, 5), (1, 1, 2, 3)))
    kernel, stride, dilation = (tuple(int(v) for v in rng.integers(1, most, 2)) for most in (5, 4, 4))
    padding = tuple(tuple(int(v) for v in rng.integers(0, 4, 2)) for _ in range(2))
    least = [d * (k - 1) + 1 - sum(p) for d, k, p in zip(dilation, kernel, padding, strict=True)]
    size = [max(1, low, int(rng.integers(1, 12))) for low in least]
    return (int(rng.integers(1, 4)), *size, groups * per), groups * each, kernel, stride, padding, dilation, groups


@pytest.mark.torch
def test_random_shapes_against_pytorch(backend) -> None:
    import torch
    import torch.nn.functional as F

    first, last = (lambda t: t.movedim(-1, 1)), (lambda t: t.movedim(1, -1))
    for seed in range(24):
        rng = np.random.default_rng(seed)
        case = random_case(rng)
        x_shape, filters, kernel, stride, padding, dilation, groups = case
        x, w, b, dy, _ = arrays(case, seed)
        (top, bottom), (left, right) = padding
        leaves = [torch.from_numpy(a.copy()).requires_grad_() for a in (x, w, b)]
        padded = F.pad(first(leaves[0]), (left, right, top, bottom))
        wanted = last(F.conv2d(padded, first(leaves[1]), leaves[2], stride, 0, dilation, groups))
        grads = torch.autograd.grad(wanted, leaves, torch.from_numpy(dy.copy()))
        for precision, tolerance in (("float64", 1e-10), ("float32", 2e-5)):
            on = {"backend": backend, "dtype": precision}
            layer = Conv2D(
                x_shape[3], filters, kernel, stride=stride, padding=padding, dilation=dilation, groups=groups
            ).initialize(0, **on)
            layer.load_state_dict({"weight": w.astype(precision), "bias": b.astype(precision)})
            got = layer(backend.to_device(x.astype(precision)))
            dx = layer.backward(backend.to_device(dy.astype(precision)))
            parts = (got, dx, layer.weight.grad, layer.bias.grad)
            for part, want in zip(parts, (wanted, *grads), strict=True):
                want = want.detach().numpy()
                assert np.abs(backend.to_host(part) - want).max() <= tolerance * max(1, np.abs(want).max()), case


@pytest.mark.torch
def test_transposed_convolutions_of_random_shapes_against_pytorch(backend) -> None:
    import torch

    first = lambda t: t.movedim(-1, 1)  # noqa: E731
    for seed in range(20):
        rng = np.random.default_rng(seed)
        x_shape, filters, kernel, stride, padding, _, groups = random_case(rng)
        more = tuple(int(rng.integers(0, s)) for s in stride)
        padding = tuple((min(p[0], (k - 1) // 2),) * 2 for p, k in zip(padding, kernel, strict=True))
        how = {"stride": stride, "output_padding": more, "groups": groups}
        layer = ConvTranspose2D(x_shape[3], filters, kernel, padding=padding, **how).initialize(1, backend)
        theirs = torch.nn.ConvTranspose2d(x_shape[3], filters, kernel, padding=(padding[0][0], padding[1][0]), **how)
        theirs.double()
        bias = rng.standard_normal(filters).astype(np.float32)
        layer.bias.data[...] = backend.to_device(bias)
        w = torch.from_numpy(layer.state_dict()["weight"].astype(np.float64))
        with torch.no_grad():
            theirs.weight.copy_(first(w))
            theirs.bias.copy_(torch.from_numpy(bias))
        x = rng.standard_normal(x_shape).astype(np.float32)
        leaf = torch.from_numpy(x.astype(np.float64)).requires_grad_()
        wanted = theirs(first(leaf)).movedim(1, -1)
        got = layer(backend.to_device(x))
        assert got.shape == tuple(wanted.shape) == (x_shape[0], *layer.output_shape(x_shape[1:]))
        dy = rng.standard_normal(got.shape).astype(np.float32)
        grads = torch.autograd.grad(wanted, [leaf, theirs.weight, theirs.bias], torch.from_numpy(dy.astype(np.float64)))
        parts = (got, layer.backward(backend.to_device(dy)), layer.weight.grad, layer.bias.grad)
        for part, want in zip(parts, (wanted, grads[0], grads[1].movedim(1, -1), grads[2]), strict=True):
            want = want.detach().numpy()
            assert np.abs(backend.to_host(part) - want).max() <= 2e-5 * max(1, np.abs(want).max())


def test_a_transposed_convolution_is_the_transpose() -> None:
    rng = np.random.default_rng(0)
    padding = ((1, 0), (2, 1))
    up = ConvTranspose2D(4, 6, (3, 5), stride=(2, 3), padding=padding, output_padding=(1, 2), groups=2, bias=False)
    down = Conv2D(6, 4, (3, 5), stride=(2, 3), padding=padding, groups=2, bias=False)
    up.initialize(1, dtype="float64")
    down.initialize(2, dtype="float64").load_state_dict(up.state_dict())
    x = rng.standard_normal((2, 4, 3, 4))
    y = rng.standard_normal((2, *up.output_shape((4, 3, 4))))
    assert down.output_shape(y.shape[1:]) == (4, 3, 4)
    assert (up(x) * y).sum() == pytest.approx((x * down(y)).sum(), rel=1e-12)


def test_same_keeps_the_size_with_dilation() -> None:
    for kernel, dilation in ((3, 2), ((2, 3), (3, 1)), (1, 4), (4, 1)):
        layer = Conv2D(1, 1, kernel, padding="same", dilation=dilation)
        assert layer.output_shape((9, 8, 1)) == (9, 8, 1)
    assert Conv2D(1, 1, 3, padding=((0, 1), (2, 3))).padding == ((0, 1), (2, 3))


def test_first_weights_keep_the_variance() -> None:
    assert Conv2D(32, 64, 3, groups=32).initialize(3).weight.data.std() == pytest.approx((2 / 9) ** 0.5, rel=0.1)
    x = np.random.default_rng(0).standard_normal((4, 16, 16, 32)).astype(np.float32)
    for stride in (1, 2):
        y = ConvTranspose2D(32, 32, 4, stride=stride).initialize(0)(x)[:, 4:-4, 4:-4]
        assert (y * y).mean() == pytest.approx(2.0, rel=0.1)  # ReLU halves it


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Conv2D(6, 4, 3, groups=3), ShapeError, "groups=3 of 6 channels in and 4 out"),
        (lambda: Conv2D(6, 6, 3, groups=0), ShapeError, "groups=0"),
        (lambda: Conv2D(6, 6, 3, groups=2.0), UsageError, "groups"),
        (lambda: Conv2D(1, 1, 3, dilation=0), ShapeError, "dilation=0"),
        (lambda: Conv2D(1, 1, 3, padding=((0, -1), (0, 0))), ShapeError, "padding=(0, -1)"),
        (lambda: ConvTranspose2D(6, 4, 3, groups=4), ShapeError, "groups=4"),
        (lambda: ConvTranspose2D(1, 1, 3, stride=2, output_padding=2), ShapeError, "less than the stride"),
        (lambda: ConvTranspose2D(1, 1, 3, padding=2).output_shape((2, 2, 1)), ShapeError, "cuts off all"),
        (lambda: ConvTranspose2D(3, 1, 3).output_shape((2, 2, 1)), ShapeError, "channels last"),
    ],
)
def test_arguments_that_make_no_sense_are_named(make, error, message) -> None:
    with pytest.raises(error) as caught:
        make()
    assert message in str(caught.value)
