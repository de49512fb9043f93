"""Downloads from a server on this machine: the right file at its place, or nothing there."""

import fcntl
import gzip
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from data_samples import write_mnist

from gpucnn.data import DATASETS, load_dataset
from gpucnn.data.files.download import download
from gpucnn.data.files.sources import RemoteFile
from gpucnn.errors import DataError

BODY = os.urandom(700_000)


class Mirror(BaseHTTPRequestHandler):
    """Answers as good and bad mirrors do, by the first part of the path."""

    files: dict[str, bytes] = {}
    asked: list[str] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        how = self.path.split("/")[1]
        getattr(self, f"be_{how}")()

    def answer(self, body: bytes, kind: str = "application/gzip", length: int | None = None) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(body)

    def be_good(self) -> None:
        self.answer(BODY, length=len(BODY))

    def be_silent(self) -> None:
        self.answer(BODY)  # says nothing of the length

    def be_wrong(self) -> None:
        self.answer(bytes(len(BODY)), length=len(BODY))

    def be_short(self) -> None:
        self.answer(BODY[:-1], length=len(BODY))

    def be_shorter(self) -> None:
        self.answer(BODY[:1000])

    def be_endless(self) -> None:
        self.send_response(200)
        self.end_headers()
        try:
            while True:
                self.wfile.write(bytes(1 << 16))
        except OSError:
            pass  # the other side has had enough

    def be_announced(self) -> None:
        self.answer(b"x" * 10, length=10)

    def be_html(self) -> None:
        self.answer(BODY, "text/html; charset=utf-8", len(BODY))

    def be_gone(self) -> None:
        self.send_error(404)

    def be_moved(self) -> None:
        self.send_response(302)
        self.send_header("Location", self.path.replace("/moved/", "/good/"))
        self.end_headers()

    def be_circular(self) -> None:
        self.send_response(302)
        self.send_header("Location", self.path)
        self.end_headers()

    def be_local(self) -> None:
        self.send_response(302)
        self.send_header("Location", "file:///etc/passwd")
        self.end_headers()

    def be_rude(self) -> None:
        self.wfile.write(b"not HTTP at all\r\n\r\n")

    def be_slow(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        try:
            self.wfile.write(BODY[:300_000])
            self.wfile.flush()
            time.sleep(20)
        except OSError:
            pass

    def be_set(self) -> None:
        body = self.files[self.path.rpartition("/")[2]]
        self.answer(body, length=len(body))

    def log_message(self, *ignored: object) -> None:
        """Quiet."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of the mirrors."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(Mirror, "asked", [])
    with ThreadingHTTPServer(("127.0.0.1", 0), Mirror) as running:
        running.daemon_threads = True
        running.block_on_close = False
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def published(server: str, *mirrors: str, path: str = "set/file.bin") -> RemoteFile:
    digest = hashlib.sha256(BODY).hexdigest()
    return RemoteFile(path, len(BODY), digest, tuple(f"{server}/{how}/file.bin" for how in mirrors))


def everything(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("how", ["good", "silent", "moved"])
def test_a_mirror_that_has_it(server: str, tmp_path: Path, how: str) -> None:
    place = download(published(server, how), tmp_path / "new" / "folder", progress=False)
    assert place == tmp_path / "new" / "folder" / "set" / "file.bin"
    assert place.read_bytes() == BODY
    assert everything(tmp_path) == ["new/folder/set/file.bin"]
    umask = os.umask(0)
    os.umask(umask)
    assert place.stat().st_mode & 0o777 == 0o666 & ~umask


BAD = {
    "wrong": "SHA-256",
    "short": "699,999 bytes instead of 700,000",
    "shorter": "1,000 bytes instead of 700,000",
    "endless": "more than 700,000 bytes",
    "announced": "10 bytes announced instead of 700,000",
    "html": "an HTML page",
    "gone": "Not Found",
    "circular": "redirect",
    "local": "not allowed",
    "rude": "not HTTP at all",
}


@pytest.mark.parametrize(("how", "reason"), BAD.items())
def test_a_mirror_that_has_not(server: str, tmp_path: Path, how: str, reason: str) -> None:
    with pytest.raises(DataError) as caught:
        download(published(server, how), tmp_path, progress=False)
    message = str(caught.value)
    assert reason in message or "IncompleteRead" in message
    for part in (
        "no mirror gave file.bin",
        "127.0.0.1",
        str(tmp_path / "set"),
        "--data-dir",
        "GPUCNN_DATA_DIR",
        "digits",
    ):
        assert part in message
    assert "\n" not in message
    assert everything(tmp_path) == []


@pytest.mark.parametrize("how", BAD)
def test_the_next_mirror_is_asked(server: str, tmp_path: Path, how: str) -> None:
    place = download(published(server, how, "good"), tmp_path, progress=False)
    assert place.read_bytes() == BODY
    assert everything(tmp_path) == ["set/file.bin"]


def test_the_first_mirror_is_down(server: str, tmp_path: Path) -> None:
    file = published(server, "good")
    file = replace(file, mirrors=("http://127.0.0.1:9/file.bin", "nonsense://x/file.bin", *file.mirrors))
    assert download(file, tmp_path, progress=False).read_bytes() == BODY


def test_all_mirrors_and_their_reasons_are_named(server: str, tmp_path: Path) -> None:
    file = replace(published(server, "gone"), mirrors=("http://127.0.0.1:9/file.bin", f"{server}/html/x"))
    with pytest.raises(DataError, match=r"127\.0\.0\.1:9: .*refused; 127\.0\.0\.1:\d+: an HTML page"):
        download(file, tmp_path, progress=False)


def test_a_file_that_is_there_is_not_fetched(server: str, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "file.bin").write_bytes(b"mine")
    assert download(published(server, "good"), tmp_path, progress=False).read_bytes() == b"mine"
    assert Mirror.asked == []


def test_a_place_that_cannot_be_written_to(server: str, tmp_path: Path) -> None:
    (tmp_path / "set").write_text("a file where a folder should be")
    with pytest.raises(DataError, match=r"cannot write .*set/file.bin: .*--data-dir"):
        download(published(server, "good"), tmp_path, progress=False)


def test_a_full_disk_is_not_the_mirrors_fault(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(DataError, match=r"cannot write .*No space left on device"):
        download(published(server, "good", "good"), tmp_path, progress=False)
    assert len(Mirror.asked) == 1
    assert everything(tmp_path) == []


def test_ctrl_c_leaves_nothing(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        download(published(server, "good"), tmp_path, progress=False)
    assert everything(tmp_path) == []


def test_a_killed_download_leaves_nothing_at_the_place(server: str, tmp_path: Path) -> None:
    file = published(server, "slow")
    program = (
        "from pathlib import Path\nfrom gpucnn.data.files.download import download\n"
        "from gpucnn.data.files.sources import RemoteFile\n"
        f"download({file!r}, Path({str(tmp_path)!r}), progress=False)"
    )
    with subprocess.Popen([sys.executable, "-c", program]) as process:
        deadline = time.monotonic() + 20
        while not (left := list(tmp_path.glob("set/.file.bin.*.tmp"))) or left[0].stat().st_size == 0:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert not (tmp_path / "set" / "file.bin").exists()
    assert download(published(server, "good"), tmp_path, progress=False).read_bytes() == BODY
    assert everything(tmp_path) == ["set/file.bin"]  # what was left is gone too


def test_what_another_process_is_writing_is_left_alone(server: str, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    with (tmp_path / "set" / ".file.bin.0123abcd.tmp").open("wb") as half:
        fcntl.flock(half, fcntl.LOCK_EX)
        download(published(server, "good"), tmp_path, progress=False)
    assert everything(tmp_path) == ["set/.file.bin.0123abcd.tmp", "set/file.bin"]


def test_without_a_terminal_progress_is_one_line(
    server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    download(published(server, "good"), tmp_path)
    lines = capsys.readouterr()
    assert lines.err.startswith("gpucnn: downloading file.bin (0.7 MB) from 127.0.0.1:")
    assert lines.err.count("\n") == 1
    assert lines.out == ""


def test_on_a_terminal_progress_is_a_bar(
    server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    download(published(server, "good"), tmp_path)
    assert "100%" in capsys.readouterr().err


def test_a_whole_data_set_is_fetched_once(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("GPUCNN_DATA_DIR", raising=False)
    write_mnist(tmp_path / "published")
    files = {path.name: path.read_bytes() for path in (tmp_path / "published").iterdir()}
    monkeypatch.setattr(Mirror, "files", files)
    remote = tuple(
        RemoteFile(f"mnist/{name}", len(body), hashlib.sha256(body).hexdigest(), (f"{server}/set/{name}",))
        for name, body in files.items()
    )
    monkeypatch.setitem(DATASETS, "mnist", replace(DATASETS["mnist"], remote=remote))
    for _ in range(2):
        train, test = load_dataset("mnist", progress=False)
        assert (len(train), len(test)) == (5, 3)
    assert sorted(path.rpartition("/")[2] for path in Mirror.asked) == sorted(files)
    lost = tmp_path / "home/.cache/gpucnn/mnist/t10k-labels-idx1-ubyte.gz"
    lost.unlink()
    with pytest.raises(DataError, match="mnist is missing or incomplete"):
        load_dataset("mnist", download=False)
    load_dataset("mnist", progress=False)
    assert gzip.decompress(lost.read_bytes())[:4] == b"\0\0\x08\x01"
    assert len(Mirror.asked) == 5
