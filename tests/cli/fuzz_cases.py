"""Command lines with extreme values, made from the parsers and the settings, for ``fuzz.py``."""

import argparse
import json
from dataclasses import dataclass, field, fields, is_dataclass
from math import inf, nan, nextafter
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from hypothesis import strategies as st

QUICK = {"--max-steps": "1", "--epochs": "1", "--model": "mlp", "--device": "reference"}
"""Given to every run of training, in front of what is tried, which replaces it."""

INTEGERS = [0, 1, 2, 3, 7, 64, 512, 10**6, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64, 10**30, 10**400]
FLOATS = [0.0, -0.0, 5e-324, 1e-320, 1e-45, 1e-30, 1e-9, 0.1, 0.5, 1.0, 1e9, 1e30, 1e38, 1e200, 1.7e308, inf, nan]
TEXTS = [
    "",
    "x",
    "a" * 10_000,
    "$\\bad{$",
    "\x7f",
    "\x1b[2J",
    "two\nlines",
    "é",
    "\udcff",
    "-1",
    "80%",
    "12",
    '"',
    "a.b",
]
NUMBERS = ["9" * 400, "9" * 5000, "0x" + "f" * 5000, "1e400", "-1e400", "1_000", "١٢", "nan", "inf", "-0", "1e-400"]


# values


def values(kind: Any, default: Any = None, bounds: Any = None, choices: Any = ()) -> st.SearchStrategy[str]:
    """TOML texts for a field of this type: what it may have, its bounds and what is just beyond, and anything."""
    usual = fitting(kind, default, bounds or {}, list(choices))
    return st.one_of(usual, usual, usual, odd())


def fitting(kind: Any, default: Any, bounds: dict[str, float], choices: list[str]) -> st.SearchStrategy[str]:
    origin, inner = get_origin(kind), get_args(kind)
    if Any in get_args(inner[0] if inner else None):
        return net()
    if kind is bool:
        return st.sampled_from(["true", "false"])
    if kind is int:
        legal = [default] * 20 if isinstance(default, int) else [1] * 20
        near = [int(bound) + step for bound in bounds.values() for step in (-1, 0, 1)]
        return st.sampled_from([n for m in INTEGERS for n in (m, -m)] + near * 8 + legal).map(digits)
    if kind is float:
        near = [f for b in bounds.values() for f in (float(b), nextafter(b, inf), nextafter(b, -inf))]
        return st.one_of(st.sampled_from([f for m in FLOATS for f in (m, -m)] + near * 8), st.floats(0, 1)).map(repr)
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
        item = (
            table(inner[1])
            if is_dataclass(inner[1])
            else st.one_of(*(fitting(k, 0, {}, []) for k in inner_of(inner[1])))
        )
        return st.dictionaries(keys, item, max_size=3).map(inline)
    return st.one_of(*(fitting(k, default, bounds, choices) for k in inner if k is not type(None)))


LAYERS = {
    "Conv2D": ("out_channels", "kernel_size", "stride", "padding", "weight_init", "in_channels"),
    "Linear": ("out_features", "weight_init", "bias"),
    "Residual": ("body", "shortcut", "relu"),
    "Sequential": ("layers",),
    "MaxPool2D": ("kernel_size", "stride", "padding"),
    "Dropout": ("rate",),
    **dict.fromkeys(("BatchNorm", "ReLU", "Flatten", "Whitening", "os.system", "x"), ()),
}
VALUES = [*map(str, (-1, 0, 1, 2, 3, 512, 65536, 10**9, 10**30)), "0.5", "nan", "true", "[3, 3]", "[[1, 2], [3, 4]]"]
VALUES += ['"same"', '"classes"', '"dirac"', '"exec"', "[]", "{}", "1979-05-27", '[{layer = "ReLU"}]']


def net() -> st.SearchStrategy[str]:
    """The layers of a net: those of a sound one, some of them replaced, in branches too."""

    def one(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        return st.sampled_from([*LAYERS]).flatmap(
            lambda name: st.dictionaries(
                st.sampled_from([*LAYERS[name], "name", "joined", "x"]), st.one_of(st.sampled_from(VALUES), inner)
            ).map(lambda found: inline({"layer": quoted(name), **found}))
        )

    listed = st.recursive(
        st.sampled_from(VALUES), lambda inner: st.lists(one(inner), max_size=3).map(lambda t: f"[{', '.join(t)}]")
    )
    head = '{layer = "Flatten"}, {layer = "Linear", out_features = "classes"}'
    return st.one_of(listed, st.lists(one(listed), max_size=2).map(lambda t: f"[{', '.join([*t, head])}]"))


def inner_of(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) or (kind,)


def table(kind: Any) -> st.SearchStrategy[str]:
    """An inline table with some fields of a dataclass."""
    types = get_type_hints(kind)
    one = {
        f.name: fitting(types[f.name], f.default, f.metadata["setting"].bounds if f.metadata else {}, [])
        for f in fields(kind)
    }
    return st.fixed_dictionaries({}, optional=one).map(inline)


def inline(found: dict[str, str]) -> str:
    return "{" + ", ".join(f"{key} = {value}" for key, value in found.items()) + "}"


def digits(number: int) -> str:
    return hex(number) if number.bit_length() > 10_000 else str(number)


def quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def odd() -> st.SearchStrategy[str]:
    """TOML of any kind, and what is none."""
    deep = ["[" * 5000, "{a=" * 3000, f"a{'.a' * 20_000} = 1", f"[{'1,' * 20_000}]"]
    dates = ["1979-05-27", "1979-05-27T07:32:00Z", "07:32:00"]
    return st.one_of(
        st.sampled_from([*NUMBERS, *TEXTS, *deep, *dates, "1\nx = 2", "}", "=", "#", "true", "[]", "{}", "[[]]"]),
        st.text(max_size=6),
    )


# cases


@dataclass(frozen=True)
class Case:
    """A command line, and what the files ``config.toml`` and ``sealed.h5`` hold, which it may name.

    Attributes:
        sealed: of a sound checkpoint, settings and numbers ("progress/epoch") -> what they are replaced by.
    """

    words: list[str]
    config: str = ""
    sealed: dict[str, str] = field(default_factory=dict)


FILES = ["absent", "folder", "fifo", "socket", "loop", "binary", "big", "empty", "denied", "pipe", "pipe/metrics.jsonl"]
FILES += ["/dev/null", "/dev/zero", "/dev/full", "no/such/place.png", "$\\bad{$.png", "~nobody/x", "digit.png", "run"]
FILES += ["good.h5", "config.toml", "log/metrics.jsonl", "out.png", "fifo.png", "folder.png", "new.h5", "fifo.h5"]
FILES += ["", "a\nb", "x" * 300]


READERS = """
    inspect sealed.h5
    inspect sealed.h5 --json
    inspect sealed.h5 --architecture
    evaluate --checkpoint sealed.h5 --device reference --json
    evaluate --checkpoint sealed.h5 --device cpu
    predict --checkpoint sealed.h5 digit.png
    export --checkpoint sealed.h5 --out new.h5 --half
    features --checkpoint sealed.h5 digit.png --out pictures
    plot sealed.h5
    train --resume sealed.h5 --output more --device reference --max-steps 2
    train --resume sealed.h5 --output more --force --epochs 2 --max-steps 2
""".strip().splitlines()

NUMBERS_OF_A_RUN = """
    progress/epoch progress/batch progress/step progress/best_accuracy progress/best_epoch progress/loss_sum
    progress/correct progress/examples progress/loss_scale progress/good_steps progress/x history/epoch history/NaN
    history/train_loss history/train_accuracy history/test_loss history/test_accuracy history/learning_rate
"""


def cases() -> st.SearchStrategy[Case]:
    from gpucnn.cli.main import COMMANDS, build_parser
    from gpucnn.runs.config import stated_settings

    parser = build_parser(list(COMMANDS))
    commands = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction)).choices
    assignment = st.sampled_from(list(stated_settings())).flatmap(
        lambda one: st.tuples(st.just(one[0]), values(one[2], one[3], one[1].bounds, one[1].choices))
    )
    with_flags = st.sampled_from(sorted(commands)).flatmap(lambda name: command_line(name, commands[name]))
    by_set = st.lists(assignment, min_size=1, max_size=3).map(
        lambda found: Case(line("train", [word for name, value in found for word in ("--set", f"{name}={value}")]))
    )
    by_file = st.lists(assignment, min_size=1, max_size=4).map(
        lambda found: Case(
            line("train", ["--config", "config.toml"]), "".join(f"{name} = {value}\n" for name, value in found)
        )
    )
    numbers = st.sampled_from(NUMBERS_OF_A_RUN.split())
    number = st.tuples(numbers, st.one_of(fitting(int, 1, {}, []), fitting(float, 1.0, {}, [])))
    readers = st.sampled_from([line.split() for line in READERS])
    by_seal = st.tuples(readers, st.lists(st.one_of(assignment, number), min_size=1, max_size=2)).map(
        lambda found: Case(found[0], sealed=dict(found[1]))
    )
    return st.one_of(by_set, by_set, by_file, with_flags, with_flags, by_seal, by_seal)


def line(command: str, words: list[str]) -> list[str]:
    """A command line; training is short, and of a small model, where nothing else is said."""
    said = {*words, *("--model" for word in words if word.startswith("model.name="))}
    flags = {"train": QUICK, "find-lr": {flag: QUICK[flag] for flag in ("--model", "--device")}}.get(command, {})
    return [command, *(word for pair in flags.items() if pair[0] not in said for word in pair), *words]


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
    chosen = st.lists(st.sampled_from(flags), max_size=3, unique_by=id) if flags else st.just([])
    some = chosen.flatmap(lambda found: st.tuples(*map(flag, found)))
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
    numbers = (
        st.one_of(st.sampled_from(NUMBERS), fitting(action.type, 1, {}, [])) if action.type in (int, float) else None
    )
    some = [st.sampled_from(FILES)] if action.type is Path or action.dest in ("resume", "data_dir", "output") else []
    some += [numbers] if numbers is not None else []
    some += [st.sampled_from(sorted(action.choices))] if action.choices else []
    return st.one_of(
        *some, *some, st.sampled_from([*TEXTS, *NUMBERS, "8x8x1", "512x512x3", "1x1x0", "mlp", "digits", "cpu"])
    )
