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
from gpucnn.cli.columns import columns, counted, sentence
from gpucnn.cli.options import check_number, shape_from
from gpucnn.devices import get_backend
from gpucnn.devices.cores import thread_count
from gpucnn.devices.select import set_threads
from gpucnn.errors import UsageError
from gpucnn.models.memory import check_memory
from gpucnn.runs.environment import environment
from gpucnn.terminal import say, say_json
from gpucnn.types import Shape

PRECISIONS = {"off": "float32", "fp16": "float16"}  # --amp -> what a task calls it


def add_arguments(parser: argparse.ArgumentParser) -> None:
    workloads, letters = [*WORKLOADS, "all"], "a: LeNet, b: MNIST, c: VGG, d: ResNet"
    compiled = "race PyTorch by torch.compile too (needs a C++ compiler)"
    parser.add_argument("--workload", "-w", choices=workloads, default="all", help=letters)
    parser.add_argument("--model", metavar="NAME", help="any model instead, for images of --input-shape")
    parser.add_argument("--input-shape", metavar="HxWxC", help="of --model (default: 32x32x3)")
    parser.add_argument("--option", metavar="NAME=VALUE", action="append", default=[], help="of --model; repeatable")
    parser.add_argument("--batch-size", "-b", type=int, default=128, metavar="N", help="images per step (default: 128)")
    parser.add_argument("--mode", choices=["train", "eval"], default="train", help="what a step is (default: train)")
    parser.add_argument("--device", default="cpu", metavar="NAME", help="our backend (default: cpu)")
    parser.add_argument("--amp", choices=list(PRECISIONS), default="off", help="float16 where that is safe, on a GPU")
    threads, rounds = "of each contender (default: all usable cores)", "rounds of each contender, in turn (default: 9)"
    parser.add_argument("--threads", type=int, default=0, metavar="N", help=threads)
    parser.add_argument("--rounds", type=int, default=9, metavar="N", help=rounds)
    parser.add_argument("--no-tuned", action="store_true", help="leave out PyTorch with tuned malloc")
    parser.add_argument("--compiled", action="store_true", help=compiled)
    parser.add_argument("--explain", action="store_true", help="no race: which op of ours takes how much of a step")
    parser.add_argument("--cold", action="store_true", help="no race: our start with no compiled kernels and with them")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")


def run(args: argparse.Namespace) -> int:
    """Race the workloads one after the other, or time our own ops or starts."""
    check_number("--batch-size", args.batch_size, 1, 10**6)
    check_number("--rounds", args.rounds, 1, 1000)
    threads = thread_count(args.threads)
    refuse_unused(args)
    cases: list[tuple[str, Shape]] = list(WORKLOADS.values())
    options: dict[str, Any] = dict(map(option, args.option))
    if args.model:
        cases = [(args.model, shape_from(args.input_shape or "32x32x3"))]
        # a wrong name is said here, not by a contender's process
        check_memory(models.build(*cases[0], **options), cases[0][1], args.batch_size)
    elif args.workload != "all":
        cases = [WORKLOADS[args.workload]]
    precision = PRECISIONS[args.amp]
    measure = ops if args.explain else starts if args.cold else lap_times
    found = []
    for case in cases:
        task = Task(args.device, *case, args.batch_size, args.mode, threads, precision=precision, options=options)
        result, text = measure(task, args)
        found.append(result)
        if not args.json:
            say(*text, "")
    if args.json:
        report: Any = {"machine": environment(args.device, args.device)}
        report |= {"starts": found} if args.cold else {"rounds": args.rounds, "results": found}
        say_json(found if args.explain else report, default=asdict)
    return 0


def option(text: str) -> tuple[str, Any]:
    """An option of a model, NAME=VALUE, where the value is a number, true, false or a word."""
    name, _, value = text.partition("=")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def refuse_unused(args: argparse.Namespace) -> None:
    """Raises UsageError for flags that exclude each other."""
    one = next((flag for flag, given in (("--explain", args.explain), ("--cold", args.cold)) if given), "")
    pairs = [
        ("--input-shape", args.input_shape and not args.model, "is the shape of --model's images: add --model NAME"),
        ("--option", args.option and not args.model, "is of --model: add --model NAME"),
        ("--workload", args.model and args.workload != "all", "has its own model: leave out one of it and --model"),
        ("--no-tuned", one and args.no_tuned, f"is for a race, and {one} is none: leave one of them out"),
        ("--compiled", one and args.compiled, f"is for a race, and {one} is none: leave one of them out"),
        ("--cold", args.explain and args.cold, "and --explain are two measurements: leave one of them out"),
    ]
    for flag, wrong, reason in pairs:
        if wrong:
            raise UsageError(f"{flag} {reason}")


def lap_times(task: Task, args: argparse.Namespace) -> tuple[Any, list[str]]:
    """A race, for JSON and human-readable."""
    result = race(contenders(task, tuned=not args.no_tuned, compiled=args.compiled), args.rounds)
    return result, table(result, args.rounds)


def ops(task: Task, args: argparse.Namespace) -> tuple[Any, list[str]]:
    """Where the time of a task's step goes."""
    set_threads(task.threads)
    trainer = our_trainer(task, profiler.stopwatch(get_backend(task.framework)))
    rows = profiler.explain(trainer, task.input_shape, 10, mode=task.mode)
    return {"task": task, "ops": rows}, [*sentence("", title(task), 0), *columns(profiler.table(rows), "<<<>")]


def starts(task: Task, args: argparse.Namespace) -> tuple[Any, list[str]]:
    """How long our process takes to its first step, before and after its kernels have been compiled."""
    cold, warm = cold_and_warm(task)
    head = "from the start of the process to the end of its first step"
    times = columns([("kernels to be compiled", f"{cold:.1f} s"), ("kernels on disk", f"{warm:.1f} s")], "<>", "    ")
    text = [*sentence("", title(task), 0), *sentence("", head, 2), *times]
    return {"task": task, "cold_seconds": cold, "warm_seconds": warm}, text


def title(task: Task) -> str:
    """What was timed."""
    threads = counted(task.threads, "thread")
    options = "".join(f", {name} {value}" for name, value in task.options.items())
    return f"{task.model}{options}, batch {task.batch_size}, {task.precision}, {task.mode}, {threads}"


def table(result: Result, rounds: int) -> list[str]:
    """One workload, human-readable."""
    cells = [("", "ms a step", "page faults a step", "MiB at most", "s to the first step")]
    for name, time in result.milliseconds.items():
        faults, peak, start = (found[name] for found in (result.page_faults, result.peak_mib, result.first_step))
        cells.append((name, f"{time:.2f}", f"{faults:,.0f}", f"{peak:,.0f}", f"{start:.1f}"))
    lines = [*sentence("", f"{title(result.task)}, {counted(rounds, 'round')}", 0), *columns(cells, "<>", "  ")]
    for name, (low, mid, high) in result.ratios.items():
        way = name if name == "compiled" else f"eager, {name}"
        ratio = f"gpucnn / pytorch {way}, best layout: {mid:.2f} ({low:.2f} to {high:.2f})"
        lines += sentence("", ratio, 2)
    return lines
