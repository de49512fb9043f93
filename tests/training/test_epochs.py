"""``Trainer.fit``: it tells where nothing was trained, runs in one thread at a time, and Ctrl-C leaves whole steps."""

import os
import signal
import threading
import warnings

import numpy as np
import pytest

from gpucnn import Trainer, TrainerOptions, models, optim
from gpucnn.data import Dataset, load_synthetic
from gpucnn.errors import UsageError
from gpucnn.optim.averages import EMA
from gpucnn.training.trainer import IntervalReport


@pytest.fixture(scope="module")
def data() -> tuple[Dataset, Dataset]:
    train, test = load_synthetic()
    return train.split_off(np.arange(200))[1], test.split_off(np.arange(50))[1]


def trainer() -> Trainer:
    model = models.build("mlp", (32, 32, 3), 10, width=8)
    options = TrainerOptions(log_interval=1)
    optimizer = optim.SGD(lr=0.05, momentum=0.9)
    return Trainer(model, optimizer, batch_size=50, averages=(EMA(0.9),), seed=3, options=options)


def state(found: Trainer) -> list[bytes]:
    arrays = [*found.model.state_dict().values(), *found.optimizer.state_dict()["velocity"].values()]
    return [a.tobytes() for a in (*arrays, *found.averages[0].state_dict().values())]


def test_a_training_that_is_never_iterated_over_tells(data: tuple[Dataset, Dataset]) -> None:
    mine = trainer()
    with pytest.warns(RuntimeWarning, match="has trained nothing: iterate over it"):
        mine.fit(*data, epochs=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        next(mine.fit(*data, epochs=2))
        mine.fit(*data, epochs=2).close()
        for _ in mine.fit(*data, epochs=3):
            break
    assert mine.progress.epoch == 2


def test_wrong_arguments_are_said_before_anything_is_iterated(data: tuple[Dataset, Dataset]) -> None:
    for epochs in ("3", 1.5, None, -1):
        with pytest.raises(UsageError, match="epochs"):
            trainer().fit(*data, epochs=epochs)
    with pytest.raises(UsageError, match="give a Dataset, as load_dataset"):
        trainer().fit(data, data, epochs=1)


@pytest.mark.parametrize("at", [1, 3, 4, 6])
@pytest.mark.usefixtures("ctrl_c")
def test_fit_goes_on_after_ctrl_c_with_the_same_bits(at: int, data: tuple[Dataset, Dataset]) -> None:
    whole, mine, seen = trainer(), trainer(), []
    reports = list(whole.fit(*data, epochs=2))

    def press(report: IntervalReport) -> None:
        if len(seen) == at - 1:
            os.kill(os.getpid(), signal.SIGINT)
        seen.append(report.batch)

    found = []
    with pytest.raises(KeyboardInterrupt):
        found.extend(mine.fit(*data, epochs=2, watch=press))
    assert mine.clock.step == at
    found = list(mine.fit(*data, epochs=2))
    assert state(mine) == state(whole)
    assert (found[-1].test_loss, found[-1].train_loss) == (reports[-1].test_loss, reports[-1].train_loss)
    assert mine.progress.history == whole.progress.history


@pytest.mark.usefixtures("ctrl_c")
def test_a_second_ctrl_c_does_not_wait_and_that_trainer_is_done(data: tuple[Dataset, Dataset]) -> None:
    mine = trainer()
    update = mine.precision.update

    def press_twice(*words: object) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        update(*words)

    mine.precision.update = press_twice
    with pytest.raises(KeyboardInterrupt):
        list(mine.fit(*data, epochs=1))
    with pytest.raises(UsageError, match="left a step of this trainer half done"):
        list(mine.fit(*data, epochs=1))


def test_a_handler_of_the_program_stays_in_charge(data: tuple[Dataset, Dataset]) -> None:
    came = []
    before = signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    try:
        mine = trainer()
        list(mine.fit(*data, epochs=1, watch=lambda report: signal.raise_signal(signal.SIGINT)))
    finally:
        signal.signal(signal.SIGINT, before)
    assert came == [signal.SIGINT] * 4


@pytest.mark.parametrize("work", ["fit", "evaluate", "train_step"])
def test_one_trainer_is_for_one_thread_at_a_time(work: str, data: tuple[Dataset, Dataset]) -> None:
    mine, errors = trainer(), []

    def intrude() -> None:
        try:
            if work == "fit":
                list(mine.fit(*data, epochs=1))
            elif work == "evaluate":
                mine.evaluate(data[1])
            else:
                mine.train_step(np.zeros((2, 32, 32, 3), np.float32), np.zeros(2, np.int64))
        except UsageError as error:
            errors.append(str(error))

    def watch(report: IntervalReport) -> None:
        thread = threading.Thread(target=intrude)
        thread.start()
        thread.join(timeout=30)
        mine.evaluate(data[1])  # its own thread may

    list(mine.fit(*data, epochs=1, watch=watch))
    assert errors == ["this trainer is at work in another thread: give each thread a model and a trainer"] * 4
    alone = trainer()
    list(alone.fit(*data, epochs=1))
    assert state(mine) == state(alone)


def test_fit_works_in_a_thread(data: tuple[Dataset, Dataset]) -> None:
    mine, alone = trainer(), trainer()
    thread = threading.Thread(target=lambda: list(mine.fit(*data, epochs=1)))
    thread.start()
    thread.join(timeout=60)
    list(alone.fit(*data, epochs=1))
    assert state(mine) == state(alone)


def test_fit_works_after_a_fork(data: tuple[Dataset, Dataset]) -> None:
    mine, alone = trainer(), trainer()
    list(alone.fit(*data, epochs=1))
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a fork of a process with threads
        child = os.fork()
    if child == 0:
        try:
            list(mine.fit(*data, epochs=1))
            os.write(writer, b"same" if state(mine) == state(alone) else b"other")
        finally:
            os._exit(0)
    os.close(writer)
    assert os.read(reader, 10) == b"same"
    os.close(reader)
    os.waitpid(child, 0)


@pytest.mark.parametrize("shared", ["model", "optimizer"])
def test_a_model_or_optimizer_in_two_trainers_is_refused(shared: str, data: tuple[Dataset, Dataset]) -> None:
    mine = trainer()
    parts = {"model": models.build("mlp", (32, 32, 3), 10, width=8), "optimizer": optim.SGD(lr=0.1)}
    other = Trainer(**{**parts, shared: getattr(mine, shared)}, batch_size=50)
    with pytest.raises(UsageError, match="was given to another Trainer"):
        list(mine.fit(*data, epochs=1))
    assert len(list(other.fit(*data, epochs=1))) == 1
