"""Compiling kernels is said: on a terminal for as long as it lasts, elsewhere once."""

import io
import sys
from typing import Any

import pytest

pytest.importorskip("numba")

import numba
from numba.core import event

from gpucnn import terminal
from gpucnn.kernels.cpu.engine.compile import Notice


@pytest.fixture
def notice(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A fresh notice in the place of the one that listens."""
    mine = Notice()
    for other in event._registered["numba:compile"]:
        monkeypatch.setattr(other, "on_start", lambda event: None)
        monkeypatch.setattr(other, "on_end", lambda event: None)
    with event.install_listener("numba:compile", mine):
        yield mine


def kernel(module: str = "gpucnn.kernels.cpu.sample") -> Any:
    """A function of a module that has not been compiled yet; it calls another one."""

    def double(x: float) -> float:
        return 2.0 * x

    double.__module__ = module
    inner = numba.njit(double)

    def quadruple(x: float) -> float:
        return inner(inner(x))

    quadruple.__module__ = module
    return numba.njit(quadruple)


class Screen(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        return True


def test_in_a_file_it_is_one_line(notice: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert kernel()(1.0) == kernel()(1.0) == 4.0
    assert capsys.readouterr().err == "gpucnn: compiling CPU kernels, once; up to half a minute\n"
    assert notice.count == 2


def test_on_a_terminal_it_stays_as_long_as_it_lasts(notice: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    screen, function = Screen(), kernel()
    monkeypatch.setattr(sys, "stderr", screen)
    terminal.show("epoch 1/9")
    assert function(1.0) == 4.0
    first, compiling, after = screen.getvalue().split("\r")[1:]
    assert (first, after.rstrip()) == ("epoch 1/9", "epoch 1/9")
    assert compiling.startswith("compiling CPU kernels, once (1 so far)")
    assert function(2.0) == 8.0  # compiled: nothing is said
    assert terminal.show("") == "epoch 1/9"
    assert screen.getvalue().count("compiling") == 1


def test_functions_of_others_are_not_ours(notice: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert kernel("elsewhere")(1.0) == 4.0
    assert capsys.readouterr().err == ""


def test_the_engine_alone_takes_a_second(notice: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert kernel("gpucnn.kernels.cpu.engine.sample")(1.0) == 4.0
    assert capsys.readouterr().err == ""
