"""``gpucnn benchmark``: training steps against PyTorch on this machine."""

import argparse
import json
from dataclasses import asdict
from typing import Any

from gpucnn import models
from gpucnn.bench import profiler
from gpucnn.bench.contender import our_trainer
from gpucnn.bench.race import WORKLOADS, Result, cold_and_warm, contenders, race
from gpucnn.bench.task import Task
from gpucnn.cli.options import check_number, shape_from
from gpucnn.devices import get_backend
from gpucnn.devices.cores import usable_cores
from gpucnn.devices.select import check_threads, set_threads
from gpucnn.models.memory import check_memory
from gpucnn.runs.environment import environment
from gpucnn.types import Shape

PRECISIONS = {"off": "float32", "fp16": "float16"}  # --amp -> what a task calls it


def add_arguments(parser: argparse.ArgumentParser) -> None:
    workloads, letters = [*WORKLOADS, "all"], "a: LeNet, b: MNIST, c: VGG, d: ResNet"
    compiled = "race PyTorch by torch.compile too (needs a C++ compiler)"
    parser.add_argument("--workload", "-w", choices=workloads, default="all", help=letters)
    parser.add_argument("--model", help="any model instead, for images of --input-shape")
    parser.add_argument("--input-shape", default="32x32x3", metavar="HxWxC")
    parser.add_argument("--batch-size", "-b", type=int, default=128)
    parser.add_argument("--mode", choices=["train", "eval"], default="train")
    parser.add_argument("--device", default="cpu", help="our backend")
    parser.add_argument("--amp", choices=list(PRECISIONS), default="off", help="float16 where that is safe, on a GPU")
    parser.add_argument("--threads", type=int, default=0, help="of each contender (default: all usable cores)")
    parser.add_argument("--rounds", type=int, default=9, help="rounds of each contender, in turn")
    parser.add_argument("--no-tuned", action="store_true", help="leave out PyTorch with tuned malloc")
    parser.add_argument("--compiled", action="store_true", help=compiled)
    parser.add_argument("--explain", action="store_true", help="no race: which op of ours takes how much of a step")
    parser.add_argument("--cold", action="store_true", help="no race: our start with no compiled kernels and with them")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")


def run(args: argparse.Namespace) -> int:
    """Race the workloads one after the other, or time our own ops or starts."""
    check_number("--batch-size", args.batch_size, 1, 10**6)
    check_number("--rounds", args.rounds, 1, 1000)
    check_threads(args.threads)
    cases: list[tuple[str, Shape]] = list(WORKLOADS.values())
    if args.model:
        cases = [(args.model, shape_from(args.input_shape))]
        # a wrong name is said here, not by a contender's process
        check_memory(models.build(*cases[0]), cases[0][1], args.batch_size)
    elif args.workload != "all":
        cases = [WORKLOADS[args.workload]]
    threads = args.threads or usable_cores()
    precision = PRECISIONS[args.amp]
    measure = ops if args.explain else starts if args.cold else lap_times
    found = []
    for case in cases:
        task = Task(args.device, *case, args.batch_size, args.mode, threads, precision=precision)
        result, text = measure(task, args)
        found.append(result)
        if not args.json:
            print(text, flush=True)
    if args.json:
        report: Any = {"machine": environment(args.device, args.device)}
        report |= {"starts": found} if args.cold else {"rounds": args.rounds, "results": found}
        print(json.dumps(found if args.explain else report, default=asdict))
    return 0


def lap_times(task: Task, args: argparse.Namespace) -> tuple[Any, str]:
    """A race, for JSON and human-readable."""
    result = race(contenders(task, tuned=not args.no_tuned, compiled=args.compiled), args.rounds)
    return result, table(result, args.rounds)


def ops(task: Task, args: argparse.Namespace) -> tuple[Any, str]:
    """Where the time of a task's step goes."""
    set_threads(task.threads)
    trainer = our_trainer(task, profiler.stopwatch(get_backend(task.framework)))
    rows = profiler.explain(trainer, task.input_shape, 10, mode=task.mode)
    return {"task": task, "ops": rows}, f"{title(task)}\n{profiler.table(rows)}\n"


def starts(task: Task, args: argparse.Namespace) -> tuple[Any, str]:
    """How long our process takes to its first step, before and after its kernels have been compiled."""
    cold, warm = cold_and_warm(task)
    text = f"""{title(task)}
  from the start of the process to the end of its first step
    kernels to be compiled {cold:6.1f} s
    kernels on disk        {warm:6.1f} s"""
    return {"task": task, "cold_seconds": cold, "warm_seconds": warm}, text


def title(task: Task) -> str:
    """What was timed."""
    return f"{task.model}, batch {task.batch_size}, {task.precision}, {task.mode}, {task.threads} threads"


def table(result: Result, rounds: int) -> str:
    """One workload, human-readable."""
    lines = [f"{title(result.task)}, {rounds} rounds"]
    for name, time in result.milliseconds.items():
        lines.append(
            f"  {name:<36} {time:9.2f} ms a step   {result.page_faults[name]:7.0f} page faults a step   "
            f"{result.peak_mib[name]:6.0f} MiB peak   {result.first_step[name]:5.1f} s from start to first step"
        )
    for name, (low, mid, high) in result.ratios.items():
        way = name if name == "compiled" else f"eager, {name}"
        lines.append(f"  gpucnn / pytorch {way}, best layout: {mid:.2f} ({low:.2f} to {high:.2f})")
    return "\n".join(lines)
