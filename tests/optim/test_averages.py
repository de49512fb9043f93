"""Averages of weights against loops in NumPy: what is followed, when, and what evaluation sees."""

import numpy as np
import pytest

from gpucnn import optim
from gpucnn.backend import REFERENCE
from gpucnn.data import Dataset
from gpucnn.errors import UsageError
from gpucnn.layers import BatchNorm, Conv2D, Flatten, Linear, Sequential
from gpucnn.optim.averages import EMA, Lookahead, averaged, lerp
from gpucnn.training.trainer import Trainer

STEPS, EVERY, DECAY = 12, 5, 0.95
FROZEN = "0.weight"


def net(backend=REFERENCE) -> Sequential:
    return Sequential(Conv2D(1, 2, 1, weight_group="frozen"), BatchNorm(2), Flatten(), Linear(8, 3)).initialize(
        1, backend, "float64"
    )


def walk(model: Sequential, step: int, rng: np.random.Generator) -> None:
    """A step of training that NumPy can follow: all but the frozen weight move."""
    for name, entry in {**model.parameters(), **model.buffers()}.items():
        if name != FROZEN:
            entry.data[...] = model.backend.to_device(0.5 * model.backend.to_host(entry.data) + rng.random(entry.shape))


def followed(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: array for name, array in state.items() if name != FROZEN}


def test_lerp_goes_part_of_the_way(backend) -> None:
    a, w = (backend.to_device(np.array(values, np.float32)) for values in ([0.0, 1.0], [4.0, -1.0]))
    backend.run(lerp, a, w, 0.25)
    assert backend.to_host(a).tolist() == [1.0, 0.5]


def test_the_moving_average_is_a_weighted_sum_of_all_weights(backend) -> None:
    model, average, rng = net(backend), EMA(0.7), np.random.default_rng(3)
    average.bind(model)
    history = []
    for step in range(STEPS):
        walk(model, step, rng)
        average.apply(average.update_at(step))
        history.append(followed(model.state_dict()))
    weights = np.zeros(STEPS)
    for t in range(1, STEPS + 1):  # d = 0, 1/10, 2/11, ... up to 0.7
        decay = min(0.7, (t - 1) / (t + 8))
        weights *= decay
        weights[t - 1] = 1 - decay
    assert weights.sum() == pytest.approx(1)
    got = average.state_dict()
    assert got.keys() == history[0].keys()
    for name, array in got.items():
        np.testing.assert_allclose(array, sum(s * h[name] for s, h in zip(weights, history, strict=True)), rtol=1e-12)


def test_the_decay_of_the_moving_average_grows_to_its_limit() -> None:
    updates = [EMA(0.99).update_at(step) for step in (0, 1, 10, 890, 891, 892, 10**6)]
    assert not any(update.copy_to_model for update in updates)
    assert [update.weight for update in updates] == pytest.approx([1, 9 / 10, 9 / 19, 9 / 899, 0.01, 0.01, 0.01])


@pytest.mark.parametrize("total", [STEPS, 10])
def test_lookahead_is_the_loop_of_its_paper(total, backend) -> None:
    model, average = net(backend), Lookahead(EVERY, total, DECAY)
    average.bind(model)
    slow = followed(model.state_dict())
    fast = dict(slow)
    ours, theirs = np.random.default_rng(3), np.random.default_rng(3)
    for t in range(1, total + 1):
        walk(model, t - 1, ours)
        average.apply(average.update_at(t - 1))
        fast = {name: 0.5 * array + theirs.random(array.shape) for name, array in fast.items()}
        if t % EVERY == 0:
            alpha = 0.95**5 * (t / total) ** 3
            slow = {name: alpha * slow[name] + (1 - alpha) * fast[name] for name in slow}
            fast = dict(slow)
        if t == total:
            fast = dict(slow)
        for name, array in followed(model.state_dict()).items():
            np.testing.assert_allclose(array, fast[name], rtol=1e-12)
    for name, array in average.state_dict().items():
        np.testing.assert_array_equal(array, model.state_dict()[name])
    assert average.alpha(2 * total) == 0.95**5  # a run that goes on trusts the fast weights no less


def test_evaluation_sees_the_average_and_training_goes_on_with_the_same_bits(backend) -> None:
    model, ema, lookahead = net(backend), EMA(0.9), Lookahead(5, 10)
    for average in (ema, lookahead):
        average.bind(model)
    walk(model, 0, np.random.default_rng(1))
    raw = model.state_dict()
    with averaged([lookahead, ema]):
        shown = model.state_dict()
    assert all(np.array_equal(raw[name], array) for name, array in model.state_dict().items())
    for name, array in ema.state_dict().items():
        assert np.array_equal(shown[name], array)
        assert not np.array_equal(raw[name], array)
    assert np.array_equal(shown[FROZEN], raw[FROZEN])
    with pytest.raises(ZeroDivisionError), averaged([ema]):
        raise ZeroDivisionError
    assert all(np.array_equal(raw[name], array) for name, array in model.state_dict().items())


def test_an_average_is_restored(backend) -> None:
    first, second = EMA(0.9), EMA(0.9)
    for average in (first, second):
        average.bind(net(backend))
    walk(first.model, 0, np.random.default_rng(1))
    first.apply(first.update_at(3))
    second.load_state_dict(first.state_dict())
    for mine, theirs in zip(second.arrays, first.arrays, strict=True):
        assert np.array_equal(backend.to_host(mine), backend.to_host(theirs))


def test_the_trainer_updates_averages_after_each_step_and_reports_the_averaged_accuracy() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 30).astype(np.uint8)
    data = Dataset("noise", rng.integers(0, 256, (30, 2, 2, 1)).astype(np.uint8), labels, ("a", "b", "c"))
    ema = EMA(0.5)
    trainer = Trainer(Sequential(Flatten(), Linear(4, 3)), optim.SGD(0.1), batch_size=10, averages=[ema], seed=1)
    wanted = None

    def step(x, y, original=trainer.train_step):
        nonlocal wanted
        original(x, y)
        w = trainer.model.parameters()["1.weight"].data.astype(np.float64)
        decay = min(0.5, (trainer.clock.step - 1) / (trainer.clock.step + 8))
        wanted = w.copy() if wanted is None else decay * wanted + (1 - decay) * w

    trainer.train_step = step
    (report,) = trainer.fit(data, data, epochs=1)
    np.testing.assert_allclose(ema.state_dict()["1.weight"], wanted, rtol=1e-6)
    raw = trainer.model.state_dict()
    trainer.averages = ()
    assert trainer.evaluate(data).loss != report.test_loss
    trainer.model.load_state_dict({**raw, **ema.state_dict()})
    assert trainer.evaluate(data).loss == report.test_loss


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EMA(1.0), r"decay of a moving average is 1\.0"),
        (lambda: EMA(0.0), r"give a number in \(0, 1\)"),
        (lambda: Lookahead(0, 5), "every 0 of 5 steps"),
        (lambda: Lookahead(5, 0), "every 5 of 0 steps"),
        (lambda: Lookahead(5, 5, 1.0), r"decay of Lookahead is 1\.0"),
    ],
)
def test_invalid_numbers_are_named(make, message) -> None:
    with pytest.raises(UsageError, match=message):
        make()
