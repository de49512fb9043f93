"""What the epochs of a training run report: the whole test set, rates, times, the best epoch."""

import numpy as np
import pytest
from trainer_settings import copy_state, images, tiny_net, tiny_trainer

from gpucnn import optim
from gpucnn.layers import Flatten, Linear, Sequential, Whitening
from gpucnn.optim import schedules
from gpucnn.training import trainer as trainer_module
from gpucnn.training.trainer import Trainer, TrainerOptions


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("count", [1, 15, 16, 17, 40])
def test_the_test_set_is_evaluated_whole(count: int, drop_last: bool) -> None:
    """Whatever the batches: by a forward pass of all images at once."""
    trainer = tiny_trainer(drop_last=drop_last)
    test = images(count, seed=3)
    (report,) = trainer.fit(images(), test, epochs=1)
    x = (test.images / 255.0 - np.array(images().mean)) / np.array(images().std)
    logits = trainer.model.eval()(x.astype(np.float32)).astype(np.float64)
    losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(count), test.labels]
    assert report.test_loss == pytest.approx(losses.mean(), rel=1e-4)
    assert report.test_accuracy == pytest.approx((logits.argmax(axis=1) == test.labels).mean(), abs=1e-12)
    np.testing.assert_array_equal(trainer.evaluate(test).predictions, logits.argmax(axis=1))


@pytest.mark.parametrize("max_steps", [0, 6])
def test_the_learning_rate_of_an_epoch_is_that_of_its_last_step(max_steps: int) -> None:
    used = []

    def schedule(step: int) -> float:
        return 0.01 / (step + 1)

    trainer = tiny_trainer(schedule=schedule, max_steps=max_steps)
    update = trainer.precision.update
    trainer.precision.update = lambda optimizer, rates, step: used.append(rates) or update(optimizer, rates, step)
    reports = list(trainer.fit(images(), images(), epochs=2))  # 4 batches an epoch
    last = [3, 7] if not max_steps else [3, 5]
    assert [report.learning_rate for report in reports] == [0.01 / (step + 1) for step in last]
    assert [row["learning_rate"] for row in trainer.progress.history] == [0.01 / (step + 1) for step in last]
    assert [set(rates.values()) for rates in used] == [{0.01 / (step + 1)} for step in range(last[-1] + 1)]


def test_an_epoch_of_one_step_has_the_rate_of_that_step() -> None:
    trainer = tiny_trainer(schedule=lambda step: 0.01 / (step + 1), batch_size=50)
    reports = list(trainer.fit(images(), images(), epochs=3))
    assert [report.learning_rate for report in reports] == [0.01, 0.005, 0.01 / 3]


def test_times_are_of_the_epoch_and_rates_of_its_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that goes on by 2 in a step and by 5 in an evaluation."""
    now = 100.0
    monkeypatch.setattr(trainer_module, "perf_counter", lambda: now)

    def slow(method, seconds):
        def call(*args):
            nonlocal now
            now += seconds
            return method(*args)

        return call

    def timed(**changes: object) -> Trainer:
        trainer = tiny_trainer(**changes)
        monkeypatch.setattr(trainer, "train_step", slow(trainer.train_step, 2.0))
        monkeypatch.setattr(trainer, "evaluate_batches", slow(trainer.evaluate_batches, 5.0))
        return trainer

    seen = []
    trainer = timed(log_interval=3)
    for report in trainer.fit(images(), images(), epochs=2, watch=seen.append):  # batches of 16, 16, 16 and 2
        assert report.seconds == 4 * 2.0 + 5.0
        assert report.images_per_second == 50 / 8.0
    wanted = [(epoch, batch, 4, rate) for epoch in (1, 2) for batch, rate in ((3, 48 / 6), (4, 50 / 8))]
    assert [(r.epoch, r.batch, r.batches, r.images_per_second) for r in seen] == wanted
    assert (seen[1].loss, seen[1].accuracy) == tuple(
        trainer.progress.history[0][k] for k in ("train_loss", "train_accuracy")
    )

    first = tiny_trainer()
    first.train_step, step = (
        lambda x, labels: (step(x, labels), setattr(first, "stop_requested", True)),
        first.train_step,
    )
    list(first.fit(images(), images(), epochs=1))
    rest = timed()
    copy_state(first, rest)
    (report,) = rest.fit(images(), images(), epochs=1)  # three of its four batches
    assert report.images_per_second == 34 / 6.0
    assert report.seconds == 3 * 2.0 + 5.0


def test_filters_are_whitened_before_the_first_step_and_never_again() -> None:
    net = Sequential(Whitening(1), Flatten(), Linear(8 * 25, 3))
    trainer = Trainer(net, optim.SGD(0.1), batch_size=16)
    random = net.state_dict()["0.weight"]
    trainer.prepare(images())
    fitted = net.state_dict()["0.weight"]
    p = (images().images / 255.0 - images().mean) / images().std
    p = np.stack([p[:, i : i + 5, j : j + 5, 0] for i in (0, 1) for j in (0, 1)], axis=-1).reshape(-1, 4)
    responses = p @ fitted.reshape(8, 4)[:4].T.astype(np.float64)
    covariance = responses.T @ responses / len(p)
    np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)), atol=1e-4)
    assert 0.9 < np.diag(covariance).min() <= np.diag(covariance).max() < 1.0
    for step in (1, 2):  # as a resumed run
        trainer.clock.step = step
        net.layers["0"].weight.data[...] = random
        trainer.prepare(images())
        np.testing.assert_array_equal(net.state_dict()["0.weight"], random)


def test_by_default_nothing_is_clipped_left_out_or_ended_early() -> None:
    defaults = TrainerOptions()
    assert defaults == TrainerOptions(
        loss_options={}, reduction="mean", clip_grad=0.0, drop_last=False, patience=0, max_steps=0, mean=(), std=(),
        log_interval=50, cuda_graph="auto",
    )  # fmt: skip
    trainer = Trainer(tiny_net(), optim.SGD(0.0), batch_size=8)
    gradients = []
    update = trainer.precision.update
    trainer.precision.update = lambda *args: gradients.append(np.linalg.norm(trainer.model.flat.grad)) or update(*args)
    reports = list(trainer.fit(images(), images(), epochs=3))  # none of them better than the first
    assert len(reports) == 3
    assert len(gradients) == 3 * 7
    assert trainer.schedule(0) == trainer.schedule(10**6) == 0.0
    assert (Trainer(tiny_net(), optim.SGD(0.1)).batch_size, trainer.clock.seed) == (128, 0)


def test_of_equal_epochs_the_first_is_the_best() -> None:
    trainer = tiny_trainer(schedule=schedules.constant(0.0), averages=[])
    for parameter in trainer.model.parameters().values():
        parameter.data[...] = 0.0  # all logits are equal, whatever batch norm has seen
    reports = list(trainer.fit(images(), images(), epochs=3))
    assert len({report.test_accuracy for report in reports}) == 1
    assert trainer.progress.best_epoch == 1
    assert trainer.progress.best_accuracy == reports[0].test_accuracy
