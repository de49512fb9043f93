"""Messages say what is wrong and what to do; a word that changes nothing is refused."""

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest

from gpucnn.cli.main import main
from gpucnn.data.files.pickles import read_pickle
from gpucnn.errors import near
from gpucnn.runs.build import KINDS, without_effect
from gpucnn.runs.config import Config

Out = pytest.CaptureFixture[str]


def error(words: list[object], code: int, capsys: Out) -> str:
    """The one line of a command that fails with this code."""
    assert main([str(word) for word in words]) == code
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix("gpucnn: error: ")


def test_a_pickle_of_protocol_5_is_named() -> None:
    content = pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": [0]}, 5)
    with pytest.raises(ValueError, match=r"pickled by protocol 5.*protocol=4"):
        read_pickle(content)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data directory; there is no other."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("GPUCNN_DATA_DIR", raising=False)
    return tmp_path


CIFAR10 = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
MNIST = ["train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"]


@pytest.mark.parametrize(
    ("name", "folder", "files", "shown"),
    [
        ("cifar10", "cifar-10-batches-py", CIFAR10, "data_batch_3"),
        ("cifar10", "cifar-10-batches-bin", [f"{name}.bin" for name in CIFAR10], "test_batch.bin"),
        ("cifar100", "cifar-100-python", ["train", "test"], "test"),
        ("mnist", "MNIST/raw", MNIST, "t10k-labels-idx1-ubyte"),
        ("mnist", "", [f"{name}.gz" for name in MNIST], "train-images-idx3-ubyte.gz"),
        ("fashion_mnist", "fashion-mnist", MNIST, "train-labels-idx1-ubyte"),
    ],
)
def test_a_missing_file_is_named(name: str, folder: str, files: list[str], shown: str, data: Path, capsys: Out) -> None:
    place = data / folder
    place.mkdir(parents=True, exist_ok=True)
    for file in files:
        if file != shown:
            (place / file).touch()
    said = f"{shown.removesuffix('.gz')}{'.gz' if 'mnist' in name else ''} is missing from {place}"
    words = ["--data-dir", data]
    assert said in error(["train", "--dataset", name, "--no-download", *words], 3, capsys)
    assert main(["data", "verify", name, "--data-dir", str(data)]) == 3
    shown = capsys.readouterr()
    assert "INCOMPLETE" in shown.out
    assert said in shown.err
    for command in ("list", "doctor"):
        assert main([*(["data"] if command == "list" else []), command, "--data-dir", str(data)]) == 0
        assert said in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("words", [["train"], ["train", "--dataset", "synthetic"], ["find-lr"]])
def test_a_folder_that_is_not_used_is_refused(words: list[str], tmp_path: Path, capsys: Out) -> None:
    said = error([*words, "--data-dir", tmp_path / "photos"], 2, capsys)
    assert "photos is not used: the data set is" in said
    assert all(name in said.partition("--dataset (")[2] for name in ("mnist", "fashion_mnist", "cifar10", "cifar100"))


def test_of_a_trained_model_too(trained, tmp_path: Path, capsys: Out) -> None:
    said = error(["evaluate", "--checkpoint", trained.path, "--data-dir", tmp_path], 2, capsys)
    assert "the data set is 'digits', which is built in" in said


@pytest.mark.parametrize("words", [[], ["--repeat", "2"], ["--output", "run"], ["--output", "run", "--resume", "auto"]])
def test_without_tensorboardx_no_folder_is_left(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Out
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    monkeypatch.chdir(tmp_path)
    assert "pip install 'gpucnn[tensorboard]'" in error(["train", "--tensorboard", *words], 2, capsys)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--opt", "adam", "--momentum", "0.8"],
            "--momentum 0.8 has no effect: optimizer.name is 'adam'",
        ),
        (["--set", "optimizer.beta1=0.8"], "--set optimizer.beta1=0.8 has no effect: optimizer.name is 'sgd'"),
        (["--opt", "sgd", "--set", "optimizer.newton_schulz_steps=2"], "it is for muon"),
        (["--sched", "cosine", "--set", "schedule.gamma=0.1"], "schedule.name is 'cosine', and it is for step"),
        (["--set", "schedule.final=0.1"], "it is for cosine and one_cycle and triangular"),
        (["--mixup-prob", "0.5"], "add data.augmentation.mixup or data.augmentation.cutmix"),
        (["--set", "data.augmentation.crop_mode=reflect"], "add data.augmentation.crop"),
        (["--set", "train.lookahead_decay=0.5"], "add train.lookahead"),
    ],
)
def test_a_flag_that_changes_nothing_is_refused(words: list[str], message: str, tmp_path: Path, capsys: Out) -> None:
    assert message in error(["train", "--output", tmp_path / "run", *words], 2, capsys)
    assert not (tmp_path / "run").exists()


def test_what_a_config_holds_beside_is_no_error() -> None:
    """A run's own config.toml has all keys, also those of other optimizers."""
    used = [name for name in Config().flat() if without_effect(Config(), name) == ""]
    for name in ("optimizer.momentum", "optimizer.lr", "schedule.milestones", "train.epochs", "data.augmentation.crop"):
        assert name in used
    for table, kinds in KINDS.items():
        for kind in kinds:
            assert without_effect(Config().with_value(f"{table}.name", kind), "optimizer.lr") == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--input-shape", "8x8x1"], "--input-shape is the shape of --model's images"),
        (["--model", "mlp", "--workload", "a"], "--workload has its own model"),
        (["--explain", "--cold"], "--cold and --explain are two measurements"),
        (["--explain", "--compiled"], "--compiled is for a race"),
        (["--cold", "--no-tuned"], "--no-tuned is for a race"),
    ],
)
def test_benchmarks_that_contradict_themselves(words: list[str], message: str, capsys: Out) -> None:
    assert message in error(["benchmark", *words], 2, capsys)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["evaluate", "--checkpoint", "x.h5", "--tta", "flop"], "'flop' is unknown: did you mean 'flip'?"),
        (["evaluate", "--checkpoint", "x.h5", "--split", "tset"], "'tset' is unknown: did you mean 'test'?"),
        (["benchmark", "--mode", "evall"], "'evall' is unknown: did you mean 'eval'?"),
        (["data", "lst"], "'lst' is unknown: did you mean 'list'?"),
        (["--hepl"], "unknown flag --hepl: did you mean --help?"),
        (["--verion", "train"], "unknown flag --verion: did you mean --version?"),
    ],
)
def test_typos_meet_the_closest_match(words: list[str], message: str, capsys: Out) -> None:
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_files_that_are_not_there_meet_the_one_beside(tmp_path: Path, capsys: Out) -> None:
    for name in ("mnist_lenet.toml", "last.h5", "digit.png"):
        (tmp_path / name).touch()
    said = error(["train", "--config", tmp_path / "mnist_lenet"], 2, capsys)
    assert said.endswith(f"No such file or directory; did you mean {tmp_path}/mnist_lenet.toml?")
    assert f"did you mean {tmp_path}/last.h5?" in error(["inspect", tmp_path / "lst.h5"], 4, capsys)
    assert f"did you mean {tmp_path}/digit.png?" in error(["features", tmp_path / "digit.pgn"], 3, capsys)
    assert "did you mean auto?" in error(["train", "--resume", "atuo"], 2, capsys)
    assert near(tmp_path / "last.h5") == near(tmp_path / "nothing alike") == near(tmp_path / "no folder" / "x") == ""
