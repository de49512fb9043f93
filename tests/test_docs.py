"""Documents that name code: the code must be there, and README's examples must run."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from readme import blocks

ROOT = Path(__file__).resolve().parent.parent
LECTURE = (ROOT / "docs" / "lecture.md").read_text(encoding="utf-8")
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *ROOT.glob("benchmarks/*.md"), *ROOT.glob("gpucnn/*/*.md")]
)
SCRIPT_FLAGS = {"--runs", "--maxprocesses", "--dist"}  # of benchmarks/speedrun.py and pytest-xdist
MENTION = re.compile(r"`((?:gpucnn|tests|scripts)/[\w/]+\.py)`((?:(?:: |, )`\w+`)*)")


def test_every_row_of_the_lecture_is_there() -> None:
    rows = [int(row) for row in re.findall(r"^\| L(\d+)", LECTURE, flags=re.MULTILINE)]
    assert rows[:26] == list(range(1, 27))
    assert set(rows) == set(rows[:26])  # of layers that came later
    assert len(re.findall(r"^\d\. \*\*", LECTURE, flags=re.MULTILINE)) == 6


@pytest.mark.parametrize("mention", sorted({m.group(0) for m in MENTION.finditer(LECTURE)}))
def test_what_the_lecture_names_exists(mention: str) -> None:
    path, names = MENTION.fullmatch(mention).groups()
    source = (ROOT / path).read_text(encoding="utf-8")
    for name in re.findall(r"`(\w+)`", names):
        assert re.search(rf"^ *(def|class) {name}\b", source, flags=re.MULTILINE), f"{path} has no {name}"


def test_equation_numbers_stand_in_the_code() -> None:
    code = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "gpucnn").rglob("*.py"))
    cited = {int(n) for group in re.findall(r"\((L\d+(?:, L\d+)*)\)", code) for n in re.findall(r"\d+", group)}
    assert cited >= set(range(1, 26))


@pytest.mark.parametrize("code", blocks("python"), ids=lambda code: code.splitlines()[0][:40])
def test_python_in_the_readme_runs(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {"__name__": "readme"})


def test_the_page_on_python_runs_from_its_top_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "page"}
    for number, code in enumerate(blocks("python", page=ROOT / "docs" / "python.md"), 1):
        exec(compile(code, f"docs/python.md, block {number}", "exec"), names)


@pytest.mark.parametrize("section", ["## Quick start", "## Tests"])
def test_the_first_commands_are_one_line_each(section: str) -> None:
    command = blocks("bash", section)[0].strip()
    assert "\n" not in command
    assert command.startswith("python3 -m venv .venv && .venv/bin/pip install")


def test_the_quick_start_trains_digits_well(tmp_path: Path) -> None:
    words = blocks("bash", "## Quick start")[0].rpartition("&&")[2].split()
    assert words == [".venv/bin/gpucnn", "train"]
    command = [sys.executable, "-m", "gpucnn.cli.main", *words[1:], "--output", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    (accuracy,) = re.findall(r"done   test accuracy (0\.\d+)", done.stdout)
    assert float(accuracy) >= 0.98


def test_commands_in_the_readme_exist() -> None:
    from gpucnn.cli.main import COMMANDS

    assert set(re.findall(r"gpucnn ([a-z-]+)", "\n".join(blocks("bash")))) <= set(COMMANDS)


@pytest.mark.parametrize(
    "page", ["README.md", "docs/own_nets.md", "docs/recipes.md", "docs/optimizers.md", "gpucnn/pretrained/README.md"]
)
def test_flags_that_a_page_names_exist(page: str) -> None:
    from gpucnn.cli.main import COMMANDS, build_parser

    parser = build_parser(list(COMMANDS))
    (commands,) = (action.choices.values() for action in parser._actions if isinstance(action.choices, dict))
    flags = {flag for command in commands for flag in command._option_string_actions}
    named = re.findall(r"(?<![\w-])--[a-z][a-z-]*", (ROOT / page).read_text(encoding="utf-8"))
    assert set(named) <= flags | SCRIPT_FLAGS


def test_the_readme_shows_use_first() -> None:
    """A stranger sees what it is, how it is used and the first command without scrolling, on 80 columns."""
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    start = lines.index("## Quick start") + 1
    assert start < 25
    assert lines.index("```python") < 8
    assert max(map(len, lines[: start - 1])) <= 80
    assert not any(line.startswith("|") for line in lines[: start - 1])


def test_the_readme_has_one_short_table_of_results() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    results = text.partition("\n## Results\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\|.*\|$", results, flags=re.MULTILINE)
    assert len(rows) == 2 + 4
    assert {row.count(" | ") for row in rows if "---" not in row} == {2}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for path, anchor in re.findall(r"\]\(([\w/.-]*)(?:#([\w-]+))?\)", page.read_text(encoding="utf-8")):
        target = page.parent / path if path else page
        assert target.exists(), path
        if anchor:
            assert anchor in headings(target), f"{path} has no heading #{anchor}"


def headings(page: Path) -> set[str]:
    """The anchors of a page, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_index_has_every_page() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    linked = {(ROOT / "docs" / path).resolve() for path in re.findall(r"\]\(([\w/.-]+)\)", index)}
    assert linked == {page for page in PAGES if page != ROOT / "docs" / "index.md"}


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", "docs/index.md", "docs/recipes.md", "docs/optimizers.md"]
)
def test_files_that_a_page_names_exist(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for path in re.findall(r"`((?:gpucnn|tests|scripts|benchmarks)/[\w/.-]+)`", text):
        assert (ROOT / path).exists(), path
