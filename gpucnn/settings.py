"""A setting stands once, at its dataclass field: type, default, help text, flags, and bounds or choices.

    lr: float = setting(0.05, "learning rate", "--lr", at_least=0)

The dataclass checks its values with ``check``; flags, ``--help`` and error messages are made from the same field.
"""

from collections.abc import Collection
from dataclasses import dataclass, field, fields
from math import inf
from operator import ge, gt, le, lt
from typing import Any

from gpucnn.errors import UsageError, closest

COMPARISONS = {">=": ge, ">": gt, "<=": le, "<": lt}


@dataclass(frozen=True)
class Setting:
    """What a field says beside its type and default.

    Args:
        help: what it is, in a few words.
        flags: on the command line, as ("--lr",).
        choices: the values of a string.
        keys: the keys of a table, where only some are known.
        bounds: of a number, or of every number in a list, as {">=": 0, "<": 1}; it is finite as well.
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
        """Raises UsageError for a value that the field cannot have."""
        if isinstance(value, tuple):
            for item in value:
                self.check(name, item)
        elif self.keys and (odd := sorted(set(value).difference(self.keys))):
            raise UsageError(f"{name}.{odd[0]} is unknown{closest(odd[0], self.keys)}")
        elif self.choices and value not in self.choices:
            raise UsageError(f"{name} = {value!r}{closest(value, self.choices)}")
        elif self.bounds and value is not None and not self.allows(value):
            allowed = " and ".join(f"{sign} {bound}" for sign, bound in self.bounds.items())
            raise UsageError(f"{name} = {value}: give a number {allowed}")

    def allows(self, value: float) -> bool:
        """Whether a number is finite and within the bounds."""
        return abs(value) < inf and all(COMPARISONS[sign](value, bound) for sign, bound in self.bounds.items())


def setting(
    default: Any,
    help: str = "",
    *flags: str,
    choices: Collection[str] = (),
    keys: Collection[str] = (),
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
) -> Any:
    """A dataclass field with this default and a ``Setting``."""
    limits = {">=": at_least, ">": above, "<=": at_most, "<": below}
    bounds = {sign: bound for sign, bound in limits.items() if bound is not None}
    metadata = {"setting": Setting(help, flags, choices, keys, bounds)}
    if isinstance(default, dict):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


def check(settings: Any) -> None:
    """Raises UsageError for the first field of a dataclass that is out of its bounds or choices."""
    for f in fields(settings):
        if "setting" in f.metadata:
            f.metadata["setting"].check(f.name, getattr(settings, f.name))
