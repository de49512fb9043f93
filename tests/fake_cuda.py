"""Streams, pools and graphs for the double of CuPy: a captured stream notes launches, and a graph makes them again.

As on a GPU, nothing that is noted happens: what ran to find out about shapes is undone at the end of a capture, and new
arrays hold NaN until a graph is launched.  ``events`` says what was asked of CUDA, in its order.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, Self

import numpy as np
import strict_cupy

events: list[str] = []


class Tape:
    """What was launched while a stream was captured."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, Any, Any, list[np.ndarray]]] = []
        self.before: list[tuple[np.ndarray, np.ndarray]] = []

    def note(self, function: Any, args: Any, kwargs: Any, result: Any) -> None:
        """A call, and where its results lie; one that only looks at its argument from another side launches nothing."""
        made = [] if result is None else [r._inside for r in (result if isinstance(result, tuple | list) else [result])]
        inputs = [a for a in args if isinstance(a, np.ndarray)]
        if not any(np.may_share_memory(a, b) for a in made for b in inputs):
            self.calls.append((function, args, kwargs, made))

    def remember(self, array: np.ndarray) -> None:
        """An array is about to change."""
        self.before.append((array, array.copy()))

    def undo(self) -> None:
        """As if nothing had run."""
        for array, before in reversed(self.before):
            array[...] = before
        for *_, made in self.calls:
            for array in made:
                array[...] = np.nan if array.dtype.kind == "f" else 0


class Graph:
    def __init__(self, tape: Tape) -> None:
        self.tape = tape

    def launch(self, stream: Any = None) -> None:
        events.append("launch")
        for function, args, kwargs, made in self.tape.calls:
            with np.errstate(all="ignore"):  # a device does not warn
                result = function(*args, **kwargs)
            for array, new in zip(made, result if isinstance(result, tuple | list) else [result], strict=bool(made)):
                array[...] = new


class Stream:
    def __init__(self, non_blocking: bool = False) -> None:
        assert non_blocking, "a blocking stream cannot be captured while the default stream works"

    def __enter__(self) -> Self:
        events.append("stream")
        return self

    def __exit__(self, *error: object) -> None:
        events.append("stream left")

    def synchronize(self) -> None:
        events.append("synchronize")

    def begin_capture(self) -> None:
        events.append("begin")
        strict_cupy.tape = Tape()

    def end_capture(self) -> Graph:
        events.append("end")
        tape, strict_cupy.tape = strict_cupy.tape, None
        tape.undo()
        return Graph(tape)


class MemoryPool:
    """A pool that has given out 100 bytes."""

    def __init__(self, limit: int = 0) -> None:
        self.limit = limit

    def set_limit(self, size: int) -> None:
        self.limit = size

    def get_limit(self) -> int:
        return self.limit

    def total_bytes(self) -> int:
        return 100

    def malloc(self, size: int) -> None:
        raise AssertionError("the double has NumPy's memory")


@contextmanager
def using_allocator(malloc: Any) -> Iterator[None]:
    events.append("pool")
    yield
    events.append("pool left")


def get_current_stream() -> Any:
    return SimpleNamespace(synchronize=lambda: events.append("synchronize"))


cuda = SimpleNamespace(
    Stream=Stream, MemoryPool=MemoryPool, using_allocator=using_allocator, get_current_stream=get_current_stream
)
