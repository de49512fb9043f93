"""A step's launches as one CUDA graph: recorded once for each shape of batch, then started as a whole.

A small step is hundreds of launches of some microseconds each by the host; a graph is one.  What is recorded is
``Trainer.descend``, all that a step does with its batch: forward, loss, backward, running metrics, clipping, optimiser
and averages.  It reads the batch, the step, learning rates and the averages' shares from arrays that stay where they
are, and changes weights, state and sums where they lie; so every replay sees new values, and the results are the bits
of the same step run eagerly.  Steps that do other things, as one in which Lookahead returns or a group of parameters is
held, are graphs of their own.

Memory: what is allocated while recording comes from a pool of the recorder's own, which is kept with its graphs: they
hold addresses, and nobody else may be given them.  Graphs do share it, and cuDNN's scratch memory, since they run one
after the other and none reads what another has left there.
"""

import sys
from collections.abc import Callable
from typing import Any

from gpucnn.backend import Backend
from gpucnn.errors import DeviceError, UsageError
from gpucnn.random import Clock
from gpucnn.training.step_inputs import Pace
from gpucnn.types import Array

MODES = ("auto", "on", "off")
WARMUP = 3
"""Steps of a shape that run eagerly first: kernels are compiled, cuDNN's engines chosen, its memory is there."""

Compute = Callable[[Array, Array, Pace], None]
"""(x, labels, pace): a whole step."""


def recorded(compute: Compute, backend: Backend, clock: Clock, mode: str) -> Compute:
    """The same computation as CUDA graphs, where the backend has them.

    Args:
        mode: "auto" uses graphs where everything can be recorded, and says so where it cannot; with "on" that is an
            error; "off" computes eagerly.

    Raises:
        UsageError: "on" and a backend without CUDA graphs.
    """
    if mode == "on" and backend.uncapturable_ops is None:
        raise UsageError(f"the {backend.name} backend has no CUDA graphs: leave out run.cuda_graph = 'on'")
    if mode == "off" or backend.uncapturable_ops is None:
        return compute
    return Recorder(compute, backend, clock, strict=mode == "on")


class Recorder:
    """Computes eagerly a few times, then records and replays; one recording for each shape of batch and kind of step.

    Args:
        compute: reads x, labels, the clock and a pace, and changes arrays that stay where they are.
        strict: what cannot be recorded is an error.
    """

    def __init__(self, compute: Compute, backend: Backend, clock: Clock, *, strict: bool) -> None:
        self.compute, self.backend, self.clock, self.strict = compute, backend, clock, strict
        self.cuda = backend.xp.cuda
        self.stream, self.pool = self.cuda.Stream(non_blocking=True), self.cuda.MemoryPool()
        self.recordings: dict[Any, Recording] = {}
        self.numbers: dict[str, tuple[float, Array]] = {}  # name -> its value, and where the device reads it
        self.refused = False

    def __call__(self, x: Array, labels: Array, pace: Pace) -> None:
        """All that ``compute`` changes.

        Raises:
            DeviceError: it cannot be recorded, and has to be.
        """
        if self.refused:
            self.compute(x, labels, pace)
            return
        key = (x.shape, x.dtype, labels.shape, labels.dtype, pace.kind)
        if key not in self.recordings:
            self.pool.set_limit(size=self.room())
            self.recordings[key] = Recording(self.cuda, self.stream, self.pool, x, labels)
        recording = self.recordings[key]
        pace = pace.by(self.tell, self.clock.tell_device(self.backend.xp))
        recording.take(x, labels)
        if recording.runs >= WARMUP:
            recording.replay(self.compute, pace)
            return
        assert self.backend.uncapturable_ops
        self.backend.uncapturable_ops()  # forget what ran before
        recording.run(self.compute, pace)
        if names := self.backend.uncapturable_ops():
            self.refuse(f"{', '.join(names)} on cuBLAS cannot be part of one")

    def tell(self, name: str, value: float) -> Array:
        """Where the device reads this number, float64 (); it is written there if it is not what it was."""
        before, place = self.numbers.get(name) or (None, self.backend.xp.zeros((), dtype="float64"))
        if value != before:
            place[...] = value
            self.numbers[name] = value, place
        return place

    def room(self) -> int:
        """Bytes that recordings may take in all where memory is limited; 0 where it is not."""
        others = self.backend.xp.get_default_memory_pool()
        return max(others.get_limit() - others.total_bytes(), 1) if others.get_limit() else 0

    def refuse(self, reason: str) -> None:
        """Compute eagerly from now on."""
        if self.strict:
            raise DeviceError(f"no CUDA graph: {reason}; leave out --cuda-graph on")
        print(f"gpucnn: no CUDA graph: {reason}", file=sys.stderr)
        self.refused = True
        self.recordings.clear()
        self.numbers.clear()
        self.clock.forget_device()


class Recording:
    """One computation on batches of one shape: its arrays, and its graph once there is one.

    Args:
        cuda: ``cupy.cuda``.
        stream, pool: on which it is recorded, and whose memory it takes.
    """

    def __init__(self, cuda: Any, stream: Any, pool: Any, x: Array, labels: Array) -> None:
        self.cuda, self.stream, self.pool = cuda, stream, pool
        self.x, self.labels = x.copy(), labels.copy()
        self.runs = 0
        self.graph: Any = None

    def take(self, x: Array, labels: Array) -> None:
        """Put a batch where the graph reads it."""
        self.x[...] = x
        self.labels[...] = labels

    def run(self, compute: Compute, pace: Pace) -> None:
        """Eagerly, on the stream that is to be recorded, since cuDNN keeps scratch memory for each.  # sync"""
        self.cuda.get_current_stream().synchronize()  # sync
        with self.cuda.using_allocator(self.pool.malloc), self.stream:
            compute(self.x, self.labels, pace)
        self.stream.synchronize()  # sync
        self.runs += 1

    def replay(self, compute: Compute, pace: Pace) -> None:
        """Start the graph on the current stream, recorded first where there is none."""
        if self.graph is None:
            self.record(compute, pace)
        self.graph.launch()

    def record(self, compute: Compute, pace: Pace) -> None:
        """Note all launches instead of making them."""
        with self.cuda.using_allocator(self.pool.malloc), self.stream:
            self.stream.begin_capture()
            try:
                compute(self.x, self.labels, pace)
            except Exception as error:
                self.abandon()
                line = (str(error).strip().splitlines() or [type(error).__name__])[0]
                raise DeviceError(f"the step cannot be recorded as a CUDA graph ({line}): --cuda-graph off") from error
            self.graph = self.stream.end_capture()

    def abandon(self) -> None:
        """End a recording that failed; CUDA says once more that it did."""
        try:
            self.stream.end_capture()
        except Exception as error:  # CuPy raises its own classes, which exist only where it does
            print(f"gpucnn: {error}", file=sys.stderr)
