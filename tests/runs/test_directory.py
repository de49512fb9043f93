"""The run directory: one process at a time, logs that survive, and the right checkpoint to go on from."""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from gpucnn.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from gpucnn.errors import CheckpointError, GpucnnError, UsageError
from gpucnn.runs.directory import FILES, Position, RunDirectory, find_latest, natural_order, new_path
from gpucnn.runs.log import RunLog


def checkpoint(epoch: int) -> Checkpoint:
    numbers = {"epoch": epoch, "step": 10 * epoch}
    return Checkpoint({"w": np.full(3, epoch, "float32")}, {}, progress=numbers)


def at(epoch: int) -> Position:
    return Position(10 * epoch, epoch)


def row(epoch: int) -> dict[str, float]:
    return {**history(epoch)[-1], "seconds": 0.5}


def history(epochs: int) -> list[dict[str, float]]:
    """As a checkpoint has it."""
    return [{"epoch": epoch, "test_loss": 1.0 / epoch} for epoch in range(1, epochs + 1)]


def a_run(path: Path, epochs: int) -> Path:
    """As training does it."""
    with RunDirectory(path) as run:
        run.begin("a = 1\n", {"python": "3"})
        for epoch in range(1, epochs + 1):
            run.append_metrics(row(epoch))
            run.save_last(checkpoint(epoch))
    return path


def epochs(path: Path) -> list[int]:
    return [json.loads(line)["epoch"] for line in (path / "metrics.jsonl").read_text().splitlines()]


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


# -- files --------------------------------------------------------------------------------------------------


def test_what_a_run_leaves(tmp_path: Path) -> None:
    path = a_run(tmp_path / "deep" / "run", 3)
    assert (path / "config.toml").read_text() == "a = 1\n"
    assert json.loads((path / "env.json").read_text()) == {"python": "3"}
    assert load_checkpoint(path / "last.h5").progress["epoch"] == 3
    assert load_checkpoint(path / "previous.h5").progress["epoch"] == 2
    assert epochs(path) == [1, 2, 3]
    with (path / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [{key: float(value) for key, value in found.items()} for found in rows] == [row(e) for e in (1, 2, 3)]
    assert not list(path.glob("*.tmp")) + list(path.glob(".*.tmp"))


def test_a_row_is_on_the_disk_when_append_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, synced = os.fsync, []

    def fsync(descriptor: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    RunLog(tmp_path).append(row(1))
    assert synced == ["metrics.jsonl", "metrics.csv"]
    assert (tmp_path / "metrics.csv").read_text() == "epoch,test_loss,seconds\n1,1.0,0.5\n"


def test_best_is_apart_from_last(tmp_path: Path) -> None:
    with RunDirectory(tmp_path) as run:
        run.save_best(checkpoint(1))
        run.save_last(checkpoint(2))
    assert load_checkpoint(tmp_path / "best.h5").progress["epoch"] == 1
    assert not (tmp_path / "previous.h5").exists()


def test_a_batch_is_kept(tmp_path: Path) -> None:
    with RunDirectory(tmp_path) as run:
        path = run.save_batch((np.full((2, 1, 1, 1), np.nan, "float32"), np.array([3, 4])))
    with np.load(path) as found:
        assert np.isnan(found["images"]).all()
        assert found["labels"].tolist() == [3, 4]


def test_numbers_that_json_does_not_know(tmp_path: Path) -> None:
    RunLog(tmp_path).append({"epoch": 1, "loss": float("nan")})
    assert (tmp_path / "metrics.jsonl").read_text() == '{"epoch": 1, "loss": null}\n'


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(GpucnnError, match=r"could not write .*metrics.jsonl: No space left"):
        RunLog(tmp_path).append(row(1))


# -- resuming -----------------------------------------------------------------------------------------------


def test_rows_after_the_checkpoint_are_written_again(tmp_path: Path) -> None:
    whole, parts = a_run(tmp_path / "whole", 4), a_run(tmp_path / "parts", 3)
    with (parts / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 4, "test_l')  # killed in the middle of a row
    with (parts / "metrics.csv").open("a") as file:
        file.write("4,0.2")
    damage(parts / "last.h5")
    with RunDirectory(parts, position=at(2)) as run:
        run.begin("a = 1\n", {"python": "3"}, history(2))
        assert epochs(parts) == [1, 2, 3]  # that of epoch 3 counts until a checkpoint without it is saved
        run.append_metrics(row(3))
        assert epochs(parts) == [1, 2, 3, 3]
        run.save_last(checkpoint(3))
        assert epochs(parts) == [1, 2, 3]
        run.append_metrics(row(4))
        run.save_last(checkpoint(4))
    for name in ("metrics.jsonl", "metrics.csv", "last.h5", "previous.h5"):
        assert (parts / name).read_bytes() == (whole / name).read_bytes()


def test_a_folder_with_a_run_is_refused_unless_resumed(tmp_path: Path) -> None:
    path = a_run(tmp_path / "run", 1)
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    with pytest.raises(UsageError, match=r"last.h5: .* already holds a run: add --resume auto to go on, or choose"):
        RunDirectory(path)
    assert {file.name: file.read_bytes() for file in path.iterdir() if file.name != ".lock"} == {
        name: data for name, data in before.items() if name != ".lock"
    }
    with pytest.raises(UsageError, match="already holds a run"):
        RunDirectory(path, again=True)
    RunDirectory(path, position=at(1)).close()


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("again", [False, True])
def test_a_folder_with_a_file_that_a_run_would_write_is_refused_untouched(
    name: str, again: bool, tmp_path: Path
) -> None:
    (tmp_path / name).symlink_to("nowhere") if again else (tmp_path / name).write_text("mine")
    with pytest.raises(UsageError, match=f"{name}.*choose another --output") as info:
        RunDirectory(tmp_path, again=again)
    assert info.value.exit_code == 2
    assert "\n" not in str(info.value)
    assert os.listdir(tmp_path) == [name]


def test_a_folder_with_other_files_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    a_run(tmp_path, 1)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_run_that_died_before_its_first_checkpoint_starts_again_when_asked_to(tmp_path: Path) -> None:
    with RunDirectory(tmp_path) as run:
        run.begin("a = 1\n", {})
        run.append_metrics(row(1))
    assert find_latest(tmp_path) is None
    with pytest.raises(UsageError, match=r"config.toml is there.*add --resume auto to start again"):
        RunDirectory(tmp_path)
    with RunDirectory(tmp_path, again=True) as run:
        run.begin("a = 2\n", {})
        assert epochs(tmp_path) == [1]
        run.append_metrics(row(1))
        run.save_last(checkpoint(1))
    assert epochs(tmp_path) == [1]
    assert (tmp_path / "config.toml").read_text() == "a = 2\n"


@pytest.mark.parametrize("stop", range(1, 8))
def test_killed_while_it_begins_it_begins_again(stop: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After each of its renames, the same command with --resume auto works."""
    real, done = os.replace, 0

    def replace(*words: Path) -> None:
        nonlocal done
        real(*words)
        done += 1
        if done == stop:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
        patch.setattr(os, "replace", replace)
        a_run(tmp_path, 2)
    newest = find_latest(tmp_path)
    epoch = int(load_checkpoint(newest).progress["epoch"]) if newest else 0
    with RunDirectory(tmp_path, position=at(epoch) if newest else None, again=True) as run:
        run.begin("a = 1\n", {}, history(epoch))
        run.catch_up(checkpoint(epoch), best=True)
        assert epochs(tmp_path)[:epoch] == list(range(1, epoch + 1))


def test_a_checkpoint_that_is_newer_is_not_replaced(tmp_path: Path) -> None:
    path = a_run(tmp_path / "run", 3)
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    for epoch in (1, 2):
        with pytest.raises(UsageError, match=rf"last.h5 is newer \(epoch 3, step 30\) .* \(epoch {epoch}, step"):
            RunDirectory(path, position=at(epoch))
    save_checkpoint(path / "best.h5", checkpoint(5))
    with pytest.raises(UsageError, match=r"best.h5 is newer \(epoch 5, step 50\) .*go on from .*best.h5, or choose"):
        RunDirectory(path, position=at(3))
    (path / "best.h5").unlink()
    assert {name: (path / name).read_bytes() for name in before if name != ".lock"} == {
        name: data for name, data in before.items() if name != ".lock"
    }


def test_stopped_between_its_two_saves_it_has_the_best_one_all_the_same(tmp_path: Path) -> None:
    path = a_run(tmp_path / "run", 3)
    save_checkpoint(path / "best.h5", checkpoint(2))
    with RunDirectory(path, position=at(3)) as run:
        run.begin("", {}, history(3))
        run.catch_up(checkpoint(3), best=True)
    assert load_checkpoint(path / "best.h5").progress["epoch"] == 3
    assert load_checkpoint(path / "previous.h5").progress["epoch"] == 2


def test_a_run_in_a_new_folder_begins_with_its_checkpoint_and_the_rows_of_the_old_log(tmp_path: Path) -> None:
    old = a_run(tmp_path / "old", 3)
    (old / "metrics.jsonl").write_text("".join((old / "metrics.jsonl").read_text().splitlines(True)[1:]))
    with RunDirectory(tmp_path / "new") as run:
        run.begin("", {}, history(2), old / "metrics.jsonl")
        run.catch_up(checkpoint(2), best=False)
    assert os.listdir(tmp_path / "new").count("best.h5") == 0
    assert load_checkpoint(tmp_path / "new" / "last.h5").progress["epoch"] == 2
    rows = [json.loads(line) for line in (tmp_path / "new" / "metrics.jsonl").read_text().splitlines()]
    assert [(row["epoch"], row["test_loss"], row["seconds"]) for row in rows] == [(1, 1.0, None), (2, 0.5, 0.5)]
    with (tmp_path / "new" / "metrics.csv").open(newline="") as file:
        assert [row["seconds"] for row in csv.DictReader(file)] == ["", "0.5"]


def test_a_row_of_other_numbers_is_not_that_of_the_checkpoint(tmp_path: Path) -> None:
    path = a_run(tmp_path / "run", 2)
    log = path / "metrics.jsonl"
    log.write_text(log.read_text().replace("0.5, ", "0.75, "))  # the test loss of epoch 2
    with RunDirectory(path, position=at(2)) as run:
        run.begin("", {}, history(2))
    assert [json.loads(line)["test_loss"] for line in log.read_text().splitlines()] == [1.0, 0.5]


def test_a_damaged_last_does_not_push_a_sound_previous_out(tmp_path: Path) -> None:
    path = a_run(tmp_path / "run", 2)
    damage(path / "last.h5")
    damaged = (path / "last.h5").read_bytes()
    with RunDirectory(path, position=at(1)) as run:
        run.save_last(checkpoint(2))
        assert (path / "damaged.h5").read_bytes() == damaged  # or only unreadable here and now
        assert load_checkpoint(path / "previous.h5").progress["epoch"] == 1
        run.save_last(checkpoint(3))
    assert load_checkpoint(path / "previous.h5").progress["epoch"] == 2


# -- one process at a time ----------------------------------------------------------------------------------

HOLD = """
import sys
import time
from gpucnn.runs.directory import RunDirectory
with RunDirectory(sys.argv[1]):
    print("inside", flush=True)
    sys.stdin.read()
"""


def test_the_second_process_is_refused_until_the_first_is_dead(tmp_path: Path) -> None:
    (tmp_path / ".last.h5.0123abcd.tmp").write_bytes(b"left by a crash")
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout.readline() == "inside\n"
        assert not list(tmp_path.glob(".*.tmp"))
        with pytest.raises(GpucnnError, match=f"process {child.pid} is working in .*: wait for it"):
            RunDirectory(tmp_path)
        child.send_signal(signal.SIGKILL)
        child.wait()
        RunDirectory(tmp_path).close()
    finally:
        child.kill()
        child.communicate()


def test_the_same_process_is_refused_too_and_a_failed_start_holds_nothing(tmp_path: Path) -> None:
    with RunDirectory(tmp_path) as run:
        with pytest.raises(GpucnnError, match=f"process {os.getpid()} is working"):
            RunDirectory(tmp_path)
        run.save_last(checkpoint(1))
    with pytest.raises(UsageError):
        RunDirectory(tmp_path)
    RunDirectory(tmp_path, position=at(1)).close()


def test_a_lock_that_is_none_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("my words\n")
    (tmp_path / ".lock").symlink_to(tmp_path / "thesis.txt")
    with pytest.raises(GpucnnError, match="as a run folder"):
        RunDirectory(tmp_path)
    (tmp_path / ".lock").unlink()
    (tmp_path / "thesis.txt").rename(tmp_path / ".lock")
    with pytest.raises(UsageError, match=r"\.lock is not the lock of a run"):
        RunDirectory(tmp_path)
    assert (tmp_path / ".lock").read_text() == "my words\n"


START = """
import sys
from gpucnn.errors import GpucnnError
from gpucnn.runs.directory import RunDirectory
print("ready", flush=True)
sys.stdin.readline()
try:
    with RunDirectory(sys.argv[1]) as run:
        run.begin("", {})
        print("inside", flush=True)
        sys.stdin.read()
except GpucnnError as error:
    print(error, flush=True)
"""


def test_of_several_processes_that_start_at_once_one_gets_the_folder(tmp_path: Path) -> None:
    command = [sys.executable, "-c", START, str(tmp_path / "run")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    children = [subprocess.Popen(command, **pipes) for _ in range(4)]
    try:
        assert [child.stdout.readline() for child in children] == ["ready\n"] * 4
        for child in children:
            child.stdin.write("go\n")
            child.stdin.flush()
        said = sorted(child.stdout.readline() for child in children)
        assert said.count("inside\n") == 1
        assert sum("is working in" in line or "is there, and" in line for line in said) == 3
    finally:
        for child in children:
            child.kill()
            child.communicate()


def test_places_where_no_run_can_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(GpucnnError, match="as a run folder"):
            RunDirectory(path)
    with pytest.raises(GpucnnError, match="choose another"):
        new_path(tmp_path / "file", "name")


TRAIN = """
import sys
sys.path.insert(0, sys.argv[2])
from test_directory import at, checkpoint, history, row
from gpucnn.checkpoint import load_checkpoint
from gpucnn.runs.directory import RunDirectory, find_latest
path = find_latest(sys.argv[1])
epoch = load_checkpoint(path).progress["epoch"] if path else 0
with RunDirectory(sys.argv[1], position=at(epoch) if path else None, again=True) as run:
    run.begin("a = 1", {}, history(epoch))
    print(epoch, flush=True)
    while True:
        epoch += 1
        run.append_metrics(row(epoch))
        run.save_last(checkpoint(epoch))
        run.save_best(checkpoint(epoch))
"""


def test_killed_and_resumed_again_and_again(tmp_path: Path) -> None:
    """However it died, there is a checkpoint to go on from, never an older one, and the log fits to it."""
    rng, before = random.Random(0), 0
    for _ in range(6):
        child = subprocess.Popen(
            [sys.executable, "-c", TRAIN, str(tmp_path), str(Path(__file__).parent)],
            stdout=subprocess.PIPE,
            text=True,
        )
        started = int(child.stdout.readline())
        assert started >= before
        time.sleep(rng.uniform(0.02, 0.15))
        child.kill()
        child.communicate()
        found = find_latest(tmp_path)
        before = load_checkpoint(found).progress["epoch"] if found else 0
        assert found is None or found.name == "last.h5"
    assert before > 0
    with RunDirectory(tmp_path, position=at(before)) as run:
        run.begin("a = 1", {}, history(before))
        run.append_metrics(row(before + 1))
        run.save_last(checkpoint(before + 1))
    assert epochs(tmp_path) == list(range(1, before + 2))
    assert len((tmp_path / "metrics.csv").read_text().splitlines()) == before + 2
    assert not list(tmp_path.glob(".*.tmp"))


def test_a_disk_too_full_for_the_lock_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*words: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(GpucnnError, match=r"cannot lock .*: No space left on device; choose another --output"):
        RunDirectory(tmp_path)


# -- finding ------------------------------------------------------------------------------------------------


def test_new_paths_are_dated_and_unique(tmp_path: Path) -> None:
    paths = [new_path(tmp_path / "runs", "mnist cnn/../x") for _ in range(12)]
    assert len(set(paths)) == 12
    assert all(path.is_dir() and path.parent == tmp_path / "runs" for path in paths)
    assert all(path.name[8] == "-" and path.name[16:].startswith("mnist-cnn-..-x") for path in paths)
    assert sorted(paths, key=lambda path: natural_order(path.name)) == paths


def test_step_9_is_before_step_10() -> None:
    names = ["step-10", "step-9", "step-100", "step", "20250101-000000-a-2", "20250101-000000-a-10"]
    ordered = ["20250101-000000-a-2", "20250101-000000-a-10", "step", "step-9", "step-10", "step-100"]
    assert sorted(names, key=natural_order) == ordered


def test_the_newest_run_with_a_checkpoint_is_found(tmp_path: Path) -> None:
    assert find_latest(tmp_path / "nowhere") is None
    assert find_latest(tmp_path) is None
    for name in ("run-9", "run-10", "run-2"):
        os.utime(a_run(tmp_path / name, 1) / "last.h5", (1, 1))  # at once: the later name counts
    (tmp_path / "run-11").mkdir()  # died before its first checkpoint
    (tmp_path / "notes.txt").write_text("")
    assert find_latest(tmp_path) == tmp_path / "run-10" / "last.h5"
    assert find_latest(tmp_path / "run-2") == tmp_path / "run-2" / "last.h5"
    os.utime(a_run(tmp_path / "mine", 1) / "last.h5", (2, 2))
    os.utime(tmp_path / "run-9" / "last.h5", (3, 3))  # gone on with after all others
    assert find_latest(tmp_path) == tmp_path / "run-9" / "last.h5"


def test_a_damaged_one_is_passed_over_and_that_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = a_run(tmp_path / "run-1", 2), a_run(tmp_path / "run-2", 2)
    save_checkpoint(new / "best.h5", checkpoint(1))
    told: list[str] = []
    for name, found in (
        ("last.h5", new / "previous.h5"),
        ("previous.h5", new / "best.h5"),
        ("best.h5", old / "last.h5"),
    ):
        damage(new / name)
        told.clear()
        assert find_latest(tmp_path, told.append) == found
        assert str(new / "last.h5") in told[0]
        assert len({line.partition(": ")[0] for line in told}) == len(told)
        assert "SHA-256" in told[0]
        assert told[0].endswith(f"; going on from {found}")
    damage(old / "last.h5")
    damage(old / "previous.h5")
    with pytest.raises(CheckpointError, match="none of 5 checkpoints can be loaded"):
        find_latest(tmp_path)
    assert capsys.readouterr().err == ""
    save_checkpoint(old / "best.h5", checkpoint(1))
    assert find_latest(old) == old / "best.h5"
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_the_newest_checkpoint_of_a_run_is_found(tmp_path: Path) -> None:
    """With last.h5 damaged, best.h5 may be newer than previous.h5."""
    path = a_run(tmp_path / "run", 3)
    save_checkpoint(path / "best.h5", checkpoint(3))
    damage(path / "last.h5")
    told: list[str] = []
    assert find_latest(path, told.append) == path / "best.h5"
    assert len(told) == 1


# -- TensorBoard --------------------------------------------------------------------------------------------


def scalars(folder: Path) -> list[tuple[int, str, float]]:
    """(step, tag, value) of all events, read from their records: length, its sum, message, its sum."""
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
    found = []
    for path in sorted(folder.iterdir()):
        data, at = path.read_bytes(), 0
        while at < len(data):
            length = int.from_bytes(data[at : at + 8], "little")
            event = event_pb2.Event.FromString(data[at + 12 : at + 12 + length])
            found += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
            at += 16 + length
    return found


def test_tensorboard_gets_the_numbers_of_the_log(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    with RunDirectory(tmp_path / "run") as run:
        run.begin("", {}, tensorboard=True)
        run.append_metrics(row(1))
        run.append_metrics({**row(2), "test_loss": float("nan")})
    assert scalars(tmp_path / "run" / "tensorboard") == [
        (1, "loss/test", 1.0),
        (1, "seconds", 0.5),
        (2, "seconds", 0.5),
    ]


def test_without_tensorboardx_the_flag_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with RunDirectory(tmp_path / "run") as run, pytest.raises(UsageError, match=r"pip install 'gpucnn\[tensorboard\]'"):
        run.begin("", {}, tensorboard=True)
