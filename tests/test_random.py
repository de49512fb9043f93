"""Philox: the published vectors, independence of streams, and the distributions made of it."""

import math

import numpy as np
import pytest

from gpucnn import random

# counter, key, words: the known answers that come with the paper's own code
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_known_answers(counter, key, words, backend) -> None:
    asked = tuple(backend.to_device(np.array([word], np.uint64)) for word in counter)
    assert tuple(int(backend.to_host(word)[0]) for word in random.philox(asked, key)) == words


def test_bits_are_the_words_of_consecutive_blocks(backend) -> None:
    drawn = backend.to_host(
        random.bits((2, 5), seed=0xA4093822 | 0x299F31D0 << 32, stream=9, step=2**33 + 1, xp=backend.xp)
    )
    for element, word in enumerate(drawn.reshape(-1).tolist()):
        counter = tuple(np.array([w], np.uint64) for w in (element // 4, 9, 1, 2))
        assert word == int(random.philox(counter, (0xA4093822, 0x299F31D0))[element % 4][0])


def test_all_backends_draw_the_same_integers(backend) -> None:
    for sample in (
        lambda xp: random.bits((33,), seed=5, stream=1, step=2, xp=xp),
        lambda xp: random.integers((33,), 7, seed=5, stream=1, step=2, xp=xp),
        lambda xp: random.permutation(33, seed=5, stream=1, step=2, xp=xp),
        lambda xp: random.uniform((33,), seed=5, stream=1, step=2, xp=xp),
    ):
        np.testing.assert_array_equal(backend.to_host(sample(backend.xp)), sample(np))


def test_seeds_streams_and_steps_give_different_numbers() -> None:
    draws = {
        random.bits((8,), seed=seed, stream=stream, step=step).tobytes()
        for seed in (0, 1, 2**32, 2**63)
        for stream in (0, 1)
        for step in (0, 1, 2**32)
    }
    assert len(draws) == 24
    assert random.stream_id("shuffle") != random.stream_id("flip")


def test_what_is_made_of_words_by_python_integers() -> None:
    words = random.bits((24,), seed=5, stream=6, step=7).tolist()
    assert random.uniform((24,), seed=5, stream=6, step=7).tolist() == [(word >> 8) / 2**24 for word in words]
    assert random.integers((24,), 7, seed=5, stream=6, step=7).tolist() == [word * 7 // 2**32 for word in words]
    high, low = random.bits((2, 24), seed=5, stream=6, step=7).tolist()
    keys = [h * 2**32 + part for h, part in zip(high, low, strict=True)]
    assert random.permutation(24, seed=5, stream=6, step=7).tolist() == sorted(range(24), key=keys.__getitem__)


def test_uniform_is_uniform_and_below_one() -> None:
    u = random.uniform((100_000,), seed=1, stream=2)
    assert u.dtype == np.float32
    assert u.min() >= 0.0
    assert u.max() < 1.0
    counts = np.histogram(u, bins=20, range=(0, 1))[0]
    assert ((counts - 5000) ** 2 / 5000).sum() < 50  # chi-squared with 19 degrees: p < 1e-4


def test_normal_has_the_moments_of_a_normal() -> None:
    z = random.normal((200_000,), seed=3, stream=4)
    assert abs(z.mean()) < 0.01
    assert abs(z.std() - 1) < 0.01
    assert abs((z**3).mean()) < 0.04
    assert abs((z**4).mean() - 3) < 0.1
    assert np.isfinite(z).all()


def test_normal_is_the_equation_of_box_and_muller() -> None:
    """From words that Philox gives, with Python's own functions: the half of a circle has the same distribution."""
    words = random.bits((2, 3, 5), seed=3, stream=4, step=9).reshape(2, -1).tolist()
    drawn = random.normal((3, 5), seed=3, stream=4, step=9).reshape(-1)
    assert drawn.dtype == np.float64
    for z, first, second in zip(drawn, *words, strict=True):
        u1, u2 = 1.0 - first / 2**32, second / 2**32
        assert z == pytest.approx(math.sqrt(-2.0 * math.log(u1)) * math.cos(math.tau * u2), rel=1e-12)


def test_normal_is_distributed_as_it_says() -> None:
    stats = pytest.importorskip("scipy.stats")  # comes with scikit-learn
    z = random.normal((50_000,), seed=5, stream=6)
    assert stats.kstest(z, stats.norm.cdf).statistic < 0.0085  # one in a thousand is larger
    assert abs(np.corrcoef(z[:-1], z[1:])[0, 1]) < 0.02


def test_integers_reach_all_values_below_the_bound() -> None:
    drawn = random.integers((10_000,), 5, seed=1, stream=1)
    assert drawn.dtype == np.int32
    assert np.abs(np.bincount(drawn, minlength=5) - 2000).max() < 200
    assert len(np.bincount(drawn)) == 5


@pytest.mark.parametrize("n", [1, 2, 1000])
def test_a_permutation_has_every_number_once(n) -> None:
    order = random.permutation(n, seed=1, stream=1, step=3)
    assert np.array_equal(np.sort(order), np.arange(n))
    if n > 2:
        assert (order != random.permutation(n, seed=1, stream=1, step=4)).any()


@pytest.mark.parametrize("alpha", [0.2, 0.5, 1.0, 2.0, 8.0, 300.0])
def test_beta_is_distributed_as_it_says(alpha) -> None:
    stats = pytest.importorskip("scipy.stats")  # comes with scikit-learn
    u, v = random.bits((2, 50_000), seed=3, stream=4) * 2.0**-32
    found = random.symmetric_beta(alpha, u, v)
    assert found.dtype == np.float64
    assert found.min() >= 0.0
    assert found.max() <= 1.0
    assert stats.kstest(found, stats.beta(alpha, alpha).cdf).statistic < 0.0085  # one in a thousand is larger
    each = random.symmetric_beta(np.full(50_000, alpha), u, v)
    np.testing.assert_array_equal(each, found)


@pytest.mark.parametrize("alpha", [1e-6, 0.2, 1.0, 1e9])
def test_beta_at_the_ends_of_its_uniforms(alpha) -> None:
    last = 1.0 - 2.0**-32
    u, v = np.meshgrid([0.0, 2.0**-32, 0.5, last], [0.0, 0.25, 0.5, 0.75, last])
    found = random.symmetric_beta(alpha, u, v)
    assert np.isfinite(found).all()
    assert found.min() >= 0.0
    assert found.max() <= 1.0


def test_a_clock_comes_back_and_tells_the_device() -> None:
    clock, other = random.Clock(5, 40), random.Clock(5)
    other.load_state_dict(clock.state_dict())
    assert other == clock
    assert other.now == 40
    array = other.tell_device(np)
    other.step += 1
    assert other.tell_device(np) is array is other.now
    assert array == 41
    other.on_device = None
    assert other.now == 41
