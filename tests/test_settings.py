"""Bounds and choices of a setting, stated at its dataclass field."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, nan

import pytest

from gpucnn.errors import UsageError
from gpucnn.settings import Settings, setting


@dataclass(frozen=True)
class Sample(Settings):
    rate: float | None = setting(0.5, "a rate", "--rate", "-r", above=0, below=1)
    seed: int = setting(0, at_least=0, at_most=2**63)
    kind: str = setting("sum", choices=("sum", "mean"))
    places: tuple[tuple[float, ...], ...] = setting((), at_least=1)
    table: Mapping[str, int | str] = setting({"a": 1}, keys=("a", "b"), at_most=9)
    name: str = setting("x")
    free: float = 1.0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rate": 0.0}, "rate = 0.0: give a number > 0 and < 1"),
        ({"rate": 1.0}, "rate = 1.0: give a number > 0 and < 1"),
        ({"rate": nan}, "rate = nan: give a number"),
        ({"seed": -1}, "seed = -1: give a number >= 0 and <= 9223372036854775808"),
        ({"seed": 2**63 + 1}, "seed = 9223372036854775809: give"),
        ({"kind": "meen"}, "kind = 'meen': did you mean 'mean'?"),
        ({"places": ((1.0, 2.0), (3.0, 0.5))}, "places = 0.5: give a number >= 1"),
        ({"places": ((inf,),)}, "places = inf: give a number >= 1"),
        ({"table": {"c": 1, "a": 2}}, "table.c is unknown: known are a, b"),
        ({"table": {"a": 10}}, "table.a = 10: give a number <= 9"),
        ({"rate": "fast"}, "Sample(rate='fast'): give a number or None"),
        ({"seed": 10**5000}, "seed = an integer of about 4983 digits: give a number"),
        ({"places": ((2.0,) * 1100,)}, "places has 1100 values: give at most 1024"),
        ({"name": "a" * 101}, "give at most 100 characters, none of control"),
        ({"name": "a\x7f"}, r"name = 'a\x7f': give at most 100 characters"),
        ({"name": "\ud800"}, "give at most 100 characters, none of control"),
    ],
)
def test_what_a_field_cannot_have_is_named(values: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        Sample(**values)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"rate": None},
        {"seed": 2**63},
        {"places": ((1.0,), ())},
        {"table": {}},
        {"table": {"a": "text"}},
        {"free": nan},
    ],
)
def test_what_a_field_can_have_passes(values: dict[str, object]) -> None:
    Sample(**values)


def test_a_table_is_not_shared_by_two_objects() -> None:
    one, two = Sample(), Sample()
    assert one.table == two.table == {"a": 1}
    assert one.table is not two.table
