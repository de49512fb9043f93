"""All flags of all commands and all settings, with extreme values: every case ends soon, in a documented code.

    python tests/cli/fuzz.py --cases 5000

The flags are those of the parsers and the settings those of ``Config``, so that new ones are tried by themselves.
Values come from hypothesis.  One child process runs many cases; it has a bounded memory, and is killed where a case
hangs.  A case is at fault if its code is not documented, if standard error holds more than lines of gpucnn, if a
failure is not told in exactly one line, or if it takes more than ``SLOW`` seconds of the processor.
"""

import argparse
import contextlib
import io
import json
import os
import re
import resource
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from fuzz_cases import Case, cases
from hypothesis import HealthCheck, Phase, given, seed, settings

CODES = {0, 1, 2, 3, 4, 5, 6}
SLOW, HUNG = 10.0, 90.0  # seconds of the processor, and of the clock on a busy machine
MEMORY = 8 * 2**30


class Child:
    """A process that runs case after case in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> subprocess.Popen[str]:
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(sys.path),
            "GPUCNN_DATA_DIR": str(self.folder / "none"),
        }
        command = [sys.executable, __file__, "--child"]
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(command, cwd=self.folder, env=environment, text=True, **pipes)
        assert self.process.stdout is not None
        self.process.stdout.readline()  # it has compiled its kernels
        return self.process

    def run(self, case: Case) -> dict[str, Any]:
        process = self.process or self.start()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(asdict(case)) + "\n")
        process.stdin.flush()
        alive = bool(select.select([process.stdout], [], [], HUNG)[0])
        if alive and (answer := process.stdout.readline()):
            found: dict[str, Any] = json.loads(answer)
            return found
        self.stop()
        return {"code": "died" if alive else "hung", "err": "", "seconds": HUNG}

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


def fault(answer: dict[str, Any]) -> str:
    """What is wrong with how a case ended; "" where nothing is."""
    lines = [text for text in answer["err"].split("\n") if text]
    errors = [text for text in lines if text.startswith("gpucnn: error: ")]
    if answer["code"] not in CODES:
        return f"code {answer['code']}"
    if other := [text for text in lines if not text.startswith("gpucnn: ")]:
        return f"says {other[-1][:200]!r}"
    if len(errors) != bool(answer["code"]):
        return f"{len(errors)} lines of error for the code {answer['code']}"
    if errors and (len(errors[0]) > 2000 or "out of memory" in errors[0]):
        return f"says {errors[0][:200]!r}"
    if answer["seconds"] > SLOW:
        return f"took {answer['seconds']:.1f} s"
    return ""


def run(count: int, number: int, tell: Any = print) -> int:
    """Run so many cases; returns how many were at fault."""
    faults, codes, commands = [], Counter[Any](), Counter[str]()
    with tempfile.TemporaryDirectory() as name:
        furnish(Path(name))
        child = Child(Path(name))

        @seed(number)
        @settings(
            max_examples=count,
            phases=[Phase.generate],
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(cases())
        def one(case: Case) -> None:
            answer = child.run(case)
            codes[answer["code"]] += 1
            commands[case.words[0]] += 1
            if what := fault(answer):
                faults.append(what)
                told = [word[:200] for word in case.words], case.config[:300], str(case.sealed)[:300]
                tell(f"FAULT {what}: {told}")
            elif sum(codes.values()) % 250 == 0:
                tell(f"{sum(codes.values())} cases, {len(faults)} at fault")

        try:
            one()
        finally:
            child.stop()
    tell(f"{sum(codes.values())} cases, {len(faults)} at fault; codes {dict(codes)}; {dict(commands)}")
    return len(faults)


def furnish(folder: Path) -> None:
    """The files that ``FILES`` names."""
    for name in ("folder", "folder.png", "pipe", "log"):
        (folder / name).mkdir()
    for name in ("fifo", "fifo.png", "fifo.h5", "pipe/metrics.jsonl"):
        os.mkfifo(folder / name)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(folder / "socket"))
    (folder / "loop").symlink_to("loop")
    (folder / "binary").write_bytes(bytes(range(256)) * 1000)
    (folder / "empty").touch()
    (folder / "denied").touch(0)
    with (folder / "big").open("wb") as file:
        file.truncate(1 << 34)
    (folder / "log/metrics.jsonl").write_text(
        '{"epoch": 1, "test_loss": 1e999}\n{"epoch": ' + "9" * 400 + "}\n" + "[" * 9999
    )


def serve() -> None:
    """The child: a line of JSON in, a line of JSON out."""
    answers, sys.stdout = sys.stdout, io.StringIO()
    quiet()
    make_files()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    print("ready", file=answers, flush=True)
    before = set(os.listdir())
    for text in sys.stdin:
        case = json.loads(text)
        Path("config.toml").write_text(case["config"], encoding="utf-8", errors="surrogateescape")
        if case["sealed"]:
            seal(case["sealed"])
        start = time.process_time()
        code, err = call(case["words"])
        print(json.dumps({"code": code, "err": err, "seconds": time.process_time() - start}), file=answers, flush=True)
        for name in set(os.listdir()) - before - {"config.toml"}:
            shutil.rmtree(name) if os.path.isdir(name) else os.unlink(name)


def seal(changes: dict[str, str]) -> None:
    """``sealed.h5`` with these settings and numbers, as far as a file can have them."""
    from gpucnn.checkpoint import load_checkpoint, save_checkpoint
    from gpucnn.errors import GpucnnError

    sound = load_checkpoint("good.h5")
    if "model.layers" in changes:  # which a name of another net would hide
        changes = {"model.name": '"custom"'} | changes
    progress, history, config = dict(sound.progress), dict(sound.history), sound.config
    for name, text in changes.items():
        group, _, key = name.rpartition("/")
        if group:
            number = float(text) if "n" in text or "." in text or "e" in text else int(text)
            progress, history = {
                "progress": (progress | {key: number}, history),
                "history": (progress, history | {key: [number]}),
            }[group]
        else:
            table, _, key = name.rpartition(".")
            where = re.compile(rf"(\[{re.escape(table)}\]\n(?:[^\[\n].*\n)*?){key} = .*")
            config = where.sub(lambda match, key=key, text=text: f"{match[1]}{key} = {text}", config)
    with contextlib.suppress(GpucnnError, OverflowError, ValueError):  # what a file cannot have
        save_checkpoint("sealed.h5", replace(sound, progress=progress, history=history, config=config))


def call(words: list[str]) -> tuple[int | str, str]:
    """A command's code and standard error."""
    from gpucnn.cli.main import main

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code: int | str = main(words)
        except SystemExit as stop:
            code = int(stop.code or 0)
        except BaseException as error:
            code = f"{type(error).__name__}: {str(error)[:300]}"
    return code, err.getvalue()


def quiet() -> None:
    """No network, no race and no comparison of all models: their arguments are tried, and nothing else of them."""
    from gpucnn.checks.parity import Parity
    from gpucnn.cli import benchmark, gradcheck, parity
    from gpucnn.data.files import download

    def unreachable(url: str, *arguments: Any) -> Any:
        raise download.MirrorError("no network here")

    def measured(*arguments: Any) -> tuple[dict[str, Any], str]:
        return {}, ""

    def compared(*arguments: Any, **options: Any) -> Any:
        return Parity("mlp", "cpu", (8, 8, 1), 1, 0, [], [], None)

    vars(download)["fetch"] = unreachable
    vars(benchmark).update(lap_times=measured, ops=measured, starts=measured)
    vars(parity)["compare"] = compared
    vars(gradcheck)["check_all"] = lambda layer: []


def make_files() -> None:
    """A checkpoint and an image, made by the commands themselves, which compiles their kernels too."""
    import numpy as np
    from PIL import Image

    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save("digit.png")
    for device in ("cpu", "reference"):
        code, err = call(
            ["train", "--max-steps", "1", "--model", "mlp", "--device", device, "--output", "run", "--force"]
        )
        if device == "cpu":
            shutil.rmtree("run")
    assert code == 0, err
    shutil.copy("run/last.h5", "good.h5")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        serve()
        return 0
    return min(run(args.cases, args.seed, lambda text: print(text, flush=True)), 1)


if __name__ == "__main__":
    sys.exit(main())
