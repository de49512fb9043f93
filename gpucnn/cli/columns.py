"""Text in columns."""

from collections.abc import Sequence
from itertools import zip_longest


def columns(rows: Sequence[Sequence[str]], sides: str) -> list[str]:
    """A line per row: cells to the left (<) or right (>), one of ``sides`` per column, the last one for the others."""
    widths = (max(map(len, column)) for column in zip(*rows, strict=True))
    forms = [f"{side}{width}" for side, width in zip_longest(sides, widths, fillvalue=sides[-1])]
    return ["  ".join(f"{cell:{form}}" for cell, form in zip(row, forms, strict=True)).rstrip() for row in rows]
