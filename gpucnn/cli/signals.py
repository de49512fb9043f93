"""Ctrl-C, SIGTERM and a lost terminal end a command with one line and 128 plus the signal's number, at any moment.

Three phases have a handler each:

    start       nothing is open yet, and an exception within an import may be lost: the process ends at once
    command     ``Stopped`` is raised, so that files, locks and child processes are left in order; a second one ends it
    end         all is done and written: signals are ignored while Python shuts down

A signal that was ignored when the process started, as ``nohup`` does with a lost terminal, stays ignored.  This module
is loaded before everything else, so it imports little.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType, TracebackType

KINDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Handler = Callable[[int, FrameType | None], object]


class Stopped(KeyboardInterrupt):
    """A signal of ``KINDS`` came, with this number."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def handled() -> list[signal.Signals]:
    """Those of ``KINDS`` that may be handled here: none that is ignored, and none outside of the main thread."""
    if threading.current_thread() is not threading.main_thread():
        return []
    return [kind for kind in KINDS if signal.getsignal(kind) is not signal.SIG_IGN]


def handle(handler: Handler) -> None:
    """Give the signals that may be handled this handler."""
    for kind in handled():
        signal.signal(kind, handler)


def ignore() -> None:
    """The third phase."""
    for kind in KINDS:
        signal.signal(kind, signal.SIG_IGN)


def say(line: str) -> None:
    """A line on standard error from a signal handler, past Python's buffers, which may be in use."""
    with suppress(OSError):  # nobody may read it any more
        start = "\n" if os.isatty(2) else ""  # below ^C, or a progress bar
        os.write(2, f"{start}gpucnn: {line}\n".encode())


def explain(stop: KeyboardInterrupt) -> int:
    """Say what ended the command; its exit code."""
    number = stop.number if isinstance(stop, Stopped) else signal.SIGINT
    say("interrupted" if number == signal.SIGINT else f"stopped by {signal.Signals(number).name}")
    return 128 + number


def end_at_once(number: int, frame: FrameType | None = None) -> None:
    """The handler of the first phase."""
    os._exit(explain(Stopped(number)))


class Unwinding:
    """The second phase, of a process whose handler is that of the first; elsewhere it changes nothing.

    An exception can be lost where Python ignores it, as in a destructor, or where a library replaces it by its own:
    what came is remembered, and raised at the latest at the end of the block.
    """

    def __enter__(self) -> None:
        self.came: int | None = None
        self.active = any(signal.getsignal(kind) is end_at_once for kind in handled())
        if self.active:
            sys.unraisablehook = self.unraisable
            handle(self.stop)

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        if self.active:
            handle(end_at_once)
            if self.came is not None and not isinstance(error, Stopped):
                raise Stopped(self.came) from None

    def stop(self, number: int, frame: FrameType | None) -> None:
        """The handler of the second phase."""
        self.came = number
        handle(end_at_once)
        raise Stopped(number)

    def unraisable(self, lost: "sys.UnraisableHookArgs") -> None:
        """What Python calls with an exception that it cannot raise."""
        if isinstance(lost.exc_value, Stopped):
            end_at_once(lost.exc_value.number)
        sys.__unraisablehook__(lost)
