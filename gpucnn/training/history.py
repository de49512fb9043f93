"""What ``Trainer.train`` returns: a row of numbers per epoch, with curves for notebooks."""

from collections.abc import Sequence
from math import isfinite

WIDE, HIGH, EDGE = 320, 120, 22  # of a plot, and the room for its title and numbers
COLOURS = {"train": "#8c959f", "test": "#0969da"}
PLOTS = ("loss", "accuracy")


class History(list[dict[str, float]]):
    """One row per epoch: "epoch", "train_loss", "train_accuracy", "test_loss", "test_accuracy", "learning_rate".

    ``history[-1]["test_accuracy"]`` is the last accuracy, ``history.column("test_accuracy")`` all of them, and
    ``pandas.DataFrame(history)`` is a table.
    """

    def column(self, name: str) -> list[float]:
        """The numbers of this name, one per epoch.

        Raises:
            KeyError: there is no such column.
        """
        return [row[name] for row in self]

    def svg(self) -> str:
        """Loss and accuracy over the epochs as an SVG picture, the test set in blue."""
        plots = "".join(
            f'<g transform="translate({(WIDE + EDGE) * i},0)">{self.plot(kind)}</g>' for i, kind in enumerate(PLOTS)
        )
        size = f'width="{2 * WIDE + EDGE}" height="{HIGH + 2 * EDGE}"'
        return f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="11">{plots}</svg>'

    def plot(self, kind: str) -> str:
        """The curves of "loss" or "accuracy" as SVG, with their largest and smallest number."""
        curves = {part: self.column(f"{part}_{kind}") for part in COLOURS}
        values = [value for curve in curves.values() for value in curve if isfinite(value)]
        low, high = min(values, default=0.0), max(values, default=1.0)
        lines = "".join(polyline(curve, low, high, COLOURS[part]) for part, curve in curves.items())
        frame = f'<rect x="0.5" y="{EDGE}" width="{WIDE - 1}" height="{HIGH}" fill="none" stroke="#d0d7de"/>'
        parts = " ".join(f'<tspan fill="{colour}">{part}</tspan>' for part, colour in COLOURS.items())
        text = f"{kind}, {low:.4g} to {high:.4g} in {len(self)} epochs: {parts}"
        return f'{frame}{lines}<text x="0" y="{EDGE - 7}" fill="#57606a">{text}</text>'

    def _repr_html_(self) -> str:
        """The curves, for notebooks."""
        return self.svg() if self else "<p>no epoch yet</p>"


def polyline(values: Sequence[float], low: float, high: float, colour: str) -> str:
    """A curve as SVG; one value is a dot, and what is not finite is left out."""
    step, scale = WIDE / max(len(values) - 1, 1), (HIGH - 8) / ((high - low) or 1.0)
    places = [
        (step * i if len(values) > 1 else WIDE / 2, EDGE + HIGH - 4 - (value - low) * scale)
        for i, value in enumerate(values)
        if isfinite(value)
    ]
    if len(places) == 1:
        return f'<circle cx="{places[0][0]:.1f}" cy="{places[0][1]:.1f}" r="2.5" fill="{colour}"/>'
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>' if places else ""
