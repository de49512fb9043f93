"""Settings and arguments, checked by what their declarations say.

A setting stands once, at its dataclass field: type, default, help text, flags, and bounds or choices.

    lr: float = setting(0.05, "learning rate", "--lr", at_least=0, at_most=1e30)

Dataclasses derived from ``Settings`` check their values; flags, ``--help`` and messages come from the same field.

The arguments of a public function or class that is ``checked`` are compared with its annotations.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from functools import wraps
from inspect import Parameter, signature
from math import inf
from numbers import Integral, Real
from operator import ge, gt, le, lt
from types import NoneType, UnionType
from typing import Any, Literal, ParamSpec, Self, TypeVar, Union, get_args, get_origin, get_type_hints

from gpucnn.errors import UsageError, closest, cut, shown

BOUNDS = {"at_least": (">=", ge), "above": (">", gt), "at_most": ("<=", le), "below": ("<", lt)}

REAL: Any = Real  # NumPy's numbers too
LONGEST_TEXT, LONGEST_LIST = 100, 1024
LONGEST_PATH = 4096
CONTROL = re.compile("[\0-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True)
class Setting:
    """What a field states besides its type and default.

    Args:
        help: what it is, in a few words.
        flags: on the command line, as ("--lr",).
        choices: the values of a string.
        keys: the keys of a table, where only some are known.
        longest: characters of a text.
        bounds: of a number, or of every number in a list or table, by the names of ``BOUNDS``; it must be finite too.
    """

    help: str
    flags: tuple[str, ...]
    choices: Collection[str]
    keys: Collection[str]
    bounds: dict[str, float]
    longest: int = LONGEST_TEXT

    @property
    def dest(self) -> str:
        """The flag as argparse stores it: --batch-size as batch_size."""
        return self.flags[0].strip("-").replace("-", "_")

    def check(self, name: str, value: Any) -> None:
        """Raises UsageError for a value that the field cannot have, or that a TOML file could not give back."""
        if isinstance(value, tuple):
            if len(value) > LONGEST_LIST:
                raise UsageError(f"{name} has {len(value)} values: give at most {LONGEST_LIST}")
            for item in value:
                (replace(self, bounds={}) if isinstance(item, str) else self).check(name, item)
        elif isinstance(value, Mapping):
            for key, item in value.items():
                if (self.keys and key not in self.keys) or not is_name(key):
                    hint = closest(key, self.keys) if self.keys else ": give letters, digits and underscores"
                    raise UsageError(f"{name}.{cut(key, LONGEST_TEXT)} is unknown{hint}")
                (replace(self, bounds={}) if isinstance(item, str) else self).check(f"{name}.{key}", item)
        elif self.choices and value not in self.choices:
            raise UsageError(f"{name} = {shown(value)}{closest(value, self.choices)}")
        elif isinstance(value, str) and (len(value) > self.longest or CONTROL.search(value)):
            raise UsageError(f"{name} = {shown(value)}: give at most {self.longest} characters, none of control")
        elif self.bounds and value is not None and not self.allows(value):
            allowed = " and ".join(f"{BOUNDS[kind][0]} {bound}" for kind, bound in self.bounds.items())
            raise UsageError(f"{name} = {shown(value)}: give a number {allowed}")

    def allows(self, value: Any) -> bool:
        """Whether this is a finite number within the bounds."""
        return (
            isinstance(value, REAL)
            and abs(value) < inf
            and all(BOUNDS[kind][1](value, bound) for kind, bound in self.bounds.items())
        )


def is_name(key: str) -> bool:
    """Whether a key of a table is a plain word, which TOML takes without quotes."""
    return key.isidentifier() and key.isascii() and len(key) <= LONGEST_TEXT


def setting(
    default: Any,
    help: str = "",
    *flags: str,
    choices: Collection[str] = (),
    keys: Collection[str] = (),
    longest: int = LONGEST_TEXT,
    **bounds: float,
) -> Any:
    """A dataclass field with this default and a ``Setting``."""
    metadata = {"setting": Setting(help, flags, choices, keys, bounds, longest)}
    if isinstance(default, dict):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


class Settings:
    """The base of a dataclass whose fields are ``setting``s; raises UsageError for a value that a field cannot have."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        settings: Any = cls
        check_names(cls.__name__, kwargs, [f.name for f in fields(settings)])
        return super().__new__(cls)

    def __post_init__(self) -> None:
        settings: Any = self
        for f in fields(settings):
            value = getattr(self, f.name)
            if not fits(value, f.type):
                raise UsageError(f"{type(self).__name__}({f.name}={in_short(value)}): give {in_words(f.type)}")
            if "setting" in f.metadata:
                f.metadata["setting"].check(f.name, value)


def check_names(title: str, given: Iterable[str], known: Collection[str]) -> None:
    """Raises UsageError for the name of an argument that is not known."""
    for name in given:
        if name not in known:
            raise UsageError(f"{title} has no argument {name!r}{closest(name, known)}")


P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


def named(what: str, value: T | str, table: Mapping[str, T]) -> T:
    """What a name stands for in a table; anything but a name as it is.

    Raises:
        UsageError: there is no such name.
    """
    if not isinstance(value, str):
        return value
    if value not in table:
        raise UsageError(f"{what} = {value!r}{closest(value, table)}")
    return table[value]


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """The same function, which raises UsageError for an argument that is not what its annotation says.

    NumPy's numbers are numbers, and Python's when they arrive.  What an annotation leaves open, as those of arrays
    do, is not looked at.  It is for what is called once, not in every step.
    """
    declared, title = signature(function), function.__qualname__.removesuffix(".__init__").rpartition(".")[2]
    hints: dict[str, Any] = {}

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if not hints:
            hints["return"] = None
            with suppress(NameError):  # of a name that is there for type checkers alone
                hints.update(get_type_hints(function))
        try:
            bound = declared.bind(*args, **kwargs)
        except TypeError as error:
            if all(parameter.kind is not Parameter.VAR_KEYWORD for parameter in declared.parameters.values()):
                check_names(title, kwargs, [name for name in declared.parameters if name != "self"])
            raise UsageError(f"{title}: {error}") from None
        for name, value in bound.arguments.items():
            kind, hint = declared.parameters[name].kind, hints.get(name, Any)
            items = value.values() if kind is Parameter.VAR_KEYWORD else value
            for item in items if kind in (Parameter.VAR_KEYWORD, Parameter.VAR_POSITIONAL) else (value,):
                if not fits(item, hint):
                    raise UsageError(f"{title}({name}={in_short(item)}): give {in_words(hint)}")
            if hint is not Any and isinstance(value, Real) and hasattr(value, "item"):
                bound.arguments[name] = value.item()
        return function(*bound.args, **bound.kwargs)

    return call


class Checked:
    """The base of classes whose constructors are ``checked``."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "__init__" in vars(cls):
            cls.__init__ = checked(cls.__init__)  # type: ignore[method-assign]


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is what an annotation says, as far as that can be seen."""
    origin, parts = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, UnionType):
        return any(fits(value, part) for part in parts)
    if origin is Literal:
        return value in parts
    if hint in (int, float):
        return isinstance(value, Integral if hint is int else Real) and not isinstance(value, bool)
    if is_sequence(origin):
        if isinstance(value, str | Mapping) or not (hasattr(value, "__len__") and hasattr(value, "__getitem__")):
            return False
        each = parts if origin is tuple and parts[1:] != (...,) else parts[:1] * len(value)
        return all(map(fits, value, each))  # how many there must be is the function's to say
    kind = origin or hint
    return not isinstance(kind, type) or isinstance(value, kind)


def is_sequence(origin: Any) -> bool:
    """Whether this is what tuples and sequences are annotated with."""
    return isinstance(origin, type) and issubclass(origin, Collection) and not issubclass(origin, Mapping)


REMEDIES = {
    int: "an integer",
    float: "a number",
    bool: "True or False",
    str: "a string",
    NoneType: "None",
    "Callable": "a function",
    "Mapping": "a dict",
    "Augmentation": "an Augmentation, as Augmentation(flip=True)",
    "Backend": "a Backend, as get_backend('cpu')",
    "Dataset": "a Dataset, as load_dataset('digits') gives two",
    "Layer": "a Layer, as models.build makes one",
    "Optimizer": "an Optimizer, as optim.SGD(lr=0.1)",
    "Policy": "a Policy of training.precision",
    "PathLike": "a path",
    "TrainerOptions": "TrainerOptions(...)",
}
"""A type, or the name of a class -> what to give."""


def in_words(hint: Any) -> str:
    """An annotation, for a message."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(map(in_words, parts)))
    if is_sequence(origin):
        several = ", ".join(map(in_words, parts[:1] if parts[1:] == (...,) else parts))
        return f"({several})" if origin is tuple and parts[1:] != (...,) else f"a sequence, each {several}"
    kind = origin or hint
    name = getattr(kind, "__name__", str(kind))
    return REMEDIES.get(kind) or REMEDIES.get(name) or f"a {name}"


def in_short(value: Any) -> str:
    """A value on one line, for a message."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{value.dtype} {value.shape}"
    if hasattr(value, "named_layers") and not isinstance(value, type):
        return f"a {value.kind}"  # whose ``repr`` is a table
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
