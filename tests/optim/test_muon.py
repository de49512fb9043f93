"""Muon: orthogonal steps against a float64 SVD and against a loop in NumPy; SGD for what is no filter."""

import numpy as np
import pytest

from gpucnn.errors import UsageError
from gpucnn.layers import BatchNorm, Conv2D, Flatten, Linear, Sequential
from gpucnn.optim.muon import Muon, muon_update, newton_schulz, norm
from gpucnn.optim.optimizer import SGD, GroupRule

A, B, C = 3.4445, -4.7750, 2.0315


def polynomial(s: np.ndarray, steps: int) -> np.ndarray:
    """What the iteration makes of singular values of norm 1."""
    for _ in range(steps):
        s = A * s + B * s**3 + C * s**5
    return s


@pytest.mark.parametrize("shape", [(4, 9), (9, 4), (6, 6), (1, 5), (24, 108)])
@pytest.mark.parametrize("steps", [1, 3, 5])
def test_newton_schulz_changes_singular_values_alone(shape, steps, backend) -> None:
    m = np.random.default_rng(sum(shape)).standard_normal(shape)
    u, s, vt = np.linalg.svd(m, full_matrices=False)
    wanted = (u * polynomial(s / np.linalg.norm(s), steps)) @ vt
    for dtype, tolerance in (("float64", 1e-6), ("float32", 3e-5)):  # 1e-7 is added to the norm
        got = backend.to_host(backend.run(newton_schulz, backend.to_device(1e3 * m.astype(dtype)), steps))
        assert got.dtype == dtype
        np.testing.assert_allclose(got, wanted, atol=tolerance)


@pytest.mark.parametrize("steps", [3, 5])
def test_singular_values_come_near_one_and_directions_stay(steps) -> None:
    rng = np.random.default_rng(0)
    u, _ = np.linalg.qr(rng.standard_normal((16, 16)))
    v, _ = np.linalg.qr(rng.standard_normal((90, 16)))
    s = np.geomspace(1, 0.05, 16)
    assert (s / np.linalg.norm(s)).min() > 0.02
    inside = u.T @ newton_schulz((u * s) @ v.T, steps) @ v
    found = np.diag(inside)
    np.testing.assert_allclose(inside, np.diag(found), atol=1e-9)
    assert 0.68 < found.min() < found.max() < 1.21


def test_a_matrix_of_zeros_stays_zero(backend) -> None:
    zero = backend.to_device(np.zeros((2, 3), np.float32))
    assert backend.to_host(newton_schulz(zero, 3)).tolist() == [[0.0] * 3] * 2


def net() -> Sequential:
    return Sequential(
        Conv2D(2, 4, 2, weight_group="frozen", bias_group="whiten"),
        Conv2D(4, 5, 3),
        BatchNorm(5),
        Conv2D(5, 40, 2, bias=False),  # tall
        Flatten(),
        Linear(40, 3),
    )


RULES = {"filter": GroupRule(lr=0.24), "weight": GroupRule(lr=0.67, momentum=0.85), "norm": GroupRule(lr=0.05)}


@pytest.mark.parametrize("nesterov", [True, False])
def test_steps_are_those_of_a_loop_in_numpy(nesterov, backend) -> None:
    settings = {"momentum": 0.6, "nesterov": nesterov, "weight_decay": 0.01, "decoupled": True}
    muon, sgd = Muon(1.0, groups=RULES, **settings), SGD(1.0, groups=RULES, **settings)
    model, plain = net().initialize(1, backend, "float64"), net().initialize(1, backend, "float64")
    muon.bind(model.flat, backend)
    sgd.bind(plain.flat, backend)
    filters = ("1.weight", "3.weight")
    w = {name: model.state_dict()[name].reshape(len(model.state_dict()[name]), -1) for name in filters}
    v = {name: np.zeros_like(array) for name, array in w.items()}
    rng = np.random.default_rng(5)
    for step, rate in enumerate((1.0, 0.5, 0.25)):
        gradients = {name: rng.standard_normal(p.shape) for name, p in model.parameters().items()}
        for name, gradient in gradients.items():
            model.parameters()[name].grad[...] = backend.to_device(gradient)
            plain.parameters()[name].grad[...] = backend.to_device(gradient)
        muon.step(rate, step)
        sgd.step(rate, step)
        for name in filters:
            g = gradients[name].reshape(w[name].shape)
            v[name] = 0.6 * v[name] + g
            u, s, vt = np.linalg.svd(g + 0.6 * v[name] if nesterov else v[name], full_matrices=False)
            direction = (u * polynomial(s / np.linalg.norm(s), 3)) @ vt
            w[name] = w[name] * np.sqrt(len(g)) / np.linalg.norm(w[name]) - rate * 0.24 * direction
        ours, theirs = model.state_dict(), plain.state_dict()
        for name in ours:
            if name in filters:
                np.testing.assert_allclose(ours[name].reshape(w[name].shape), w[name], atol=1e-6)
            else:
                np.testing.assert_array_equal(ours[name], theirs[name])


def test_a_rate_on_the_device_gives_the_bits_of_one_on_the_host() -> None:
    rng = np.random.default_rng(2)
    w, g = rng.standard_normal((2, 6, 20)).astype(np.float32)
    found = []
    for rate in (0.1, np.array(0.1)):
        ours, velocity = w.copy(), np.zeros_like(w)
        muon_update(ours, g, velocity, rate, 0.6, True, 3)
        assert ours.dtype == np.float32
        found.append(ours)
    np.testing.assert_array_equal(*found)


def test_no_step_waits_for_the_device() -> None:
    import strict_cupy

    optimizer = Muon(1.0, groups=RULES)
    model = net().initialize(1, strict_cupy.STRICT)
    optimizer.bind(model.flat, strict_cupy.STRICT)
    model.flat.grad[...] = 1.0
    strict_cupy.reset()
    optimizer.step(1.0, 0)
    assert strict_cupy.syncs == 0
    assert str(model.flat.data.dtype) == "float32"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "0 Newton-Schulz steps"),
        ({"groups": {"filter": GroupRule(weight_decay=0.1)}}, "Muon keeps the norm of filters"),
        ({"momentum": 1.0}, "momentum=1"),
    ],
)
def test_invalid_numbers_are_named(settings, message) -> None:
    with pytest.raises(UsageError, match=message):
        Muon(0.1, **settings)


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_the_norm_of_very_small_and_very_large_numbers(size: float) -> None:
    x = np.full((3, 4), size, np.float32)
    assert norm(x) == pytest.approx(size * 12**0.5, rel=1e-6)
