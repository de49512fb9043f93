"""A training step's launches as one CUDA graph, captured once for each shape of batch and then launched as a whole.

A small step is hundreds of launches that cost the host some microseconds each; a graph is one launch.  What is captured
is ``Trainer.descend``, all that a step does with its batch: forward, loss, backward, running metrics, clipping,
optimizer and averages.  It reads the batch, the step, the learning rates and the weights of averages from arrays at
fixed addresses, and changes weights, state and sums in place.  So every replay sees new values, and the results are
bit for bit those of eager steps.  Steps that do other things, such as one in which Lookahead resets the weights or a
group of parameters is frozen, are graphs of their own.

Memory that is allocated during capture comes from the runner's own pool, which lives as long as its graphs: they hold
addresses that nobody else may be given.  Graphs share the pool, and cuDNN's workspaces, since they run one after the
other and none reads what another has left there.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gpucnn.backend import Backend
from gpucnn.errors import DeviceError, UsageError
from gpucnn.random import Clock
from gpucnn.terminal import tell
from gpucnn.training.step_inputs import StepInputs
from gpucnn.types import Array

MODES = ("auto", "on", "off")
WARMUP = 3
"""Eager steps of each shape before capture: they compile kernels, choose cuDNN's engines and allocate its memory."""

Compute = Callable[[Array, Array, StepInputs], None]
"""(x, labels, inputs): a whole step."""


def with_cuda_graph(compute: Compute, backend: Backend, clock: Clock, mode: str) -> Compute:
    """The same computation through CUDA graphs, where the backend has them.

    Args:
        mode: "auto" uses graphs if every op can be captured and prints a line if not; "on" makes that an error;
            "off" computes eagerly.

    Raises:
        UsageError: another mode, or "on" with a backend that has no CUDA graphs.
    """
    if mode not in MODES:
        raise UsageError(f"cuda_graph = {mode!r}: give one of {', '.join(MODES)}")
    if mode == "on" and backend.uncapturable_ops is None:
        raise UsageError(f"the {backend.name} backend has no CUDA graphs: leave out run.cuda_graph = 'on'")
    if mode == "off" or backend.uncapturable_ops is None:
        return compute
    return GraphRunner(compute, backend, clock, strict=mode == "on")


@dataclass
class CapturedStep:
    """A step on batches of one shape: the arrays that it reads them from, and its graph once it has been captured."""

    x: Array
    labels: Array
    runs: int = 0
    graph: Any = None


class GraphRunner:
    """Runs a few eager steps, then captures one and replays it; a graph for each shape of batch and kind of step.

    Args:
        compute: reads x, labels, the clock and step inputs, and changes arrays in place.
        strict: raise an error if a step cannot be captured.

    Attributes:
        steps: (shapes, dtypes, kind of step) -> its captured step.
        pool: the memory that graphs use.
    """

    def __init__(self, compute: Compute, backend: Backend, clock: Clock, *, strict: bool) -> None:
        self.compute, self.backend, self.clock, self.strict = compute, backend, clock, strict
        self.cuda = backend.xp.cuda
        self.stream, self.pool = self.cuda.Stream(non_blocking=True), self.cuda.MemoryPool()
        self.steps: dict[Any, CapturedStep] = {}
        self.scalars: dict[str, tuple[float, Array]] = {}  # name -> value, and the array that holds it
        self.disabled = False

    def __call__(self, x: Array, labels: Array, inputs: StepInputs) -> None:
        """One step: changes all that ``compute`` changes.

        Raises:
            DeviceError: the step cannot be captured, and ``strict`` is set.
        """
        if self.disabled:
            self.compute(x, labels, inputs)
            return
        key = (x.shape, x.dtype, labels.shape, labels.dtype, inputs.kind)
        if key not in self.steps:
            self.pool.set_limit(size=self.free_memory())
            self.steps[key] = CapturedStep(x.copy(), labels.copy())
        step = self.steps[key]
        inputs = inputs.on_device(self.place, self.clock.tell_device(self.backend.xp))
        step.x[...], step.labels[...] = x, labels  # where the graph reads them
        if step.runs < WARMUP:
            self.run(step, inputs)
            return
        step.graph = step.graph or self.capture(step, inputs)
        step.graph.launch()  # on the current stream

    def place(self, name: str, value: float) -> Array:
        """The array, float64 (), in which the device reads this number; written only if the value has changed."""
        before, array = self.scalars.get(name) or (None, self.backend.xp.zeros((), dtype="float64"))
        if value != before:
            array[...] = value
            self.scalars[name] = value, array
        return array

    def free_memory(self) -> int:
        """Bytes that graphs may take in all if memory is limited; 0 if it is not."""
        others = self.backend.xp.get_default_memory_pool()
        return max(others.get_limit() - others.total_bytes(), 1) if others.get_limit() else 0

    def run(self, step: CapturedStep, inputs: StepInputs) -> None:
        """Compute eagerly, on the stream of the capture, since cuDNN keeps a workspace for each stream.  # sync"""
        assert self.backend.uncapturable_ops
        self.backend.uncapturable_ops()  # forget what ran before
        self.cuda.get_current_stream().synchronize()  # sync
        with self.cuda.using_allocator(self.pool.malloc), self.stream:
            self.compute(step.x, step.labels, inputs)
        self.stream.synchronize()  # sync
        step.runs += 1
        if names := self.backend.uncapturable_ops():
            self.disable(f"{', '.join(names)} on cuBLAS cannot be part of one")

    def disable(self, reason: str) -> None:
        """Run all further steps eagerly."""
        if self.strict:
            raise DeviceError(f"no CUDA graph: {reason}; leave out --cuda-graph on")
        tell(f"no CUDA graph: {reason}")
        self.disabled = True
        self.steps.clear()
        self.scalars.clear()
        self.clock.on_device = None

    def capture(self, step: CapturedStep, inputs: StepInputs) -> Any:
        """The graph of all launches, which are recorded instead of made."""
        with self.cuda.using_allocator(self.pool.malloc), self.stream:
            self.stream.begin_capture()
            try:
                self.compute(step.x, step.labels, inputs)
            except Exception as error:
                self.abort()
                line = (str(error).strip().splitlines() or [type(error).__name__])[0]
                raise DeviceError(f"the step cannot be captured as a CUDA graph ({line}): --cuda-graph off") from error
            return self.stream.end_capture()

    def abort(self) -> None:
        """End a capture that failed; CUDA reports the failure once more."""
        try:
            self.stream.end_capture()
        except Exception as error:  # CuPy's own exception classes exist only where CuPy does
            tell(str(error))
