r"""The one door to the terminal: lines, made harmless, and the width that they may take.

File names, class names, settings and what libraries say come from outside.  They may hold escape codes, line breaks,
marks that turn the direction of writing, or a million letters.  So a line is printed as Python's ``repr`` shows it
(``\x1b``, ``\n``, ``\u202e``, ``\udcff``), and what is too long loses its middle.
"""

import json
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from shlex import quote
from traceback import format_exception
from typing import Any, TextIO
from unicodedata import category, east_asian_width

import numpy as np

LONGEST = 600  # characters of a line
COLUMNS = 80  # where there is no terminal
NARROWEST = 20  # columns that are believed
ARITHMETIC = re.compile("^(overflow|underflow|divide by zero|invalid value) encountered")

_shown = ""  # the line that ``show`` has left on the terminal


def harmless(text: object, longest: int = LONGEST) -> str:
    """A text of one line without a character that a terminal would obey; a long one without its middle."""
    line = str(text)
    if len(line) > longest:
        tail = (longest - 5) // 3
        line = f"{line[: longest - 5 - tail]} ... {line[len(line) - tail :]}"
    if line.isprintable():
        return line
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


def width(text: str) -> int:
    """The columns that a harmless text takes: two for a wide character, none for a mark on the one before."""
    if text.isascii():
        return len(text)
    return sum(0 if category(c) in ("Mn", "Me") else 1 + (east_asian_width(c) in "WF") for c in text)


def cut(text: str, most: int) -> str:
    """The beginning of a harmless text, as far as it fits into so many columns."""
    end = min(len(text), 4 * most)  # marks upon marks take no column
    while width(text[:end]) > most:
        end -= 1
    return text[:end]


def quoted(path: object) -> str:
    """A path as a shell's word, to be copied from a command that is printed."""
    word = str(path)
    if word.startswith("-"):
        word = f"./{word}"
    if word.isprintable():
        return quote(word)
    letters = (chr(b) if 32 <= b < 127 and chr(b) not in "'\\" else f"\\x{b:02x}" for b in os.fsencode(word))
    return f"$'{''.join(letters)}'"


def say(*lines: str) -> None:
    """Print results: lines on standard output."""
    _write(sys.stdout, [harmless(line) for line in lines])


def say_json(value: Any, **options: Any) -> None:
    """Print an object as JSON, in ASCII, on standard output; JSON knows no NaN and no infinity, they become null."""
    text = json.dumps(value, **options)
    if "NaN" in text or "Infinity" in text:
        text = json.dumps(json.loads(text, parse_constant=lambda word: None), **options)
    _write(sys.stdout, [text])


def tell(*lines: str) -> None:
    """Print what is no result, warnings and errors: lines on standard error, as from gpucnn; they may be lost."""
    with suppress(OSError, ValueError):
        _write(sys.stderr, [f"gpucnn: {harmless(line)}" for line in lines])


def tell_traceback(*error: Any) -> None:
    """What Python prints of an error that nobody has caught: its type, itself and where it was."""
    for part in format_exception(*error):
        tell(*part.splitlines())


def _write(stream: TextIO | None, lines: list[str]) -> None:
    """Lines and all before them; nothing where the stream was closed before Python started."""
    before = show("")
    if stream is not None and lines:
        print(*lines, sep="\n", file=stream, flush=True)
    show(before)


def show(line: str) -> str:
    """Leave a line on standard error until the next one replaces it, an empty one for none; only on a terminal.

    Returns:
        The line before.
    """
    global _shown
    before = _shown
    if line != before and is_terminal(sys.stderr):
        _shown = cut(harmless(line), room(sys.stderr) - 1)
        blank = " " * (width(before) - width(_shown))
        with suppress(OSError):  # the terminal may be gone
            print(f"\r{_shown}{blank}", end="" if _shown else "\r", file=sys.stderr, flush=True)
    return before


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a person looks at this stream."""
    return stream is not None and not stream.closed and stream.isatty()


def room(stream: TextIO | None) -> int:
    """The columns of a terminal; of anything else those of COLUMNS, or 80."""
    if stream is not None and is_terminal(stream):
        try:
            return os.get_terminal_size(stream.fileno()).columns or COLUMNS
        except (OSError, ValueError):
            return COLUMNS
    asked = os.environ.get("COLUMNS", "")[:6]
    return int(asked) if asked.isdecimal() and int(asked) >= NARROWEST else COLUMNS


class Lines(logging.Handler):
    """What libraries log, as lines."""

    def emit(self, record: logging.LogRecord) -> None:
        tell(f"{record.name}: {record.getMessage()}")


@contextmanager
def libraries_tamed() -> Iterator[None]:
    """Warnings of libraries pass the door, one line each; NumPy's about NaN and overflow, which are errors, do not."""

    def line(message: Warning | str, *rest: Any) -> None:
        if not ARITHMETIC.search(str(message)):  # of a thread
            tell(f"warning: {message}")

    before = warnings.showwarning, logging.lastResort
    warnings.showwarning = line  # type: ignore[assignment]  # it takes fewer arguments by name
    logging.lastResort = Lines(logging.WARNING)
    try:
        with np.errstate(all="ignore"):
            yield
    finally:
        warnings.showwarning, logging.lastResort = before
