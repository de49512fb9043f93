"""Layer by layer against PyTorch: ``python benchmarks/ops.py -w d`` for the layers of ResNet-20.

Each framework has its own process (PyTorch one for each memory layout), which runs the forward or backward pass of a
layer on request.  The processes take turns, round by round, and the ratio is the median of paired rounds against
PyTorch's better layout.  Layers that differ only in their weights are timed once.  For loss and optimizer see
``gpucnn benchmark``.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from time import perf_counter, sleep
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from gpucnn import layers, models
from gpucnn.bench.contender import answer
from gpucnn.bench.race import PAUSE, TUNED_MALLOC, WORKLOADS, Contender, paired
from gpucnn.bench.task import Task
from gpucnn.devices import get_backend
from gpucnn.devices.cores import usable_cores
from gpucnn.devices.select import set_threads
from gpucnn.runs.environment import environment

ROUND_SECONDS = 0.1
WARMUP = 3
PARTS = ("forward", "backward")


@dataclass
class Case:
    """An initialized layer and the shape of one of its images; ``count``: how many layers of the model are like it."""

    workload: str
    name: str
    layer: layers.Layer
    shape: tuple[int, ...]
    count: int = 1

    def __str__(self) -> str:
        return f"{self.workload}: {describe(self.layer)} of {'x'.join(map(str, self.shape))}"


@dataclass(frozen=True)
class Timing:
    """Medians over rounds; ``ratio``: smallest, median and largest of ours over PyTorch's."""

    workload: str
    layer: str
    shape: tuple[int, ...]
    count: int
    part: str
    milliseconds: dict[str, float]
    ratio: tuple[float, float, float] | None


def describe(layer: layers.Layer) -> str:
    """A layer's class and settings, without its weights."""
    plain = {k: v for k, v in vars(layer).items() if isinstance(v, int | float | tuple) and not k.startswith("_")}
    shown = [f"{k}={short(v)}" for k, v in plain.items() if k not in ("training", "eps", "momentum")]
    return f"{type(layer).__name__}({', '.join(shown)})".replace("needs_input_grad=False", "first")


def short(value: Any) -> str:
    """(5, 5) as 5x5; of a padding, the top and the left."""
    if not isinstance(value, tuple):
        return str(value)
    return "x".join(str(v[0] if isinstance(v, tuple) else v) for v in value)


def leaves(model: layers.Layer, name: str, shape: tuple[int, ...]) -> Iterator[tuple[str, layers.Layer, Any]]:
    """(name, layer, input shape) of each layer that computes; a residual block's sum is a block without a body."""
    if isinstance(model, layers.Sequential):
        for part, layer in model.children().items():
            yield from leaves(layer, f"{name}.{part}", shape)
            shape = layer.output_shape(shape)
    elif isinstance(model, layers.Residual):
        yield from leaves(model.body, f"{name}.body", shape)
        if model.shortcut:
            yield from leaves(model.shortcut, f"{name}.shortcut", shape)
        total = layers.Residual(layers.Sequential(), relu=model.relu)
        yield f"{name}.sum", total, model.output_shape(shape)
    elif not isinstance(model, layers.Flatten):
        yield name, model, shape


def cases(workload: str, device: str) -> list[Case]:
    """The different layers of a workload's model, on a backend."""
    kind, shape = WORKLOADS[workload]
    model = models.build(kind, shape).initialize(0, get_backend(device))
    model.skip_input_grad()
    found: dict[str, Case] = {}
    for name, layer, size in leaves(model, kind, shape):
        layer.backend = model.backend
        case = Case(workload, name, layer, size)
        if str(case) in found:
            found[str(case)].count += 1
        else:
            found[str(case)] = case
    return list(found.values())


def our_part(case: Case, batch: int, part: str) -> Callable[[], Any]:
    """Forward or backward of our layer alone."""
    layer = case.layer
    x = noise(batch, *case.shape)
    y = layer.forward(x)
    if part == "forward":
        return lambda: layer.forward(x)
    kept, dy = layer._kept, noise(*y.shape)

    def back() -> None:
        layer._kept = kept  # backward clears it
        layer.backward(dy)

    return back


def their_part(case: Case, batch: int, part: str, layout: str) -> Callable[[], Any]:
    """Forward or backward of PyTorch's layer alone."""
    import torch

    from gpucnn.bench.pytorch import to_torch

    order = torch.channels_last if layout == "channels_last" else torch.contiguous_format

    def tensor(array: np.ndarray) -> Any:
        made = torch.from_numpy(array)
        return made.permute(0, 3, 1, 2).contiguous(memory_format=order) if array.ndim == 4 else made

    module = to_torch(case.layer).to(memory_format=order)
    if isinstance(module, torch.nn.ReLU):
        module.inplace = False  # x is a leaf here, and is needed again
    x = tensor(noise(batch, *case.shape)).requires_grad_(case.layer.needs_input_grad)
    y = module(x)
    if part == "forward":
        return lambda: module(x)
    wanted = [t for t in (x, *module.parameters()) if t.requires_grad]
    dy = tensor(noise(batch, *case.layer.output_shape(case.shape)))
    return lambda: torch.autograd.grad(y, wanted, dy, retain_graph=True)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def serve(task: Task) -> None:
    """A contender's process: each line of input names a case and a count; the answer is the median time."""
    theirs = task.framework == "pytorch"
    if theirs:
        import torch

        torch.set_num_threads(task.threads)
    set_threads(1 if theirs else task.threads)
    mine: dict[str, list[Case]] = {}
    current = None
    run: Callable[[], Any] = int
    answer({"ready": True})
    for line in sys.stdin:
        wanted = json.loads(line)
        which = (wanted["workload"], wanted["case"], wanted["part"])
        if which != current:
            run = int  # frees the memory of the previous case
            workload, index, part = current = which
            if workload not in mine:
                mine = {workload: cases(workload, "reference" if theirs else task.framework)}
            case = mine[workload][index]
            run = (
                their_part(case, task.batch_size, part, task.layout)
                if theirs
                else our_part(case, task.batch_size, part)
            )
            for _ in range(WARMUP):
                run()
        times = []
        for _ in range(wanted["steps"]):
            start = perf_counter()
            run()
            times.append(perf_counter() - start)
        answer({"seconds": median(times)})


class Server(Contender):
    """A contender that times layers one by one."""

    def start(self) -> None:
        command = [sys.executable, __file__, "--serve", self.task.to_json()]
        pipe, where = subprocess.PIPE, {**os.environ, **self.environment}
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=where)
        self._answer()

    def ask(self, steps: int, **what: Any) -> float:
        """Median seconds of ``steps`` runs of one pass of a layer."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({**what, "steps": steps}) + "\n")
        self.process.stdin.flush()
        return self._answer()["seconds"]


def race(servers: list[Server], workload: str, index: int, case: Case, part: str, rounds: int) -> Timing:
    """Time one pass of a layer; the servers take turns."""
    what = {"workload": workload, "case": index, "part": part}
    steps = {}
    for server in servers:
        server.seconds = []
        server.ask(1, **what)
        steps[server.name] = max(1, min(1000, int(ROUND_SECONDS / server.ask(3, **what))))
    for _ in range(rounds):
        for server in servers:
            sleep(PAUSE)
            server.seconds.append(server.ask(steps[server.name], **what))
    times = {server.name: 1e3 * median(server.seconds) for server in servers}
    ratio = paired(servers[0], servers[1:]) if servers[1:] else None
    return Timing(workload, describe(case.layer), case.shape, case.count, part, times, ratio)


def line(timing: Timing) -> str:
    """One row of the human-readable table."""
    ratio = "  ".join(f"{r:6.2f}" for r in timing.ratio) if timing.ratio else ""
    times = "".join(f"{time:12.3f}" for time in timing.milliseconds.values())
    what = f"{timing.count:3d} x {timing.layer} of {'x'.join(map(str, timing.shape))}"
    return f"{timing.part:<9}{times}  {ratio}  {what}"


def main() -> int:
    """Time all layers of the chosen workloads."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", "-w", choices=[*WORKLOADS, "all"], default="all")
    parser.add_argument("--batch-size", "-b", type=int, default=128)
    parser.add_argument("--threads", type=int, default=0, help="of each framework (default: all usable cores)")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tuned", action="store_true", help="PyTorch with a malloc that keeps memory")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(Task.from_json(args.serve))
        return 0
    threads = args.threads or usable_cores()
    ours = Task("cpu", "", (), args.batch_size, "train", threads)
    servers = [Server("gpucnn", ours)]
    for layout in ("contiguous", "channels_last") if find_spec("torch") else ():
        theirs = replace(ours, framework="pytorch", layout=layout)
        servers.append(Server(f"pytorch {layout}", theirs, TUNED_MALLOC if args.tuned else {}))
    for server in servers:
        server.start()
    timings = []
    for workload in WORKLOADS if args.workload == "all" else [args.workload]:
        if not args.json:
            print(f"\n{WORKLOADS[workload][0]}, batch {args.batch_size}, {threads} threads, {args.rounds} rounds")
            print(f"ms of {', '.join(server.name for server in servers)}; ratio: smallest, median, largest")
        for index, case in enumerate(cases(workload, "reference")):
            for part in PARTS:
                timings.append(race(servers, workload, index, case, part, args.rounds))
                if not args.json:
                    print(line(timings[-1]), flush=True)
    for server in servers:
        server.stop()
    if args.json:
        machine = environment("cpu", "cpu", "")
        found = {"machine": machine, "rounds": args.rounds, "batch_size": args.batch_size, "threads": threads}
        print(json.dumps({**found, "timings": [asdict(timing) for timing in timings]}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
