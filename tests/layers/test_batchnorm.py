"""Batch norm: the equation, its gradients, the running statistics, PyTorch."""

import naive
import numpy as np
import pytest

from gpucnn.errors import ShapeError
from gpucnn.layers import BatchNorm, BatchNormReLU, ReLU, Sequential
from gpucnn.layers.batchnorm import (
    batchnorm,
    batchnorm_eval,
    batchnorm_grad,
    batchnorm_relu,
    batchnorm_relu_eval,
    batchnorm_relu_grad,
)

RNG = np.random.default_rng(3)
SHAPES = [(4, 3, 5, 2), (6, 4), (2, 1, 1, 3), (1, 4, 4, 1)]


@pytest.mark.parametrize("shape", SHAPES)
def test_forward_is_the_equation(shape, backend) -> None:
    x = (3 * RNG.standard_normal(shape) + 5).astype(np.float32)
    scale, shift = RNG.standard_normal((2, shape[-1])).astype(np.float32)
    on = backend.to_device
    y, mean, var = backend.run(batchnorm, on(x), on(scale), on(shift), 1e-5)
    wanted, means, variances = naive.batchnorm(x.astype(np.float64), scale, shift, 1e-5)
    np.testing.assert_allclose(backend.to_host(y), wanted, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(backend.to_host(mean), means, rtol=1e-5)
    np.testing.assert_allclose(backend.to_host(var), variances, rtol=1e-4)


@pytest.mark.torch
@pytest.mark.parametrize("shape", SHAPES)
def test_against_pytorch(shape) -> None:
    import torch

    x, dy = RNG.standard_normal((2, *shape))
    scale, shift = RNG.standard_normal((2, shape[-1]))
    t, w, b = (torch.from_numpy(a.copy()).requires_grad_() for a in (x.reshape(-1, shape[-1]), scale, shift))
    y = torch.nn.functional.batch_norm(t, None, None, w, b, training=True, eps=1e-3)
    y.backward(torch.from_numpy(dy.reshape(-1, shape[-1])))
    ours, mean, var = batchnorm(x, scale, shift, 1e-3)
    np.testing.assert_allclose(ours.reshape(-1, shape[-1]), y.detach(), atol=1e-10)
    dx, dscale, dshift = batchnorm_grad(dy, x, scale, mean, var, 1e-3)
    np.testing.assert_allclose(dx.reshape(-1, shape[-1]), t.grad, atol=1e-10)
    np.testing.assert_allclose(dscale, w.grad, atol=1e-10)
    np.testing.assert_allclose(dshift, b.grad, atol=1e-10)


@pytest.mark.parametrize("kind", [BatchNorm, BatchNormReLU])
def test_evaluation_uses_running_statistics_that_equal_the_equation_after_n_steps(kind, backend) -> None:
    layer = kind(3, momentum=0.2).initialize(0, backend)
    mean, var = np.zeros(3), np.ones(3)
    for _ in range(5):
        x = (2 * RNG.standard_normal((8, 4, 4, 3)) + 1).astype(np.float32)
        layer(backend.to_device(x))
        mean = 0.8 * mean + 0.2 * x.mean(axis=(0, 1, 2), dtype=np.float64)
        var = 0.8 * var + 0.2 * x.var(axis=(0, 1, 2), dtype=np.float64) * 128 / 127
    state = layer.state_dict()
    np.testing.assert_allclose(state["running_mean"], mean, rtol=1e-5)
    np.testing.assert_allclose(state["running_var"], var, rtol=1e-5)
    x = RNG.standard_normal((2, 4, 4, 3)).astype(np.float32)
    y = backend.to_host(layer.eval()(backend.to_device(x)))
    wanted = (x - mean) / np.sqrt(var + 1e-5)
    wanted = np.maximum(wanted, 0) if kind is BatchNormReLU else wanted
    np.testing.assert_allclose(y, wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(layer.state_dict()["running_mean"], state["running_mean"])  # eval changes nothing


@pytest.mark.torch
def test_running_statistics_are_pytorchs() -> None:
    import torch

    ours = BatchNorm(4).initialize(dtype="float64")
    theirs = torch.nn.BatchNorm2d(4, dtype=torch.float64)
    for _ in range(3):
        x = RNG.standard_normal((5, 2, 3, 4))
        ours(x)
        theirs(torch.from_numpy(x.transpose(0, 3, 1, 2).copy()))
    np.testing.assert_allclose(ours.running_mean.data, theirs.running_mean, atol=1e-12)
    np.testing.assert_allclose(ours.running_var.data, theirs.running_var, atol=1e-12)


@pytest.mark.parametrize("shape", [(1, 1, 1, 3), (1, 3)])
def test_one_value_per_channel_is_a_clear_error(shape) -> None:
    layer = BatchNorm(3).initialize()
    with pytest.raises(ShapeError, match="one value per channel"):
        layer(np.ones(shape, np.float32))
    assert layer.eval()(np.ones(shape, np.float32)).shape == shape  # but evaluation can do it


def test_with_relu_it_is_the_composition(backend) -> None:
    fused = BatchNormReLU(5).initialize(0, backend)
    plain = Sequential(BatchNorm(5), ReLU()).initialize(0, backend)
    x = RNG.standard_normal((4, 3, 3, 5)).astype(np.float32)
    dy = RNG.standard_normal((4, 3, 3, 5)).astype(np.float32)
    results = []
    for layer in (fused, plain):
        y = layer(backend.to_device(x))
        dx = layer.backward(backend.to_device(dy))
        grads = [parameter.grad for parameter in layer.parameters().values()]
        results.append([backend.to_host(a) for a in (y, dx, *grads)])
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_the_mean_may_be_far_from_zero(backend) -> None:
    # E[x^2] - E[x]^2 in float32 would lose all digits here
    x = (1000 + RNG.standard_normal((64, 4, 4, 2))).astype(np.float32)
    on = backend.to_device
    ones, zeros = np.ones(2, np.float32), np.zeros(2, np.float32)
    _, _, var = backend.run(batchnorm, on(x), on(ones), on(zeros), 1e-5)
    np.testing.assert_allclose(backend.to_host(var), x.astype(np.float64).var(axis=(0, 1, 2)), rtol=1e-3)


@pytest.mark.parametrize("eps", [1e-5, 1e-9, 1e-12])
@pytest.mark.parametrize("std", [1e-2, 1e-4, 1e-6])
def test_a_small_variance_counts_as_it_is(std, eps, backend) -> None:
    """Without a floor: against float64, in training and in evaluation, forward and back."""
    rng = np.random.default_rng(5)
    x, dy = (std * rng.standard_normal((16, 3, 3, 2))).astype(np.float32), rng.standard_normal((16, 3, 3, 2))
    dy = dy.astype(np.float32)
    scale, shift = np.array([1.5, -0.5], np.float32), np.array([0.25, 1.0], np.float32)
    on, off, run = backend.to_device, backend.to_host, backend.run
    wanted, means, variances = naive.batchnorm(x.astype(np.float64), scale, shift, eps)
    means, variances = np.array(means), np.array(variances)
    y, mean, var = run(batchnorm, on(x), on(scale), on(shift), eps)
    np.testing.assert_allclose(off(y), wanted, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(off(var), variances, rtol=1e-4)
    np.testing.assert_allclose(off(run(batchnorm_eval, on(x), on(scale), on(shift), mean, var, eps)), wanted, atol=1e-4)
    y, _, _ = run(batchnorm_relu, on(x), on(scale), on(shift), eps)
    np.testing.assert_allclose(off(y), np.maximum(wanted, 0), rtol=1e-4, atol=1e-4)
    y = run(batchnorm_relu_eval, on(x), on(scale), on(shift), mean, var, eps)
    np.testing.assert_allclose(off(y), np.maximum(wanted, 0), rtol=1e-4, atol=1e-4)
    s = np.sqrt(variances + eps)
    xhat = (x - means) / s
    for op, slope, extra in ((batchnorm_grad, 1.0, ()), (batchnorm_relu_grad, wanted > 0, (on(shift),))):
        g = dy * slope
        dx = scale / s * (g - g.mean(axis=(0, 1, 2)) - xhat * (g * xhat).mean(axis=(0, 1, 2)))
        got = run(op, on(dy), on(x), on(scale), *extra, mean, var, eps)
        for part, exact in zip(got, (dx, (g * xhat).sum(axis=(0, 1, 2)), g.sum(axis=(0, 1, 2))), strict=True):
            np.testing.assert_allclose(off(part), exact, atol=1e-4 * abs(exact).max())


def test_channels_that_do_not_fit_are_named() -> None:
    with pytest.raises(ShapeError, match=r"BatchNorm\(8\) got x of shape \(4, 4, 3\)"):
        BatchNorm(8).output_shape((4, 4, 3))


@pytest.mark.parametrize("shape", [(300, 20), (6, 8, 8, 5)])
def test_a_mean_between_two_numbers_of_float32_costs_no_digits_of_the_gradient(shape, backend) -> None:
    rng = np.random.default_rng(5)
    x = (3e4 + 0.3 * rng.standard_normal(shape)).astype(np.float32)
    scale = np.ones(shape[-1], np.float32)
    wide = x.astype(np.float64)
    axes = tuple(range(x.ndim - 1))
    mean, var = wide.mean(axis=axes), wide.var(axis=axes)
    xhat = (wide - mean) / np.sqrt(var + 1e-5)
    dy = (xhat + rng.standard_normal(shape)).astype(np.float32)
    dx = (dy - dy.mean(axis=axes, dtype=float) - xhat * (dy * xhat).mean(axis=axes)) / np.sqrt(var + 1e-5)
    on = backend.to_device
    found = backend.run(batchnorm_grad, on(dy), on(x), on(scale), on(mean), on(var), 1e-5)[0]
    np.testing.assert_allclose(backend.to_host(found), dx, rtol=0, atol=2e-6 * abs(dx).max())
