"""Step times by the host's clock, or by events on the GPU's stream, without waiting for the GPU in between."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from time import perf_counter
from typing import Any

from gpucnn.backend import Backend


class Clock:
    """The host's, for work that is finished when its call returns."""

    def mark(self) -> Any:
        """A mark at the present point of the host's work or of the stream."""
        return perf_counter()

    def seconds(self, marks: Sequence[Any]) -> list[float]:
        """The time from each mark to the next; waits until the last one is reached."""
        return [after - before for before, after in pairwise(marks)]


@dataclass(frozen=True)
class DeviceClock(Clock):
    """For work that a GPU does later: events on its current stream.

    The time between two events includes the time that the GPU waits for the host.
    """

    event: Callable[[], Any]  # makes one that can ``record()`` itself and ``synchronize()``; CuPy's and PyTorch's do
    elapsed: Callable[[Any, Any], float]  # (first event, second event) -> milliseconds

    def mark(self) -> Any:
        event = self.event()
        event.record()
        return event

    def seconds(self, marks: Sequence[Any]) -> list[float]:
        marks[-1].synchronize()  # sync
        return [1e-3 * self.elapsed(before, after) for before, after in pairwise(marks)]


def clock_of(backend: Backend) -> Clock:
    return Clock() if backend.synchronous else DeviceClock(backend.xp.cuda.Event, backend.xp.cuda.get_elapsed_time)


def times(step: Callable[[], Any], steps: int, clock: Clock) -> list[float]:
    """Seconds of each step."""
    marks = [clock.mark()]
    for _ in range(steps):
        step()
        marks.append(clock.mark())
    return clock.seconds(marks)


@dataclass(frozen=True)
class Work:
    """A task, ready to run."""

    step: Callable[[], Any]
    clock: Clock  # for its steps
    memory: Callable[[], float] = float  # MiB of GPU memory that the framework has allocated
    versions: str = ""  # of the framework and its GPU libraries
    graphs: Callable[[], int] = int  # the number of CUDA graphs that the steps use
    on_gpu: bool = False  # whether it is our own work on a GPU, whose launches can be counted
