"""The mutation run itself: what it changes, and that its list of exceptions is up to date."""

import ast
from pathlib import Path

import pytest
from mutants import draw, is_equivalent, mutants_of, rules
from mutate import ROOT, TESTS

SOURCE = """
def first(x, n=3):
    '''A text with 1 < 2.'''
    if n > 1 and not x:
        raise ValueError(f"{n + 1} is wrong")
    x[1:n] += 2.0
    run(x, n, deep=True)
    return [v for v in x if v]
"""


@pytest.fixture
def written(tmp_path: Path) -> Path:
    (tmp_path / "gpucnn" / "layers").mkdir(parents=True)
    (tmp_path / "gpucnn" / "layers" / "some.py").write_text(SOURCE)
    return tmp_path


def test_each_change_is_one_that_can_be_compiled(written: Path) -> None:
    changes = set()
    for mutant in mutants_of(written, "gpucnn/layers/some.py"):
        source = SOURCE.encode()
        changed = source[: mutant.start] + mutant.new.encode() + source[mutant.end :]
        assert ast.dump(ast.parse(changed)) != ast.dump(ast.parse(source))
        assert mutant.function in ("first", "")
        changes.add(mutant.change)
    assert {
        "3 -> 4", "3 -> (2)", "n > 1 -> (n >= 1)", "n > 1 and not x -> True", "n > 1 and not x -> False",
        "n > 1 and not x -> (n > 1 or not x)", "n > 1 and not x -> (n > 1)", "not x -> (x)", "2.0 -> 4.0",
        "n -> (n) - 1", "x[1:n] += 2.0 -> pass", "x[1:n] += 2.0 -> x[1:n] -= 2.0", "run(x, n, deep=True) -> pass",
        "run(x, n, deep=True) -> (run(n, x, deep=True))", "run(x, n, deep=True) -> (run(x, n))", "True -> False",
        "return [v for v in x if v] -> return None", "v -> True",
    } <= changes  # fmt: skip
    assert not any("wrong" in change and "pass" not in change for change in changes)
    assert not any("text" in change for change in changes)


def test_a_draw_is_one_mutant_a_line_and_stays_the_same_when_lines_move(written: Path) -> None:
    before = draw(written, TESTS, 3)
    assert len({mutant.line for mutant in before}) == len(before) == 6
    path = written / "gpucnn" / "layers" / "some.py"
    path.write_text("import os\n\n" + SOURCE)
    after = draw(written, TESTS, 3)
    assert [(m.code, m.change) for m in after] == [(m.code, m.change) for m in before]
    assert [(m.code, m.change) for m in draw(written, TESTS, 4)] != [(m.code, m.change) for m in before]


def test_every_exception_has_a_file_and_a_reason() -> None:
    for rule in rules():
        assert set(rule) <= {"file", "function", "code", "change", "reason"}
        assert len(rule["reason"]) > 10
        assert (ROOT / rule["file"]).exists(), rule


def test_an_exception_is_for_what_it_names_alone(written: Path) -> None:
    mutants = list(mutants_of(written, "gpucnn/layers/some.py"))
    rule = {"file": "gpucnn/layers/", "function": "first", "code": "x[1:n]", "change": "2.0 -> 4.0", "reason": "a test"}
    assert [m.change for m in mutants if is_equivalent(m, [rule])] == ["2.0 -> 4.0"]
    for name, other in (
        ("file", "gpucnn/optim/"),
        ("function", "second"),
        ("code", "x[2:n]"),
        ("change", "2.0 -> 3.0"),
    ):
        assert not any(is_equivalent(m, [{**rule, name: other}]) for m in mutants)
