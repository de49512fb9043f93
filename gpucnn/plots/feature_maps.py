"""Figures of activations and images: grids of grey feature maps, units as cells, demo 1, contact sheets.

Everything is drawn by matplotlib without a window (Agg); lengths are in pixels.
"""

import atexit
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from itertools import accumulate
from math import ceil
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from textwrap import wrap
from typing import Any
from warnings import catch_warnings, filterwarnings

import numpy as np

from gpucnn.checkpoint.durable import replace_atomically
from gpucnn.errors import UsageError
from gpucnn.files import check_target
from gpucnn.terminal import harmless
from gpucnn.types import Array

LIMIT = 64  # tiles on a grid
TALLEST = 600  # pixels of a tile
NAME = 40  # characters of a class name
DPI = 100
SCALE = "grey scale: black is 0, or the low end where there are negative values; white is the high end"
MARK = ("Software", "gpucnn")  # a text in our pictures
GENERATOR = '<meta name="generator" content="gpucnn">'  # and in our pages
SIGNED = "white is 0, red positive, blue negative, one scale for all"
RED, BLUE = (179, 38, 30), (28, 95, 184)
INK, PALE, FRAME = "#1f2328", "#6e7781", "#d0d7de"


@dataclass(frozen=True)
class Stage:
    """The output of one layer for one image: dotted name, what the layer does, values (H,W,C) or (C,)."""

    name: str
    kind: str
    values: Array

    @property
    def shape(self) -> str:
        return " x ".join(map(str, self.values.shape))


def span(values: Array) -> str:
    """The value range, as text: three digits each; zero without a minus."""
    return f"{float(values.min()) + 0.0:.3g} to {float(values.max()) + 0.0:.3g}"


def grey_scale(values: Array) -> tuple[float, float]:
    """The values shown (black, white) in a tile (H,W).

    Black is 0, or the 1st percentile where values are negative; white is the 99th, so that a few bright pixels do not
    darken the rest.  Where less than 1 % of the pixels are above black, white is the 90th percentile of those.
    """
    low, high = (float(v) for v in np.percentile(values, (1, 99)))
    black = low if values.min() < 0 else 0.0
    lit = values[values > black]
    white = high if high > black or not lit.size else float(np.percentile(lit, 90))
    return black, white if white > black else black + 1.0


def to_grey(values: Array, scale: tuple[float, float] | None = None) -> Array:
    """Values (H,W) -> uint8, 0 for black and 255 for white, by ``grey_scale`` unless told; NaN is white."""
    black, white = scale or grey_scale(values)
    brightness = np.clip((values - black) / (white - black), 0.0, 1.0)
    return np.rint(255.0 * np.nan_to_num(brightness, nan=1.0)).astype(np.uint8)


def signed(values: Array, limit: float) -> Array:
    """Values -> uint8 colours (..., 3): white is 0, red is ``limit``, blue is minus it."""
    part = np.clip(np.nan_to_num(values / (limit or 1.0)), -1.0, 1.0)[..., np.newaxis]
    end = np.where(part < 0, BLUE, RED)
    return np.rint(255 + (end - 255) * abs(part)).astype(np.uint8)


def largest(values: Array) -> float:
    """The size that ends a signed scale: the 99.8th percentile, so that a few values do not pale the rest."""
    sizes = np.abs(values)
    return float(np.percentile(sizes, 99.8)) or float(sizes.max()) or 1.0


def save_grid(path: Path, stage: Stage, noun: str = "filter", *, one_scale: bool = False) -> None:
    """The channels of a stage (H,W,C) as tiles, each with its number and value range.

    Grey, tile by tile; or on ``one_scale`` for all, where white is 0, red positive and blue negative.
    """
    height, width, channels = stage.values.shape
    shown = min(channels, LIMIT)
    columns = best_columns(shown, width / height)
    rows = ceil(shown / columns)
    least = 200 if shown <= 4 else 140 if shown <= 16 else 86
    tile_w = max(least, min(width, 1320 // columns, 300))
    tile_h = max(1, round(tile_w * height / width))
    if tile_h > TALLEST:
        tile_w, tile_h = max(1, round(TALLEST * width / height)), TALLEST
    top, gap, caption = 74, 12, 20
    hidden = f", {channels - shown} more not shown" if shown < channels else ""
    sheet = Sheet(gap + columns * (tile_w + gap), top + rows * (tile_h + caption + gap), minimum=560)
    limit = largest(stage.values)
    scale = f"{SIGNED}, up to {limit:.3g}" if one_scale else f"{SCALE}, tile by tile"
    sheet.heading(f"{stage.name}: {stage.kind}", f"{stage.shape}{hidden}", scale)
    for i in range(shown):
        x = gap + i % columns * (tile_w + gap)
        y = top + i // columns * (tile_h + caption + gap)
        tile = stage.values[:, :, i]
        sheet.picture(x, y, tile_w, tile_h, signed(tile, limit) if one_scale else to_grey(tile))
        sheet.text(x, y + tile_h + 3, f"{noun} {i}" if tile_w >= 150 else f"{i}", 9, weight="bold")
        sheet.text(x + tile_w, y + tile_h + 3, span(tile), 8, PALE, ha="right")
    sheet.save(path)


def save_image(path: Path, stage: Stage, image: Array) -> None:
    """The image, uint8 (H,W,C) with 1 or 3 channels, that a stage (H,W,C) is the normalised form of."""
    height, width, channels = image.shape
    scale = max(1, 280 // max(height, width))
    sheet = Sheet(24 + width * scale, 74 + height * scale + 12, minimum=430)
    sheet.heading(f"{stage.name}: {stage.kind}", f"{stage.shape}, {span(stage.values)}", "shown as it was")
    sheet.picture(12, 74, width * scale, height * scale, image[:, :, 0] if channels == 1 else image)
    sheet.save(path)


def best_columns(count: int, aspect: float) -> int:
    """Columns for ``count`` tiles of this width / height: a sheet near 2:1, preferably with a full last row."""

    def misfit(columns: int) -> float:
        rows = ceil(count / columns)
        blank = rows * columns - count
        shape = columns * aspect / rows
        return abs(float(np.log(shape / 2.0))) + 0.5 * (blank > 0) + 4.0 * blank / count

    return min(range(1, count + 1), key=misfit)


def save_units(path: Path, stage: Stage) -> None:
    """The values of a layer without width and height (C,) or (1,1,C), as cells in reading order on one signed scale.

    Where there is room each cell has its number.
    """
    values = stage.values.ravel()
    columns = min(values.size, 32)
    rows = ceil(values.size / columns)
    cell, gap, top = (44 if columns <= 16 else 26), 12, 74
    sheet = Sheet(2 * gap + columns * cell, top + rows * cell + gap, minimum=560)
    limit = largest(values)
    about = f"{stage.shape} units, {columns} to a row, {span(values)}"
    sheet.heading(f"{stage.name}: {stage.kind}", about, f"{SIGNED}, up to {limit:.3g}")
    for i, value in enumerate(values):
        x, y = gap + i % columns * cell, top + i // columns * cell
        sheet.box(x, y, cell - 2, cell - 2, tuple(signed(value, limit) / 255))
        if cell > 40:
            ink = "white" if abs(value) > 0.6 * limit else INK
            sheet.text(x + cell / 2, y + 14, f"{float(value) + 0.0:.2g}", 8, ink, ha="center")
    sheet.save(path)


def save_bars(path: Path, stage: Stage, names: Sequence[str], probabilities: Array, limit: int = 20) -> None:
    """The last layer: a bar per class with its probability (softmax); of many classes the ``limit`` most probable."""
    names = [harmless(name, NAME) for name in names]
    order = range(len(names)) if len(names) <= limit else np.argsort(-probabilities)[:limit]
    gap, top, row, bar = 12, 74, 22, 300
    label = 10 + 8 * max(map(len, names))
    hidden = f", the most probable {len(order)} of" if len(order) < len(names) else ","
    logits = f"{stage.shape} logits, {span(stage.values)}{hidden} {len(names)} classes"
    sheet = Sheet(3 * gap + label + bar + 90, top + len(order) * row + gap, minimum=430)
    sheet.heading(f"{stage.name}: {stage.kind}, then softmax", logits)
    best = int(np.argmax(probabilities))
    for line, i in enumerate(order):
        y = top + line * row
        weight = "bold" if i == best else "normal"
        sheet.text(gap + label, y + 3, names[i], 10, weight=weight, ha="right")
        p = float(probabilities[i])
        sheet.box(2 * gap + label, y + 3, max(1.0, p * bar), row - 8, INK if i == best else PALE)
        sheet.text(3 * gap + label + bar, y + 3, f"{p:8.2%}", 10, weight=weight)
    sheet.save(path)


def save_overview(path: Path, photo: Array, kernels: Array, stages: Sequence[Stage], filters: Sequence[int]) -> None:
    """Demo 1 (L25) on one sheet: photograph -> filter -> convolution -> ReLU -> max and average pooling.

    Args:
        photo: (H,W), 0..1.
        kernels: (F,KH,KW), the weights.
        stages: convolution, ReLU, max pooling, average pooling.
        filters: which to show, one to a row.

    Images are drawn in proportion to their sizes: pooling halves them.
    """
    conv, relu, maximum, average = stages
    aspect = min(max(photo.shape[0] / photo.shape[1], 0.2), 2.0)  # a strip would make no sheet
    big, wide, half, weights = 330, 320, 160, 66  # widths: photograph, feature map, pooled map, filter
    top, gap = 96, 8
    tall, row = round(wide * aspect), round(wide * aspect) + 16
    widths = (big, weights, wide, wide)  # with room for an arrow between them
    x_photo, x_kernel, x_conv, x_relu, x_pool = accumulate(widths, lambda x, width: x + width + 36, initial=20)
    sheet = Sheet(x_pool + half + 62, top + len(filters) * row + 4)

    middle = top + (len(filters) * row - 16) / 2
    y_photo = middle - big * aspect / 2
    sheet.picture(x_photo, y_photo, big, big * aspect, to_grey(photo, (0.0, 1.0)))
    sheet.arrow(x_kernel, middle)
    for x, y, title, note in (
        (x_photo, y_photo - 60, "photograph", f"{photo.shape[0]} x {photo.shape[1]}, grey"),
        (x_kernel, 20, "filter", "3 x 3,\ngrey = 0"),
        (x_conv, 20, "convolution", conv.shape),
        (x_relu, 20, "ReLU", relu.shape),
        (x_pool, 20, "pooling", f"{maximum.shape},\nmaximum and mean"),
    ):
        sheet.text(x, y, title, 18, weight="bold")
        sheet.text(x, y + 28, note, 12, PALE)

    largest = float(np.abs(kernels).max())
    for line, f in enumerate(filters):
        y = top + line * row
        centre, small = y + tall / 2, (tall - gap) / 2
        sheet.picture(x_kernel, centre - weights / 2, weights, weights, to_grey(kernels[f], (-largest, largest)))
        sheet.text(x_kernel + weights / 2, centre + 38, f"no. {f}", 12, PALE, ha="center")
        for x, stage in ((x_conv, conv), (x_relu, relu)):
            sheet.picture(x, y, wide, tall, to_grey(stage.values[:, :, f]))
            sheet.arrow(x, centre)
        sheet.arrow(x_pool, centre)
        for y_pool, stage, word in ((y, maximum, "max"), (y + small + gap, average, "mean")):
            sheet.picture(x_pool, y_pool, half, small, to_grey(stage.values[:, :, f]))
            sheet.text(x_pool + half + 8, y_pool + small / 2 - 8, word, 12, PALE)
    sheet.save(path, colors=64)


@dataclass(frozen=True)
class Column:
    """Images of a contact sheet, (B,H,W,C) as ``visible`` makes them, with a title and a note below it."""

    title: str
    note: str
    images: Array


def save_columns(path: Path, title: str, note: str, names: Sequence[str], columns: Sequence[Column]) -> None:
    """A contact sheet: one image per row, with its name, and one version of it per column.

    Where columns have titles, the first one, the image as it was, stands apart.
    """
    height, width = columns[0].images.shape[1:3]
    noted = any(column.note for column in columns)
    larger = max(height, width)
    scale = max(1, round(72 / larger)) * min(1.0, 160 / larger)  # small ones by a whole number: pixels stay squares
    tile_h, tile_w = (max(1, round(size * scale)) for size in (height, width))
    gap, top, label = 8, 116 if noted else 96, 16 + 8 * max(map(len, names))
    step = max(tile_w, 64) + gap
    lines = wrap(note, max(40, (label + len(columns) * step) // 7))
    top += 16 * (len(lines) - 1)
    sheet = Sheet(label + len(columns) * step + 2 * gap, top + len(names) * (tile_h + gap), minimum=560)
    sheet.text(gap, 12, title, 15, weight="bold")
    for number, line in enumerate(lines):
        sheet.text(gap, 40 + 16 * number, line, 11, PALE)
    for row, name in enumerate(names):
        sheet.text(label - gap, top + row * (tile_h + gap) + tile_h / 2 - 8, name, 11, ha="right")
    for number, column in enumerate(columns):
        x = label + number * step + (2 * gap if number and column.title else 0)
        sheet.text(x, top - (42 if noted else 24), column.title, 11, weight="bold")
        sheet.text(x, top - 24, column.note, 9, PALE)
        for row, image in enumerate(column.images):
            pixels = image[:, :, 0] if image.shape[2] == 1 else image
            sheet.picture(x, top + row * (tile_h + gap), tile_w, tile_h, pixels)
    sheet.save(path)


def prepare_matplotlib() -> None:
    """Let matplotlib start without a folder that it may write to: it takes a temporary one, and tells at length."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    try:
        Path.home()
    except RuntimeError:  # versions before 3.11 fail
        if "MPLCONFIGDIR" not in os.environ:
            os.environ["MPLCONFIGDIR"] = folder = mkdtemp(prefix="gpucnn-matplotlib-")
            atexit.register(rmtree, folder, ignore_errors=True)


@contextmanager
def literal_text() -> Iterator[None]:
    """Text is drawn as it is: $ begins no formula, and a letter that the font lacks is a box."""
    from matplotlib import rc_context

    with rc_context({"text.parse_math": False, "text.usetex": False}), catch_warnings():
        filterwarnings("ignore", "Glyph")
        yield


class Sheet:
    """A white page for images and text; x to the right and y downwards, in pixels."""

    def __init__(self, width: float, height: float, minimum: int = 0) -> None:
        prepare_matplotlib()
        try:
            from matplotlib.backends.backend_agg import FigureCanvasAgg
            from matplotlib.figure import Figure
        except ImportError as error:
            raise UsageError(f"pictures need matplotlib ({error}): pip install 'gpucnn[viz]'") from None
        self.width, self.height = max(width, minimum), height
        self.figure: Any = Figure(figsize=(self.width / DPI, height / DPI), dpi=DPI, facecolor="white")
        FigureCanvasAgg(self.figure)
        self.axes: Any = self.figure.add_axes((0, 0, 1, 1), xlim=(0, self.width), ylim=(height, 0))
        self.axes.axis("off")
        self.tiles: list[tuple[int, int, int, int, Array]] = []  # x, y, width, height, grey (H,W) or colours

    def picture(self, x: float, y: float, width: float, height: float, pixels: Array) -> None:
        """Pixels, uint8 (H,W) or (H,W,3), in a thin frame; where they are enlarged they stay squares."""
        self.tiles.append((round(x), round(y), round(width), round(height), pixels))

    def text(self, x: float, y: float, text: str, size: float, color: str = INK, **style: Any) -> None:
        """Text with its top at y; ``style`` as for matplotlib: weight, ha, rotation."""
        style = {"va": "top", "linespacing": 1.5, "parse_math": False, **style}
        self.axes.text(x, y, text, size=size * 72 / DPI, color=color, **style)

    def heading(self, title: str, about: str, scale: str = "") -> None:
        """The lines at the top of a page."""
        self.text(12, 12, title, 15, weight="bold")
        self.text(12, 38, about, 11)
        self.text(12, 55, scale, 9, PALE)

    def line(self, xs: tuple[float, float], ys: tuple[float, float], color: str) -> None:
        """A dashed line."""
        self.axes.plot(xs, ys, color=color, linewidth=1, linestyle="--")

    def box(self, x: float, y: float, width: float, height: float, color: Any) -> None:
        self.axes.broken_barh([(x, width)], (y, height), color=color, linewidth=0)

    def arrow(self, x: float, y: float) -> None:
        """An arrow to the right, to what stands at x."""
        style = {"arrowstyle": "-|>", "mutation_scale": 14, "color": INK, "linewidth": 1.4}
        self.axes.annotate("", (x - 6, y), (x - 30, y), arrowprops=style)

    def save(self, path: Path, colors: int = 256) -> None:
        """A PNG with a palette; fewer colours make a smaller file."""
        from PIL import Image, ImageDraw
        from PIL.PngImagePlugin import PngInfo

        check_target(path)
        with literal_text():
            self.figure.canvas.draw()
        sheet = Image.fromarray(np.asarray(self.figure.canvas.buffer_rgba())[:, :, :3].copy())
        pen = ImageDraw.Draw(sheet)
        for x, y, width, height, pixels in self.tiles:
            way = Image.Resampling.LANCZOS if pixels.shape[1] > width else Image.Resampling.NEAREST
            sheet.paste(Image.fromarray(pixels).resize((width, height), way), (x, y))
            pen.rectangle((x - 1, y - 1, x + width, y + height), outline=FRAME)
        about, file = PngInfo(), BytesIO()
        about.add_text(*MARK)
        sheet.quantize(colors, dither=Image.Dither.NONE).save(file, "PNG", optimize=True, pnginfo=about)
        replace_atomically(path, [file.getvalue()])


def drawn_here(path: Path) -> bool:
    """Whether a file is a picture that a ``Sheet`` has saved, or a page of such pictures."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        begin = file.read(400)
    return "\0".join(MARK).encode() in begin or GENERATOR.encode() in begin
