"""A mutation run: small faults are put into the package, one at a time, and each must make some test fail.

    python tests/mutate.py --mutants 200 --seed 0 --jobs 2

A mutant is one changed expression or one removed statement; lines are drawn at random, all with the same probability.
It is written into a copy of the repository below the temporary directory, never into this one, and the tests that
mirror its file run there, then those of the rooms that use it, until one fails.  Mutants that no test can tell from the
original are listed in ``mutants.toml`` with the reason, and are not drawn.

Results are appended to ``build/mutants/SEED.jsonl``: a run that was stopped goes on, ``--again`` tries survivors anew.
"""

import argparse
import faulthandler
import hashlib
import json
import os
import queue
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import asdict
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from multiprocessing import get_context
from pathlib import Path

import pytest
from mutants import Mutant, all_mutants, draw, is_equivalent, rules

ROOT = Path(__file__).resolve().parents[1]
KERNELS = "gpucnn/kernels/cpu/"

TESTS = {
    "gpucnn/layers/": "layers/test_base.py layers/test_containers.py layers/test_activations.py "
    "checks/test_gradcheck.py | layers models test_lecture.py training/test_trainer.py kernels/cpu/test_parity.py "
    "kernels/gpu/test_float16_ops.py",
    "gpucnn/losses.py": "| test_lecture.py training/test_trainer.py kernels/cpu/test_parity.py",
    "gpucnn/metrics.py": "| inference training/test_trainer.py runs/test_state.py",
    "gpucnn/random.py": "| test_same_draws.py layers/test_dropout.py layers/test_initializers.py data/augment",
    "gpucnn/optim/": "| optim training/test_trainer.py training/test_precision.py runs/test_state.py",
    "gpucnn/data/loader.py": "| data/augment training/test_trainer.py test_same_draws.py",
    "gpucnn/data/dataset.py": "| data/test_synthetic.py data/test_digits.py training/test_trainer.py "
    "cli/test_own_data.py",
    "gpucnn/checkpoint/": "checkpoint/test_checkpoint_round_trip.py checkpoint/test_checkpoint_bounds.py "
    "| checkpoint runs cli/test_inspect.py cli/test_export.py",
    "gpucnn/runs/resume.py": "| runs cli/test_train.py cli/test_messages.py",
    "gpucnn/runs/state.py": "| runs cli/test_train.py cli/test_evaluate.py",
    "gpucnn/inference/evaluate.py": "| inference training/test_trainer.py",
    "gpucnn/training/": "training/test_epochs.py training/test_trainer.py | training runs/test_state.py "
    "devices/test_strict_epochs.py",
    "gpucnn/kernels/cpu/conv/": "layers/test_conv2d.py kernels/cpu/test_convolution_kernels.py "
    "kernels/cpu/test_paths.py | kernels/cpu",
    "gpucnn/kernels/cpu/engine/": "kernels/cpu/test_paths.py | kernels/cpu devices/test_strict.py",
    "gpucnn/kernels/cpu/": "kernels/cpu/test_parity.py kernels/cpu/test_paths.py | kernels/cpu "
    "layers/test_batchnorm.py layers/test_pooling.py layers/test_activations.py layers/test_dropout.py "
    "optim/test_optimizer.py test_losses.py test_metrics.py",
}
"""Which files are mutated, and their tests besides those of the same name: in a first run | in a second one.

The longest match counts.
"""


def tests_of(root: Path, file: str) -> tuple[list[str], list[str]]:
    """The test files for a file of the package: those of the same name and of the first run, and the others."""
    stem, place = Path(file).stem, max((place for place in TESTS if file.startswith(place)), key=len)
    first, second = (part.split() for part in TESTS[place].split("|"))
    pattern = re.compile(f"test_(checkpoint_)?{stem}(s|es|_kernels)?")
    mirrors = [path for path in sorted(root.glob("tests/**/test_*.py")) if pattern.fullmatch(path.stem)]
    near = list(dict.fromkeys([*mirrors, *files_of(root, first)]))
    far = [path for path in files_of(root, second) if path not in near]
    far.sort(key=lambda path: stem not in path.stem)
    return [str(path.relative_to(root)) for path in near], [str(path.relative_to(root)) for path in far]


def files_of(root: Path, names: list[str]) -> Iterator[Path]:
    for name in names:
        path = root / "tests" / name
        yield from sorted(path.rglob("test_*.py")) if path.is_dir() else [path]


class Worker:
    """A copy of the repository with a home, a temporary folder and compiled kernels of its own."""

    def __init__(self, number: int, allowance: float, *, near: bool = False) -> None:
        self.near = near
        self.base = Path(tempfile.gettempdir()) / f"gpucnn-mutants-{os.getuid()}" / str(number)
        self.code, self.temporary, self.allowance = self.base / "code", self.base / "tmp", allowance
        self.kernels = self.base / "home" / "gpucnn"
        self.durations, self.watch = self.base / "durations.json", self.base / "timeout.txt"
        for folder in (self.code, self.kernels):
            folder.mkdir(parents=True, exist_ok=True)
        listed = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.splitlines()
        for name in listed:
            here, there = ROOT / name, self.code / name
            if here.is_file() and not (there.is_file() and there.read_bytes() == here.read_bytes()):
                there.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(here, there)
        for path in [*self.code.rglob("gpucnn/**/*.py"), *self.code.rglob("tests/**/*.py")]:
            if str(path.relative_to(self.code)) not in listed:
                path.unlink()

    def pytest(self, files: list[str], *options: str) -> tuple[str, str]:
        """Run tests; returns "passed", "failed" or "timeout", and the first test that failed."""
        shutil.rmtree(self.temporary, ignore_errors=True)
        self.temporary.mkdir()
        self.watch.write_text("")
        env = {
            "PYTHONPATH": f"{self.code}{os.pathsep}{self.code / 'tests'}",
            "XDG_CACHE_HOME": str(self.base / "home"),
            "TMPDIR": str(self.temporary),
            "PYTHONDONTWRITEBYTECODE": "1",
            "MUTATION_RUN": os.pathsep.join([str(self.durations), str(self.watch), str(self.allowance)]),
        }
        output = self.base / "output.txt"
        child = FORKS.Process(target=run_pytest, args=(self.code, env, output, [*options, *files]))
        child.start()
        child.join()
        with suppress(ProcessLookupError):  # what a test has left
            os.killpg(child.pid, signal.SIGKILL)
        if child.exitcode == 0:
            return "passed", ""
        if self.watch.read_text():
            return "timeout", ""
        lines = output.read_text(errors="replace").splitlines()
        failed = (line for line in lines if line.startswith(("FAILED", "ERROR", "ImportError while loading")))
        return "failed", next(failed, f"exit code {child.exitcode}")[:160]

    def baseline(self) -> None:
        """Run all tests on the package as it is: they must pass, compile the kernels and show how long they take."""
        stamp, digest = self.base / "passed", hashlib.sha256()
        for path in sorted([*self.code.glob("gpucnn/**/*.py"), *self.code.glob("tests/**/*.py")]):
            digest.update(path.read_bytes())
        if stamp.exists() and stamp.read_text() == digest.hexdigest():
            return
        self.durations.unlink(missing_ok=True)
        files = sorted({test for place in TESTS for part in tests_of(self.code, place) for test in part})
        found, failed = self.pytest(files)
        if found != "passed":
            raise RuntimeError(f"a test fails without a mutant: {failed}")
        stamp.write_text(digest.hexdigest())

    def run(self, mutant: Mutant) -> tuple[str, str]:
        """Put a mutant in, run its tests, take it out; returns the result and the first test that failed."""
        path = self.code / mutant.file
        source, status = path.read_bytes(), path.stat()
        old_cache = self.kernels / f"kernels-{kernels_digest(self.code)}"
        try:
            path.write_bytes(source[: mutant.start] + mutant.new.encode() + source[mutant.end :])
            os.utime(path, (status.st_atime, status.st_mtime + 10))
            new_cache = self.kernels / f"kernels-{kernels_digest(self.code)}"
            if new_cache != old_cache:
                link_cache(old_cache, new_cache, importers(self.code, mutant.file))
            for files in tests_of(self.code, mutant.file)[: 1 if self.near else 2]:  # importing them all takes a while
                found, by = self.pytest(files, "-x", "--tb=no") if files else ("passed", "")
                if found != "passed":
                    break
        finally:
            path.write_bytes(source)
            os.utime(path, (status.st_atime, status.st_mtime))
            for folder in self.kernels.glob("kernels-*"):
                if folder != old_cache:
                    shutil.rmtree(folder, ignore_errors=True)
        return {"passed": "survived", "failed": "killed"}.get(found, found), by


FORKS = get_context("forkserver")
FORKS.set_forkserver_preload(["pytest", "numpy", "numba", "h5py", "sklearn", "torch"])  # but not gpucnn


def run_pytest(code: Path, env: dict[str, str], output: Path, arguments: list[str]) -> None:
    """Run tests in this process, a fork of one that has imported the libraries."""
    os.setsid()
    resource.setrlimit(resource.RLIMIT_AS, (16 << 30, 16 << 30))  # a mutant may ask for all memory
    for number in (signal.SIGINT, signal.SIGHUP):  # whoever started this run may ignore them
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    null, file = os.open(os.devnull, os.O_RDONLY), os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for old, new in ((null, 0), (file, 1), (file, 2)):
        os.dup2(old, new)
    os.chdir(code)
    for name in [name for name in os.environ if name.startswith("GPUCNN")]:
        del os.environ[name]
    os.environ.update(env)
    sys.dont_write_bytecode, tempfile.tempdir = True, None
    here = str(ROOT / "tests")
    sys.path[:] = [*env["PYTHONPATH"].split(os.pathsep), *(p for p in sys.path if p not in (here, str(ROOT), ""))]
    for name in ("mutate", "mutants", "__main__", "__mp_main__"):  # this copy's are the checkout's
        sys.modules.pop(name, None)
    status = pytest.main(["-q", "-p", "mutate", "-p", "no:cacheprovider", *arguments])
    sys.stdout.flush()
    os._exit(int(status))


def kernels_digest(root: Path) -> str:
    """The name of the cache of compiled kernels that the package below ``root`` uses."""
    loader = SourceFileLoader("cache_of_mutants", str(ROOT / KERNELS / "engine" / "cache.py"))
    spec = spec_from_loader(loader.name, loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    module.__file__ = str(root / KERNELS / "engine" / "cache.py")
    return str(module.sources_digest())


def importers(root: Path, file: str) -> set[str]:
    """The modules of the CPU kernels whose compiled code may contain some of this file's: itself and who imports it."""
    texts = {}
    for path in (root / KERNELS).rglob("*.py"):
        texts[".".join(path.relative_to(root).with_suffix("").parts)] = path.read_text(encoding="utf-8")
    stale = {".".join(Path(file).with_suffix("").parts)}
    while True:
        stems = {name.rpartition(".")[2] for name in stale}
        imports = {n: [line for line in t.splitlines() if "import" in line] for n, t in texts.items()}
        more = {n for n, lines in imports.items() if any(stem in line for stem in stems for line in lines)} | stale
        if more == stale:
            return stale
        stale = more


def link_cache(old: Path, new: Path, stale: set[str]) -> None:
    """A cache with the compiled kernels of another, without those of some modules."""
    shutil.rmtree(new, ignore_errors=True)  # of a run that was stopped
    for path in old.rglob("*"):
        if path.is_file() and not any(path.name.startswith(f"{name.rpartition('.')[2]}.") for name in stale):
            there = new / path.relative_to(old)
            there.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.link(path, there)


class Results:
    """What became of the mutants of a seed, in a file of JSON lines."""

    def __init__(self, path: Path, *, again: bool) -> None:
        self.path, self.lock = path, threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        self.rows = {row["key"]: row for row in rows}
        if again:
            self.rows = {key: row for key, row in self.rows.items() if row["result"] != "survived"}

    def __contains__(self, mutant: Mutant) -> bool:
        return mutant.key() in self.rows

    def add(self, mutant: Mutant, result: str, by: str) -> None:
        row = {"key": mutant.key(), "result": result, "by": by, **asdict(mutant)}
        with self.lock, self.path.open("a", encoding="utf-8") as file:
            self.rows[row["key"]] = row
            file.write(json.dumps(row) + "\n")
            print(f"{len(self.rows)} {result}: {row['file']}:{row['line']} {row['change']}  {by}", flush=True)

    def report(self, mutants: list[Mutant]) -> None:
        rows = [self.rows[mutant.key()] for mutant in mutants if mutant in self]
        survivors = [row for row in rows if row["result"] == "survived"]
        timeouts = sum(row["result"] == "timeout" for row in rows)
        print(f"\n{len(rows)} mutants, {len(rows) - len(survivors)} killed (of them {timeouts} by a time limit)")
        for row in survivors:
            print(f"survived: {row['file']}:{row['line']} {row['function']}: {row['change']}")


class TimeLimit:
    """A plugin of pytest: notes the seconds of each test, or ends the process if a test takes ten times as long."""

    def __init__(self, path: Path, watch: Path, allowance: float) -> None:
        self.path, self.allowance, self.watch = path, allowance, watch.open("w")
        self.known: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}
        self.found: dict[str, float] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        limit = self.allowance + 10 * self.known.get(item.nodeid, 60.0)
        faulthandler.dump_traceback_later(limit, exit=True, file=self.watch)  # whoever holds Python's lock
        start = time.monotonic()
        try:
            return (yield)
        finally:
            faulthandler.cancel_dump_traceback_later()
            self.found[item.nodeid] = time.monotonic() - start

    def pytest_sessionfinish(self) -> None:
        if not self.known:
            self.path.write_text(json.dumps(self.found))


def pytest_configure(config: pytest.Config) -> None:
    """Called where pytest loads this file as a plugin."""
    durations, watch, allowance = os.environ["MUTATION_RUN"].split(os.pathsep)
    config.pluginmanager.register(TimeLimit(Path(durations), Path(watch), float(allowance)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutants", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--only", default="", metavar="TEXT", help="files whose path contains this")
    parser.add_argument("--again", action="store_true", help="try the survivors of an earlier run again")
    parser.add_argument("--near", action="store_true", help="a quick run: the first tests of each file alone")
    parser.add_argument("--list", action="store_true", help="print the mutants and run nothing")
    parser.add_argument("--allowance", type=float, default=60.0, help="seconds added to ten times a test's own")
    chosen = parser.parse_args()
    mutants = [m for m in draw(ROOT, TESTS, chosen.seed) if chosen.only in m.file][: chosen.mutants]
    if chosen.list:
        for mutant in mutants:
            print(f"{mutant.file}:{mutant.line} {mutant.function}: {mutant.change}")
        return
    results = Results(ROOT / "build" / "mutants" / f"{chosen.seed}.jsonl", again=chosen.again)
    waiting: queue.SimpleQueue[Mutant] = queue.SimpleQueue()
    for mutant in mutants:
        if mutant not in results:
            waiting.put(mutant)

    def work(number: int) -> None:
        worker = Worker(number, chosen.allowance, near=chosen.near)
        worker.baseline()
        with suppress(queue.Empty):
            while True:
                mutant = waiting.get_nowait()
                results.add(mutant, *worker.run(mutant))

    threads = [threading.Thread(target=work, args=[number], daemon=True) for number in range(chosen.jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    results.report(mutants)
    everything = all_mutants(ROOT, TESTS)
    for rule in rules():
        if not any(is_equivalent(mutant, [rule]) for mutant in everything):
            print(f"mutants.toml has an exception for what is not there any more: {rule}")


if __name__ == "__main__":
    main()
