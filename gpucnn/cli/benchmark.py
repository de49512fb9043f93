"""``gpucnn benchmark``: training steps against PyTorch on this machine."""

import argparse
import json
from dataclasses import asdict

from gpucnn import models
from gpucnn.bench import profiler
from gpucnn.bench.contender import our_trainer
from gpucnn.bench.race import WORKLOADS, Result, cold_and_warm, contenders, race
from gpucnn.bench.task import Task
from gpucnn.cli.options import shape_from
from gpucnn.devices import get_backend
from gpucnn.devices.cores import usable_cores
from gpucnn.devices.select import check_threads, set_threads
from gpucnn.errors import UsageError
from gpucnn.runs.environment import environment
from gpucnn.types import Shape

PRECISIONS = {"off": "float32", "fp16": "float16"}
"""--amp -> what a task calls it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``gpucnn benchmark``."""
    parser.add_argument(
        "--workload",
        "-w",
        choices=[*WORKLOADS, "all"],
        default="all",
        help="a: LeNet, b: MNIST, c: VGG, d: ResNet",
    )
    parser.add_argument("--model", help="any model instead, for images of --input-shape")
    parser.add_argument("--input-shape", default="32x32x3", metavar="HxWxC")
    parser.add_argument("--batch-size", "-b", type=int, default=128)
    parser.add_argument("--mode", choices=["train", "eval"], default="train")
    parser.add_argument("--device", default="cpu", help="our backend")
    parser.add_argument("--amp", choices=list(PRECISIONS), default="off", help="float16 where that is safe, on a GPU")
    parser.add_argument("--threads", type=int, default=0, help="of each contender (default: all usable cores)")
    parser.add_argument("--rounds", type=int, default=9, help="rounds of each contender, in turn")
    parser.add_argument("--no-tuned", action="store_true", help="leave out PyTorch with tuned malloc")
    parser.add_argument(
        "--compiled", action="store_true", help="race PyTorch by torch.compile too (needs a C++ compiler)"
    )
    parser.add_argument("--explain", action="store_true", help="no race: which op of ours takes how much of a step")
    parser.add_argument("--cold", action="store_true", help="no race: our start with no compiled kernels and with them")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")


def run(args: argparse.Namespace) -> int:
    """Race the workloads one after the other."""
    if args.batch_size < 1 or args.rounds < 1:
        raise UsageError(f"--batch-size {args.batch_size} --rounds {args.rounds}: give at least 1 of each")
    check_threads(args.threads)
    cases: list[tuple[str, Shape]] = list(WORKLOADS.values())
    if args.model:
        cases = [(args.model, shape_from(args.input_shape))]
        models.build(*cases[0])  # a wrong name is said here, not by a contender's process
    elif args.workload != "all":
        cases = [WORKLOADS[args.workload]]
    threads = args.threads or usable_cores()
    precision = PRECISIONS[args.amp]
    tasks = [Task(args.device, *case, args.batch_size, args.mode, threads, precision=precision) for case in cases]
    if args.explain:
        explain_all(tasks, args.json)
        return 0
    if args.cold:
        time_starts(tasks, args.json)
        return 0
    results = []
    for task in tasks:
        results.append(race(contenders(task, tuned=not args.no_tuned, compiled=args.compiled), args.rounds))
        if not args.json:
            print(table(results[-1], args.rounds), flush=True)
    if args.json:
        machine = environment(args.device, args.device, "")
        print(json.dumps({"machine": machine, "rounds": args.rounds, "results": [asdict(r) for r in results]}))
    return 0


def explain_all(tasks: list[Task], as_json: bool) -> None:
    """Where the time of each task's step goes."""
    found = []
    for task in tasks:
        set_threads(task.threads)
        trainer = our_trainer(task, profiler.stopwatch(get_backend(task.framework)))
        found.append(profiler.explain(trainer, task.input_shape, 10, mode=task.mode))
        if not as_json:
            print(f"{title(task)}\n{profiler.table(found[-1])}\n", flush=True)
    if as_json:
        pairs = zip(tasks, found, strict=True)
        print(json.dumps([{"task": asdict(task), "ops": profiler.as_json(rows)} for task, rows in pairs]))


def time_starts(tasks: list[Task], as_json: bool) -> None:
    """How long our process takes to its first step, before and after its kernels have been compiled."""
    found = []
    for task in tasks:
        cold, warm = cold_and_warm(task)
        found.append({"task": asdict(task), "cold_seconds": cold, "warm_seconds": warm})
        if not as_json:
            print(f"{title(task)}\n  from the start of the process to the end of its first step")
            print(f"    kernels to be compiled {cold:6.1f} s\n    kernels on disk        {warm:6.1f} s", flush=True)
    if as_json:
        print(json.dumps({"machine": environment(tasks[0].framework, tasks[0].framework), "starts": found}))


def title(task: Task) -> str:
    """What was timed."""
    return f"{task.model}, batch {task.batch_size}, {task.precision}, {task.mode}, {task.threads} threads"


def table(result: Result, rounds: int) -> str:
    """One workload, human-readable."""
    task = result.task
    lines = [f"{title(task)}, {rounds} rounds"]
    for name, time in result.milliseconds.items():
        lines.append(
            f"  {name:<36} {time:9.2f} ms a step   {result.page_faults[name]:7.0f} page faults a step   "
            f"{result.peak_mib[name]:6.0f} MiB peak   {result.first_step[name]:5.1f} s from start to first step"
        )
    for name, (low, mid, high) in result.ratios.items():
        way = name if name == "compiled" else f"eager, {name}"
        lines.append(f"  gpucnn / pytorch {way}, best layout: {mid:.2f} ({low:.2f} to {high:.2f})")
    return "\n".join(lines)
