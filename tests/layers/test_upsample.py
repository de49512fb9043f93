"""Upsampling against PyTorch, by hand, and as a pair of adjoint maps."""

import numpy as np
import pytest

from gpucnn.errors import ShapeError, UsageError
from gpucnn.layers import Upsample
from gpucnn.layers.upsample import upsample, upsample_grad

RNG = np.random.default_rng(12)


def test_by_hand(backend) -> None:
    x = backend.to_device(np.array([[[[0.0], [8.0]]]], np.float32))
    run = lambda linear: backend.to_host(backend.run(upsample, x, (1, 4), linear))[0, 0, :, 0]  # noqa: E731
    np.testing.assert_array_equal(run(False), [0, 0, 0, 0, 8, 8, 8, 8])
    np.testing.assert_array_equal(run(True), [0, 0, 1, 3, 5, 7, 8, 8])


@pytest.mark.torch
@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
@pytest.mark.parametrize(("shape", "factor"), [((2, 3, 4, 2), (2, 3)), ((1, 1, 5, 1), (4, 1)), ((1, 2, 2, 3), (5, 2))])
def test_against_pytorch(mode, shape, factor) -> None:
    import torch

    x = RNG.standard_normal(shape)
    t = torch.from_numpy(x.transpose(0, 3, 1, 2).copy()).requires_grad_()
    y = torch.nn.functional.interpolate(t, scale_factor=factor, mode=mode)
    dy = RNG.standard_normal(y.shape)
    y.backward(torch.from_numpy(dy))
    linear = mode == "bilinear"
    np.testing.assert_allclose(upsample(x, factor, linear), y.detach().permute(0, 2, 3, 1), atol=1e-12)
    dx = upsample_grad(dy.transpose(0, 2, 3, 1), factor, linear)
    np.testing.assert_allclose(dx, t.grad.permute(0, 2, 3, 1), atol=1e-12)


@pytest.mark.parametrize("linear", [False, True])
def test_forward_and_backward_are_adjoint(linear, backend) -> None:
    x, dy = RNG.standard_normal((2, 3, 2, 3)).astype(np.float32), RNG.standard_normal((2, 9, 4, 3)).astype(np.float32)
    y = backend.to_host(backend.run(upsample, backend.to_device(x), (3, 2), linear))
    dx = backend.to_host(backend.run(upsample_grad, backend.to_device(dy), (3, 2), linear))
    assert (y * dy).sum() == pytest.approx((x * dx).sum(), rel=1e-4)


def test_another_mode_is_an_error() -> None:
    with pytest.raises(UsageError, match="'nearest' or 'bilinear'"):
        Upsample(2, mode="bicubic")


def test_vectors_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"Upsample got x of shape \(7,\): give images"):
        Upsample(2).output_shape((7,))
