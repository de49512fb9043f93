"""Contenders that are timed in turn, round by round, and the ratios of their times."""

import json
import os
import sys
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from math import inf
from statistics import median
from subprocess import PIPE, Popen, TimeoutExpired
from threading import Timer
from time import perf_counter, sleep
from typing import Any

from gpucnn.bench.task import Task
from gpucnn.errors import GpucnnError
from gpucnn.types import Shape

WORKLOADS: dict[str, tuple[str, Shape]] = {
    "a": ("lenet5", (28, 28, 1)),
    "b": ("mnist_cnn", (28, 28, 1)),
    "c": ("vgg_small", (32, 32, 3)),
    "d": ("resnet20", (32, 32, 3)),
}
"""Letter -> model and image shape, as in the tables in benchmarks/."""

TUNED_MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "68719476736",
    "MALLOC_TOP_PAD_": "268435456",
}
"""glibc settings that keep freed memory in the process, which makes PyTorch faster."""

ROUND_SECONDS = 1.0  # a round has as many steps as fit
PAUSE = 0.05  # seconds, until the other contender's threads sleep


@dataclass
class Contender:
    """A child process and the times that it has reported."""

    name: str
    task: Task
    environment: dict[str, str] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)  # median step time of each round
    page_faults: list[float] = field(default_factory=list)  # minor page faults of a step, of each round
    peak_mib: float = 0.0
    first_step: float = 0.0  # seconds from the start of the process to the end of its first step
    interpreter: str = sys.executable  # the Python that runs it; PyTorch may have its own environment
    deadline: float = inf  # in the time of ``perf_counter``; a process that has not answered by then is killed
    launches: int = 0  # this and the next three are what a process on a GPU reports
    graphs: int = 0
    device_mib: float = 0.0
    versions: str = ""
    ended: str = ""  # how the process came to its end, once it gives no answer

    def start(self) -> None:
        """Start the process and wait until it has warmed up."""
        start = perf_counter()
        command = [self.interpreter, "-m", "gpucnn.bench.contender", self.task.to_json()]
        environment = {**os.environ, **self.environment}
        # Ctrl-C is for us alone: without us the process finds its standard input at its end
        self.process = Popen(command, stdin=PIPE, stdout=PIPE, text=True, env=environment, process_group=0)
        self._warm(start)

    def switch_to(self, task: Task) -> None:
        """Give the process, started where it is not yet, another task, and wait until it has warmed up."""
        self.task, self.seconds, self.page_faults = task, [], []
        if hasattr(self, "process"):
            self._warm(perf_counter(), f"{task.to_json()}\n")
        else:
            self.start()

    def _warm(self, start: float, line: str = "") -> None:
        self.versions = str(self._answer(line).get("versions", ""))
        self.first_step = perf_counter() - start
        answer = self._answer()
        self.launches, self.graphs = int(answer.get("launches", 0)), int(answer.get("graphs", 0))

    def round(self, steps: int) -> float:
        """Run some steps; returns their median time."""
        answer = self._answer(f"{steps}\n")
        self.peak_mib, self.device_mib = float(answer["peak_mib"]), float(answer["device_mib"])
        self.page_faults.append(float(answer["page_faults"]))
        return float(answer["seconds"])

    def stop(self) -> None:
        """End the process, by force if it takes longer than a minute; does nothing where it was not started."""
        if hasattr(self, "process"):
            try:
                self.process.communicate(timeout=60)
            except TimeoutExpired:
                self.process.kill()

    def kill(self) -> None:
        """End the process at once; does nothing where it was not started."""
        if hasattr(self, "process"):
            self.process.kill()

    def _answer(self, line: str = "") -> dict[str, Any]:
        """The next answer of the process, to this line if one is given; GpucnnError where it fails, ends or is late."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with suppress(BrokenPipeError):  # a process that has ended gives no answer either
            self.process.stdin.write(line)
            self.process.stdin.flush()
        watchdog = Timer(max(self.deadline - perf_counter(), 0.0), self.process.kill)
        if self.deadline < inf:
            watchdog.start()
        answers = (line for line in self.process.stdout if line.startswith("{"))  # a library may print other lines
        text = next(answers, None)
        watchdog.cancel()
        if text is None:
            late = perf_counter() >= self.deadline
            why = "was stopped: out of time" if late else f"ended with code {self.process.wait()}"
            self.ended = self.ended or why  # a task after that gets the same answer
            raise GpucnnError(f"the process of {self.name} {self.ended}")
        answer: dict[str, Any] = json.loads(text)
        if "error" in answer:
            raise GpucnnError(f"{self.name}: {answer['error']}")
        return answer


@dataclass(frozen=True)
class Result:
    """Medians over rounds, by contender.

    ``ratios`` has, for each baseline, the smallest, median and largest of our time over that of PyTorch in its faster
    layout, round by round; below 1 we are faster.
    """

    task: Task
    milliseconds: dict[str, float]
    page_faults: dict[str, float]
    peak_mib: dict[str, float]
    first_step: dict[str, float]
    ratios: dict[str, tuple[float, float, float]]


def contenders(task: Task, *, tuned: bool = True, compiled: bool = False) -> list[Contender]:
    """gpucnn, and PyTorch if installed: on the same device, in both layouts, also with tuned malloc and compiled."""
    found = [Contender("gpucnn", task)]
    device = "cuda" if task.framework.partition(":")[0] == "gpu" else "cpu"
    for layout in ("contiguous", "channels_last") if find_spec("torch") else ():
        theirs = replace(task, framework="pytorch", layout=layout, device=device)
        found.append(Contender(f"pytorch {layout}", theirs))
        if tuned:
            found.append(Contender(f"pytorch {layout}, tuned malloc", theirs, TUNED_MALLOC))
        if compiled:
            found.append(Contender(f"pytorch {layout}, compiled", replace(theirs, compiled="default")))
    return found


def race(racers: list[Contender], rounds: int) -> Result:
    """Time all contenders in turn, ``rounds`` times."""
    try:
        for racer in racers:
            racer.start()
        take_turns(racers, rounds)
    except BaseException:  # Ctrl-C too
        for racer in racers:
            racer.kill()
        raise
    for racer in racers:
        racer.stop()
    ours = racers[0]
    baselines = {
        "default malloc": [r for r in racers[1:] if not r.environment and not r.task.compiled],
        "tuned malloc": [r for r in racers[1:] if r.environment],
        "compiled": [r for r in racers[1:] if r.task.compiled],
    }
    return Result(
        task=ours.task,
        milliseconds={racer.name: 1e3 * median(racer.seconds) for racer in racers},
        page_faults={racer.name: median(racer.page_faults) for racer in racers},
        peak_mib={racer.name: racer.peak_mib for racer in racers},
        first_step={racer.name: racer.first_step for racer in racers},
        ratios={name: paired(ours, them) for name, them in baselines.items() if them},
    )


def take_turns(racers: list[Contender], rounds: int, seconds: float = ROUND_SECONDS, most: int = 50) -> None:
    """Rounds of warm contenders in turn, each of as many steps as fit into ``seconds``, at most ``most``."""
    steps = {racer.name: max(1, min(most, int(seconds / racer.round(1)))) for racer in racers}
    for racer in racers:
        racer.page_faults.clear()
    for _ in range(rounds):
        for racer in racers:
            sleep(PAUSE)
            racer.seconds.append(racer.round(steps[racer.name]))


def cold_and_warm(task: Task) -> tuple[float, float]:
    """Seconds from the start of our process to the end of its first step: without compiled kernels, and with them."""
    with tempfile.TemporaryDirectory(prefix="gpucnn-cold-") as folder:
        racers = [Contender(name, task, {"XDG_CACHE_HOME": folder}) for name in ("cold", "warm")]
        for racer in racers:
            try:
                racer.start()
            except BaseException:
                racer.kill()
                raise
            racer.stop()
    return racers[0].first_step, racers[1].first_step


def paired(ours: Contender, them: Iterable[Contender]) -> tuple[float, float, float]:
    """(minimum, median, maximum) of our time over that of the best of them, round by round."""
    best = min(them, key=lambda racer: median(racer.seconds))
    ratios = [a / b for a, b in zip(ours.seconds, best.seconds, strict=False)]  # the last round may be cut off
    return min(ratios), median(ratios), max(ratios)
