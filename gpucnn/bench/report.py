"""A page of results in Markdown, rewritten after each section, so that an interrupted run keeps its results."""

import re
from collections.abc import Sequence
from pathlib import Path

from gpucnn.checkpoint.durable import replace_file


class Page:
    """A title, a head that names the machine, and sections.

    Args:
        path: of the page; sections of an existing page with the same head are kept.
        head: the paragraphs below the title.
        order: the sections' titles, in the order of the page.
    """

    def __init__(self, path: Path, title: str, head: str, order: Sequence[str]) -> None:
        self.path, self.order = path, tuple(order)
        self.start = f"# {title}\n\n{head.strip()}\n"
        self.sections: dict[str, str] = {}
        if path.exists():
            start, *parts = re.split(r"^## ", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
            if start.strip() == self.start.strip():
                found = (part.partition("\n") for part in parts)
                self.sections = {name: text.strip() for name, _, text in found if name in self.order}

    def write(self, section: str, text: str) -> None:
        """Replace a section, and write the page to disk."""
        assert section in self.order
        self.sections[section] = text.strip()
        shown = (f"## {name}\n\n{self.sections[name]}\n" for name in self.order if name in self.sections)
        replace_file(self.path, ["\n".join([self.start, *shown]).encode()])


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)
