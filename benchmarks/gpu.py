"""All measurements on a machine with a GPU: ``python benchmarks/gpu.py``.

Runs the tests marked gpu, ``gpucnn parity``, whole training steps against PyTorch on the same card (eager, then
compiled) and a table of ops, and writes benchmarks/RESULTS_GPU.md after each part.  It needs this repository, CuPy and
cuDNN, PyTorch for the comparisons, and no network.  Without a GPU it ends with exit code 6.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from gpucnn import models
from gpucnn.bench.race import WORKLOADS, Contender
from gpucnn.bench.report import Page, table
from gpucnn.bench.steps import Case, Field, Row, run_cases
from gpucnn.bench.task import Task
from gpucnn.devices import gpu_problem
from gpucnn.devices.cores import usable_cores
from gpucnn.errors import DeviceError

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "RESULTS_GPU.md"
CIFAR = (32, 32, 3)
CASES = [
    Case("resnet18", CIFAR, 512),
    Case("speedrun94", CIFAR, 1024),
    *(Case(model, shape, 128) for model, shape in WORKLOADS.values()),
    Case("resnet18", CIFAR, 1024),
    Case("resnet18", CIFAR, 128),
]
LAST_TESTS = "tests/kernels/gpu/test_cudnn_gpu.py"
"""They time every engine of many convolutions, so they run after all others."""
TEST_PROCESSES = 12
SMOKE_CASES = [Case("lenet5", (28, 28, 1), 2), Case("no_such_model", CIFAR, 2)]
COMPILE_MODES = ("default", "reduce-overhead")
SMOKE = "A smoke run on a CPU: it shows that the script works; no figure here says anything about a GPU."
TITLES = {
    "tests": "Tests on the GPU",
    "parity": "Layers against NumPy",
    "steps": "Training steps against PyTorch, eager",
    "compiled": "Training steps against PyTorch, compiled",
    "ops": "Where a step's time goes",
}
DEADLINES = {"tests": 0.3, "parity": 0.4, "steps": 0.7, "compiled": 0.92, "ops": 1.0}
"""Section -> when it has to end, as a fraction of the time available; the next sections get what one leaves over."""


class Session:
    """One run of this script.

    Attributes:
        deadline: for the section under way, in the time of ``perf_counter``.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.start = perf_counter()
        self.ours = "reference" if args.smoke else "gpu"
        self.theirs = "cpu" if args.smoke else "cuda"
        self.about = self.doctor()
        self.gpu_name = self.about["device"].get("name", "")
        self.page = Page(args.out, "Results on a GPU", self.head(), list(TITLES.values()))
        self.deadline = self.start
        self.problems: list[str] = []
        self.written: set[str] = set()

    def doctor(self) -> dict[str, Any]:
        """The report of ``gpucnn doctor``, from its own process, because this one must not use the GPU."""
        done = self.command([sys.executable, "-m", "gpucnn.cli.main", "doctor", "--json"], 120)
        found = [line for line in done[1].splitlines() if line.startswith("{")]  # standard error has other lines
        return json.loads(found[-1]) if found else {"device": {}, "packages": [], "machine": {}, "gpu": {}}

    def head(self) -> str:
        """The hardware, and how to read the page."""
        device, machine = self.about["device"], self.about["machine"]
        found = {package["name"]: package["version"] for package in self.about["packages"]}
        versions = ", ".join(f"{name} {found.get(name)}" for name in ("CuPy", "NumPy", "PyTorch"))
        if self.args.smoke:
            hardware = f"**{SMOKE}**"
        else:
            driver = device.get("driver") or self.about["gpu"].get("driver")
            hardware = (
                f"Machine: {device.get('name')} (compute capability {device.get('compute_capability')}, "
                f"{device.get('multiprocessors')} multiprocessors, {device.get('memory_gib')} GiB), driver "
                f"{driver} for CUDA {device.get('cuda_of_driver')}, CUDA "
                f"runtime {device.get('cuda_runtime')}, cuDNN {device.get('cudnn')}, frontend "
                f"{device.get('cudnn_frontend')}. Convolutions: {device.get('convolutions')}."
            )
        return "\n".join(
            [
                f"{hardware} {versions}, Python {machine.get('python')}, {machine.get('cpu')}, "
                f"{machine.get('usable_cores')} cores.",
                "",
                "Times are measured with events on the device, after warm-up: the median of a round's steps, then the "
                "median over rounds, with the smallest and largest. Each contender is its own process, and the "
                "processes take turns, round by round. A ratio is our time over theirs at the same precision, round "
                "by round; below 1 is faster.",
            ]
        )

    def stamp(self) -> str:
        """The command and time of a section."""
        return f"`python benchmarks/gpu.py {' '.join(self.args.words)}`, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC."

    def left(self) -> float:
        """Seconds until the section has to end."""
        return max(self.deadline - perf_counter(), 0.0)

    def command(self, words: Sequence[str], seconds: float) -> tuple[int | None, str]:
        """Run a command from the repository -> (exit code, or None if time ran out; its output so far)."""
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        where = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}
        with tempfile.TemporaryFile("w+", encoding="utf-8") as output:
            process = subprocess.Popen(words, stdout=output, stderr=subprocess.STDOUT, cwd=ROOT, env=where)
            try:
                code: int | None = process.wait(timeout=seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                code = None
            output.seek(0)
            return code, output.read()

    def write(self, section: str, text: str) -> None:
        self.written.add(section)
        self.page.write(TITLES[section], f"{self.stamp()}\n\n{text}")

    def run(self, section: str) -> None:
        """Run a section; a failure is reported, and written to the page unless there are results.  Others go on."""
        try:
            SECTIONS[section](self)
        except Exception as error:
            self.problem(f"{TITLES[section]}: {type(error).__name__}: {error}")
            if section not in self.written:
                self.write(section, f"Not finished.\n\n```\n{traceback.format_exc().strip()}\n```")

    def problem(self, text: str) -> None:
        """Report a problem, which makes the exit code 1."""
        self.problems.append(text)
        print(f"gpu.py: {text}", file=sys.stderr, flush=True)


# -- tests and parity ---------------------------------------------------------------------------------


def run_tests(session: Session) -> None:
    """pytest -m gpu, with its failures; if time runs out, the counts so far.

    With pytest-xdist, several processes share the GPU, since most of the time goes into compiling.  Warnings are no
    errors here, because packages and versions are those of the machine.
    """
    if session.args.data_dir:
        os.environ["GPUCNN_DATA_DIR"] = session.args.data_dir
    words = [sys.executable, "-m", "pytest", "-v", "-m", "gpu", "--tb=short", "-p", "no:cacheprovider"]
    words += ["-W", "default", "--continue-on-collection-errors"]
    if find_spec("xdist"):
        words += ["-n", str(min(usable_cores(), TEST_PROCESSES))]
    whole = [["tests", f"--ignore={LAST_TESTS}"], [LAST_TESTS]]
    parts = []
    for which in [["tests/test_random.py"]] if session.args.smoke else whole:
        code, output = session.command([*words, *which], session.left())
        parts.append(outcome(code, output))
        if code != 0:
            session.problem(f"the tests on the GPU: {parts[-1].splitlines()[0]}")
        session.write("tests", "\n\n".join(f"`pytest -m gpu`: {part}" for part in parts))


def outcome(code: int | None, output: str) -> str:
    """The result of a run of pytest: a line of counts, the failed tests, and their messages."""
    found = re.findall(r"^(tests/.*?) (PASSED|FAILED|ERROR|SKIPPED|XFAIL)\b", output, flags=re.MULTILINE)
    others = re.findall(r"^\[gw\d+\].*? (PASSED|FAILED|ERROR|SKIPPED|XFAIL) (tests/.*?) *$", output, flags=re.MULTILINE)
    done = found + [(name, result) for result, name in others]
    counts = Counter(result for _, result in done)
    summary = ", ".join(f"{count} {result.lower()}" for result, count in counts.items()) or last_line(output)
    if code is None:
        summary += ", and then its time was over"
    wrong = "\n".join(f"- `{name}`" for name, result in done if result in ("FAILED", "ERROR"))
    details = "\n".join(
        text[:20000] for title in ("ERRORS", "FAILURES") if (text := output.partition(f"= {title} =")[2])
    )
    shown = f"```\n{details}\n```" if details else ""
    return "\n\n".join(filter(None, [f"exit code {code}, {summary}", wrong, shown]))


def last_line(output: str) -> str:
    """The last line that a command printed."""
    return (output.strip().splitlines() or ["nothing was printed"])[-1]


def run_parity(session: Session) -> None:
    """gpucnn parity, with its verdict."""
    words = [sys.executable, "-m", "gpucnn.cli.main", "parity", "--device", session.ours]
    if session.args.smoke:
        words += ["--model", "lenet5", "-b", "2", "--steps", "1"]
    code, output = session.command(words, session.left())
    if code != 0:
        session.problem(f"gpucnn parity ends with {code}")
    verdict = last_line(output)
    session.write("parity", f"`gpucnn parity`: exit code {code}; {verdict}\n\n```\n{output.strip()[-20000:]}\n```")


# -- steps --------------------------------------------------------------------------------------------


def contenders(session: Session, compiled: bool) -> Field:
    """Ours, and PyTorch: eager in both precisions, or compiled in mixed precision."""
    threads = session.args.threads or usable_cores()
    ours = Task(session.ours, "", (), 0, threads=threads)
    mixed = Task("pytorch", "", (), 0, threads=threads, precision="bfloat16", device=session.theirs)
    where = {"PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))}
    other = session.args.torch_python or sys.executable
    half = replace(ours, precision="float16")
    mine = {"gpucnn": half, "gpucnn without a graph": replace(half, cuda_graph="off"), "gpucnn, float32": ours}
    tasks = {"PyTorch eager": mixed, "PyTorch eager, float32": replace(mixed, precision="float32")}
    if compiled:  # compiling takes so long that there is time for these alone
        mine = {"gpucnn": half}
        tasks = {f"PyTorch compiled, {mode}": replace(mixed, compiled=mode) for mode in COMPILE_MODES}
    if session.args.smoke:  # a CPU does not compute in float16
        del mine["gpucnn"], mine["gpucnn without a graph"], tasks["PyTorch eager"]
    us = [Contender(name, task, where) for name, task in mine.items()]
    them = [Contender(name, task, where, interpreter=other) for name, task in tasks.items()]
    return Field(us, them, session.gpu_name)


def run_steps(session: Session, compiled: bool = False) -> None:
    """The table of whole steps, written after each case."""
    section = "compiled" if compiled else "steps"
    if compiled and session.args.smoke:
        session.write(section, "Left out of a smoke run.")
        return
    field = contenders(session, compiled)
    rows: list[list[str]] = []
    missed: list[str] = []
    rounds = 1 if session.args.smoke else session.args.rounds
    known = [case for case in session.args.cases if case.model in models.MODELS]
    missed += [f"{case}: no such model in this version" for case in session.args.cases if case not in known]
    for case, found in run_cases(field, known, rounds, session.deadline):
        if found is None:
            missed.append(f"not reached in time: {case}")
        else:
            rows += [cells(case, row) for row in found if not row.error]
            missed += [f"{case}, {row.name}: {row.error}" for row in found if row.error]
        titles = ["case", "contender", "ms a step", "images/s", "fraction of peak", "launches", "GPU memory", "ratio"]
        notes = [f"- {line}" for line in missed]
        session.write(section, "\n".join([legend(field, rounds), "", table(titles, rows), "", *notes]))
    if not rows:
        session.problem(f"{TITLES[section]}: nothing was timed")


def legend(field: Field, rounds: int) -> str:
    """The text above the table."""
    how = "channels last, autocast to bfloat16 except where float32 is named, fused SGD, cudnn.benchmark"
    theirs = ", ".join(filter(None, [how, field.versions()]))
    return (
        f"{rounds} rounds. PyTorch: {theirs}. The fraction is of the card's arithmetic peak for the contender's "
        "precision (`gpucnn/bench/peaks.py`), counting three times the operations of the forward pass. Launches are "
        "our kernels and cuDNN calls by the host in one step, without those that CuPy starts itself. GPU memory is "
        "what is allocated."
    )


def cells(case: Case, row: Row) -> list[str]:
    """A row of the table."""
    times = [1e3 * seconds for seconds in row.seconds]
    middle = median(times)
    ratio = "{1:.2f} ({0:.2f} to {2:.2f})".format(*row.ratio) if row.ratio else ""
    return [
        str(case),
        f"{row.name}, {row.precision}" if row.precision not in row.name else row.name,
        f"{middle:.3f} ({min(times):.3f} to {max(times):.3f})",
        f"{1e3 * case.batch_size / middle:,.0f}",
        "" if row.peak_fraction is None else f"{row.peak_fraction:.1%}",
        " and ".join(filter(None, [str(row.launches or ""), "a graph" if row.graphs else ""])),
        f"{row.device_mib:,.0f} MiB" if row.device_mib else "",
        ratio,
    ]


# -- ops ----------------------------------------------------------------------------------------------


def run_ops(session: Session) -> None:
    """gpucnn benchmark --explain of some cases."""
    parts = []
    for case in session.args.cases[:3]:
        if case.model not in models.MODELS:
            continue
        shape = "x".join(map(str, case.shape))
        words = ["--explain", "--device", session.ours, "--model", case.model, "--input-shape", shape]
        words += [] if session.args.smoke else ["--amp", "fp16"]
        command = [sys.executable, "-m", "gpucnn.cli.main", "benchmark", *words, "-b", str(case.batch_size)]
        code, output = session.command(command, session.left())
        if code != 0:
            session.problem(f"gpucnn benchmark --explain of {case} ends with {code}")
        parts.append(f"{case}\n\n```\n{output.strip()}\n```")
        session.write("ops", "\n\n".join(parts))


SECTIONS: dict[str, Callable[[Session], None]] = {
    "tests": run_tests,
    "parity": run_parity,
    "steps": run_steps,
    "compiled": lambda session: run_steps(session, compiled=True),
    "ops": run_ops,
}


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The flags, checked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8.0, help="time for all sections together")
    parser.add_argument("--sections", nargs="+", choices=list(SECTIONS), default=list(SECTIONS), help="default: all")
    parser.add_argument("--models", nargs="+", metavar="NAME", help="only the cases of these models")
    parser.add_argument("--rounds", type=int, default=7, help="of each contender in each case")
    parser.add_argument("--threads", type=int, default=0, help="of the host for each contender (default: all)")
    parser.add_argument("--data-dir", metavar="DIR", help="real data sets for the tests that need them")
    parser.add_argument("--torch-python", metavar="PATH", help="the Python of another environment that has PyTorch")
    parser.add_argument("--out", type=Path, metavar="PATH", help=f"default: {RESULTS.relative_to(ROOT)}")
    parser.add_argument("--smoke", action="store_true", help="a short run on a CPU, written to --out")
    args = parser.parse_args(words)
    args.words = list(words)
    if args.torch_python and not shutil.which(args.torch_python):
        parser.error(f"--torch-python {args.torch_python}: there is no such program")
    if args.smoke and (args.out is None or args.out.resolve() == RESULTS):
        parser.error(f"--smoke: give another --out than {RESULTS.relative_to(ROOT)}; its figures are no results")
    args.out = args.out or RESULTS
    cases = SMOKE_CASES if args.smoke else CASES
    args.cases = [case for case in cases if case.model in (args.models or [case.model])]
    return args


def main(words: Sequence[str]) -> int:
    """Run the sections; 0, 1 where something failed, 6 without a GPU."""
    args = parse(words)
    problem = gpu_problem()
    if problem and not args.smoke:
        print(f"gpu.py: error: {problem}", file=sys.stderr)
        return DeviceError.exit_code
    session = Session(args)
    for section in (name for name in SECTIONS if name in args.sections):
        fraction = DEADLINES[section] / max(DEADLINES[name] for name in args.sections)
        session.deadline = session.start + 60.0 * args.minutes * fraction
        print(f"gpu.py: {TITLES[section]}, {session.left():.0f} s at most", file=sys.stderr, flush=True)
        session.run(section)
    print(f"gpu.py: {args.out}", file=sys.stderr)
    return 1 if session.problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
