"""Where data sets are searched, and where downloads go."""

import os
from pathlib import Path

import pytest

from gpucnn.data.files.sources import Source, download_place, locate, search_places, writable


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("GPUCNN_DATA_DIR", raising=False)
    return tmp_path


def test_the_order_of_the_places(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = home / ".cache" / "gpucnn"
    assert search_places() == [cache]
    assert search_places("here") == [Path("here"), cache]
    assert search_places("~/mine")[0] == home / "mine"
    monkeypatch.setenv("GPUCNN_DATA_DIR", "/elsewhere")
    assert search_places("here") == [Path("here"), Path("/elsewhere"), cache]
    monkeypatch.setenv("GPUCNN_DATA_DIR", "")
    assert search_places() == [cache]


def test_the_first_place_that_has_it_wins(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def find(place: Path) -> Path | None:
        return place / "set" if (place / "set").exists() else None

    source = Source("made up", load=lambda place: pytest.fail("not read"), find=find)
    monkeypatch.setenv("GPUCNN_DATA_DIR", str(home / "env"))
    assert locate(source, home / "flag") is None
    for place in (home / ".cache" / "gpucnn", home / "env", home / "flag"):
        (place / "set").mkdir(parents=True)
        assert locate(source, home / "flag") == place / "set"


def test_downloads_go_where_they_were_sent(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUCNN_DATA_DIR", str(home / "env"))
    assert download_place(home / "flag") == home / "flag"
    assert download_place() == home / "env"


def test_downloads_pass_over_a_place_that_cannot_be_written_to(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "file").write_text("not a folder")
    (home / "locked").mkdir()
    access = os.access
    monkeypatch.setattr("os.access", lambda path, mode: path != home / "locked" and access(path, mode))
    for place in ("file", "file/below", "locked", "locked/some/way/below"):
        assert not writable(home / place)
        monkeypatch.setenv("GPUCNN_DATA_DIR", str(home / place))
        assert download_place() == home / ".cache" / "gpucnn"
    assert writable(home / "some/way/below")
