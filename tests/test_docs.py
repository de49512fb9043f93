"""Documents that name code: the code must be there, and README's examples must run."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from readme import blocks

ROOT = Path(__file__).resolve().parent.parent
LECTURE = (ROOT / "docs" / "lecture.md").read_text(encoding="utf-8")
MENTION = re.compile(r"`((?:gpucnn|tests|scripts)/[\w/]+\.py)`((?:(?:: |, )`\w+`)*)")


def test_every_row_of_the_lecture_is_there() -> None:
    assert [int(row) for row in re.findall(r"^\| L(\d+) \|", LECTURE, flags=re.MULTILINE)] == list(range(1, 27))
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

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"gpucnn ([a-z-]+)", "\n".join(blocks("bash")))) <= set(COMMANDS)
    for path in re.findall(r"\]\(([\w/.-]+)\)", text):
        assert (ROOT / path).exists(), path
