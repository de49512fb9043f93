"""What is suggested for a name that is not known."""

import pytest

from gpucnn.errors import closest, nearest


@pytest.mark.parametrize(
    ("name", "known", "found"),
    [
        ("momentun", ["momentum", "lr"], "momentum"),
        ("learning_rate", ["momentum", "lr"], "lr"),
        ("learning_rates", ["learning_rate", "lr"], "learning_rate"),
        ("scheduler", ["sched", "seed"], "sched"),
        ("scheduler", ["schedule", "train"], "schedule"),
        ("xyzzy", ["momentum", "lr"], None),
    ],
)
def test_the_nearest_name_is_a_synonym_or_spelled_alike(name: str, known: list[str], found: str | None) -> None:
    assert nearest(name, known) == found


def test_the_known_names_are_listed_where_none_is_near() -> None:
    assert closest("xyzzy", ["b", "a"]) == ": known are a, b"
    assert closest("xyzzy", []) == ": known are none"
