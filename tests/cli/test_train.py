"""``gpucnn train`` from the outside: files, output, exit codes, resuming, signals."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from gpucnn.backend import REFERENCE
from gpucnn.checkpoint import load_checkpoint, save_checkpoint
from gpucnn.cli import train as train_command
from gpucnn.cli.main import main
from gpucnn.cli.train import about_precision
from gpucnn.data import Dataset, load_dataset, registry
from gpucnn.errors import GpucnnError
from gpucnn.runs import directory
from gpucnn.runs.config import Config
from gpucnn.runs.state import expected_tensors

FILES = {"metrics.jsonl", "metrics.csv", "best.h5", "last.h5", "config.toml", "env.json"}
KEYS = {
    "epoch",
    "train_loss",
    "train_accuracy",
    "test_loss",
    "test_accuracy",
    "seconds",
    "images_per_second",
}
QUICK = ["train", "--device", "reference", "--set", "data.augmentation.flip=true", "--set", "data.augmentation.crop=1"]


def train(*words: object) -> int:
    return main([*QUICK, *map(str, words)])


def tensors(path: Path) -> dict[str, np.ndarray]:
    found = {}
    with h5py.File(path) as file:
        for group in ("model", "buffers", "optimizer", "history"):
            file[group].visititems(
                lambda name, item: found.update({item.name: item[()]}) if isinstance(item, h5py.Dataset) else None
            )
    return found


@pytest.fixture(scope="module")
def four_epochs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "run"
    assert train("--epochs", 4, "--output", path) == 0
    return path


def test_a_run_leaves_its_files_and_one_row_per_epoch(four_epochs: Path) -> None:
    assert {path.name for path in four_epochs.iterdir()} >= FILES
    rows = [json.loads(line) for line in (four_epochs / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    assert set(rows[0]) >= KEYS
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    config = Config.from_file(four_epochs / "config.toml")
    assert config.model.input_shape == (8, 8, 1)
    assert config.train.epochs == 4
    environment = json.loads((four_epochs / "env.json").read_text())
    assert environment["numpy"]


def test_two_epochs_and_two_more_are_the_same_bits_as_four(four_epochs: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    assert train("--epochs", 2, "--output", path) == 0
    assert main(["train", "--resume", str(path), "--epochs", "4"]) == 0
    whole, parts = tensors(four_epochs / "last.h5"), tensors(path / "last.h5")
    assert whole.keys() == parts.keys()
    assert [name for name in whole if not np.array_equal(whole[name], parts[name])] == []
    assert (path / "last.h5").read_bytes() == (four_epochs / "last.h5").read_bytes()
    assert (path / "best.h5").read_bytes() == (four_epochs / "best.h5").read_bytes()
    assert len((path / "metrics.jsonl").read_text().splitlines()) == 4


def test_a_checkpoint_with_flat_settings_of_older_versions_goes_on(four_epochs: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(four_epochs / "last.h5", expected_tensors)
    flat = checkpoint.config.replace("\n[data.augmentation]\n", "\n")
    assert flat != checkpoint.config
    save_checkpoint(tmp_path / "old.h5", replace(checkpoint, config=flat))
    for path, output in ((tmp_path / "old.h5", "old"), (four_epochs / "last.h5", "new")):
        words = ["train", "--resume", str(path), "--epochs", "5", "--output", str(tmp_path / output)]
        assert main(words) == 0
    assert (tmp_path / "old" / "last.h5").read_bytes() == (tmp_path / "new" / "last.h5").read_bytes()


def test_settings_for_a_gpu_on_a_cpu(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Mixed precision is left out and says so; graphs go without saying, unless they are asked for."""
    quick = ["train", "--device", "cpu", "--epochs", "1", "--set", "train.max_steps=2", "--amp", "fp16"]
    assert main([*quick, "--output", str(tmp_path / "amp")]) == 0
    shown = capsys.readouterr()
    assert "amp    not used: cpu computes in float32, --amp fp16 is for a GPU" in shown.out
    assert "graph" not in shown.err
    assert Config.from_file(tmp_path / "amp" / "config.toml").train.amp == "fp16"
    assert main([*quick, "--output", str(tmp_path / "graph"), "--cuda-graph", "on"]) == 2
    assert "the cpu backend has no CUDA graphs" in capsys.readouterr().err
    assert train("--epochs", 1, "--set", "train.max_steps=2", "--amp", "fp16", "--output", tmp_path / "half") == 0


def test_on_a_gpu_float32_is_told_what_it_leaves_out() -> None:
    gpu = replace(REFERENCE, tf32_kernels=lambda allowed: {})
    assert about_precision(gpu, "off").startswith("off: true float32; --amp fp16")
    assert about_precision(gpu, "fp16") == about_precision(REFERENCE, "off") == ""


def test_a_run_may_end_within_an_epoch_and_look_again(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert train("--epochs", 4, "--max-steps", 30, "--tta", "multicrop", "--output", run) == 0  # 23 steps an epoch
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2]
    result = json.loads((run / "result.json").read_text())
    assert (result["tta"], result["epoch"]) == ("multicrop", 2)
    assert result["test_loss"] != rows[-1]["test_loss"]
    assert f"tta    test accuracy {result['test_accuracy']:.4f} after epoch 2" in capsys.readouterr().out
    words = ["evaluate", "--device", "reference", "--json", "--tta", "multicrop", "--checkpoint", str(run / "last.h5")]
    assert main(words) == 0
    evaluated = json.loads(capsys.readouterr().out)
    assert (evaluated["loss"], evaluated["accuracy"]) == (result["test_loss"], result["test_accuracy"])


def test_the_number_of_threads_changes_no_bit_from_process_to_process(tmp_path: Path) -> None:
    # in one process a kernel's code is shared; only separate ones show whether compiled code differs with its caller
    for threads in ("1", "2"):
        words = ["train", "--device", "cpu", "--threads", threads, "--epochs", "1", "--output", str(tmp_path / threads)]
        subprocess.run([sys.executable, "-m", "gpucnn.cli.main", *words], check=True, capture_output=True, timeout=120)
    one, two = tensors(tmp_path / "1" / "last.h5"), tensors(tmp_path / "2" / "last.h5")
    assert [name for name in one if not np.array_equal(one[name], two[name])] == []


def test_output_says_what_happens_and_where(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert train("--epochs", 1, "--output", tmp_path / "run") == 0
    out = capsys.readouterr().out
    for word in ("digits", "mnist_cnn", "epoch 1/1", "test loss", "best.h5", str(tmp_path / "run")):
        assert word in out
    assert max(map(len, out.replace(str(tmp_path), "").splitlines())) <= 120


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--epochs", "-1"], 2, "train.epochs = -1"),
        (["--set", "optimizer.lrr=1"], 2, "did you mean optimizer.lr?"),
        (["--config", "nowhere.toml"], 2, "nowhere.toml"),
        (["--model", "lenet"], 2, "did you mean 'lenet5'?"),
        (["--model", "lenet5"], 2, "does not fit"),
        (["--dataset", "mnits"], 2, "did you mean 'mnist'?"),
        (["--device", "gpo"], 2, "device 'gpo'"),
        (["--dataset", "mnist", "--no-download"], 3, "mnist"),
        (["--device", "gpu", "--strict-device"], 6, "gpu"),
        (["--resume", "nowhere.h5"], 4, "nowhere.h5"),
        (["--lr", "1e30", "--epochs", "2"], 5, "gave NaN or infinity"),
        (["--model", "mlp", "--max-steps", "2", "--lr", "1e30", "--log-interval", "9"], 5, "NaN"),
    ],
)
def test_bad_input_is_one_line_and_its_exit_code(
    words: list[str],
    code: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GPUCNN_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    with np.errstate(all="ignore"):
        assert train("--output", tmp_path / "run", *words) == code
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1
    assert errors[0].startswith("gpucnn: error: ")
    assert message in errors[0]


def test_no_room_for_the_batch_does_not_hide_what_was_no_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(self: directory.RunDirectory, batch: object) -> Path:
        raise GpucnnError("could not save the batch: No space left on device")

    monkeypatch.setattr(directory.RunDirectory, "save_batch", full)
    with np.errstate(all="ignore"):
        assert train("--model", "mlp", "--lr", "1e30", "--output", tmp_path / "run") == 5
    said = capsys.readouterr().err
    assert "gave NaN or infinity" in said
    assert "No space left" in said


def test_a_missing_gpu_is_said_loudly_and_recorded(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from gpucnn.devices import gpu_problem

    if gpu_problem() is None:
        pytest.skip("this machine has a GPU")
    assert main(["train", "--device", "gpu", "--epochs", "1", "--output", str(tmp_path / "run")]) == 0
    warnings = [line for line in capsys.readouterr().err.splitlines() if "WARNING" in line]
    assert len(warnings) == 1
    assert "RUNNING ON THE CPU" in warnings[0]
    assert "gpu" in (tmp_path / "run" / "env.json").read_text()


def test_resuming_as_another_run_is_refused(
    four_epochs: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = ["train", "--resume", str(four_epochs / "last.h5"), "--output", str(tmp_path / "new")]
    assert main([*words, "--lr", "0.5"]) == 2
    assert "optimizer.lr = 0.05, not 0.5" in capsys.readouterr().err
    assert main([*words, "--lr", "0.5", "--epochs", "5", "--force"]) == 0
    rows = [json.loads(line) for line in (tmp_path / "new" / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5]
    assert (tmp_path / "new" / "metrics.jsonl").read_text().startswith((four_epochs / "metrics.jsonl").read_text())


@pytest.mark.parametrize("change", ["order of the images", "one label"])
def test_resuming_on_other_data_is_refused(
    change: str, four_epochs: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Data of the same shape, classes, mean and std: nothing but the digest tells them apart."""
    source = registry.DATASETS["digits"]

    def load(place: Path) -> tuple[Dataset, Dataset]:
        train, test = source.load(place)
        labels = train.labels.copy()
        labels[5] = (labels[5] + 1) % 10
        changes = {"labels": labels} if change == "one label" else {"images": train.images[::-1].copy()}
        return replace(train, **changes), test

    words = ["train", "--resume", str(four_epochs / "last.h5"), "--epochs", "5", "--output", str(tmp_path / "new")]
    with monkeypatch.context() as patch:
        patch.setitem(registry.DATASETS, "digits", replace(source, load=load))
        assert main(words) == 2
        assert "trained on other images" in capsys.readouterr().err
        assert not (tmp_path / "new").exists()
        assert main([*words, "--force"]) == 0
    resumed = ["train", "--resume", str(tmp_path / "new"), "--epochs", "6"]  # the new state is of the other data
    assert main(resumed) == 2
    assert main([*words[:-1], str(tmp_path / "same")]) == 0


def test_an_output_folder_with_a_run_in_it_is_not_overwritten(
    four_epochs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (four_epochs / "last.h5").read_bytes()
    assert train("--epochs", 1, "--output", four_epochs) == 2
    assert "--resume" in capsys.readouterr().err
    assert (four_epochs / "last.h5").read_bytes() == before


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a run but its lock."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


@pytest.fixture(scope="module")
def perceptron(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four epochs whose best.h5 is of the second."""
    folder = tmp_path_factory.mktemp("perceptron")
    for epochs in (2, 4):
        assert train("--model", "mlp", "--epochs", epochs, "--output", folder / str(epochs)) == 0
    short, whole = (load_checkpoint(folder / name / "last.h5") for name in ("2", "4"))
    save_checkpoint(folder / "4" / "best.h5", replace(short, config=whole.config))
    return folder / "4"


@pytest.fixture
def older(perceptron: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, in the current folder."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(perceptron, tmp_path / "run"))


@pytest.mark.parametrize("name", ["best.h5", "previous.h5", "link.h5", "copy/best.h5"])
def test_from_an_older_checkpoint_a_run_goes_on_in_a_new_folder(
    name: str, older: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (older.parent / "copy").mkdir()
    shutil.copy(older / "best.h5", older.parent / "copy" / "best.h5")
    (older.parent / "link.h5").symlink_to(older / "best.h5")
    before, copied = contents(older), contents(older.parent / "copy")
    path = older / name if (older / name).exists() else older.parent / name
    for _ in range(2):
        assert main(["train", "--resume", str(path)]) == 0
        said = capsys.readouterr().out
        assert "this run goes on in a new folder" in said
        if path.parent != older.parent / "copy":
            assert f"{older / 'last.h5'} is newer (epoch 4, step 92)" in said
    assert (contents(older), contents(older.parent / "copy")) == (before, copied)
    for folder in (older.parent / "runs").iterdir():
        assert (folder / "last.h5").read_bytes() == before["last.h5"]
        assert len((folder / "metrics.jsonl").read_text().splitlines()) == 4


def test_an_older_checkpoint_does_not_go_on_in_its_own_folder(older: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(older)
    for more in ([], ["--force"]):
        assert main(["train", "--resume", str(older / "best.h5"), "--output", str(older), *more]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "last.h5 is newer (epoch 4, step 92) than the checkpoint to go on from (epoch 2, step 46)" in line
    assert contents(older) == before


def test_a_link_to_the_newest_checkpoint_goes_on_in_its_run(older: Path) -> None:
    (older.parent / "link.h5").symlink_to(older / "last.h5")
    assert main(["train", "--resume", "link.h5", "--epochs", "5"]) == 0
    assert len((older / "metrics.jsonl").read_text().splitlines()) == 5
    assert not (older.parent / "runs").exists()


def test_the_files_beside_a_config_are_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.toml").write_text("# mine\n[train]\nepochs = 1\n")
    (tmp_path / "metrics.csv").write_text("mine")
    before = contents(tmp_path)
    for more in ([], ["--resume", "auto"], ["--force"]):
        assert train("--config", tmp_path / "config.toml", "--output", tmp_path, *more) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"{tmp_path / 'config.toml'} is there, and a run would replace it: choose another --output" in line
    assert contents(tmp_path) == before
    assert not (tmp_path / ".lock").exists()


def test_other_test_images_are_noticed(
    older: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def changed(args: object, config: Config) -> tuple[Dataset, Dataset]:
        train, test = load_dataset("digits")
        return train, replace(test, images=test.images ^ np.uint8(1))

    monkeypatch.setattr(train_command, "load_data", changed)
    words = ["train", "--resume", str(older), "--epochs", "5", "--output", str(tmp_path / "new")]
    assert main(words) == 2
    assert "was tested on other images" in capsys.readouterr().err
    assert main([*words, "--force"]) == 0


@pytest.mark.parametrize(("first", "then"), [(30, 40), (30, 0), (46, 60), (30, 46)])
def test_more_steps_are_the_same_bits_as_all_of_them_at_once(
    first: int, then: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """23 steps are an epoch: the one that --max-steps ended goes on."""
    words = ["--model", "mlp", "--sched", "constant", "--ema", "0.9", "--epochs", 3]
    one, parts = tmp_path / "one", tmp_path / "parts"
    assert train(*words, "--max-steps", then, "--output", one) == 0
    assert train(*words, "--max-steps", first, "--output", parts) == 0
    assert main(["train", "--resume", str(parts), "--max-steps", str(then)]) == 0
    assert (parts / "last.h5").read_bytes() == (one / "last.h5").read_bytes()
    rows = [[json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in (one, parts)]
    for row in (*rows[0], *rows[1]):
        del row["seconds"], row["images_per_second"]
    assert rows[0] == rows[1]
    capsys.readouterr()
    before = (parts / "last.h5").read_bytes()
    assert main(["train", "--resume", str(parts), "--max-steps", "5"]) == 0
    assert "all 5 steps are done; give a larger --max-steps to go on" in capsys.readouterr().out
    assert (parts / "last.h5").read_bytes() == before


def test_a_schedule_that_stretches_with_the_steps_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--model", "mlp", "--sched", "cosine", "--output", tmp_path / "run"]
    assert train(*words, "--max-steps", 20) == 0
    assert main(["train", "--resume", str(tmp_path / "run"), "--max-steps", "30"]) == 0
    assert "the cosine schedule now spans 30 steps instead of 20: the learning rate jumps" in capsys.readouterr().out


@pytest.mark.parametrize(
    "more",
    [
        ["--ema", "0.5"],
        ["--set", "train.lookahead=1"],
        ["--patience", "1"],
        ["--opt", "adamw", "--lr", "1e30"],
        ["--repeat", "2"],
    ],
)
def test_a_test_loss_that_is_no_number_is_no_success(
    more: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--model", "mlp", "--set", "model.options.width=16", "--max-steps", 2, "--lr", "1e9", *more]
    with np.errstate(all="ignore"):
        assert train(*words, "--output", tmp_path / "run") == 5
    assert not [path for path in tmp_path.rglob("*.h5") if path.name == "best.h5"]
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_resumed_run_whose_test_loss_is_no_number_keeps_its_checkpoints(older: Path) -> None:
    before = contents(older)
    words = ["--resume", older, "--force", "--epochs", 6, "--lr", "1e30"]
    with np.errstate(all="ignore"):
        assert train(*words) == 5
    for name in ("last.h5", "previous.h5", "metrics.jsonl", "metrics.csv"):
        assert (older / name).read_bytes() == before[name]
    assert load_checkpoint(older / "best.h5").progress["epoch"] == 4


def test_resume_auto_starts_where_there_is_nothing_and_goes_on_where_there_is(tmp_path: Path) -> None:
    path = tmp_path / "run"
    assert train("--epochs", 1, "--output", path, "--resume", "auto") == 0
    assert train("--epochs", 2, "--output", path, "--resume", "auto") == 0
    assert len((path / "metrics.jsonl").read_text().splitlines()) == 2
    words = ["--model", "mlp", "--epochs", 1, "--output", tmp_path, "--resume", "auto"]
    assert train(*words) == 0  # not from the run below it
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize("name", ["last.h5", "best.h5"])
def test_a_disk_that_is_full_between_two_saves_loses_neither(
    name: str, four_epochs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whichever of the epoch's two files does not find room: the resumed run has both, and said nothing before."""
    real = directory.save_checkpoint

    def full(path: Path, *words: object, **options: object) -> None:
        if path.name == name:
            raise GpucnnError(f"could not save {path}: No space left on device")
        real(path, *words, **options)

    folder = tmp_path / "run"
    monkeypatch.setattr(directory, "save_checkpoint", full)
    assert train("--epochs", 4, "--output", folder) == 1
    assert "epoch 1/4" not in capsys.readouterr().out
    monkeypatch.setattr(directory, "save_checkpoint", real)
    assert train("--epochs", 4, "--output", folder, "--resume", "auto") == 0
    for saved in ("last.h5", "best.h5"):
        assert (folder / saved).read_bytes() == (four_epochs / saved).read_bytes()


def test_what_is_said_to_be_saved_is_there(
    four_epochs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that goes on in another folder, first with nothing to do, then for an epoch that is worse."""
    words = ["--resume", four_epochs / "last.h5", "--force", "--output"]
    for name, *more in (["same"], ["new", "--epochs", 5, "--lr", 1, "--clip-grad", 1]):
        assert train(*words, tmp_path / name, *more) == 0
        named = re.findall(rf"{re.escape(str(tmp_path))}\S+\.(?:h5|jsonl)", capsys.readouterr().out)
        assert [path for path in named if not Path(path).exists()] == []
    assert f"{tmp_path / 'new' / 'last.h5'}" in named


@pytest.mark.parametrize(("kind", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_saves_and_the_resumed_run_has_the_same_bits(
    kind: signal.Signals, code: int, four_epochs: Path, tmp_path: Path
) -> None:
    path = tmp_path / "run"
    command = [sys.executable, "-m", "gpucnn.cli.main", *QUICK, "--epochs", "4", "--output", str(path)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in child.stdout:  # the first epoch is over, the second under way
        if line.startswith("epoch 1/4"):
            time.sleep(0.05)
            child.send_signal(kind)
            break
    rest, _ = child.communicate(timeout=60)
    assert child.returncode == code
    assert "go on with" in rest
    assert main(["train", "--resume", str(path)]) == 0
    assert (path / "last.h5").read_bytes() == (four_epochs / "last.h5").read_bytes()
    assert len((path / "metrics.jsonl").read_text().splitlines()) == 4


def test_a_run_under_nohup_outlives_its_terminal(four_epochs: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    command = ["nohup", sys.executable, "-m", "gpucnn.cli.main", *QUICK, "--epochs", "4", "--output", str(path)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in child.stdout:
        if line.startswith("epoch 1/4"):
            child.send_signal(signal.SIGHUP)
            break
    child.communicate(timeout=60)
    assert child.returncode == 0
    assert (path / "last.h5").read_bytes() == (four_epochs / "last.h5").read_bytes()


def test_a_signal_saves_where_nobody_reads_the_output_any_more(four_epochs: Path, tmp_path: Path) -> None:
    """As with ``gpucnn train 2>&1 | tee log``: Ctrl-C ends both."""
    path = tmp_path / "run"
    command = [sys.executable, "-m", "gpucnn.cli.main", *QUICK, "--epochs", "4", "--output", str(path)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    for line in child.stdout:
        if line.startswith("epoch 1/4"):
            child.stdout.close()
            time.sleep(0.05)
            child.send_signal(signal.SIGINT)
            break
    assert child.wait(timeout=60) == 130
    assert main(["train", "--resume", str(path)]) == 0
    assert (path / "last.h5").read_bytes() == (four_epochs / "last.h5").read_bytes()


WITHOUT_NUMBA = """
import sys
from importlib.machinery import PathFinder
whole = PathFinder.find_spec
PathFinder.find_spec = classmethod(lambda cls, name, *rest: None if name == "numba" else whole(name, *rest))
from gpucnn.cli import train as train_command
from gpucnn.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def test_without_numba_it_trains_all_the_same_and_says_so(tmp_path: Path) -> None:
    def run(*words: object) -> str:
        command = [sys.executable, "-c", WITHOUT_NUMBA, *map(str, words)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    remedy = "Numba is not installed: pip install numba"
    printed = run("train", "--device", "cpu", "--epochs", 1, "--output", tmp_path / "run").splitlines()
    assert any(f"NO KERNELS: {remedy}" in line for line in printed[:8])
    assert (tmp_path / "run" / "last.h5").exists()
    assert remedy in " ".join(run("doctor").split())
