"""Downloads from a server on this machine: the right file at its place, or nothing there."""

import fcntl
import gzip
import hashlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from data_samples import write_mnist

from gpucnn.data import DATASETS, load_dataset
from gpucnn.data.files.download import Answer, Patience, download
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

    def be_forbidden(self) -> None:
        self.send_error(403)

    def be_busy(self) -> None:
        self.send_error(429)

    def be_down(self) -> None:
        self.send_error(503)

    def be_talkative(self) -> None:
        self.wfile.write(b"HTTP/1.0 500 " + b"no " * 20_000 + b"\r\n\r\n")

    def be_encoded(self) -> None:
        self.send_response(200)
        self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        self.wfile.write(gzip.compress(BODY))

    def be_mislabelled(self) -> None:  # as servers do that take the file for an encoding of itself
        self.send_response(200)
        self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        self.wfile.write(BODY)

    def be_chunked(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for start in range(0, len(BODY), 100_000):
            part = BODY[start : start + 100_000]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
        self.wfile.write(b"0\r\n\r\n")

    def be_open(self) -> None:  # does not say that it has sent everything
        self.answer(BODY)
        self.wait()

    def be_pausing(self) -> None:
        self.send_response(200)
        self.end_headers()
        for start in range(0, len(BODY), 200_000):
            self.wfile.write(BODY[start : start + 200_000])
            time.sleep(0.1)

    def be_mute(self) -> None:
        self.wait()

    def be_dripping(self) -> None:  # the status line, the headers, each redirection: a byte at a time
        self.drip(b"HTTP/1.0 200 OK\r\nX: " + bytes(10_000))

    def be_leading(self) -> None:  # from one place to the next, none of them late
        time.sleep(0.1)
        self.send_response(302)
        self.send_header("Location", f"{self.path}x")
        self.end_headers()

    def be_continuing(self) -> None:
        with suppress(OSError):
            while True:
                self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def be_trickling(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.drip(BODY)

    def be_counting(self) -> None:  # a chunk's length is endless, and comes a digit at a time
        self.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        self.drip(b"0" * 10_000)

    def be_stuck(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(BODY[:1000])
        self.wait()

    def drip(self, data: bytes) -> None:
        with suppress(OSError):
            for i in range(len(data)):
                self.wfile.write(data[i : i + 1])
                time.sleep(0.02)

    def wait(self) -> None:
        """Until the other side has had enough."""
        with suppress(OSError):
            self.connection.recv(1)

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


@pytest.mark.parametrize("how", ["good", "silent", "moved", "mislabelled", "chunked", "open", "pausing"])
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
    "endless": "SHA-256",
    "announced": "10 bytes announced instead of 700,000",
    "html": "an HTML page",
    "gone": "HTTP 404 Not Found",
    "forbidden": "HTTP 403 ",
    "busy": "HTTP 429 Too Many Requests",
    "down": "HTTP 503 ",
    "talkative": "HTTP 500 no no",
    "encoded": "sent as gzip",
    "circular": "redirect",
    "local": "not allowed",
    "rude": "not HTTP at all",
}


@pytest.mark.parametrize(("how", "reason"), BAD.items())
def test_a_mirror_that_has_not(server: str, tmp_path: Path, how: str, reason: str) -> None:
    with pytest.raises(DataError) as caught:
        download(published(server, how), tmp_path, progress=False)
    message = str(caught.value)
    assert reason in message
    assert len(message) < 1000
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


LITTLE = Patience(silence=0.4, headers=0.4, window=0.4, rate=10_000)
SLOW = {
    "mute": r"timed out|no answer within 0\.4 seconds",
    "dripping": r"no answer within 0\.4 seconds",
    "leading": r"no answer within 0\.4 seconds",
    "continuing": r"no answer within 0\.4 seconds",
    "trickling": r"\d+ bytes in 0\.4 seconds, which is too slow",
    "counting": r"0 bytes in 0\.4 seconds, which is too slow",
    "stuck": r"1,000 bytes in 0\.4 seconds, which is too slow|timed out",
}


@pytest.mark.parametrize(("how", "reason"), SLOW.items())
def test_a_slow_mirror_is_left_for_the_next(
    server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], how: str, reason: str
) -> None:
    place = download(published(server, how, "good"), tmp_path, patience=LITTLE)
    assert place.read_bytes() == BODY
    assert everything(tmp_path) == ["set/file.bin"]
    lines = [line.removeprefix("gpucnn: ") for line in capsys.readouterr().err.splitlines()]
    assert [line.startswith("downloading") for line in lines] == [True, False, True]
    assert re.search(rf"^file\.bin: 127\.0\.0\.1:\d+: .*({reason})", lines[1])
    deadline = time.monotonic() + 20
    while any(isinstance(thread, Answer) for thread in threading.enumerate()):  # what waited for it ends too
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_time_that_writing_takes_is_not_the_mirrors(server: str) -> None:
    answer = Answer(f"{server}/good/file.bin", len(BODY), LITTLE)
    answer.start()
    answer.headers()
    got = b""
    for block in answer.body():
        time.sleep(0.3)
        got += block
    assert got == BODY


def refuse(*words: object, **options: object) -> None:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


def hang(*words: object, **options: object) -> None:
    time.sleep(2)
    refuse()


@pytest.mark.parametrize(("look_up", "reason"), [(refuse, "Name or service not known"), (hang, "no answer within")])
def test_names_that_are_not_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, look_up: Callable[..., None], reason: str
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setenv("no_proxy", "*")
    file = RemoteFile("file.bin", 1, "0" * 64, ("http://mirror.invalid/file.bin",))
    with pytest.raises(DataError, match=rf"mirror\.invalid: .*{reason}"):
        download(file, tmp_path, progress=False, patience=LITTLE)


@pytest.mark.parametrize("how", ["good", "mute"])
def test_a_mirror_without_tls(server: str, tmp_path: Path, how: str) -> None:
    file = published(server.replace("http:", "https:"), how)
    with pytest.raises(DataError, match=r"127\.0\.0\.1:\d+: .*(SSL|EOF|timed out|no answer)"):
        download(file, tmp_path, progress=False, patience=LITTLE)


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", "nonsense://[", "http://127.0.0.1:port"])
def test_a_proxy_that_does_not_work(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("http_proxy", proxy)
    monkeypatch.delenv("no_proxy")
    monkeypatch.delenv("NO_PROXY", raising=False)
    with pytest.raises(DataError, match=r"no mirror gave file\.bin \(127\.0\.0\.1:\d+: .+\)"):
        download(published(server, "good"), tmp_path, progress=False, patience=LITTLE)
    assert everything(tmp_path) == []


def test_a_command_names_the_mirrors_and_the_remedy(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from gpucnn.cli.main import main

    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("GPUCNN_DATA_DIR", raising=False)
    remote = (published(server, "gone", "html", path="mnist/file.bin"),)
    monkeypatch.setitem(DATASETS, "mnist", replace(DATASETS["mnist"], remote=remote))
    assert main(["data", "download", "mnist", "--data-dir", str(tmp_path / "data")]) == 3
    *_, last = capsys.readouterr().err.splitlines()
    assert re.search(
        r"error: no mirror gave file\.bin \(.*: HTTP 404 Not Found; .*: an HTML page\): .*--data-dir", last
    )
    assert everything(tmp_path) == []


def test_several_processes_at_once(server: str, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    for name in (".file.bin.0123abcd.tmp", ".file.bin.0123abcd.tmp~", ".other.bin.0123abcd.tmp"):
        (tmp_path / "set" / name).write_text("left")
    program = (
        "import sys\nfrom pathlib import Path\nfrom gpucnn.data.files.download import download\n"
        "from gpucnn.data.files.sources import RemoteFile\nsys.stdin.read()\n"
        f"download({published(server, 'pausing')!r}, Path({str(tmp_path)!r}), progress=False)"
    )
    processes = [subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE) for _ in range(3)]
    for process in processes:
        process.stdin.close()
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert (tmp_path / "set" / "file.bin").read_bytes() == BODY
    assert everything(tmp_path) == ["set/.file.bin.0123abcd.tmp~", "set/.other.bin.0123abcd.tmp", "set/file.bin"]


def test_links_are_not_written_through(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "set" / ".file.bin.00000000.tmp").symlink_to(tmp_path / "mine")
    monkeypatch.setattr("gpucnn.checkpoint.durable.token_hex", lambda size: "0" * 2 * size)
    with pytest.raises(DataError, match=r"cannot write .*File exists"):
        download(published(server, "good"), tmp_path, progress=False)
    monkeypatch.undo()
    (tmp_path / "set" / "file.bin").symlink_to(tmp_path / "absent")  # a link to nowhere gives way to the file
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert not download(published(server, "good"), tmp_path, progress=False).is_symlink()
    assert (tmp_path / "mine").read_text() == "mine"
    assert not (tmp_path / "absent").exists()


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


def test_a_file_that_is_taken_for_a_leftover_before_it_is_locked(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed = []

    def late(descriptor: int, how: int) -> None:  # another process has cleaned up between creation and lock
        if not removed:
            (new,) = tmp_path.glob("set/.file.bin.*.tmp")
            new.unlink()
            removed.append(new)

    monkeypatch.setattr("gpucnn.checkpoint.durable.flock", late)
    assert download(published(server, "good"), tmp_path, progress=False).read_bytes() == BODY
    assert len(removed) == 1
    assert everything(tmp_path) == ["set/file.bin"]
