"""Files with a right digest and bad intentions are refused, fast, and nothing else is opened for them."""

import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from checkpoint_samples import assert_equal, edited, patched, sample
from hostile_checkpoints import CANARY, EDITS, PATCHES, WEIGHT, replace

from gpucnn.checkpoint import load_checkpoint
from gpucnn.errors import CheckpointError

opened: list[str] = []
watching = False


def note_open(event: str, arguments: tuple[object, ...]) -> None:
    by_name = not isinstance(arguments[0] if arguments else 0, int)  # a descriptor was opened before
    if watching and by_name and event in ("open", "subprocess.Popen", "os.system"):
        opened.append(str(arguments[0]))


sys.addaudithook(note_open)  # there is no way to take one away, hence ``watching``


@pytest.fixture(autouse=True)
def only_the_file_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Work beside a sound canary that links could reach, and give libhdf5 nothing to read."""
    monkeypatch.chdir(tmp_path)
    with h5py.File(CANARY, "w") as file:
        file["w"] = np.zeros((4, 3, 3, 2), "f4")
    yield
    global watching
    watching = False


def refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Load it with libhdf5 out of reach; returns the message."""
    global watching

    def no_libhdf5(*args: object, **kwargs: object) -> None:
        raise AssertionError("foreign bytes were given to libhdf5")

    def count(*args: object) -> None:
        nonlocal calls
        calls += 1

    calls = 0
    opened.clear()
    tracemalloc.start()
    watching = True
    sys.setprofile(count)  # of functions, Python's and C's, entered and left
    try:
        with monkeypatch.context() as patch:
            patch.setattr(h5py.h5f, "open", no_libhdf5)
            patch.setattr(h5py, "File", no_libhdf5)
            with pytest.raises(CheckpointError) as info:
                load_checkpoint(path)
    finally:
        sys.setprofile(None)
        watching = False
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert calls < 3_000_000  # the work that a file of a few kilobytes can ask for
    assert peak < 3 * path.stat().st_size + 32 * 2**20
    assert set(opened) <= {str(path)}
    message = str(info.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert message.isprintable()
    return message


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_file_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(edited(tmp_path / "x.h5", EDITS[name]), monkeypatch)


@pytest.mark.parametrize("name", PATCHES)
def test_a_patched_file_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(patched(tmp_path / "x.h5", PATCHES[name]), monkeypatch)


def test_it_is_the_edit_that_is_refused(tmp_path: Path) -> None:
    """Without one, and with a harmless one, the same procedure gives a file that loads."""
    assert_equal(load_checkpoint(edited(tmp_path / "a.h5", lambda file: None)), sample())
    assert_equal(load_checkpoint(patched(tmp_path / "b.h5", lambda image: None)), sample())
    new = np.arange(72, dtype="f4").reshape(4, 3, 3, 2)
    changed = load_checkpoint(edited(tmp_path / "c.h5", replace(WEIGHT, data=new)))
    assert np.array_equal(changed.parameters["features.0.weight"], new)


def test_the_message_names_the_culprit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = edited(tmp_path / "x.h5", EDITS["soft link"])
    assert "'model/features.0.weight' is a soft or external link" in refused(path, monkeypatch)
    path = edited(tmp_path / "y.h5", EDITS["NaN weights"])
    assert "'model/features.0.weight' holds NaN or infinity in 72 of 72" in refused(path, monkeypatch)
