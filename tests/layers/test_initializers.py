"""First values: variances by the equations, bounds, and the identity."""

import numpy as np
import pytest

from gpucnn.layers import initializers as init
from gpucnn.layers.conv2d import conv2d

SHAPE = (64, 3, 5, 32)  # fan_in 480, fan_out 960
CASES = {
    "he_normal": 2 / 480,
    "he_uniform": 2 / 480,
    "xavier_normal": 2 / (480 + 960),
    "xavier_uniform": 2 / (480 + 960),
    "lecun_normal": 1 / 480,
    "lecun_uniform": 1 / 480,
    "fan_in_uniform": 1 / 3 / 480,
    "unit_uniform": 1.0,
}


@pytest.mark.parametrize("name", CASES)
def test_variance(name) -> None:
    w = getattr(init, name)(SHAPE, 1, 2)
    assert w.shape == SHAPE
    assert w.var() == pytest.approx(CASES[name], rel=0.03)
    assert abs(w.mean()) < 4 * w.std() / np.sqrt(w.size)
    if name.endswith("uniform"):
        assert np.abs(w).max() <= np.sqrt(3 * CASES[name])
    assert (w == getattr(init, name)(SHAPE, 1, 2)).all()
    assert (w != getattr(init, name)(SHAPE, 1, 3)).any()


@pytest.mark.parametrize("name", CASES)
def test_distribution(name) -> None:
    stats = pytest.importorskip("scipy.stats")  # comes with scikit-learn
    w = getattr(init, name)(SHAPE, 1, 2).reshape(-1)  # 30,720 values
    a = np.sqrt(3 * CASES[name])
    exact = stats.uniform(-a, 2 * a) if name.endswith("uniform") else stats.norm(0, np.sqrt(CASES[name]))
    assert stats.kstest(w, exact.cdf).statistic < 0.0112  # one in a thousand is larger
    assert len(np.unique(w)) > 0.99 * w.size


def test_fans_are_what_an_output_sums_over_not_the_image_height() -> None:
    # the slides' sixth erratum
    assert init.fans((8, 3, 3, 2)) == (18, 72)
    assert init.fans((10, 7)) == (7, 10)


def test_dirac_hands_the_image_on() -> None:
    w = init.dirac((5, 3, 3, 3), 0, 0)
    x = np.random.default_rng(0).standard_normal((1, 4, 4, 3))
    y = conv2d(x, w, None, (1, 1), ((1, 1), (1, 1)))
    np.testing.assert_array_equal(y[..., :3], x)
    assert 0 < np.abs(w[3:]).max() <= 1 / np.sqrt(27)


def test_constants() -> None:
    assert not init.zeros((2, 3), 0, 0).any()
    assert (init.ones((2, 3), 0, 0) == 1).all()
