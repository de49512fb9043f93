"""Training steps on a GPU against PyTorch: each contender is a process that runs one case after the other."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from statistics import median
from time import perf_counter

from gpucnn import models
from gpucnn.bench.peaks import peak_fraction, training_flops
from gpucnn.bench.race import Contender, paired, take_turns
from gpucnn.errors import GpucnnError
from gpucnn.types import Shape

ROUND_SECONDS = 0.25
MOST = 200  # steps of a round
KEPT = 0.2  # fraction of the remaining time for the rounds; a contender that is not ready before is left out


@dataclass(frozen=True)
class Case:
    """A model, the shape of its images and the batch size."""

    model: str
    shape: Shape
    batch_size: int

    def __str__(self) -> str:
        return f"{self.model}, {'x'.join(map(str, self.shape))}, batch {self.batch_size}"


@dataclass(frozen=True)
class Row:
    """The result of one contender in one case."""

    name: str
    precision: str
    seconds: list[float] = field(default_factory=list)  # median step time of each round
    launches: int = 0
    graphs: int = 0
    device_mib: float = 0.0
    peak_fraction: float | None = None  # of the GPU's arithmetic peak; None if that is not known
    ratio: tuple[float, float, float] | None = None  # smallest, median and largest of our time over theirs, by round
    error: str = ""  # why it could not run; "" if it did


class Field:
    """The contenders of every case, on the GPU of this name (the driver's), whose peak is the measure.

    The fastest of ``ours`` is compared with each of ``theirs``, float32 with float32, mixed with mixed.
    """

    def __init__(self, ours: Sequence[Contender], theirs: Sequence[Contender], gpu: str = "") -> None:
        self.ours, self.theirs, self.gpu = list(ours), list(theirs), gpu
        self.all = self.ours + self.theirs

    def versions(self) -> str:
        """The libraries' versions, as the contenders report them."""
        return "; ".join(dict.fromkeys(racer.versions for racer in self.all if racer.versions))

    def race(self, case: Case, rounds: int, deadline: float) -> list[Row]:
        """Rounds of all contenders in turn.  One that fails or is not ready in time is left out of this case."""
        errors: dict[str, str] = {}
        start = perf_counter()
        ready_by = start + (1.0 - KEPT) * (deadline - start) if deadline < inf else inf
        for racer in self.all:
            racer.deadline = ready_by
            task = replace(racer.task, model=case.model, input_shape=case.shape, batch_size=case.batch_size)
            try:
                racer.switch_to(task)
            except GpucnnError as error:
                errors[racer.name] = str(error)
            racer.deadline = deadline
        ready = [racer for racer in self.all if racer.name not in errors]
        try:
            take_turns(ready, rounds, ROUND_SECONDS, MOST)
        except GpucnnError as error:  # a process that fails here ends the rounds of all
            errors.update({racer.name: str(error) for racer in ready if not racer.seconds})
        return self.rows(case, errors)

    def rows(self, case: Case, errors: dict[str, str]) -> list[Row]:
        """The results after the rounds."""
        ready = [racer for racer in self.ours if racer.name not in errors]
        ready.sort(key=lambda racer: median(racer.seconds))
        found = []
        for racer in self.all:
            precision = racer.task.precision
            if error := errors.get(racer.name):
                found.append(Row(racer.name, precision, error=error))
                continue
            flops = training_flops(models.build(case.model, case.shape), case.shape, case.batch_size)
            used = peak_fraction(self.gpu, precision, flops, median(racer.seconds))
            alike = (mine for mine in ready if (mine.task.precision == "float32") == (precision == "float32"))
            best = next(alike, None) if racer in self.theirs else None
            ratio = paired(best, [racer]) if best else None
            numbers = racer.seconds, racer.launches, racer.graphs, racer.device_mib
            found.append(Row(racer.name, precision, *numbers, peak_fraction=used, ratio=ratio))
        return found


def run_cases(field: Field, cases: list[Case], rounds: int, deadline: float) -> Iterator[tuple[Case, list[Row] | None]]:
    """One case after the other while there is time: (case, its rows, or None if it was not reached)."""
    last = 0.0
    try:
        for case in cases:
            start = perf_counter()
            if start + last / 2 > deadline:  # half, since the first case also starts the processes
                yield case, None
                continue
            rows = field.race(case, rounds, deadline)
            last = perf_counter() - start
            yield case, rows
    finally:
        for racer in field.all:
            racer.stop()
