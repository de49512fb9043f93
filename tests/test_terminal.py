"""The door to the terminal: nothing that a terminal would obey passes, and widths are counted in columns."""

import io
import os
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpucnn import terminal
from gpucnn.terminal import LONGEST, cut, harmless, quoted, width


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain \u00e9 \u4e2d", "plain \u00e9 \u4e2d"),
        ("\x1b[2J\x1b]0;title\x07", "\\x1b[2J\\x1b]0;title\\x07"),
        ("two\nlines\r\nand\ttabs\x0b\x0c", "two\\nlines\\r\\nand\\ttabs\\x0b\\x0c"),
        ("C1 \x9b2J \x85 DEL \x7f NUL \0", "C1 \\x9b2J \\x85 DEL \\x7f NUL \\x00"),
        ("\u202egnp.exe \u2066 \u200b \ufeff \u2028", "\\u202egnp.exe \\u2066 \\u200b \\ufeff \\u2028"),
        ("\U000e0041 \ue000", "\\U000e0041 \\ue000"),
        (os.fsdecode(b"caf\xe9.png"), "caf\\udce9.png"),
    ],
)
def test_what_a_terminal_would_obey_is_shown(text: str, shown: str) -> None:
    assert harmless(text) == shown


@given(st.text(st.characters(exclude_categories=()), max_size=40))
def test_every_text_becomes_one_printable_line_that_stays_as_it_is(text: str) -> None:
    shown = harmless(text)
    assert shown.isprintable()
    assert harmless(shown) == shown
    assert width(cut(shown, 7)) <= 7


def test_a_long_text_keeps_its_beginning_and_its_end() -> None:
    shown = harmless(f"beginning{'x' * 3_000_000}end")
    assert len(shown) == LONGEST
    assert shown.startswith("beginningx")
    assert shown.endswith("xend")
    assert " ... " in shown


@pytest.mark.parametrize(
    ("text", "columns"),
    [("abc", 3), ("\u4e2d\u6587", 4), ("e\u0301", 1), ("\uff21", 2), ("x" + "\u0300" * 50, 1), ("\U0001f600", 2)],
)
def test_width_counts_columns(text: str, columns: int) -> None:
    assert width(text) == columns


@pytest.mark.parametrize(
    "name", ["plain", "my run", "it's", '$(x) `y` "z" \\', "-rf", "\x1b[2J\n", "\u202egnp", "caf\udce9 'q'", "\u00e9"]
)
def test_a_quoted_path_is_harmless_and_means_the_same_to_a_shell(name: str) -> None:
    word = quoted(name)
    assert word.isprintable()
    script = f"printf '%s\\0' {word}".encode()
    said = subprocess.run(["bash", "-c", script], capture_output=True, check=True).stdout
    assert os.path.normpath(os.fsdecode(said[:-1])) == name


def test_lines_go_where_they_belong(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.say("a\x1b", "b")
    terminal.tell("c\nd")
    shown = capsys.readouterr()
    assert shown.out == "a\\x1b\nb\n"
    assert shown.err == "gpucnn: c\\nd\n"


def test_json_has_no_nan(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.say_json({"a": [float("nan"), -float("inf"), 1.5], "b": "NaN\x7f\u202e"})
    assert capsys.readouterr().out == '{"a": [null, null, 1.5], "b": "NaN\\u007f\\u202e"}\n'


def test_a_closed_standard_error_is_not_standard_output(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    terminal.tell("nobody reads this")
    terminal.show("nor this")
    assert capsys.readouterr().out == ""


class Screen(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_line_that_is_overwritten_makes_room_for_one_that_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(sys, "stdout", screen)
    assert terminal.show("compiling\x1b") == ""
    terminal.say("result")
    assert terminal.show("") == "compiling\\x1b"
    blank = " " * len("compiling\\x1b")
    assert screen.getvalue() == f"\rcompiling\\x1b\r{blank}\rresult\n\rcompiling\\x1b\r{blank}\r"


def test_nothing_is_overwritten_in_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.show("compiling")
    terminal.show("")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("asked", "columns"), [(None, 80), ("60", 60), ("0", 80), ("wide", 80), ("9" * 400, 999_999)])
def test_the_width_of_a_file(monkeypatch: pytest.MonkeyPatch, asked: str | None, columns: int) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    if asked:
        monkeypatch.setenv("COLUMNS", asked)
    assert terminal.room(io.StringIO()) == columns


def test_warnings_of_libraries_are_one_line_and_those_about_arithmetic_none(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def overflow() -> None:
        np.float32(3e38) * np.ones(2, np.float32) * 10

    with warnings.catch_warnings(), terminal.libraries_tamed():
        warnings.simplefilter("always")
        overflow()
        thread = threading.Thread(target=overflow)  # NumPy's settings are those of a thread
        thread.start()
        thread.join()
        warnings.warn("a glyph\n\x1b is missing", stacklevel=1)
    assert capsys.readouterr().err == "gpucnn: warning: a glyph\\n\\x1b is missing\n"
