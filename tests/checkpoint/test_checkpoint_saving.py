"""A save that is killed or fails leaves the old checkpoint or the new one, and never a half."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from checkpoint_samples import assert_equal, sample

from gpucnn.checkpoint import durable, load_checkpoint, save_checkpoint
from gpucnn.errors import GpucnnError

ROOT = Path(__file__).resolve().parents[2]


def test_killed_damaged_and_attacked_in_small() -> None:
    """The campaign whose large runs docs/checkpoint.md reports: every system call of a save six times."""
    script = ROOT / "benchmarks" / "checkpoint_torture.py"
    command = [sys.executable, str(script), "--kills", "240", "--mutations", "600", "--sealed", "1500"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["kills"]["kills"] == 240
    assert found["kills"]["lost"] == 0
    assert 12 * found["kills"]["system_calls_of_a_save"] <= 240
    assert found["kills"]["leftovers_seen"] > 0  # or nothing was killed half-way
    assert found["kills"]["leftovers_not_cleaned"] == 0
    assert found["mutations"]["refused"] == 600
    assert found["sealed"]["loaded"] > 0
    assert found["sealed"]["refused"] > 0


class Recorder:
    """Stands in for ``os`` and notes the calls, each with the file's name."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.names: dict[int, str] = {}

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in ("open", "write", "fsync", "link", "replace"):
            return real

        def call(first: Any, *rest: Any, **kwargs: Any) -> Any:
            result = real(first, *rest, **kwargs)
            if name == "open":
                self.names[result] = Path(first).name
            else:
                self.calls.append((name, self.names[first] if isinstance(first, int) else Path(first).name))
            return result

        return call


def test_a_power_cut_would_find_the_contents_before_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All writes -> fsync of the file -> rename -> fsync of the folder; the old one is kept in between."""
    save_checkpoint(tmp_path / "last.h5", sample(1))
    recorder = Recorder()
    monkeypatch.setattr(durable, "os", recorder)
    save_checkpoint(tmp_path / "last.h5", sample(2), keep=tmp_path / "previous.h5")
    (name,) = {name for call, name in recorder.calls if call == "write"}
    assert name.startswith(".last.h5.")
    calls = [(call, "temporary" if found == name else found) for call, found in recorder.calls]
    middle = next(i for i, (call, _) in enumerate(calls) if call != "write")
    assert calls[:middle] == [("write", "temporary")] * middle
    (link, rename) = calls[middle + 1 : middle + 3]
    assert calls[middle] == ("fsync", "temporary")
    assert link == ("link", "last.h5")
    assert rename[0] == "replace"
    assert rename[1].startswith(".previous.h5.")
    assert calls[middle + 3 :] == [("replace", "temporary"), ("fsync", tmp_path.name)]
    assert_equal(load_checkpoint(tmp_path / "last.h5"), sample(2))
    assert_equal(load_checkpoint(tmp_path / "previous.h5"), sample(1))


@pytest.mark.parametrize("call", ["open", "write", "fsync", "link", "replace"])
@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "No space left"),
        (errno.EIO, "Input/output error"),
        (errno.EROFS, "Read-only file system"),
        (errno.EDQUOT, "quota"),
    ],
)
def test_a_failing_call_leaves_the_old_one_and_says_so(
    call: str, number: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(number, os.strerror(number))

    path = tmp_path / "last.h5"
    save_checkpoint(path, sample(1))
    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(GpucnnError) as info:
            save_checkpoint(path, sample(2), keep=tmp_path / "previous.h5")
    assert str(info.value).startswith(f"could not save {path}: ")
    assert words in str(info.value)
    assert info.value.exit_code == 1
    assert_equal(load_checkpoint(path), sample(1))
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".tmp")]


def test_a_disk_that_fills_up_half_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, written = os.write, 0

    def write(descriptor: int, data: memoryview) -> int:
        nonlocal written
        if written >= 3000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written += real(descriptor, data[:1000])
        return min(len(data), 1000)

    path = tmp_path / "last.h5"
    save_checkpoint(path, sample(1))
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        with pytest.raises(GpucnnError, match="No space left"):
            save_checkpoint(path, sample(2))
    assert written == 3512  # the block, and three parts
    assert_equal(load_checkpoint(path), sample(1))
    assert os.listdir(tmp_path) == ["last.h5"]


def test_short_writes_are_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:777]))
    save_checkpoint(tmp_path / "last.h5", sample(1))
    assert_equal(load_checkpoint(tmp_path / "last.h5"), sample(1))


def test_the_limit_on_file_sizes(tmp_path: Path) -> None:
    """A real one, in a process of its own."""
    path = tmp_path / "last.h5"
    save_checkpoint(path, sample(1))
    code = (
        f"import resource, sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from checkpoint_samples import sample\n"
        "from gpucnn.checkpoint import save_checkpoint\n"
        "from gpucnn.errors import GpucnnError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try:\n"
        f"    save_checkpoint({str(path)!r}, sample(2))\n"
        "except GpucnnError as error:\n"
        "    sys.exit(str(error))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "File too large" in done.stderr
    assert_equal(load_checkpoint(path), sample(1))
    assert os.listdir(tmp_path) == ["last.h5"]


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_during_a_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(descriptor: int) -> None:
        signal.raise_signal(signal.SIGINT)

    path = tmp_path / "last.h5"
    save_checkpoint(path, sample(1))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(path, sample(2))
    assert_equal(load_checkpoint(path), sample(1))
    assert os.listdir(tmp_path) == ["last.h5"]


def test_places_where_nothing_can_be_saved(tmp_path: Path) -> None:
    with pytest.raises(GpucnnError, match=r"could not save .*nowhere"):
        save_checkpoint(tmp_path / "nowhere" / "last.h5", sample())
    (tmp_path / "last.h5").mkdir()
    with pytest.raises(GpucnnError, match=r"could not save .*folder"):
        save_checkpoint(tmp_path / "last.h5", sample())
    assert os.listdir(tmp_path) == ["last.h5"]


def test_leftovers_of_the_dead_go_and_those_of_the_living_stay(tmp_path: Path) -> None:
    import fcntl

    dead, alive, foreign = (
        tmp_path / name for name in (".last.h5.0123abcd.tmp", ".last.h5.89abcdef.tmp", ".last.h5.backup.tmp")
    )
    for file in (dead, alive, foreign):
        file.write_bytes(b"half")
    descriptor = os.open(alive, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        save_checkpoint(tmp_path / "last.h5", sample())
        assert sorted(os.listdir(tmp_path)) == sorted([alive.name, foreign.name, "last.h5"])
    finally:
        os.close(descriptor)


def test_a_temporary_file_never_is_one_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where somebody knows its name in advance, and has put a link there."""
    (tmp_path / "thesis.txt").write_text("my words")
    (tmp_path / ".last.h5.00000000.tmp").symlink_to("thesis.txt")
    monkeypatch.setattr(durable, "token_hex", lambda count: "0" * 2 * count)
    with pytest.raises(GpucnnError, match=r"could not save .*File exists"):
        save_checkpoint(tmp_path / "last.h5", sample())
    assert (tmp_path / "thesis.txt").read_text() == "my words"
    assert sorted(os.listdir(tmp_path)) == [".last.h5.00000000.tmp", "thesis.txt"]


def test_a_temporary_file_that_was_cleaned_before_it_was_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, cleaned = durable.flock, []

    def flock(descriptor: int, kind: int) -> None:
        if not cleaned:  # another process is faster
            cleaned.extend(name for name in os.listdir(tmp_path) if name.endswith(".tmp"))
            os.unlink(tmp_path / cleaned[0])
        real(descriptor, kind)

    monkeypatch.setattr(durable, "flock", flock)
    save_checkpoint(tmp_path / "last.h5", sample(3))
    assert len(cleaned) == 1
    assert_equal(load_checkpoint(tmp_path / "last.h5"), sample(3))
    assert os.listdir(tmp_path) == ["last.h5"]


def test_a_temporary_file_is_locked_until_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or another process that saves there would take it for a leftover."""
    real = os.replace

    def replace(source: Path, target: Path) -> None:
        durable.clean_leftovers(tmp_path / "last.h5")
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        save_checkpoint(tmp_path / "last.h5", sample(3))
    assert_equal(load_checkpoint(tmp_path / "last.h5"), sample(3))


def test_cleaning_leaves_what_is_no_leftover(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("my words")
    (tmp_path / ".last.h5.00000001.tmp").symlink_to("mine")
    os.mkfifo(tmp_path / ".last.h5.00000002.tmp")
    (tmp_path / ".last.h5.00000003.tmp").mkdir()
    before = sorted(os.listdir(tmp_path))
    save_checkpoint(tmp_path / "last.h5", sample())
    assert sorted(os.listdir(tmp_path)) == sorted([*before, "last.h5"])


def test_a_file_system_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    for seed in (1, 2, 3):
        save_checkpoint(tmp_path / "last.h5", sample(seed), keep=tmp_path / "previous.h5")
    assert_equal(load_checkpoint(tmp_path / "last.h5"), sample(3))
    assert os.listdir(tmp_path) == ["last.h5"]  # none is kept, and none is ever missing


def test_what_is_no_file_stays(tmp_path: Path) -> None:
    """As root a rename would put a file into the place of /dev/null."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(GpucnnError, match="not a regular file"):
        durable.replace_file(tmp_path / "pipe", [b"x"])
    assert (tmp_path / "pipe").is_fifo()
