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
import resource
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, fields, is_dataclass
from math import inf, nan, nextafter
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

CODES = {0, 1, 2, 3, 4, 5, 6}
SLOW, HUNG = 10.0, 90.0  # seconds of the processor, and of the clock on a busy machine
MEMORY = 8 * 2**30
QUICK = {"--max-steps": "1", "--epochs": "1", "--model": "mlp", "--device": "reference"}
"""Given to every run of training, in front of what is tried, which replaces it."""

INTEGERS = [0, 1, 2, 3, 7, 64, 512, 10**6, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64, 10**30, 10**400]
FLOATS = [0.0, -0.0, 5e-324, 1e-320, 1e-45, 1e-30, 1e-9, 0.1, 0.5, 1.0, 1e9, 1e30, 1e38, 1e200, 1.7e308, inf, nan]
TEXTS = ["", "x", "a" * 10_000, "$\\bad{$", "\x7f", "\x1b[2J", "two\nlines", "é", "\udcff", "-1", "80%", "12", '"', "a.b"]
NUMBERS = ["9" * 400, "9" * 5000, "0x" + "f" * 5000, "1e400", "-1e400", "1_000", "١٢", "nan", "inf", "-0", "1e-400"]


# values


def values(kind: Any, default: Any = None, bounds: Any = None, choices: Any = ()) -> st.SearchStrategy[str]:
    """TOML texts for a field of this type: what it may have, its bounds and what is just beyond, and anything."""
    return st.one_of(fitting(kind, default, bounds or {}, list(choices)), odd())


def fitting(kind: Any, default: Any, bounds: dict[str, float], choices: list[str]) -> st.SearchStrategy[str]:
    origin, inner = get_origin(kind), get_args(kind)
    if kind is bool:
        return st.sampled_from(["true", "false"])
    if kind is int:
        near = [int(bound) + step for bound in bounds.values() for step in (-1, 0, 1)]
        return st.sampled_from([n for m in INTEGERS for n in (m, -m)] + near * 4).map(digits)
    if kind is float:
        near = [f for b in bounds.values() for f in (float(b), nextafter(b, inf), nextafter(b, -inf))]
        return st.one_of(st.sampled_from([f for m in FLOATS for f in (m, -m)] + near * 4), st.floats()).map(repr)
    if kind is str:
        return st.one_of(st.sampled_from(choices or [str(default)]), st.sampled_from(TEXTS), st.text(max_size=5)).map(
            quoted
        )
    if origin is tuple:
        item = fitting(inner[0], default, bounds, choices)
        several = st.one_of(st.lists(item, max_size=4), item.map(lambda one: [one] * 300))
        return several.map(lambda items: f"[{', '.join(items)}]")
    if origin is dict:
        keys = st.sampled_from(["norm", "whiten", "bias", "width", "depth", "dropout", "x", '"\\u007f"', "a" * 2000])
        item = table(inner[1]) if is_dataclass(inner[1]) else st.one_of(*(fitting(k, 0, {}, []) for k in inner_of(inner[1])))
        return st.dictionaries(keys, item, max_size=3).map(inline)
    return st.one_of(*(fitting(k, default, bounds, choices) for k in inner if k is not type(None)))


def inner_of(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) or (kind,)


def table(kind: Any) -> st.SearchStrategy[str]:
    """An inline table with some fields of a dataclass."""
    types = get_type_hints(kind)
    one = {f.name: fitting(types[f.name], f.default, f.metadata["setting"].bounds if f.metadata else {}, []) for f in fields(kind)}
    return st.fixed_dictionaries({}, optional=one).map(inline)


def inline(found: dict[str, str]) -> str:
    return "{" + ", ".join(f"{key} = {value}" for key, value in found.items()) + "}"


def digits(number: int) -> str:
    return hex(number) if number.bit_length() > 10_000 else str(number)


def quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def odd() -> st.SearchStrategy[str]:
    """TOML of any kind, and what is none."""
    deep = ["[" * 5000, "{a=" * 3000, "a" + ".a" * 20_000 + " = 1", "[" + "1," * 20_000 + "]", "1\nx = 2", "}", "=", "#"]
    dates = ["1979-05-27", "1979-05-27T07:32:00Z", "07:32:00"]
    return st.one_of(st.sampled_from([*NUMBERS, *TEXTS, *deep, *dates, "true", "[]", "{}", "[[]]"]), st.text(max_size=6))


# cases


@dataclass(frozen=True)
class Case:
    """A command line, and the text of the file ``config.toml``, which it may name."""

    words: list[str]
    config: str = ""


FILES = [
    *("absent", "folder", "fifo", "socket", "loop", "binary", "big", "empty", "denied", "/dev/null", "/dev/zero", "/dev/full"),
    *("good.h5", "run", "digit.png", "config.toml", "log/metrics.jsonl", "pipe/metrics.jsonl", "pipe", "x" * 300, "", "a\nb"),
    *("out.png", "fifo.png", "folder.png", "out.svg", "new.h5", "fifo.h5", "no/such/place.png", "$\\bad{$.png", "~nobody/x"),
]


def setting_value(name: str, field: Any, kind: Any, default: Any) -> st.SearchStrategy[str]:
    return values(kind, default, field.bounds, field.choices)


def cases() -> st.SearchStrategy[Case]:
    from gpucnn.cli.main import COMMANDS, build_parser
    from gpucnn.runs.config import stated_settings

    parser = build_parser(list(COMMANDS))
    commands = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction)).choices
    stated = list(stated_settings())
    assignment = st.sampled_from(stated).flatmap(lambda one: st.tuples(st.just(one[0]), setting_value(*one)))
    with_flags = st.sampled_from(sorted(commands)).flatmap(lambda name: command_line(name, commands[name]))
    by_set = st.lists(assignment, min_size=1, max_size=3).map(
        lambda found: Case(line("train", [word for name, value in found for word in ("--set", f"{name}={value}")]))
    )
    by_file = st.lists(assignment, min_size=1, max_size=4).map(
        lambda found: Case(line("train", ["--config", "config.toml"]), "".join(f"{name} = {value}\n" for name, value in found))
    )
    return st.one_of(by_set, by_set, by_file, with_flags, with_flags)


def line(command: str, words: list[str]) -> list[str]:
    quick = [word for pair in QUICK.items() for word in pair if pair[0] not in words]
    if any(word.startswith(("model.name", "model = ")) for word in words):
        quick = quick[:4] + quick[6:]
    return [command, *(quick if command in ("train", "find-lr", "augmentations") and command != "augmentations" else []), *words]


def command_line(name: str, parser: Any) -> st.SearchStrategy[Case]:
    """A command with some of its flags, each with a value of its type or any other; those it needs are sound."""
    subparsers = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    if subparsers:
        names = st.sampled_from(sorted(subparsers[0].choices))
        return names.flatmap(
            lambda one: command_line(name, subparsers[0].choices[one]).map(
                lambda case: Case([name, one, *case.words[1:]], case.config)
            )
        )
    flags = [a for a in parser._actions if a.option_strings and a.dest not in ("help", "debug")]
    places = [a for a in parser._actions if not a.option_strings]
    some = st.lists(st.sampled_from(flags), max_size=3, unique_by=id).flatmap(lambda found: st.tuples(*map(flag, found)))
    needed = [w for a in flags if a.required for w in (a.option_strings[0], "new.h5" if a.dest == "out" else "good.h5")]
    given_places = st.tuples(*(place(a) for a in places))

    def make(found: Any) -> Case:
        words = [word for one in found[0] for word in one]
        mine = [w for a, b in zip(needed[::2], needed[1::2], strict=True) if a not in words for w in (a, b)]
        return Case(line(name, [*mine, *words, *(word for one in found[1] for word in one)]), found[2])

    return st.tuples(some, given_places, st.sampled_from(["", "[train]\nepochs = 1\n", "\x00"])).map(make)


def flag(action: Any) -> st.SearchStrategy[list[str]]:
    if action.nargs == 0:
        return st.just([action.option_strings[0]])
    return texts(action).map(lambda text: [action.option_strings[0], text])


def place(action: Any) -> st.SearchStrategy[list[str]]:
    least = 0 if action.nargs in ("?", "*") else 1
    return st.lists(texts(action), min_size=least, max_size=1 if action.nargs == "?" else 2)


def texts(action: Any) -> st.SearchStrategy[str]:
    """Words of a command line for an argument: no NUL, which no command line can have."""
    numbers = st.one_of(st.sampled_from(NUMBERS), fitting(action.type, 1, {}, [])) if action.type in (int, float) else None
    some = [st.sampled_from(FILES)] if action.type is Path or action.dest in ("resume", "data_dir", "output") else []
    some += [numbers] if numbers is not None else []
    some += [st.sampled_from(sorted(action.choices))] if action.choices else []
    return st.one_of(*some, *some, st.sampled_from([*TEXTS, *NUMBERS, "8x8x1", "512x512x3", "1x1x0", "mlp", "digits", "cpu"]))


# running them


class Child:
    """A process that runs case after case in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> subprocess.Popen[str]:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "GPUCNN_DATA_DIR": str(self.folder / "none")}
        command = [sys.executable, __file__, "--child"]
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(command, cwd=self.folder, env=environment, text=True, **pipes)
        assert self.process.stdout is not None
        self.process.stdout.readline()  # it has compiled its kernels
        return self.process

    def run(self, case: Case) -> dict[str, Any]:
        process = self.process or self.start()
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps({"words": case.words, "config": case.config}) + "\n")
        process.stdin.flush()
        if select.select([process.stdout], [], [], HUNG)[0] and (answer := process.stdout.readline()):
            found: dict[str, Any] = json.loads(answer)
            return found
        hung = process.poll() is None
        self.stop()
        return {"code": "hung" if hung else "died", "err": "", "seconds": HUNG}

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
            max_examples=count, phases=[Phase.generate], database=None, deadline=None, suppress_health_check=list(HealthCheck)
        )
        @given(cases())
        def one(case: Case) -> None:
            answer = child.run(case)
            codes[answer["code"]] += 1
            commands[case.words[0]] += 1
            if what := fault(answer):
                faults.append(what)
                tell(f"FAULT {what}: {[word[:200] for word in case.words]} {case.config[:300]!r}")
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
    (folder / "log/metrics.jsonl").write_text('{"epoch": 1, "test_loss": 1e999}\n{"epoch": ' + "9" * 400 + "}\n" + "[" * 9999)


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
        start = time.process_time()
        code, err = call(case["words"])
        print(json.dumps({"code": code, "err": err, "seconds": time.process_time() - start}), file=answers, flush=True)
        for name in set(os.listdir()) - before:
            shutil.rmtree(name) if os.path.isdir(name) else os.unlink(name)


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
    from gpucnn.cli import benchmark, gradcheck, parity
    from gpucnn.data.files import download

    def unreachable(url: str, *arguments: Any) -> Any:
        raise download.MirrorError("no network here")

    found: Any = lambda *arguments, **options: ({}, "")  # noqa: E731
    vars(download)["fetch"] = unreachable
    vars(benchmark).update(lap_times=found, ops=found, starts=found)
    vars(parity).update(compare=lambda *arguments, **options: None, as_text=lambda parity: "", verdict=lambda found: "", all=lambda found: True)
    vars(gradcheck).update(check_all=lambda layer: [])


def make_files() -> None:
    """A checkpoint and an image, made by the commands themselves, which compiles their kernels too."""
    import numpy as np
    from PIL import Image

    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save("digit.png")
    for device in ("cpu", "reference"):
        code, err = call(["train", "--max-steps", "1", "--model", "mlp", "--device", device, "--output", "run", "--force"])
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
