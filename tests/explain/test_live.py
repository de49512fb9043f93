"""The live view: who is answered, what is shown, and that nothing is taken while nobody watches."""

import json
import re
from http.client import HTTPConnection
from pathlib import Path
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from gpucnn import models
from gpucnn.cli.main import main
from gpucnn.explain import live
from gpucnn.explain.live import LiveView, histogram
from gpucnn.layers import Layer
from gpucnn.training.trainer import EpochReport, IntervalReport


def a_view() -> LiveView:
    return LiveView(models.build("lenet5", (28, 28, 1)).initialize(0), "a run")


def ask(address: str, path: str | None = None, method: str = "GET", **headers: str) -> tuple[int, bytes]:
    parts = urlsplit(address)
    connection = HTTPConnection(parts.hostname, parts.port, timeout=30)
    connection.request(method, parts.path if path is None else path, headers=headers)
    response = connection.getresponse()
    return response.status, response.read()


def interval(batch: int) -> IntervalReport:
    return IntervalReport(1, batch, 10, 2.5, 0.25, 1000.0, 100, 10, 0.1)


def test_the_page_and_its_numbers() -> None:
    view = a_view()
    with view.serve() as address:
        assert address.startswith("http://127.0.0.1:")
        status, page = ask(address)
        assert status == 200
        assert b"<title>" in page
        ask(f"{address}state.json", f"{urlsplit(address).path}state.json")  # somebody watches
        view.at_interval(interval(5))
        view.at_epoch(EpochReport(1, 2.0, 0.3, 1.9, 0.35, 0.1, 3.0, 1000.0))
        status, text = ask(address, f"{urlsplit(address).path}state.json")
    state = json.loads(text)
    assert status == 200
    assert state["intervals"] == [[0.5, 2.5, 0.25]]
    assert state["epochs"] == [[1, 2.0, 0.3, 1.9, 0.35]]
    weight = view.model.parameters()["features.0.weight"].data
    assert state["filters"]["shape"] == [6, 5, 5, 1]
    np.testing.assert_allclose(state["filters"]["values"], weight.ravel(), atol=1e-4)
    assert [row[0] for row in state["histograms"]] == [n for n in view.model.parameters() if n.endswith("weight")]


def test_who_is_not_answered() -> None:
    view = a_view()
    with view.serve() as address:
        token = urlsplit(address).path
        assert ask(address, "/")[0] == 404
        assert ask(address, "/state.json")[0] == 404
        assert ask(address, f"{token[:-2]}x/")[0] == 404
        assert ask(address, f"{token}../../etc/passwd")[0] == 404
        assert ask(address, f"{token}page.js")[0] == 404
        assert ask(address, Host="evil.example")[0] == 404  # a name that was made to lead here
        assert ask(address, method="POST")[0] == 501
        assert ask(address, method="DELETE")[0] == 501
    with pytest.raises(OSError, match="refused"):  # it has ended
        ask(address)


def test_two_runs_have_two_addresses() -> None:
    view = a_view()
    with view.serve() as first, view.serve() as second:
        assert urlsplit(first).path != urlsplit(second).path
        assert ask(first, urlsplit(second).path)[0] == 404


def test_nothing_is_taken_while_nobody_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[Layer] = []

    def take(model: Layer) -> dict[str, Any]:
        taken.append(model)
        return {}

    monkeypatch.setattr(live, "take", take)
    view = a_view()
    for batch in range(10):
        view.at_interval(interval(batch))
    assert taken == []
    view.state()
    view.at_interval(interval(10))
    view.at_interval(interval(10))  # at most once a second
    assert len(taken) == 1
    view.taken, view.cost = perf_counter() - 30.0, 1.0  # 1 s of work half a minute ago: more than a fiftieth
    view.at_interval(interval(10))
    assert len(taken) == 1


def test_a_long_run_keeps_its_curve_within_bounds() -> None:
    view = a_view()
    for batch in range(10_000):
        view.at_interval(IntervalReport(1, batch + 1, 10_000, 1.0, 0.5, 1.0, 100, 10, 0.1))
    assert len(view.intervals) <= live.MOST_POINTS
    assert view.intervals[-1][0] == 1.0
    assert [row[0] for row in view.intervals] == sorted(row[0] for row in view.intervals)


@pytest.mark.parametrize("values", [[0.0, 0.0], [np.nan, np.inf], [1.0, -2.0, np.nan], []])
def test_a_histogram_of_anything(values: list[float]) -> None:
    found = histogram(np.array(values, np.float32))
    finite = [v for v in values if np.isfinite(v)]
    assert sum(found["counts"]) == len(finite)
    assert found["limit"] == max(map(abs, finite), default=0.0)
    assert json.dumps(found, allow_nan=False)


def test_train_says_where_it_can_be_watched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "--model", "mlp", "--epochs", "1", "--output", str(tmp_path / "run")]
    assert main(words) == 0
    assert "http" not in capsys.readouterr().out
    assert main([*words[:-1], str(tmp_path / "other"), "--live"]) == 0
    assert re.search(r"^live +http://127\.0\.0\.1:\d+/[\w-]{22}/$", capsys.readouterr().out, flags=re.MULTILINE)
