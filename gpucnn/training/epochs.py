"""What ``Trainer.fit`` returns: epochs that are trained as they are iterated over, in one thread, in whole steps."""

import signal
import threading
import warnings
from collections.abc import Generator, Iterator
from types import FrameType, TracebackType
from typing import Generic, Self, TypeVar

from gpucnn.errors import UsageError

R = TypeVar("R")


class OneThread:
    """A ``with`` block that is for one thread at a time; raises UsageError where another one is in it."""

    def __init__(self) -> None:
        self.lock = threading.RLock()

    def __enter__(self) -> None:
        if not self.lock.acquire(blocking=False):
            raise UsageError("this trainer is at work in another thread: give each thread a model and a trainer")

    def __exit__(self, *problem: object) -> None:
        self.lock.release()


class WholeSteps:
    """A ``with`` block in which Ctrl-C waits: for the block's end, or for a step's, where ``pressed`` is looked at.

    A second Ctrl-C does not wait, and may leave a step half done.  A program's own handler stays in charge.

    Attributes:
        pressed: whether KeyboardInterrupt is due.
        torn: whether a second Ctrl-C came.
    """

    pressed = torn = False

    def __enter__(self) -> Self:
        main = threading.current_thread() is threading.main_thread()
        self.active = main and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if self.active:
            signal.signal(signal.SIGINT, self.note)
        return self

    def note(self, number: int, frame: FrameType | None) -> None:
        """The handler of Ctrl-C."""
        self.pressed, self.torn = True, self.pressed
        if self.torn:
            raise KeyboardInterrupt

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        if self.active:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        pressed, self.pressed = self.pressed, False
        if pressed and kind is None:
            raise KeyboardInterrupt


class Epochs(Generic[R], Iterator[R]):
    """Reports of epochs, each of which is trained when it is asked for.

    Python runs nothing of a generator that is not iterated over: such a training tells.
    """

    begun = False

    def __init__(self, reports: Generator[R, None, None], one_thread: OneThread) -> None:
        self.reports, self.one_thread = reports, one_thread

    def __next__(self) -> R:
        self.begun = True
        with self.one_thread:
            return next(self.reports)

    def close(self) -> None:
        """End the training here."""
        self.begun = True
        self.reports.close()

    def __del__(self) -> None:
        if not self.begun:
            how = "iterate over it, as in `for report in trainer.fit(...): print(report)` or list(trainer.fit(...))"
            warnings.warn(f"Trainer.fit has trained nothing: {how}", RuntimeWarning, stacklevel=2)
