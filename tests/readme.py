"""Reads the code blocks of README.md, or of another page.

``python tests/readme.py "## Tests"`` prints the first block of a section.
"""

import re
import sys
from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"


def blocks(language: str = "", section: str = "", page: Path = README) -> list[str]:
    """Fenced code blocks of a language (all where empty), below a heading (anywhere where empty)."""
    text = page.read_text(encoding="utf-8")
    if section:
        text = text.partition(f"\n{section}\n")[2].partition("\n## ")[0]
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return [code for kind, code in found if not language or kind == language]


if __name__ == "__main__":
    print(blocks("", sys.argv[1], *map(Path, sys.argv[2:]))[0].strip())
