"""'same' padding: the size is kept, and the odd pixel of an even kernel lies at bottom and right, as in PyTorch."""

import numpy as np
import pytest

from gpucnn.errors import ShapeError
from gpucnn.layers import AvgPool2D, Conv2D, MaxPool2D
from gpucnn.layers.windows import as_padding, as_pair, crop, pad

RNG = np.random.default_rng(4)
KERNELS = [(1, 1), (2, 2), (3, 3), (4, 4), (2, 3), (5, 2), (6, 1)]


@pytest.mark.parametrize(
    ("kernel", "padding"),
    [
        ((1, 1), ((0, 0), (0, 0))),
        ((2, 2), ((0, 1), (0, 1))),
        ((3, 3), ((1, 1), (1, 1))),
        ((4, 2), ((1, 2), (0, 1))),
        ((5, 6), ((2, 2), (2, 3))),
    ],
)
def test_the_odd_pixel_is_at_bottom_and_right(kernel, padding) -> None:
    assert as_padding("same", kernel, (1, 1)) == padding


def test_padding_goes_where_it_says() -> None:
    x = RNG.standard_normal((1, 2, 3, 1))
    padded = pad(x, ((1, 2), (3, 0)))
    assert padded.shape == (1, 5, 6, 1)
    np.testing.assert_array_equal(padded[:, 1:3, 3:6], x)
    assert np.count_nonzero(padded) == np.count_nonzero(x)
    np.testing.assert_array_equal(crop(padded, ((1, 2), (3, 0))), x)


def test_each_side_is_padded_by_itself() -> None:
    x = RNG.standard_normal((1, 2, 3, 1)) + 9.0
    assert pad(x, ((0, 0), (0, 0))) is x
    for sides in (((1, 0), (0, 0)), ((0, 1), (0, 0)), ((0, 0), (1, 0)), ((0, 0), (0, 1))):
        padded = pad(x, sides, -5.0)
        np.testing.assert_array_equal(padded, np.pad(x, ((0, 0), *sides, (0, 0)), constant_values=-5.0))
        assert padded.size == x.size + (3 if sides[0] != (0, 0) else 2)
        np.testing.assert_array_equal(crop(padded, sides), x)


@pytest.mark.parametrize(
    ("value", "pair"),
    [(1, (1, 1)), ((2, 3), (2, 3)), ([4, 1], (4, 1)), (0, None), ((1, 0), None), ((1,), None), (1.5, None)],
)
def test_a_number_stands_for_two(value, pair) -> None:
    if pair:
        assert as_pair(value, "stride", 1) == pair
    else:
        with pytest.raises(ShapeError, match="stride="):
            as_pair(value, "stride", 1)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_pixel_lands_where_the_rule_says_on_every_backend(kernel, backend) -> None:
    """The image is one pixel, so y is the flipped kernel around it, and dx of one pixel is the kernel."""
    kh, kw = kernel
    layer = Conv2D(2, 3, kernel, padding="same").initialize(1, backend)
    w = backend.to_host(layer.weight.data)
    x = np.zeros((1, 8, 9, 2), np.float32)
    x[0, 4, 4, 1] = 1.0
    wanted = np.zeros((1, 8, 9, 3), np.float32)
    for i in range(kh):
        for j in range(kw):  # y[r, c] reads x[r + i - top, c + j - left]
            wanted[0, 4 - i + (kh - 1) // 2, 4 - j + (kw - 1) // 2] = w[:, i, j, 1]
    y = backend.to_host(layer(backend.to_device(x)))
    np.testing.assert_allclose(y, wanted, atol=1e-6)
    dx = layer.backward(backend.to_device(wanted))
    assert float(backend.to_host(dx)[0, 4, 4, 1]) == pytest.approx((w[..., 1].astype(np.float64) ** 2).sum(), rel=1e-5)
    dw = backend.to_host(layer.weight.grad)
    np.testing.assert_allclose(dw[..., 1], w[..., 1], atol=1e-6)


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("channels", [(3, 5), (16, 32)], ids=str)
def test_a_convolution_is_pytorchs_on_every_backend(kernel, channels, backend) -> None:
    import torch

    c, f = channels
    layer = Conv2D(c, f, kernel, padding="same").initialize(1, backend)
    x = RNG.standard_normal((4, 9, 8, c)).astype(np.float32)
    dy = RNG.standard_normal((4, 9, 8, f)).astype(np.float32)
    t = torch.from_numpy(x.transpose(0, 3, 1, 2).astype(np.float64)).requires_grad_()
    w = torch.from_numpy(backend.to_host(layer.weight.data).transpose(0, 3, 1, 2).astype(np.float64)).requires_grad_()
    wanted = torch.nn.functional.conv2d(t, w, padding="same")
    wanted.backward(torch.from_numpy(dy.transpose(0, 3, 1, 2).astype(np.float64)))
    y = layer(backend.to_device(x))
    dx = layer.backward(backend.to_device(dy))
    for got, exact in ((y, wanted.detach()), (dx, t.grad), (layer.weight.grad, w.grad)):
        exact = exact.numpy().transpose(0, 2, 3, 1)
        np.testing.assert_allclose(backend.to_host(got), exact, atol=2e-5 * abs(exact).max())


@pytest.mark.torch
@pytest.mark.parametrize("kernel", [(2, 2), (3, 3), (2, 3), (4, 4)])
@pytest.mark.parametrize("kind", [MaxPool2D, AvgPool2D])
def test_pooling_is_pytorchs_on_a_padded_image_on_every_backend(kind, kernel, backend) -> None:
    import torch

    layer = kind(kernel, stride=1, padding="same").initialize(0, backend)
    x = RNG.standard_normal((2, 6, 5, 3)).astype(np.float32)
    t = torch.from_numpy(x.transpose(0, 3, 1, 2).astype(np.float64)).requires_grad_()
    (kh, kw), border = kernel, -torch.inf if kind is MaxPool2D else 0.0
    sides = ((kw - 1) // 2, kw // 2, (kh - 1) // 2, kh // 2)  # left, right, top, bottom
    op = torch.nn.functional.max_pool2d if kind is MaxPool2D else torch.nn.functional.avg_pool2d
    wanted = op(torch.nn.functional.pad(t, sides, value=border), kernel, stride=1)
    dy = RNG.standard_normal((2, 6, 5, 3)).astype(np.float32)
    wanted.backward(torch.from_numpy(dy.transpose(0, 3, 1, 2).astype(np.float64)))
    y = layer.train()(backend.to_device(x))
    dx = layer.backward(backend.to_device(dy))
    np.testing.assert_allclose(backend.to_host(y), wanted.detach().permute(0, 2, 3, 1), atol=1e-6)
    np.testing.assert_allclose(backend.to_host(dx), t.grad.permute(0, 2, 3, 1), atol=1e-5)
