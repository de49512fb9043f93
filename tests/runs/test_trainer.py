"""The trainer that programs use: names in place of objects, weights that stay, predictions, and files of its own."""

from math import isnan
from pathlib import Path

import numpy as np
import pytest

import gpucnn
from gpucnn import REFERENCE, Dataset, Trainer, TrainerOptions, layers, losses, models, optim, schedules
from gpucnn.checkpoint import open_checkpoint
from gpucnn.cli.main import main
from gpucnn.data.digits import load_digits
from gpucnn.errors import UsageError
from gpucnn.optim.averages import EMA
from gpucnn.training.precision import FLOAT16

SHAPE = (8, 8, 1)


@pytest.fixture(scope="module")
def data() -> tuple[Dataset, Dataset]:
    train, test = load_digits()
    return train.split_off(np.arange(300))[1], test.split_off(np.arange(100))[1]


def net() -> layers.Layer:
    return models.build("mlp", SHAPE, 10, width=16)


def state(trainer: Trainer) -> list[bytes]:
    return [array.tobytes() for array in trainer.model.state_dict().values()]


def test_train_is_fit_to_its_end_with_a_line_per_epoch(
    data: tuple[Dataset, Dataset], capsys: pytest.CaptureFixture[str]
) -> None:
    mine, other = (Trainer(net(), optim.SGD(0.1)) for _ in range(2))
    history = mine.train(*data, epochs=2)
    reports = list(other.fit(*data, epochs=2))
    assert state(mine) == state(other)
    assert history == mine.history == other.progress.history
    assert history.column("test_accuracy") == [report.test_accuracy for report in reports]
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [["epoch", "1"], ["epoch", "2"]]
    assert len(mine.train(*data, epochs=3, quiet=True)) == 3
    assert capsys.readouterr().out == ""


def test_names_stand_for_objects(data: tuple[Dataset, Dataset]) -> None:
    by_name = Trainer(
        net(), "sgd", lr=0.2, backend="reference", schedule="cosine", loss="cross_entropy", policy="fp16", batch_size=50
    )
    given = Trainer(
        net(), optim.SGD(0.2), backend=REFERENCE, schedule=schedules.cosine(0.2, 18),
        loss=losses.softmax_cross_entropy, policy=FLOAT16, batch_size=50,
    )  # fmt: skip
    for trainer in (by_name, given):
        trainer.train(*data, epochs=3, quiet=True)
    assert state(by_name) == state(given)
    assert by_name.history[-1]["learning_rate"] == schedules.cosine(0.2, 18)(17)
    assert Trainer(net(), "adam").optimizer.lr == optim.Adam().lr
    assert Trainer(net(), "adamw", lr=0.01).optimizer.lr == 0.01
    cut = Trainer(net(), "adam", schedule="one_cycle", options=TrainerOptions(max_steps=2))
    cut.train(*data, epochs=9, quiet=True)
    assert cut.schedule(1) == schedules.one_cycle(0.001, 2)(1)


def test_without_a_test_set_nothing_is_tested(data: tuple[Dataset, Dataset]) -> None:
    mine, other = (Trainer(net(), "adam") for _ in range(2))
    reports = list(mine.fit(data[0], epochs=2))
    other.train(*data, epochs=2, quiet=True)
    assert state(mine) == state(other)
    assert isnan(reports[-1].test_loss)
    assert "test" not in str(reports[-1])
    assert (mine.progress.best_epoch, mine.progress.best_accuracy) == (0, -1.0)


def test_weights_that_a_model_has_stay(data: tuple[Dataset, Dataset]) -> None:
    first = Trainer(net(), "adam")
    first.train(*data, epochs=1, quiet=True)
    trained = first.model.state_dict()
    again = Trainer(first.model, "adam", seed=5)
    assert all(np.array_equal(again.model.state_dict()[name], array) for name, array in trained.items())
    fresh = Trainer(first.model.initialize(5), "adam", seed=5)
    assert state(fresh) == state(Trainer(net(), "adam", seed=5))


def test_a_part_of_a_trained_model_keeps_its_weights_in_another_one() -> None:
    body = layers.Sequential(layers.Conv2D(1, 4, 3), layers.BatchNorm(4), layers.ReLU(), layers.Flatten())
    body.initialize(3).parameters()["1.scale"].data[...] = 2.0
    body.buffers()["1.running_mean"].data[...] = 7.0
    before = body.state_dict()
    whole = Trainer(layers.Sequential(body, layers.Linear(144, 2)), "adam", seed=1).model.state_dict()
    assert all(np.array_equal(whole[f"0.{name}"], array) for name, array in before.items())
    assert np.array_equal(whole["1.weight"], Trainer(twin(), "adam", seed=1).model.state_dict()["1.weight"])


def twin() -> layers.Layer:
    body = layers.Sequential(layers.Conv2D(1, 4, 3), layers.BatchNorm(4), layers.ReLU(), layers.Flatten())
    return layers.Sequential(body, layers.Linear(144, 2))


def test_filters_from_images_are_made_once() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 6, 6, 3), np.uint8)
    train = Dataset("noise", pixels, [0, 1] * 20, ("a", "b"))
    other = Dataset("dim", train.images // 2, train.labels, ("a", "b"))
    net = layers.Sequential(layers.Whitening(3), layers.ReLU(), layers.Flatten(), layers.Linear(600, 2))
    Trainer(net, "adam").train(train, epochs=1, quiet=True)
    filters = net.state_dict()["0.weight"]
    Trainer(net, "adam").train(other, epochs=1, quiet=True)
    assert np.array_equal(net.state_dict()["0.weight"], filters)
    unfitted = layers.Sequential(layers.Whitening(3), layers.ReLU(), layers.Flatten(), layers.Linear(600, 2))
    drawn = unfitted.initialize(0).state_dict()["0.weight"]
    Trainer(unfitted, "adam").train(train, epochs=1, quiet=True)
    assert np.array_equal(unfitted.state_dict()["0.weight"], filters)
    assert not np.array_equal(drawn, filters)


@pytest.mark.parametrize("precision", ["off", "fp16"])
def test_predict_is_what_evaluation_says_and_changes_nothing(precision: str, data: tuple[Dataset, Dataset]) -> None:
    mine, other = (Trainer(net(), "adam", averages=[EMA(0.9)], policy=precision) for _ in range(2))
    for trainer in (mine, other):
        trainer.train(*data, epochs=1, quiet=True)
    found = mine.predict(data[1].images)
    assert np.array_equal(found.labels, mine.evaluate(data[1]).predictions)
    assert (found == data[1].labels).mean() == mine.history[-1]["test_accuracy"]
    for trainer in (mine, other):
        trainer.train(*data, epochs=2, quiet=True)
    assert state(mine) == state(other)


@pytest.mark.parametrize("model", ["mlp", "mnist_cnn"])
def test_a_saved_model_answers_as_the_trainer_does(
    model: str, data: tuple[Dataset, Dataset], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = Trainer(
        models.build(model, SHAPE, 10), "adam", averages=[EMA(0.9)], schedule="cosine", seed=4, batch_size=50
    )
    trainer.train(*data, epochs=1, quiet=True)
    path = tmp_path / "mine.h5"
    trainer.save(path)
    loaded = gpucnn.load(path, backend="reference")
    assert np.array_equal(loaded.probabilities(data[1]), trainer.predict(data[1]).probabilities)
    assert loaded.classes == data[0].classes
    assert loaded.evaluate(data[1], batch_size=50).accuracy == trainer.history[-1]["test_accuracy"]
    text = open_checkpoint(path).config
    for line in ('dataset = "digits"', 'name = "adam"', 'name = "cosine"', "ema = 0.9", "seed = 4", "lr = 0.001"):
        assert f"\n{line}\n" in text
    assert main(["evaluate", "--checkpoint", str(path), "--device", "reference"]) == 0
    assert "epoch 1" in capsys.readouterr().out
    assert main(["train", "--resume", str(path), "--device", "reference", "--output", str(tmp_path / "run")]) == 2
    assert "start from it by --init" in capsys.readouterr().err


class Mine(layers.Layer):
    """A layer that no file can name."""

    def forward(self, x: np.ndarray) -> np.ndarray:
        return x

    def backward(self, dy: np.ndarray) -> np.ndarray:
        return dy


def test_a_net_of_ones_own_is_saved_and_read_again(data: tuple[Dataset, Dataset], tmp_path: Path) -> None:
    changed = net()  # no longer what models.build makes
    changed.layers["extra"] = layers.BatchNorm(10)
    own = layers.Sequential(layers.Conv2D(1, 4, 3), layers.ReLU(), layers.Flatten(), layers.Linear(144, 10))
    frozen = layers.Sequential(layers.Conv2D(1, 4, 3), layers.Flatten(), layers.Linear(144, 10))
    frozen.freeze_matching("0.*")
    for model in (own, changed, frozen):
        trainer = Trainer(model, "adam")
        trainer.train(*data, epochs=1, quiet=True)
        trainer.save(tmp_path / "mine.h5")
        loaded = gpucnn.load(tmp_path / "mine.h5", backend="reference")
        assert np.array_equal(loaded.probabilities(data[1]), trainer.predict(data[1]).probabilities)
        (tmp_path / "mine.h5").unlink()
    trainer = Trainer(layers.Sequential(Mine(), layers.Flatten(), layers.Linear(64, 10)), "adam")
    trainer.train(*data, epochs=1, quiet=True)
    with pytest.raises(UsageError, match="Mine is no layer that a file can name"):
        trainer.save(tmp_path / "mine.h5")
    assert list(tmp_path.iterdir()) == []
