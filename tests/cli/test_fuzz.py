"""Extreme values for all settings and flags, some hundred of ``fuzz.py``'s cases; and special files in every place."""

from collections.abc import Iterator
from typing import Any

import pytest
from fuzz import Child, fault, furnish, run
from fuzz_cases import Case


@pytest.fixture(scope="module")
def child(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    folder = tmp_path_factory.mktemp("fuzz")
    furnish(folder)
    child = Child(folder)
    yield child
    child.stop()


def refused(child: Child, *words: str, config: str = "") -> tuple[int, str]:
    """Run a command that must end at once, in one line -> its code, the line."""
    answer: dict[str, Any] = child.run(Case(list(words), config))
    assert fault(answer) == ""
    assert answer["code"] != 0
    return answer["code"], answer["err"]


@pytest.mark.slow
def test_some_hundred_cases() -> None:
    said: list[str] = []
    assert run(200, 0, said.append) == 0, "\n".join(said)


def test_a_fault_is_seen() -> None:
    """The judge is not blind."""
    sound = {"code": 2, "err": "gpucnn: error: x\n", "seconds": 0.1}
    assert fault(sound) == ""
    for change in ({"code": "KeyError: 1"}, {"code": 0}, {"code": 9}, {"err": ""}, {"seconds": 11.0}):
        assert fault(sound | change)
    for err in (
        "Traceback (most recent call last):\n",
        "a\nb\n",
        "gpucnn: error: x\n" * 2,
        "gpucnn: error: two\nlines\n",
    ):
        assert fault(sound | {"err": err})


SPECIAL = ("fifo", "socket", "folder", "loop", "binary", "big", "empty", "/dev/zero", "/dev/null", "absent", "x" * 300)
PLACES = {
    "--config": (["train", "--max-steps", "1", "--config", "X"], {2}),
    "--resume": (["train", "--resume", "X"], {1, 4}),
    "evaluate": (["evaluate", "--checkpoint", "X"], {4}),
    "inspect": (["inspect", "X"], {1, 4}),
    "predict": (["predict", "--checkpoint", "good.h5", "X"], {1, 3}),
    "features": (["features", "X"], {1, 3}),
    "plot": (["plot", "X"], {1, 2}),
}


@pytest.mark.parametrize("file", SPECIAL, ids=lambda file: file[:10])
@pytest.mark.parametrize("place", PLACES)
def test_what_is_no_such_file_is_refused_at_once(child: Child, place: str, file: str) -> None:
    words, codes = PLACES[place]
    if (place, file) == ("--config", "empty"):
        pytest.skip("a config that changes nothing")
    code, _ = refused(child, *(file if word == "X" else word for word in words))
    assert code in codes


@pytest.mark.parametrize("command", [["plot", "good.h5"], ["augmentations", "--set", "data.augmentation.crop=1"]])
def test_no_picture_is_written_to_a_fifo(child: Child, command: list[str]) -> None:
    _, said = refused(child, *command, "--out", "fifo.png")
    assert "fifo.png: not a regular file" in said


def test_no_log_is_read_from_a_fifo(child: Child) -> None:
    refused(child, "plot", "pipe")
    refused(child, "plot", "log")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--set", "schedule.gamma=1e200"], 2, "schedule.gamma = 1e+200: give a number >= 0 and <= 10"),
        (["--set", "train.batch_size=1000000000000"], 2, "train.batch_size = 1000000000000: give a number >= 1 and <="),
        (["--set", f"train.epochs={10**30}"], 2, "train.epochs = 1000000000000000000000000000000: give a number"),
        (["--set", f"optimizer.lr=0x{'f' * 9000}"], 2, "optimizer.lr = an integer of about"),
        (["--epochs", "9" * 400], 2, "train.epochs = an integer of about 3"),
        (["--epochs", "9" * 5000], 2, "argument --epochs: invalid int value"),
        (["--lr", "1e400"], 2, "optimizer.lr = inf: give a number"),
        (["--lr", "nan"], 2, "optimizer.lr = nan: give a number"),
        (["--lr", "1e9"], 5, "NaN or infinity"),
        (["--lr", "1e30", "--set", "schedule.final=1e30", "--sched", "cosine"], 5, "the learning rate of step 1 is"),
        (["--lr", "1e20", "--set", "optimizer.groups.weight.lr=1e30"], 5, "the learning rate of step 0 is 1e+50"),
        (["--memory-limit", "9" * 400], 2, "run.memory_limit = '9999"),
        (["--threads", str(10**9)], 2, "run.threads = 1000000000: give a number >= 0 and <= 1024"),
        (["--set", "model.options.width=1000000000"], 2, "give 1 to 65536"),
        (
            ["--set", "model.options.width=65536", "--set", "model.options.depth=100"],
            2,
            "GiB or more, this machine has",
        ),
        (["--set", 'data.classes=["a\\u007f"]'], 2, r"data.classes = 'a\x7f': give at most 100 characters, none of"),
        (["--set", "train.epochs=1\nseed=2"], 2, "expected an integer"),
        (["--set", f"{'a.' * 20_000}b=1"], 2, "unknown config section a"),
        (["--set", f"model.options.{'a.' * 20_000}b=1"], 2, "model.options"),
    ],
    ids=lambda words: " ".join(words)[:40] if isinstance(words, list) else None,
)
def test_extreme_numbers_are_named_with_their_bounds(child: Child, words: list[str], code: int, said: str) -> None:
    base = ["train", "--model", "mlp", "--device", "reference", "--max-steps", "3", "--epochs", "1"]
    found, message = refused(child, *base, *words)
    assert found == code
    assert said in message
