"""Dropout: rate, scale, identity in evaluation, one mask for both directions."""

import numpy as np
import pytest

from gpucnn.errors import UsageError
from gpucnn.layers import Dropout, Sequential
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
