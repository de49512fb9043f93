"""Dropout: rate, scale, identity in evaluation, one mask for both directions."""

import numpy as np
import pytest

from gpucnn.errors import UsageError
from gpucnn.layers import Dropout, Dropout2D, Linear, Residual, Sequential, StochasticDepth
from gpucnn.random import Clock


def ones(backend, shape=(100, 200)):
    return backend.to_device(np.ones(shape, np.float32))


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.5, 0.9])
def test_rate_and_scale(rate, backend) -> None:
    layer = Dropout(rate).initialize(3, backend)
    y = backend.to_host(layer(ones(backend)))
    kept = (y != 0).mean()
    # 20,000 draws: five standard deviations
    assert abs(kept - (1 - rate)) <= 5 * np.sqrt(rate * (1 - rate) / y.size)
    np.testing.assert_allclose(y[y != 0], 1 / (1 - rate), rtol=1e-6)


def test_backward_uses_the_mask_of_forward(backend) -> None:
    layer = Dropout(0.4).initialize(3, backend)
    y = backend.to_host(layer(ones(backend)))
    dx = backend.to_host(layer.backward(ones(backend)))
    np.testing.assert_array_equal(y, dx)


def test_evaluation_hands_the_input_on(backend) -> None:
    x = ones(backend)
    assert Dropout(0.5).initialize(0, backend).eval()(x) is x


def test_every_step_layer_and_seed_has_a_mask_of_its_own_and_all_backends_the_same(backend) -> None:
    net = Sequential(a=Dropout(0.5), b=Dropout(0.5))
    x = np.ones((8, 16), np.float32)

    def mask(name: str, seed: int, step: int, where) -> bytes:
        net.initialize(0, where, clock=Clock(seed, step)).train()
        return where.to_host(net.layers[name](where.to_device(x))).tobytes()

    from gpucnn.backend import REFERENCE

    draws = {
        (n, seed, step): mask(n, seed, step, backend) for n in "ab" for seed in (1, 2**33) for step in (0, 1, 2**34)
    }
    assert len(set(draws.values())) == len(draws)
    for (name, seed, step), drawn in draws.items():
        assert drawn == mask(name, seed, step, REFERENCE)


@pytest.mark.parametrize("rate", [1.0, -0.1, 2])
def test_rates_that_are_none(rate) -> None:
    with pytest.raises(UsageError, match="probability"):
        Dropout(rate)


@pytest.mark.parametrize(("kind", "axes"), [(Dropout2D, (1, 2)), (StochasticDepth, (1, 2, 3))])
def test_what_shares_a_mask_is_dropped_together(kind, axes, backend) -> None:
    layer = kind(0.25).initialize(1, backend)
    x = np.random.default_rng(0).standard_normal((400, 2, 3, 50 if kind is Dropout2D else 1)).astype(np.float32)
    x[..., 0] = np.inf  # what is dropped is 0, whatever it was
    y = backend.to_host(layer(backend.to_device(x)))
    kept = (y != 0).all(axis=axes)
    assert (kept == (y != 0).any(axis=axes)).all()
    np.testing.assert_allclose(y, np.where(kept.reshape(len(x), 1, 1, -1), x / 0.75, 0), rtol=1e-6)
    assert abs(kept.mean() - 0.75) < 5 * np.sqrt(0.25 * 0.75 / kept.size)
    dx = backend.to_host(layer.backward(backend.to_device(np.ones_like(x))))
    np.testing.assert_array_equal(dx != 0, y != 0)
    assert layer.eval()(x) is x


def test_all_backends_drop_the_same_channels(backend) -> None:
    x = np.ones((6, 2, 2, 7), np.float32)
    wanted = Dropout2D(0.5).initialize(5)(x)
    np.testing.assert_array_equal(backend.to_host(Dropout2D(0.5).initialize(5, backend)(backend.to_device(x))), wanted)


def test_a_branch_that_is_dropped_leaves_the_shortcut() -> None:
    model = Residual(Sequential(Linear(3, 3), StochasticDepth(0.5))).initialize(2)
    x = np.random.default_rng(0).standard_normal((20, 3)).astype(np.float32)
    same = (model(x) == x).all(axis=1)
    assert 3 < same.sum() < 17
    np.testing.assert_array_equal((model.backward(np.ones_like(x)) == 1).all(axis=1), same)


@pytest.mark.parametrize("layer", [Dropout(0.5), Dropout2D(0.5), StochasticDepth(0.5)], ids=lambda layer: layer.kind)
def test_a_gradient_that_is_infinite_where_it_was_dropped_is_0(layer, backend) -> None:
    layer.initialize(3, backend)
    y = backend.to_host(layer(ones(backend, (40, 2, 2, 3))))
    dy = np.where(y == 0, np.float32(np.inf), np.float32(1))
    np.testing.assert_array_equal(backend.to_host(layer.backward(backend.to_device(dy))), y)
