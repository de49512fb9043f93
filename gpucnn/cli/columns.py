"""Text laid out: tables, paragraphs and lines that fit the terminal."""

import sys
from collections.abc import Sequence
from itertools import zip_longest
from math import inf

from gpucnn.terminal import LONGEST, cut, harmless, is_terminal, room, width

NARROW = 12  # a column of text is not folded below this
PAGE = 80  # columns of a paragraph on a wider terminal


def columns(rows: Sequence[Sequence[str]], sides: str, indent: str = "") -> list[str]:
    """Rows with their cells to the left (<) or right (>), one of ``sides`` per column, the last one for the others.

    On a terminal they fit its width: text on the left is folded; where that is not enough, columns go below the
    others, each time beside the first one.  Elsewhere a row is a line.
    """
    most = room(sys.stdout) - len(indent) if is_terminal(sys.stdout) else inf
    cells = [[harmless(cell) for cell in row] for row in rows]
    widths = [max(map(width, column)) for column in zip(*cells, strict=True)]
    sides = sides.ljust(len(widths), sides[-1])
    widths = _folded(widths, sides, most)
    blocks = [[0]]
    for i in range(1, len(widths)):
        if sum(widths[j] + 2 for j in blocks[-1]) + widths[i] > most and len(blocks[-1]) > 1:
            blocks.append([0])
        blocks[-1].append(i)
    lines: list[str] = []
    for block in blocks:
        lines += [""] if lines else []
        for row in cells:
            folded = (fold(row[i], widths[i]) for i in block)
            for parts in zip_longest(*folded, fillvalue=""):
                line = "  ".join(_aligned(part, sides[i], widths[i]) for part, i in zip(parts, block, strict=True))
                lines.append(f"{indent}{line}".rstrip())
    return lines


def _folded(widths: list[int], sides: str, most: float) -> list[int]:
    """The widths of columns that fit beside each other, or else of any that fits beside the first one."""
    found = widths.copy()
    while sum(found) + 2 * len(found) - 2 > most:
        text = [i for i, side in enumerate(sides) if side == "<" and found[i] > NARROW]
        if not text:
            first = min(widths[0], int(most) // 2)
            return [first, *(min(one, int(most) - first - 2) for one in widths[1:])]
        found[max(text, key=found.__getitem__)] -= 1
    return found


def _aligned(text: str, side: str, columns: int) -> str:
    blank = " " * (columns - width(text))
    return blank + text if side == ">" else text + blank


def fold(text: str, most: int) -> list[str]:
    """A harmless text on lines of at most so many columns: between words, within one only where it is longer."""
    lines, rest = [""], text.split(" ") if width(text) > most else [text]
    while rest:
        word = rest.pop(0)
        line = f"{lines[-1]} {word}" if lines[-1] else word
        if width(line) <= most:
            lines[-1] = line
        elif lines[-1]:
            lines.append("")
            rest.insert(0, word)
        else:
            lines[-1] = cut(word, most) or word[:1]
            rest.insert(0, word[len(lines[-1]) :])
            lines.append("")
    return lines


def paragraph(head: str, text: object, indent: int) -> list[str]:
    """``head  text``, folded at the terminal's width, with an indent from the second line on; no word is broken."""
    most = min(room(sys.stdout), PAGE)
    line = f"{head:<{indent}}"
    if most < NARROW + 2 * indent:
        line, indent = head and f"{head} ", min(indent, 4)
    lines = []
    for word in harmless(text, 20 * LONGEST).split(" "):
        if line.strip() and width(line) + width(word) > most:
            lines.append(line.rstrip())
            line = " " * (indent if indent + width(word) <= most else 2)
        line += f"{word} "
    return [*lines, line.rstrip()]


def sentence(head: str, text: str, indent: int = 0) -> list[str]:
    """A ``paragraph`` on a terminal, elsewhere a line."""
    return paragraph(head, text, indent) if is_terminal(sys.stdout) else [f"{head:<{indent}}{text}"]


def command(head: str, *words: str) -> list[str]:
    """``head gpucnn word word``, to be copied to a shell: where the terminal is narrow, on lines that go on."""
    most = room(sys.stdout) if is_terminal(sys.stdout) else inf
    lines = [f"{head} gpucnn"]
    for last, word in enumerate(words, start=1 - len(words)):
        if width(harmless(f"{lines[-1]} {word}")) + 2 * (last < 0) > most:
            lines[-1] += " \\"
            lines.append("      ")
        lines[-1] += f" {word}"
    return lines


def widest(forms: Sequence[str], most: int) -> str:
    """The first of some forms of a line that fits into so many columns, else the last."""
    return next((form for form in forms if width(form) <= most), forms[-1])


def counted(number: int, noun: str) -> str:
    """1 epoch, 2 epochs."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
