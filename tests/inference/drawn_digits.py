"""Digits drawn by pen strokes and photographed, in software: paper, light, shadow, lens, JPEG.

Nothing here knows MNIST: a shape is a few points in a unit square that a smooth curve passes through, as a hand
would write it.  ``forty`` has every digit in four styles; ``others`` has styles mixed at random.
"""

import io
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

Shapes = list[list[np.ndarray]]  # of each digit its strokes, each a few points (P,2)


def shapes(*digits: str) -> Shapes:
    """Strokes between semicolons, points as x,y in percent: x to the right, y down."""
    return [
        [np.array([point.split(",") for point in stroke.split()], float) / 100 for stroke in digit.split(";")]
        for digit in digits
    ]


ROUND = shapes(  # 0 to 9
    "50,0 20,12 8,50 20,88 50,100 80,86 92,50 80,10 50,0",
    "55,0 52,50 50,100",
    "12,25 25,5 55,0 82,15 80,40 50,72 10,99; 10,99 90,97",
    "15,12 45,0 78,12 75,36 42,47; 42,47 80,56 88,78 60,98 30,99 10,87",
    "30,0 10,55; 10,55 92,53; 72,5 68,100",
    "85,0 25,3; 25,3 18,45; 18,45 50,36 85,52 85,80 55,100 10,92",
    "72,0 35,20 12,60 25,95 60,99 85,78 65,55 35,58 15,72",
    "8,3 90,2; 90,2 58,45 40,100",
    "78,14 50,0 22,15 35,40 65,55 84,78 50,100 16,80 35,54 66,38 78,14",
    "82,20 55,0 20,12 18,40 50,50 78,35 84,15 78,50 68,100",
)

SCHOOL = shapes(  # the same as other schools teach them: flags, bars, open tops
    "55,0 22,20 18,65 42,100 72,85 80,35 60,2 42,6",
    "20,30 58,0; 58,0 56,100",
    "15,20 40,0 75,10 72,40 35,85 15,92 30,80 55,95 90,90",
    "12,3 80,0; 80,0 40,40; 40,40 80,50 85,80 50,100 12,90",
    "62,0 5,68; 5,68 95,66; 64,35 62,100",
    "22,0 20,42 60,40 82,65 65,95 12,95; 22,2 88,0",
    "62,0 30,30 15,72 45,100 78,82 62,58 30,62 18,80",
    "10,10 14,2 88,0; 88,0 42,100; 30,52 82,48",
    "50,48 22,28 48,0 76,24 50,48; 50,48 14,76 50,100 86,74 50,48",
    "75,10 40,2 20,25 42,50 74,36 80,8; 80,8 76,60 55,95 25,92",
)


@dataclass(frozen=True)
class Style:
    """How a digit is written and photographed; pairs are ranges.  Lengths are fractions of the digit's height."""

    shapes: Shapes
    pen: tuple[float, float]
    ink: tuple[float, ...]  # red, green, blue
    paper: tuple[float, ...]
    wobble: float = 0.02  # standard deviation of each point
    slant: tuple[float, float] = (-0.1, 0.25)
    grain: float = 3.0  # of the paper, in grey levels
    skip: float = 0.0  # how much paper shows through the ink, as with chalk and pencil
    lines: bool = False  # ruled
    shadow: bool = False  # of something with an edge
    table: bool = False  # the paper ends inside the picture
    height: tuple[float, float] = (0.3, 0.6)  # of the digit, of the picture's
    turn: float = 15.0  # degrees, at most
    darkest: float = 0.55  # of the light's gradient, where the lightest is 1


STYLES = {
    "ballpoint": Style(ROUND, (0.035, 0.05), (35, 45, 110), (236, 234, 226), shadow=True),
    "marker": Style(SCHOOL, (0.10, 0.15), (25, 22, 24), (222, 208, 176), wobble=0.03, grain=5.0, table=True),
    "pencil": Style(SCHOOL, (0.045, 0.07), (95, 95, 98), (228, 228, 228), wobble=0.03, skip=0.35, darkest=0.7),
    "chalk": Style(ROUND, (0.06, 0.09), (215, 218, 210), (48, 66, 58), wobble=0.03, grain=4.0, skip=0.3),
}

SIZE = (420, 360)  # width and height of a picture
OVER = 3  # drawn this many times larger


def forty(seed: int = 0) -> Iterator[tuple[int, str, Image.Image]]:
    """(digit, style, picture) of every digit in every style."""
    rng = np.random.default_rng(seed)
    for name, style in STYLES.items():
        for digit in range(10):
            yield digit, name, photograph(digit, style, rng)


def others(count: int, seed: int) -> Iterator[tuple[int, str, Image.Image]]:
    """(digit, a word about the style, picture) in styles mixed at random."""
    rng = np.random.default_rng(seed)
    for i in range(count):
        board = rng.random() < 0.2  # strokes lighter than their ground
        tones = [rng.uniform(20, 90), rng.uniform(190, 245)]
        ink, paper = np.clip(np.array(tones[:: -1 if board else 1])[:, None] + rng.uniform(-15, 15, (2, 3)), 0, 255)
        style = Style(
            (ROUND, SCHOOL)[rng.integers(2)],
            (0.03, 0.16),
            tuple(ink),
            tuple(paper),
            wobble=rng.uniform(0.01, 0.04),
            grain=rng.uniform(1, 7),
            skip=rng.choice([0.0, 0.3]),
            lines=bool(rng.random() < 0.25 and not board),
            shadow=bool(rng.random() < 0.4),
            table=bool(rng.random() < 0.3),
            height=(0.15, 0.75),
            darkest=rng.uniform(0.4, 0.9),
        )
        yield i % 10, "light on dark" if board else "dark on light", photograph(i % 10, style, rng)


def photograph(digit: int, style: Style, rng: np.random.Generator) -> Image.Image:
    """One digit on paper, under a lamp, by a small camera, as a JPEG (RGB)."""
    width, height = SIZE
    mask = strokes(digit, style, rng)  # (H,W), 0..1
    if style.skip:
        holes = smooth_noise(rng, 1.2) > 1.2 - 2 * style.skip
        mask = mask * (1 - 0.7 * holes)
    paper = np.array(style.paper, float) + style.grain * (smooth_noise(rng, 0.7) + smooth_noise(rng, 4.0))[..., None]
    if style.lines:
        gap, start = rng.uniform(28, 44), rng.uniform(0, 40)
        y = np.arange(height)[:, None] - start + np.arange(width) * np.tan(np.radians(rng.uniform(-4, 4)))
        ruled = np.clip(1.2 - np.abs((y + gap / 2) % gap - gap / 2), 0, 1) * 0.5
        paper = paper * (1 - ruled[..., None]) + np.array((120, 150, 200)) * ruled[..., None]
    scene = paper * (1 - mask[..., None]) + np.array(style.ink, float) * mask[..., None]
    if style.table:
        scene = np.where(beside(mask, rng)[..., None] > 0.5, np.array((92, 66, 44.0)), scene)
    light = 1 - (1 - style.darkest) * ramp(rng)
    if style.shadow:
        light = light * (1 - rng.uniform(0.25, 0.5) * half_plane(rng, 0.1, 6.0))
    scene = scene * light[..., None]
    picture = Image.fromarray(np.clip(scene, 0, 255).astype(np.uint8))
    picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.3)))
    noisy = np.asarray(picture) + rng.normal(0, rng.uniform(1, 5), (height, width, 1))
    file = io.BytesIO()
    Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(file, "JPEG", quality=int(rng.integers(40, 95)))
    return Image.open(file)


def strokes(digit: int, style: Style, rng: np.random.Generator) -> np.ndarray:
    """How much ink each pixel has, (H,W), 0..1."""
    width, height = SIZE
    tall = rng.uniform(*style.height) * height
    wide, slant, turn = rng.uniform(0.55, 0.8), rng.uniform(*style.slant), np.radians(rng.uniform(-1, 1) * style.turn)
    room = 0.62 * tall
    centre = np.array([rng.uniform(room, width - room), rng.uniform(room, height - room)])
    radius = rng.uniform(*style.pen) * tall / 2
    canvas = Image.new("L", (width * OVER, height * OVER))
    draw = ImageDraw.Draw(canvas)
    moves: dict[tuple[float, ...], np.ndarray] = {}  # where strokes meet they still do
    for points in style.shapes[digit]:
        moved = [p + moves.setdefault(tuple(p), rng.normal(0, style.wobble, 2)) for p in points]
        x, y = curve(np.array(moved)).T
        x, y = (x - 0.5) * wide - slant * (y - 0.5), y - 0.5
        x, y = x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)
        press = 1 + 0.2 * np.sin(np.linspace(0, rng.uniform(2, 6), len(x)) + rng.uniform(0, 6))
        for px, py, r in zip(x * tall + centre[0], y * tall + centre[1], radius * press, strict=True):
            draw.ellipse([(px - r) * OVER, (py - r) * OVER, (px + r) * OVER, (py + r) * OVER], fill=255)
    return np.asarray(canvas.resize(SIZE, Image.Resampling.BOX)) / 255.0


def curve(points: np.ndarray) -> np.ndarray:
    """A Catmull-Rom curve through points (P,2) -> (many,2)."""
    p = np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    t = np.linspace(0, 1, 40)[:, None]
    pieces = []
    for a, b, c, d in zip(p[:-3], p[1:-2], p[2:-1], p[3:], strict=True):
        pieces.append(0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3))
    return np.concatenate(pieces)


def smooth_noise(rng: np.random.Generator, radius: float) -> np.ndarray:
    """(H,W) of standard deviation 1, smooth over about ``radius`` pixels."""
    width, height = SIZE
    noise = Image.fromarray(np.uint8(np.clip(rng.normal(128, 40, (height, width)), 0, 255)))
    pixels = np.asarray(noise.filter(ImageFilter.GaussianBlur(radius)), float)
    return (pixels - pixels.mean()) / pixels.std()


def ramp(rng: np.random.Generator) -> np.ndarray:
    """(H,W): from 0 to 1 in a random direction."""
    width, height = SIZE
    angle = rng.uniform(0, 2 * np.pi)
    along = np.cos(angle) * np.arange(width) / width + np.sin(angle) * np.arange(height)[:, None] / height
    return (along - along.min()) / np.ptp(along)


def half_plane(rng: np.random.Generator, reach: float, soft: float) -> np.ndarray:
    """(H,W): 1 beyond a line ``reach`` times half the picture away from its middle, 0 before it."""
    width, height = SIZE
    angle = rng.uniform(0, 2 * np.pi)
    along = np.cos(angle) * (np.arange(width) - width / 2) + np.sin(angle) * (np.arange(height)[:, None] - height / 2)
    return np.clip((along - reach * along.max()) / soft, 0, 1)


def beside(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A half plane that does not cover the digit, nor the paper close to it."""
    small = Image.fromarray(np.uint8(mask * 255)).resize((SIZE[0] // 5, SIZE[1] // 5))
    near = np.asarray(small.filter(ImageFilter.MaxFilter(5)).resize(SIZE))
    while True:
        plane = half_plane(rng, rng.uniform(0.35, 0.9), 1.0)
        if not (plane * near).any():
            return plane


if __name__ == "__main__":  # python tests/inference/drawn_digits.py FOLDER [COUNT SEED]
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    drawn = others(int(sys.argv[2]), int(sys.argv[3])) if len(sys.argv) > 2 else forty()
    for i, (digit, style, picture) in enumerate(drawn):
        picture.save(folder / f"{i:03d}_{digit}_{style.replace(' ', '_')}.png")
