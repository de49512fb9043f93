"""A run under way, watched in a browser: curves, first filters, histograms of weights and gradients.

A server on this machine's loopback address answers GET requests whose path begins with a random token and whose Host
is that address, and changes nothing.  What it shows is taken on the training thread, where the arrays are still, and
only while a browser asks; all that together may take a fiftieth of the time.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from secrets import compare_digest, token_urlsafe
from threading import Lock, Thread
from time import perf_counter
from typing import Any

import numpy as np

from gpucnn.layers import Layer
from gpucnn.training.trainer import EpochReport, IntervalReport
from gpucnn.types import Array

WATCHED = 5.0  # seconds since the last request in which somebody is taken to watch
FRACTION = 0.02  # of the time that may go into what is shown
BINS = 41  # of a histogram
MOST_POINTS = 2000  # of a curve; beyond that every second one is dropped


class LiveView:
    """What a browser is shown of a run.

    Args:
        model: the model that is trained.
        title: of the page.
    """

    def __init__(self, model: Layer, title: str) -> None:
        self.model, self.title = model, title
        self.lock = Lock()
        self.intervals: list[tuple[float, float, float]] = []  # epochs done, loss, accuracy
        self.epochs: list[tuple[int, float, float, float, float]] = []
        self.arrays: dict[str, Any] = {}
        self.asked = self.taken = -1e9
        self.cost = 0.0

    # -- on the training thread -----------------------------------------------------------------------

    def at_interval(self, report: IntervalReport) -> None:
        """The metrics of the epoch so far; and the arrays, if somebody watches and they are due."""
        done = report.epoch - 1 + report.batch / report.batches
        with self.lock:
            self.intervals.append((done, report.loss, report.accuracy))  # finite, or the run had ended
            if len(self.intervals) > MOST_POINTS:
                del self.intervals[:-1:2]
        now = perf_counter()
        if now - self.asked < WATCHED and now - self.taken > max(1.0, self.cost / FRACTION):
            arrays = take(self.model)
            self.taken = perf_counter()
            self.cost = self.taken - now
            with self.lock:
                self.arrays = arrays

    def at_epoch(self, report: EpochReport) -> None:
        """The results of an epoch."""
        numbers = report.train_loss, report.train_accuracy, report.test_loss, report.test_accuracy
        with self.lock:
            self.epochs.append((report.epoch, *numbers))

    # -- on the server's threads ----------------------------------------------------------------------

    def state(self) -> bytes:
        """All that the page shows, as JSON."""
        self.asked = perf_counter()
        with self.lock:
            facts = {"title": self.title, "intervals": self.intervals, "epochs": self.epochs, **self.arrays}
            return json.dumps(facts, separators=(",", ":")).encode()

    @contextmanager
    def serve(self) -> Iterator[str]:
        """Answer requests while this lasts; yields the address of the page."""
        token = token_urlsafe(16)
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler(self, token))
        server.daemon_threads = True
        thread = Thread(target=server.serve_forever, args=(0.2,), name="live view", daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/{token}/"
        finally:
            server.shutdown()
            server.server_close()


def take(model: Layer) -> dict[str, Any]:
    """The first filters, and histograms of every parameter and its gradient.  # sync"""
    to_host: Callable[[Array], Array] = model.backend.to_host
    parameters = model.parameters()
    filters: dict[str, Any] = {}
    for name, parameter in parameters.items():
        if len(parameter.shape) == 4:
            values = to_host(parameter.data)[:64, :, :, :3]
            filters = {
                "name": name,
                "shape": values.shape,
                "values": np.round(values.astype(float), 4).ravel().tolist(),
            }
            break
    shown = [(name, p) for name, p in parameters.items() if p.trainable and p.group in ("filter", "weight", "head")]
    histograms = [[name, *(histogram(to_host(a)) for a in (p.data, p.grad))] for name, p in shown]
    return {"filters": filters, "histograms": histograms}


def histogram(values: Array) -> dict[str, Any]:
    """Counts in 41 bins between minus and plus the largest finite size, and the root mean square."""
    finite = values[np.isfinite(values)]
    limit = float(np.abs(finite).max(initial=0.0))
    counts = np.histogram(finite, BINS, (-limit or -1.0, limit or 1.0))[0]
    rms = float(np.sqrt(np.mean(np.square(finite, dtype=np.float64)))) if finite.size else 0.0
    return {"limit": limit, "counts": counts.tolist(), "rms": rms}


def handler(view: LiveView, token: str) -> type[BaseHTTPRequestHandler]:
    """What answers a request."""

    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            _, _, rest = self.path.partition("/")
            given, _, name = rest.partition("/")
            assert isinstance(self.server, ThreadingHTTPServer)
            here = self.headers.get("Host", "") == f"127.0.0.1:{self.server.server_port}"
            if not (here and compare_digest(given.encode(), token.encode())):
                self.send_error(404)
            elif name == "":
                page = files("gpucnn.explain").joinpath("live.html").read_bytes()
                self.answer("text/html; charset=utf-8", page)
            elif name == "state.json":
                self.answer("application/json", view.state())
            else:
                self.send_error(404)

        def answer(self, kind: str, content: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Cache-Control", "no-store")
            self.send_header(
                "Content-Security-Policy", "default-src 'self' 'unsafe-inline'; img-src data:; frame-ancestors 'none'"
            )
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Nothing: the terminal belongs to the run."""

    return Handler
