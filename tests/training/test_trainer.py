"""The training loop: steps, epochs, resuming to the same bits, early stopping, NaN."""

from dataclasses import replace
from inspect import signature

import numpy as np
import pytest
from trainer_settings import CLASSES, copy_state, images, tiny_net, tiny_trainer

from gpucnn import optim
from gpucnn.backend import REFERENCE
from gpucnn.data import Augmentation, Dataset
from gpucnn.errors import NotANumberError, ShapeError
from gpucnn.layers import BatchNorm, Conv2D, Flatten, Linear, ReLU, Sequential
from gpucnn.losses import softmax_cross_entropy
from gpucnn.optim import schedules
from gpucnn.optim.averages import EMA
from gpucnn.training.precision import FLOAT32, Policy
from gpucnn.training.trainer import Progress, Trainer

EVERYTHING = Augmentation(
    flip=True, crop=1, cutout=2, flip_mode="alternating", mixup=0.4, cutmix=1.0, mixup_prob=0.8,
    rotation=10.0, scale=0.1, elastic=5.0, elastic_sigma=1.5, brightness=0.1, contrast=0.2,
)  # fmt: skip


def everything(trainer: Trainer) -> dict[str, np.ndarray]:
    return {**trainer.model.state_dict(), "velocity": trainer.optimizer.state["velocity"].copy()}


def equal(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def test_a_step_is_forward_loss_backward_and_update_by_hand() -> None:
    trainer = Trainer(Sequential(Flatten(), Linear(4, 3)), optim.SGD(0.5), seed=1)
    w, b = (trainer.model.parameters()[f"1.{name}"].data.astype(np.float64) for name in ("weight", "bias"))
    rng = np.random.default_rng(5)
    x, labels = rng.standard_normal((6, 2, 2, 1)).astype(np.float32), rng.integers(0, 3, 6)

    flat = x.reshape(6, 4).astype(np.float64)
    scores = np.exp(flat @ w.T + b)
    p = scores / scores.sum(axis=1, keepdims=True)
    dz = (p - np.eye(3)[labels]) / 6
    trainer.train_step(x, labels)

    state = trainer.model.state_dict()
    np.testing.assert_allclose(state["1.weight"], w - 0.5 * dz.T @ flat, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(state["1.bias"], b - 0.5 * dz.sum(axis=0), rtol=1e-5, atol=1e-6)
    loss, accuracy = trainer.metrics.read()
    assert loss == pytest.approx(-np.log(p[np.arange(6), labels]).mean(), rel=1e-6)
    assert accuracy == (p.argmax(axis=1) == labels).mean()
    assert trainer.clock.step == 1


def test_a_summed_loss_has_a_gradient_as_many_times_as_large_and_is_reported_as_a_mean() -> None:
    gradients, reports = [], []
    for reduction in ("mean", "sum"):
        trainer = tiny_trainer(reduction=reduction, schedule=schedules.constant(0.0))
        reports += trainer.fit(images(18), images(18), epochs=1)  # a batch of 16, then one of 2
        gradients.append(trainer.model.flat.grad)
    np.testing.assert_allclose(gradients[1], 2 * gradients[0], rtol=1e-4, atol=1e-6)
    assert abs(gradients[0]).max() > 0
    assert reports[0].train_loss == reports[1].train_loss


def test_it_learns_and_reports() -> None:
    trainer = tiny_trainer(schedule=schedules.constant(0.02))
    reports = list(trainer.fit(images(), images(30, seed=1), epochs=8))
    assert [report.epoch for report in reports] == list(range(1, 9))
    assert reports[-1].train_loss < reports[0].train_loss / 2
    assert reports[-1].test_accuracy > 0.8
    assert reports[-1].test_accuracy == trainer.evaluate(images(30, seed=1)).accuracy
    assert reports[-1].images_per_second > 0
    assert "test loss" in str(reports[-1])
    assert trainer.progress.best_accuracy == max(report.test_accuracy for report in reports)


def test_the_same_seed_gives_the_same_bits_and_another_one_does_not() -> None:
    runs = []
    for seed in (7, 7, 8):
        trainer = tiny_trainer(seed=seed)
        list(trainer.fit(images(), images(), epochs=2))
        runs.append(everything(trainer))
    assert equal(runs[0], runs[1])
    assert not equal(runs[0], runs[2])


@pytest.mark.parametrize("policy", [FLOAT32, Policy("float16", interval=3)], ids=["float32", "float16"])
@pytest.mark.parametrize("stop_at", range(8))
def test_stopping_after_any_step_and_resuming_gives_the_same_bits(stop_at: int, policy: Policy) -> None:
    whole = tiny_trainer(policy=policy, augmentation=EVERYTHING)
    list(whole.fit(images(), images(), epochs=2))  # 4 batches an epoch, the last one partial

    first = tiny_trainer(policy=policy, augmentation=EVERYTHING)
    original = first.train_step

    def step_then_stop(x: np.ndarray, labels: np.ndarray) -> None:
        original(x, labels)
        first.stop_requested = first.clock.step > stop_at

    first.train_step = step_then_stop  # type: ignore[method-assign]
    list(first.fit(images(), images(), epochs=2))

    second = tiny_trainer(policy=policy, augmentation=EVERYTHING)
    copy_state(first, second)
    list(second.fit(images(), images(), epochs=2))

    assert equal(everything(second), everything(whole))
    assert second.progress == whole.progress


def test_an_epoch_resumed_with_larger_batches_than_are_left_is_over() -> None:
    first = tiny_trainer()
    next(iter(first.fit(images(), images(), epochs=1)))
    second = tiny_trainer(batch_size=30)  # 2 batches an epoch
    copy_state(first, second)
    second.progress.batch = 3  # of the second epoch
    assert [report.epoch for report in second.fit(images(), images(), epochs=3)] == [2, 3]


@pytest.mark.parametrize("last", [3, 4, 6])
def test_a_run_ends_with_its_last_step_in_the_middle_of_an_epoch_too(last: int) -> None:
    trainer = tiny_trainer(max_steps=last)
    seen = []
    reports = list(trainer.fit(images(), images(), epochs=9, watch=seen.append))  # 4 batches an epoch
    assert trainer.clock.step == last
    assert [report.epoch for report in reports] == list(range(1, -(-last // 4) + 1))
    assert seen[-1].batch == (last - 1) % 4 + 1  # the last reading is of the last step
    assert trainer.progress.batch == 0
    assert reports[-1].test_accuracy == trainer.evaluate(images()).accuracy
    assert list(trainer.fit(images(), images(), epochs=9)) == []  # and stays ended


@pytest.mark.parametrize("steps", [2, 4, 5])
def test_gradients_for_frozen_parameters_alone_are_not_computed(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(watched: bool) -> tuple[dict[str, np.ndarray], list[int]]:
        first = Conv2D(1, 4, 3, padding=1, weight_group="frozen", bias_group="whiten")
        net = Sequential(first, ReLU(), Conv2D(4, 4, 3), BatchNorm(4), ReLU(), Flatten(), Linear(64, 3))
        rules = {"whiten": optim.GroupRule(steps=steps)}
        trainer = Trainer(net, optim.SGD(0.05, momentum=0.9, groups=rules), batch_size=16, seed=3)
        if not watched:
            monkeypatch.setattr(net, "freeze", lambda groups: False)
        calls, backward = [], first.backward
        monkeypatch.setattr(first, "backward", lambda dy: calls.append(trainer.clock.step) or backward(dy))
        list(trainer.fit(images(), images(), epochs=3))  # 4 batches an epoch
        return everything(trainer), calls

    (found, calls), (wanted, all_calls) = run(True), run(False)
    assert equal(found, wanted)
    assert all_calls == list(range(12))
    assert calls == list(range(4 if steps <= 4 else 8))  # from the next epoch on


def test_a_model_that_was_frozen_learns_again_in_another_run() -> None:
    net = tiny_net()
    for _ in range(2):
        rules = {"filter": optim.GroupRule(steps=4), "bias": optim.GroupRule(steps=4)}
        trainer = Trainer(net, optim.SGD(0.05, momentum=0.9, groups=rules), batch_size=16, seed=3)
        before = net.state_dict()
        list(trainer.fit(images(), images(), epochs=2))
        after = net.state_dict()
        assert not np.array_equal(before["0.weight"], after["0.weight"])


def test_patience_ends_the_run_early() -> None:
    trainer = tiny_trainer(patience=2, schedule=schedules.constant(0.0))  # nothing is learned
    reports = list(trainer.fit(images(), images(), epochs=50))
    assert len(reports) == trainer.progress.best_epoch + 2
    assert list(trainer.fit(images(), images(), epochs=50)) == []  # and stays ended


@pytest.mark.parametrize(
    ("poison", "culprit"),
    [("weight", "weights '0.weight' have NaN"), ("overflow", "layer '0' (Conv2D)")],
)
def test_nan_stops_before_the_update_and_names_the_place(poison: str, culprit: str) -> None:
    trainer = tiny_trainer()
    w = trainer.model.parameters()["0.weight"].data
    w[0, 0, 0, 0] = np.nan if poison == "weight" else 3e38
    w[0, 1, 1, 0] = 3e38
    before = trainer.model.parameters()["5.weight"].data.copy()
    with np.errstate(all="ignore"), pytest.raises(NotANumberError) as caught:
        list(trainer.fit(images(), images(), epochs=1))
    assert culprit in str(caught.value)
    assert "step 0" in str(caught.value)
    assert np.array_equal(trainer.model.parameters()["5.weight"].data, before)


def test_an_asynchronous_device_is_checked_at_the_interval() -> None:
    ahead = replace(REFERENCE, synchronous=False)
    trainer = tiny_trainer(backend=ahead, log_interval=2)
    trainer.model.parameters()["5.bias"].data[...] = np.nan
    with np.errstate(all="ignore"), pytest.raises(NotANumberError, match="step 1 gave NaN or infinity"):
        list(trainer.fit(images(), images(), epochs=1))


def test_kernels_of_the_backend_are_used_for_the_loss() -> None:
    calls = []

    def counted(logits: np.ndarray, labels: np.ndarray, smoothing: float = 0.0) -> tuple[object, object]:
        calls.append(smoothing)
        return softmax_cross_entropy(logits, labels, smoothing)

    backend = replace(REFERENCE, kernels={softmax_cross_entropy: counted})
    trainer = tiny_trainer(backend=backend, loss_options={"smoothing": 0.1})
    list(trainer.fit(images(), images(), epochs=1))
    assert calls == [0.1] * 4 + [0.0] * 4  # the test loss is not smoothed


def test_gradients_are_clipped() -> None:
    trainer = tiny_trainer(clip_grad=1e-3)
    list(trainer.fit(images(), images(), epochs=1))
    assert np.linalg.norm(trainer.model.flat.grad) == pytest.approx(1e-3, rel=1e-4)


def test_images_of_the_wrong_shape_are_refused_before_the_first_step() -> None:
    trainer = tiny_trainer()
    wide = Dataset("wide", np.zeros((4, 6, 9, 1), np.uint8), np.zeros(4, np.uint8), CLASSES)
    with pytest.raises(ShapeError, match="Linear"):
        list(trainer.fit(wide, wide, epochs=1))
    assert trainer.progress == Progress()


def test_the_constructor_has_few_parameters() -> None:
    assert len(signature(Trainer).parameters) <= 12


@pytest.mark.parametrize("tta", ["none", "flip"])
def test_evaluation_changes_nothing_in_a_trainer(tta: str) -> None:
    dim = Dataset("dim", (images().images // 3), images().labels, CLASSES)  # another mean and std
    runs = []
    for looked in (False, True):
        trainer = tiny_trainer(averages=[EMA(0.9)], policy=Policy("float16", interval=3))
        if looked:
            trainer.evaluate(dim, tta)
        list(trainer.fit(images(), images(), epochs=1))
        if looked:
            trainer.evaluate(dim, tta)
        list(trainer.fit(images(), images(), epochs=2))
        runs.append((everything(trainer), trainer.progress, trainer.mean, trainer.std))
    assert equal(runs[0][0], runs[1][0])
    assert runs[0][1:] == runs[1][1:]


def test_evaluation_uses_the_mean_and_std_of_the_trainer_if_it_has_any() -> None:
    dim = Dataset("dim", (images().images // 3), images().labels, CLASSES)
    trainer = tiny_trainer()
    assert trainer.loader(dim, training=False).mean == np.float32(dim.mean[0])
    trainer.prepare(images())
    assert trainer.loader(dim, training=False).mean == np.float32(images().mean[0])


@pytest.mark.parametrize("training", [True, False])
def test_evaluation_leaves_the_mode_as_it_was(training: bool) -> None:
    trainer = tiny_trainer()
    if not training:
        trainer.model.eval()
    trainer.evaluate(images())
    assert {layer.training for _, layer in trainer.model.named_layers()} == {training}


def test_a_trained_model_is_ready_for_evaluation() -> None:
    trainer = tiny_trainer()
    list(trainer.fit(images(), images(), epochs=1))
    assert not any(layer.training for _, layer in trainer.model.named_layers())


def test_an_epoch_reports_its_own_steps_alone() -> None:
    reports = []
    for by_hand in (False, True):
        trainer = tiny_trainer(schedule=schedules.constant(0.0), augmentation=None)
        trainer.prepare(images())
        if by_hand:
            trainer.train_step(*next(iter(trainer.loader(images(8, seed=3), training=False).epoch(0))))
            trainer.clock.step = 0
        reports += trainer.fit(images(), images(), epochs=1)
        assert trainer.metrics.sums() == (0.0, 0, 0)  # as a checkpoint between two epochs has them
    assert reports[0].train_loss == reports[1].train_loss


@pytest.mark.parametrize("outputs", [2, 5])
def test_a_net_with_another_number_of_outputs_is_refused_before_the_first_step(outputs: int) -> None:
    net = Sequential(Flatten(), Linear(36, outputs))
    trainer = Trainer(net, optim.SGD(0.1))
    before = net.state_dict()
    with pytest.raises(ShapeError, match=rf"outputs \({outputs},\) for an image, but noise has 3 classes"):
        next(trainer.fit(images(), images(), epochs=1))
    assert equal(net.state_dict(), before)


def test_a_step_refuses_labels_in_a_column() -> None:
    trainer = tiny_trainer(augmentation=None)
    trainer.model.train()
    with pytest.raises(ShapeError, match=r"labels of shape \(16, 1\)"):
        trainer.train_step(np.ones((16, 6, 6, 1), np.float32), np.zeros((16, 1), np.int64))


def test_an_epoch_whose_test_loss_is_nan_is_no_success_and_no_best() -> None:
    """The weights overflow in the last step: its own loss was still finite."""
    trainer = Trainer(Sequential(Flatten(), Linear(36, 36), Linear(36, 3)), optim.SGD(1e30), batch_size=50)
    with np.errstate(all="ignore"), pytest.raises(NotANumberError, match="the test loss of epoch 1 is nan"):
        list(trainer.fit(images(50), images(20), epochs=1))
    assert (trainer.progress.epoch, trainer.progress.best_epoch, trainer.progress.history) == (0, 0, [])


def test_a_notebook_shows_how_far_training_is() -> None:
    trainer = tiny_trainer()
    assert "epoch 0, step 0</p><table>" in trainer._repr_html_()
