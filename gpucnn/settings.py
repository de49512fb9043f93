"""A setting stands once, at its dataclass field: type, default, help text, flags, and bounds or choices.

    lr: float = setting(0.05, "learning rate", "--lr", at_least=0, at_most=1e30)

Dataclasses derived from ``Settings`` check their values; flags, ``--help`` and messages come from the same field.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from math import inf
from numbers import Real
from operator import ge, gt, le, lt
from typing import Any

from gpucnn.errors import UsageError, closest, cut, shown

BOUNDS = {"at_least": (">=", ge), "above": (">", gt), "at_most": ("<=", le), "below": ("<", lt)}

REAL: Any = Real  # NumPy's numbers too
LONGEST_TEXT, LONGEST_LIST = 100, 256
CONTROL = re.compile("[\0-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True)
class Setting:
    """What a field states besides its type and default.

    Args:
        help: what it is, in a few words.
        flags: on the command line, as ("--lr",).
        choices: the values of a string.
        keys: the keys of a table, where only some are known.
        bounds: of a number, or of every number in a list or table, by the names of ``BOUNDS``; it must be finite too.
    """

    help: str
    flags: tuple[str, ...]
    choices: Collection[str]
    keys: Collection[str]
    bounds: dict[str, float]

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
                self.check(name, item)
        elif isinstance(value, Mapping):
            for key, item in value.items():
                if (self.keys and key not in self.keys) or not is_name(key):
                    hint = closest(key, self.keys) if self.keys else ": give letters, digits and underscores"
                    raise UsageError(f"{name}.{cut(key, LONGEST_TEXT)} is unknown{hint}")
                (replace(self, bounds={}) if isinstance(item, str) else self).check(f"{name}.{key}", item)
        elif self.choices and value not in self.choices:
            raise UsageError(f"{name} = {shown(value)}{closest(value, self.choices)}")
        elif isinstance(value, str) and (len(value) > LONGEST_TEXT or CONTROL.search(value)):
            raise UsageError(f"{name} = {shown(value)}: give at most {LONGEST_TEXT} characters, none of control")
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
    **bounds: float,
) -> Any:
    """A dataclass field with this default and a ``Setting``."""
    metadata = {"setting": Setting(help, flags, choices, keys, bounds)}
    if isinstance(default, dict):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


class Settings:
    """The base of a dataclass whose fields are ``setting``s; raises UsageError for a value that a field cannot have."""

    def __post_init__(self) -> None:
        settings: Any = self
        for f in fields(settings):
            if "setting" in f.metadata:
                f.metadata["setting"].check(f.name, getattr(self, f.name))
