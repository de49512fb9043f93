"""Downloads that leave either the publisher's whole file at its place, or nothing.

A mirror's answer goes to a temporary file in the same folder, which is renamed if size and SHA-256 are right
(``checkpoint.durable``).
After any other answer (an error page, a short body, other bytes, silence, a trickle) the next mirror is tried.
"""

import hashlib
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from pathlib import Path
from queue import Empty, Queue
from socket import SHUT_RDWR, socket
from threading import Event, Thread
from time import monotonic
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit

from gpucnn.data.files.sources import RemoteFile
from gpucnn.errors import DataError
from gpucnn.terminal import is_terminal, tell

CHUNK = 256 * 1024  # bytes
AHEAD = 4  # chunks received before they are asked for
LONGEST = 200  # characters of a reason


@dataclass(frozen=True)
class Patience:
    """How long a mirror is waited for.

    Attributes:
        silence: seconds without a byte, and for each of its addresses to be reached.
        headers: seconds until the last header of the last redirection.
        window, rate: seconds of waiting for the body, in which at least ``rate`` bytes per second must come.
    """

    silence: float = 10.0
    headers: float = 30.0
    window: float = 30.0
    rate: float = 1000.0


PATIENCE = Patience()


class MirrorError(Exception):
    """Why a mirror did not give the file."""


def download(file: RemoteFile, folder: Path, *, progress: bool = True, patience: Patience = PATIENCE) -> Path:
    """Fetch a file to its place below a data directory, unless it is there -> that place.

    Args:
        folder: the data directory; made where it does not exist.
        progress: show a bar on a terminal, a line elsewhere, and why a mirror is left, all on standard error.

    Raises:
        DataError: no mirror gave the file (the message says how to do without a network), or it cannot be written.
    """
    from gpucnn.checkpoint.durable import replace_atomically  # imports h5py

    target = folder / file.path
    if target.exists():
        return target
    reasons = []
    for url in file.mirrors:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            replace_atomically(target, fetch(url, file, progress, patience))
            return target
        except MirrorError as error:
            reasons.append(f"{urlsplit(url).netloc}: {error}")
            if progress:
                tell(f"{target.name}: {reasons[-1]}")
        except OSError as error:
            why = error.strerror or error
            raise DataError(f"cannot write {target}: {why}; name a folder with room with --data-dir") from None
    raise DataError(
        f"no mirror gave {target.name} ({'; '.join(reasons)}): without a network, put that file into "
        f"{target.parent}, name a folder that has it with --data-dir or GPUCNN_DATA_DIR, or use the set "
        f"'digits', which needs no download"
    )


def fetch(url: str, file: RemoteFile, progress: bool, patience: Patience) -> Iterator[bytes]:
    """The body of one mirror's answer, block by block; MirrorError where it is not the published file."""
    digest, size = hashlib.sha256(), 0
    answer = Answer(url, file.size, patience)
    answer.start()
    try:
        with progress_bar(file, url, progress) as bar:
            headers = answer.headers()
            if headers.get_content_type() == "text/html":
                raise MirrorError("an HTML page")
            length = headers.get("Content-Length")
            if length is not None and length != str(file.size):
                raise MirrorError(f"{length[:LONGEST]} bytes announced instead of {file.size:,}")
            encoding = headers.get("Content-Encoding")
            sent = f", sent as {encoding[:LONGEST]}" if encoding else ""  # the file may be right nevertheless
            for block in answer.body():
                size += len(block)
                digest.update(block)
                bar.update(len(block))
                yield block
    finally:
        answer.give_up()
    if size != file.size:
        raise MirrorError(f"{size:,} bytes instead of {file.size:,}{sent}")
    if digest.hexdigest() != file.sha256:
        raise MirrorError(f"SHA-256 {digest.hexdigest()[:16]}... instead of {file.sha256[:16]}...{sent}")


class Answer(Thread):
    """What a mirror sends, received by a thread of its own.

    A socket's timeout starts again with every byte, and looking up a name has none: only who waits in another thread
    can stop waiting for whatever takes too long.

    Args:
        size: bytes of the body that are received at most.
    """

    def __init__(self, url: str, size: int, patience: Patience) -> None:
        super().__init__(daemon=True)
        self.url, self.size, self.patience = url, size, patience
        self.parts: Queue[Any] = Queue(AHEAD)  # the headers, blocks of the body, b"" at its end; or an exception
        self.given_up = Event()
        self.sockets: list[socket] = []

    def run(self) -> None:
        try:
            request = urllib.request.Request(self.url, headers={"User-Agent": "gpucnn"})
            opener = urllib.request.build_opener(Connections(self.connected))
            with opener.open(request, timeout=self.patience.silence) as response:
                self.parts.put(response.headers)
                left, block = self.size, b"-"
                while block and not self.given_up.is_set():
                    block = response.read1(min(CHUNK, left))
                    left -= len(block)
                    self.parts.put(block)
        except Exception as error:  # of the network, of HTTP, of a URL, of a proxy's setting
            self.parts.put(error)

    def connected(self, one: socket) -> None:
        self.sockets.append(one)
        if self.given_up.is_set():
            raise OSError("too late")

    def give_up(self) -> None:
        """Let the thread end, wherever it is."""
        self.given_up.set()
        for one in self.sockets:
            with suppress(OSError):  # closed already
                one.shutdown(SHUT_RDWR)
        with suppress(Empty):
            while True:  # it may wait for room
                self.parts.get_nowait()

    def headers(self) -> Any:
        """The headers; MirrorError where they do not come in time."""
        try:
            return self.received(self.patience.headers)
        except Empty:
            raise MirrorError(f"no answer within {self.patience.headers:g} seconds") from None

    def body(self) -> Iterator[bytes]:
        """The blocks of the body; MirrorError where they come too slowly.  The time between them does not count."""
        window = self.patience.window
        waited, count = 0.0, 0  # seconds, and the bytes that came in them
        while True:
            start, block = monotonic(), None
            with suppress(Empty):
                block = self.received(max(window - waited, 0.0))
            waited += monotonic() - start
            count += len(block or b"")
            if waited >= window:
                if count < self.patience.rate * window:
                    raise MirrorError(f"{count:,} bytes in {window:g} seconds, which is too slow")
                waited, count = 0.0, 0
            if block == b"":
                return
            if block:
                yield block

    def received(self, seconds: float) -> Any:
        """The next part; Empty where it does not come in time, MirrorError instead of an exception."""
        part = self.parts.get(timeout=seconds)
        if isinstance(part, HTTPError):
            part.close()
            raise MirrorError(f"HTTP {part.code} {one_line(part.reason)}")
        if isinstance(part, Exception):
            reason = getattr(part, "reason", "") or part  # of a URLError: another exception
            raise MirrorError(one_line(getattr(reason, "strerror", "") or reason) or type(part).__name__)
        return part


class Connections(urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
    """Opens connections, and tells of each socket."""

    def __init__(self, tell: Callable[[socket], None]) -> None:
        super().__init__()
        self.tell = tell

    def http_open(self, request: urllib.request.Request) -> HTTPResponse:
        return self.do_open(partial(self.connection, HTTPConnection), request)

    def https_open(self, request: urllib.request.Request) -> HTTPResponse:
        return self.do_open(partial(self.connection, HTTPSConnection), request)

    def connection(self, kind: type[HTTPConnection], host: str, **options: Any) -> HTTPConnection:
        made = kind(host, **options)
        connect = made.connect

        def connect_and_tell() -> None:
            connect()
            self.tell(made.sock)

        made.connect = connect_and_tell  # type: ignore[method-assign]
        return made


def one_line(reason: object) -> str:
    """A reason without line breaks, of bounded length."""
    return " ".join(str(reason).split())[:LONGEST]


def progress_bar(file: RemoteFile, url: str, progress: bool) -> Any:
    """A progress bar in bytes on a terminal, one line elsewhere."""
    from tqdm import tqdm

    name, terminal = Path(file.path).name, is_terminal(sys.stderr)
    if progress and not terminal:
        tell(f"downloading {name} ({file.size / 1e6:,.1f} MB) from {urlsplit(url).netloc}")
    return tqdm(total=file.size, desc=name, unit="B", unit_scale=True, disable=not (progress and terminal))
