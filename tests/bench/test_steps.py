"""Contenders that take one case after the other: failures, ends, ratios and fractions of the peak."""

import json
import signal
from dataclasses import replace
from math import inf
from time import perf_counter
from types import SimpleNamespace

import numpy as np
import pytest

from gpucnn import models
from gpucnn.bench import race, steps, timers
from gpucnn.bench.contender import times
from gpucnn.bench.launches import CUDNN, counted
from gpucnn.bench.peaks import PEAKS, peak_fraction, training_flops
from gpucnn.bench.race import Contender
from gpucnn.bench.report import Page, table
from gpucnn.bench.steps import Case, Field, run_cases
from gpucnn.bench.task import Task

TASK = Task("reference", "", (), 0, threads=1)
LENET, MLP, WRONG = Case("lenet5", (28, 28, 1), 2), Case("mlp", (4, 4, 1), 2), Case("nothing", (4, 4, 1), 2)


def test_one_process_takes_all_cases_and_survives_a_wrong_one() -> None:
    field = Field([Contender("ours", TASK)], [Contender("theirs", TASK)])
    found = dict(run_cases(field, [LENET, WRONG, MLP], 2, inf))
    for case in (LENET, MLP):
        ours, theirs = found[case]
        assert len(ours.seconds) == len(theirs.seconds) == 2
        assert ours.ratio is None
        assert theirs.precision == "float32"
        assert 0 < theirs.ratio[0] <= theirs.ratio[1] <= theirs.ratio[2]
        assert not ours.error
    assert all("unknown model 'nothing'" in row.error and not row.seconds for row in found[WRONG])
    assert [racer.process.poll() for racer in field.all] == [0, 0]


def test_ratios_are_within_a_precision() -> None:
    tasks = {"ours, half": "float16", "ours": "float32", "theirs, half": "bfloat16", "theirs": "float32"}
    racers = [Contender(name, replace(TASK, precision=precision)) for name, precision in tasks.items()]
    for racer, seconds in zip(racers, (1.0, 6.0, 2.0, 3.0), strict=True):
        racer.seconds = [seconds, seconds]
    rows = {row.name: row for row in Field(racers[:2], racers[2:]).rows(MLP, {})}
    assert rows["theirs, half"].ratio == (0.5, 0.5, 0.5)
    assert rows["theirs"].ratio == (2.0, 2.0, 2.0)
    assert rows["ours"].ratio is rows["ours, half"].ratio is None
    alone = Field(racers[:1], racers[3:]).rows(MLP, {})
    assert alone[1].ratio is None


def test_one_that_ends_or_dawdles_is_out_and_the_others_go_on(tmp_path) -> None:
    dead = Contender("dead", TASK, interpreter="/bin/false")
    field = Field([Contender("ours", TASK)], [dead])
    for _, (ours, theirs) in run_cases(field, [MLP, LENET], 1, inf):
        assert ours.seconds
        assert "ended with code 1" in theirs.error
    slow = tmp_path / "python"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    field = Field([Contender("slow", TASK, interpreter=str(slow))], [])
    ((_, rows), (_, missed)) = run_cases(field, [MLP, LENET], 1, perf_counter() + 0.5)
    assert "out of time" in rows[0].error
    assert missed is None
    assert field.all[0].process.wait() == -signal.SIGKILL  # nobody waited until it had slept enough


def test_one_that_is_late_leaves_the_others_their_rounds(tmp_path, monkeypatch) -> None:
    racers = []
    for name, body in {
        "ours": """echo '{"steps": 1}'; echo '{"steps": 4}'
while read line; do echo '{"seconds": 0.2, "page_faults": 0, "peak_mib": 1, "device_mib": 1}'; done""",
        "late": "exec sleep 60",
    }.items():
        script = tmp_path / name
        script.write_text(f"#!/bin/sh\n{body}\n")
        script.chmod(0o755)
        racers.append(Contender(name, TASK, interpreter=str(script)))
    field, now = Field(racers[:1], racers[1:]), 0.0
    for module in (race, steps):
        monkeypatch.setattr(module, "perf_counter", lambda: now)
    start = racers[1].switch_to

    def start_late(task: Task) -> None:
        nonlocal now
        now = racers[1].deadline  # the time to get ready is over, that for the rounds is not
        start(task)

    monkeypatch.setattr(racers[1], "switch_to", start_late)
    ((_, (ours, late)),) = run_cases(field, [MLP], 2, 1000.0)
    assert ours.seconds == [0.2, 0.2]
    assert "out of time" in late.error


def test_a_row_has_its_fraction_of_the_peak() -> None:
    name = "NVIDIA H100 80GB HBM3"
    model = models.build("resnet18", (32, 32, 3))
    flops = training_flops(model, (32, 32, 3), 512)
    assert flops == 3 * 512 * model.flops((32, 32, 3))
    assert peak_fraction(name, "bfloat16", flops, flops / 989.4e12) == pytest.approx(1.0)
    assert peak_fraction(name, "float32", flops, flops / 66.9e12) == pytest.approx(1.0)
    assert peak_fraction("Another GPU", "float32", flops, 1.0) is None
    for peak in PEAKS.values():
        assert peak.float32 < peak.mixed
        assert "data sheet" in peak.source


class Event:
    """Stands for an event of CuPy or PyTorch on a stream that takes 2 ms for each piece of work."""

    now = 0.0
    waited = 0

    def record(self) -> None:
        self.at = Event.now

    def synchronize(self) -> None:
        Event.waited += 1


def test_device_events_time_each_step_and_wait_once() -> None:
    def step() -> None:
        Event.now += 2.0

    clock = timers.DeviceClock(Event, lambda first, second: second.at - first.at)
    assert times(step, 5, clock) == pytest.approx([2e-3] * 5)
    assert Event.waited == 1
    backend = SimpleNamespace(
        synchronous=False,
        xp=SimpleNamespace(cuda=SimpleNamespace(Event=Event, get_elapsed_time=lambda first, second: 3.0)),
    )
    assert times(step, 2, timers.clock_of(backend)) == pytest.approx([3e-3] * 2)


def test_launches_are_counted_and_only_inside(monkeypatch) -> None:
    from strict_gpu import CountingLauncher, counted_gpu

    from gpucnn.kernels.gpu import launch
    from gpucnn.kernels.gpu.cudnn import library
    from gpucnn.kernels.gpu.cudnn.plans import Context
    from gpucnn.layers.activations import relu

    context = Context(None, 0, SimpleNamespace(alloc=None), 0, None)
    monkeypatch.setattr(library, "_opened", {0: context, 1: "no cuDNN there"})
    launcher = CountingLauncher()
    monkeypatch.setattr(launch, "launcher", launcher)
    backend = counted_gpu(launcher)
    x = backend.to_device(np.ones((2, 4), np.float32))
    with counted() as found:
        backend.run(relu, x)
        context.executions += 1
    backend.run(relu, x)
    context.executions += 1
    assert dict(found) == {"elementwise.cu": 1, CUDNN: 1}
    assert launch.launcher is launcher


def test_a_page_keeps_the_sections_of_the_same_machine(tmp_path) -> None:
    path = tmp_path / "page.md"
    page = Page(path, "Results", "Machine: one.", ["a", "b", "c"])
    page.write("b", "second")
    page.write("a", "first\n\n| x |")
    Page(path, "Results", "Machine: one.", ["a", "b", "c"]).write("b", "anew")
    assert path.read_text() == "# Results\n\nMachine: one.\n\n## a\n\nfirst\n\n| x |\n\n## b\n\nanew\n"
    Page(path, "Results", "Machine: two.", ["a", "b", "c"]).write("c", "third")
    assert path.read_text() == "# Results\n\nMachine: two.\n\n## c\n\nthird\n"
    assert table(["a", "b"], [["1", "2|3"]]) == "| a | b |\n| --- | --- |\n| 1 | 2/3 |"


def test_pytorch_has_what_only_a_gpu_calls() -> None:
    torch = pytest.importorskip("torch")
    for module, names in {
        torch.cuda: ("Event", "empty_cache", "memory_reserved"),
        torch.compiler: ("reset",),
        torch.backends.cudnn: ("version", "benchmark", "allow_tf32"),
        torch.backends.cuda.matmul: ("allow_tf32",),
        torch.version: ("cuda",),
    }.items():
        for name in names:
            assert hasattr(module, name), name


def test_pytorch_computes_no_gradient_that_we_leave_out() -> None:
    pytest.importorskip("torch")
    from gpucnn.bench.pytorch import to_torch

    ours = models.build("speedrun94", (16, 16, 3)).initialize()
    theirs = to_torch(ours).parameters()
    frozen = [parameter.frozen for parameter in ours.parameters().values()]
    assert any(frozen)
    assert [not tensor.requires_grad for tensor in theirs] == frozen


def test_pytorch_in_mixed_precision_learns_as_in_float32() -> None:
    torch = pytest.importorskip("torch")
    from gpucnn.bench import pytorch
    from gpucnn.bench.contender import batch

    torch.manual_seed(0)
    losses = {}
    for precision in ("float32", "bfloat16"):
        task = Task("pytorch", "mlp", (8, 8, 1), 16, threads=1, precision=precision)
        seen: list[float] = []
        original = torch.nn.CrossEntropyLoss.forward

        def watch(self, *args, seen=seen, original=original):
            value = original(self, *args)
            seen.append(value.item())
            return value

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.nn.CrossEntropyLoss, "forward", watch)
            step = pytorch.torch_step(task, *batch(task))
            for _ in range(5):
                step()
        losses[precision] = seen
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.02)
    assert losses["bfloat16"] != losses["float32"]
    assert losses["float32"][-1] < losses["float32"][0]


def test_our_work_on_a_gpu_is_a_graph_after_its_warm_up(monkeypatch, capsys) -> None:
    import fake_cuda
    import strict_cupy
    from strict_gpu import CountingLauncher, counted_gpu

    from gpucnn import devices
    from gpucnn.bench import contender
    from gpucnn.kernels.gpu import launch

    cuda = SimpleNamespace(
        **{name: getattr(fake_cuda.cuda, name) for name in ("Stream", "MemoryPool", "using_allocator")},
        get_current_stream=fake_cuda.cuda.get_current_stream,
        Event=Event,
        get_elapsed_time=lambda first, second: 1.0,
    )
    monkeypatch.setattr(strict_cupy, "cuda", cuda, raising=False)
    monkeypatch.setattr(strict_cupy, "get_default_memory_pool", Pool, raising=False)
    launcher = CountingLauncher()
    monkeypatch.setattr(launch, "launcher", launcher)
    backend = replace(counted_gpu(launcher), uncapturable_ops=list)
    monkeypatch.setattr(devices, "get_backend", lambda name: backend)
    for mode, graphs in (("auto", 1), ("off", 0)):
        task = Task("gpu", "lenet5", (28, 28, 1), 4, threads=1, precision="float16", cuda_graph=mode)
        contender.warm_up(contender.our_work(task))
        first, warm = map(json.loads, capsys.readouterr().out.splitlines())
        assert first["steps"] == 1
        assert warm["graphs"] == graphs
        assert (warm["launches"] == 0) == bool(graphs)  # the whole step is in it


class Pool:
    """Stands for CuPy's memory pool."""

    def free_all_blocks(self) -> None:
        pass

    def total_bytes(self) -> int:
        return 1 << 20

    def get_limit(self) -> int:
        return 0
