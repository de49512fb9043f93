"""Training with frozen parameters, and from another model's weights."""

import numpy as np
import pytest

import gpucnn
from gpucnn import models, optim
from gpucnn.data import Dataset
from gpucnn.errors import UsageError
from gpucnn.layers import BatchNorm, Conv2D, Flatten, Layer, Linear, MaxPool2D, ReLU, Sequential
from gpucnn.layers.whitening import whiten
from gpucnn.models.speedrun import speedrun
from gpucnn.optim.averages import EMA, Lookahead
from gpucnn.training.trainer import Trainer

OPTIMIZERS = {
    "sgd": lambda: optim.SGD(0.05, momentum=0.9, weight_decay=0.1),
    "adamw": lambda: optim.AdamW(0.01, weight_decay=0.1),
    "muon": lambda: optim.Muon(0.02, weight_decay=0.1, decoupled=True),
}
X = np.random.default_rng(0).standard_normal((6, 16, 8, 8, 1)).astype(np.float32)
LABELS = np.random.default_rng(1).integers(0, 3, (6, 16)).astype(np.uint8)


def features() -> Sequential:
    return Sequential(Conv2D(1, 4, 3), BatchNorm(4), ReLU(), MaxPool2D(2), Flatten())


def classifier() -> Sequential:
    return Sequential(Linear(36, 8), ReLU(), Linear(8, 3))


def averages() -> list[optim.averages.Average]:
    return [Lookahead(2, 6), EMA(0.8)]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_frozen_part_is_a_function_and_the_rest_trains_on_its_values(name, backend) -> None:
    """The weights are those of the classifier alone, trained on what the frozen layers give in evaluation."""
    whole = Sequential(features=features(), classifier=classifier())
    whole.freeze_matching("features.*")
    trainer = Trainer(whole, OPTIMIZERS[name](), backend=backend, averages=averages())
    state = Sequential(features=features(), classifier=classifier()).initialize(5).state_dict()
    for key in ("running_mean", "running_var", "shift"):
        state[f"features.1.{key}"] = np.linspace(0.2, 0.9, 4, dtype=np.float32)
    trainer.start_from(state)
    alone = Trainer(classifier(), OPTIMIZERS[name](), backend=backend, averages=averages())
    alone.start_from({key.removeprefix("classifier."): value for key, value in state.items() if "classifier" in key})
    for x, labels in zip(X, LABELS, strict=True):
        x, labels = backend.to_device(x), backend.to_device(labels)
        trainer.train_step(x, labels)
        alone.train_step(whole.layers["features"].eval().forward(x), labels)
        whole.train()
    after, wanted = whole.state_dict(), alone.model.state_dict()
    for key, value in after.items():
        if key.startswith("features"):
            np.testing.assert_array_equal(value, state[key])
        else:
            assert np.abs(value - state[key]).max() > 1e-3
            np.testing.assert_allclose(value, wanted[key.removeprefix("classifier.")], atol=2e-5)
    for values in trainer.optimizer.state_dict().values():
        assert {key.split(".")[0] for key, value in values.items() if value.any()} == {"classifier"}
    for average in trainer.averages:
        frozen = {key: value for key, value in average.state_dict().items() if key.startswith("features")}
        assert set(frozen) == {"features.1.running_mean", "features.1.running_var"}
        for key, value in frozen.items():
            np.testing.assert_array_equal(value, state[key])


def test_averages_start_from_what_was_taken() -> None:
    trainer = Trainer(classifier(), OPTIMIZERS["sgd"](), averages=averages(), seed=1)
    state = classifier().initialize(2).state_dict()
    trainer.start_from(state)
    for average in trainer.averages:
        for key, value in average.state_dict().items():
            np.testing.assert_array_equal(value, state[key])


def test_whitening_filters_that_were_taken_are_not_fitted_again() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 1), dtype=np.uint8)
    train = Dataset("noise", noise, [0] * 20, tuple("0123456789"))

    def net() -> Layer:
        return speedrun((16, 16, 1), 10, (4, 4, 4), 2, unit_head=False)

    source = net().initialize(3)
    whiten(source, noise[:, ::-1, ::2].repeat(2, axis=2), [0.5], [0.3])
    state = source.state_dict()
    for given, same in ((state, True), ({"head.weight": state["head.weight"]}, False)):
        trainer = Trainer(net(), optim.SGD(0.1))
        trainer.start_from(given)
        trainer.prepare(train)
        name = "features.whitening.weight"
        assert np.array_equal(trainer.model.state_dict()[name], state[name]) == same


def test_a_fine_tuned_model_is_saved_and_loaded(tmp_path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (20, 6, 6, 1), dtype=np.uint8)
    train = Dataset("noise", noise, [0, 1] * 10, ("a", "b"))
    for net in (models.build("mlp", (6, 6, 1), 2, width=8), Sequential(Flatten(), Linear(36, 8), Linear(8, 2))):
        net.freeze_matching("1.*")
        trainer = gpucnn.Trainer(net, "adam", averages=[EMA(0.5)])
        trainer.start_from({"1.weight": np.ones((8, 36), np.float32)})
        trainer.train(train, epochs=1, quiet=True)
        trainer.save(tmp_path / "tuned.h5")
        found = gpucnn.load(tmp_path / "tuned.h5").model.state_dict()
        assert (found["1.weight"] == 1).all()


def test_a_start_that_takes_nothing_or_comes_too_late_is_refused() -> None:
    trainer = Trainer(classifier(), OPTIMIZERS["sgd"]())
    with pytest.raises(UsageError, match=r"nothing fits.*'0\.weight', the state 'x'"):
        trainer.start_from({"x": np.ones(3)})
    trainer.train_step(np.ones((4, 36), np.float32), LABELS[0, :4])
    with pytest.raises(UsageError, match="before the first"):
        trainer.start_from(classifier().initialize(2).state_dict())
