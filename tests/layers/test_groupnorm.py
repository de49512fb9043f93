"""Group norm and layer norm: the equation in plain loops, PyTorch, one example apart from the others, threads."""

import numpy as np
import pytest

from gpucnn.devices.cpu import set_threads
from gpucnn.errors import ShapeError, UsageError
from gpucnn.layers import GroupNorm, LayerNorm
from gpucnn.layers.groupnorm import groupnorm, groupnorm_grad

RNG = np.random.default_rng(11)
CASES = [((3, 4, 5, 6), 3), ((2, 3, 3, 4), 4), ((1, 9, 8, 16), 1), ((40, 33), 1)]


def by_loops(x, scale, shift, groups, eps):
    """The equation, group by group."""
    y, size = np.empty(x.shape), x.shape[-1] // groups
    for e in range(len(x)):
        for g in range(groups):
            part = slice(g * size, (g + 1) * size)
            values = [float(v) for v in x[e, ..., part].ravel()]
            mean = sum(values) / len(values)
            var = sum((v - mean) ** 2 for v in values) / len(values)
            y[e, ..., part] = (x[e, ..., part] - mean) / (var + eps) ** 0.5
    return y * scale + shift


@pytest.mark.parametrize(("shape", "groups"), CASES)
def test_forward_is_the_equation(shape, groups, backend) -> None:
    x = (2 * RNG.standard_normal(shape) + 300).astype(np.float32)  # E[x^2] - E[x]^2 would lose its digits here
    scale, shift = RNG.standard_normal((2, shape[-1])).astype(np.float32)
    y, mean, var = backend.run(groupnorm, *map(backend.to_device, (x, scale, shift)), groups, 1e-3)
    assert mean.shape == var.shape == (shape[0], groups)
    wanted = by_loops(x.astype(np.float64), scale, shift, groups, 1e-3)
    np.testing.assert_allclose(backend.to_host(y), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.torch
@pytest.mark.parametrize(("shape", "groups"), CASES)
def test_against_pytorch(shape, groups) -> None:
    import torch

    x, dy = RNG.standard_normal((2, *shape))
    scale, shift = RNG.standard_normal((2, shape[-1]))
    leaves = [
        torch.from_numpy(np.moveaxis(a, -1, min(a.ndim - 1, 1)).copy()).requires_grad_() for a in (x, scale, shift)
    ]
    theirs = torch.nn.functional.group_norm(leaves[0], groups, *leaves[1:], eps=1e-3)
    theirs.backward(torch.from_numpy(np.moveaxis(dy, -1, 1).copy()))
    y, mean, var = groupnorm(x, scale, shift, groups, 1e-3)
    ours = y, *groupnorm_grad(dy, x, scale, mean, var, groups, 1e-3)
    for got, wanted in zip(ours, (theirs, *(leaf.grad for leaf in leaves)), strict=True):
        wanted = wanted.detach().numpy()
        np.testing.assert_allclose(got, np.moveaxis(wanted, 1, -1) if wanted.ndim > 1 else wanted, atol=1e-10)


@pytest.mark.torch
def test_layer_norm_of_pixels_is_pytorchs() -> None:
    import torch

    ours, theirs = LayerNorm(5).initialize(dtype="float64"), torch.nn.LayerNorm(5, dtype=torch.float64)
    assert ours.eps == theirs.eps == torch.nn.GroupNorm(1, 5).eps == GroupNorm(1, 5).eps
    x, dy = RNG.standard_normal((2, 3, 2, 4, 5))
    t = torch.from_numpy(x.copy()).requires_grad_()
    y = theirs(t)
    y.backward(torch.from_numpy(dy))
    np.testing.assert_allclose(ours(x), y.detach(), atol=1e-12)
    np.testing.assert_allclose(ours.backward(dy), t.grad, atol=1e-12)
    np.testing.assert_allclose(ours.scale.grad, theirs.weight.grad, atol=1e-12)


def test_an_example_does_not_know_of_the_others_and_evaluation_is_the_same(backend) -> None:
    layer = GroupNorm(2, 4).initialize(0, backend)
    x = backend.to_device(RNG.standard_normal((5, 3, 3, 4)).astype(np.float32))
    y = backend.to_host(layer(x))
    np.testing.assert_array_equal(backend.to_host(layer(x[3:4])), y[3:4])
    np.testing.assert_array_equal(backend.to_host(layer.eval()(x)), y)


def test_threads_change_no_bit() -> None:
    from gpucnn.devices import get_backend

    backend, found = get_backend("cpu"), []
    x, dy = RNG.standard_normal((2, 11, 16, 16, 24)).astype(np.float32)
    scale = RNG.standard_normal(24).astype(np.float32)
    for threads in (1, 2, 3):
        set_threads(threads)
        y, mean, var = backend.run(groupnorm, x, scale, scale, 4, 1e-5)
        found.append([y.copy(), *(a.copy() for a in backend.run(groupnorm_grad, dy, x, scale, mean, var, 4, 1e-5))])
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_without_affine_nothing_is_learned() -> None:
    for layer in (GroupNorm(2, 4, affine=False), LayerNorm(4, affine=False)):
        assert not layer.learns()
        assert layer.initialize()(np.ones((1, 2, 2, 4), np.float32)).any() == 0


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(UsageError, match=r"GroupNorm\(3, 4\)"):
        GroupNorm(3, 4)
    with pytest.raises(ShapeError, match=r"GroupNorm\(2, 4\) got x of shape \(4,\)"):
        GroupNorm(2, 4).output_shape((4,))
    with pytest.raises(ShapeError, match=r"LayerNorm\(4\) got x of shape \(2, 2, 3\)"):
        LayerNorm(4).output_shape((2, 2, 3))
