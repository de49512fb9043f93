"""Pictures of an evaluation: confusion matrix, calibration, worst mistakes, where the network looks, filters."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpucnn.data import Dataset
from gpucnn.data.image_files import visible
from gpucnn.inference.attribution import attribute
from gpucnn.inference.predict import normalise
from gpucnn.layers import Layer
from gpucnn.plots.feature_maps import INK, PALE, RED, Sheet, signed
from gpucnn.plots.index import write_index
from gpucnn.types import Array

GREEN = "#1a7f37"  # what is right
PICTURES = ("confusion.png", "calibration.png", "mistakes.png", "attention.png", "filters.png")
DRAWN = 256  # classes of the largest confusion matrix that is drawn
NUMBERED = 20  # classes of the largest confusion matrix whose cells have room for a number
BINS = 10  # of the calibration
TILE, GAP = 112, 14


@dataclass(frozen=True)
class Example:
    """An image, uint8 (H,W,C), its class, the answer and its probability."""

    image: Array
    true: str
    answer: str
    probability: float


def save_confusion(path: Path, matrix: Array, names: Sequence[str]) -> None:
    """Counts (K,K), a row for each true class; the shade is the fraction of the row."""
    count = len(names)
    cell = 46 if count <= 12 else 34 if count <= NUMBERED else max(8, 700 // count)
    label = 24 + 8 * max(map(len, names))
    top = 92 + min(6 * max(map(len, names)), 110)
    sheet = Sheet(label + count * cell + 24, top + count * cell + 24, minimum=520)
    right = int(matrix.trace())
    about = f"{right:,} of {int(matrix.sum()):,} right: the diagonal"
    sheet.heading("confusion matrix", about, "a row for each true class, a column for each answer")
    fractions = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    shades = np.sqrt(fractions)  # so that one image in a thousand is seen
    ends = np.where(np.eye(count, dtype=bool)[..., np.newaxis], (26, 127, 55), RED)
    colours = np.rint(255 + (ends - 255) * shades[..., np.newaxis]).astype(np.uint8)
    every = 1 if count <= 40 else 5
    for i, name in enumerate(names):
        if i % every == 0:
            sheet.text(label - 8, top + i * cell + cell / 2 - 7, name, 10, ha="right")
            sheet.text(label + i * cell + cell / 2, top - 10, name, 10, ha="left", rotation=45, va="bottom")
        for j in range(count if count <= NUMBERED else 0):
            x, y = label + j * cell, top + i * cell
            sheet.box(x, y, cell - 1, cell - 1, tuple(colours[i, j] / 255))
            if matrix[i, j]:
                ink = "white" if shades[i, j] > 0.6 else INK
                sheet.text(x + cell / 2, y + cell / 2 - 7, f"{matrix[i, j]}", 9, ink, ha="center")
    if count > NUMBERED:
        sheet.picture(label, top, count * cell, count * cell, colours)
    sheet.save(path)


def save_calibration(path: Path, confidence: Array, right: Array) -> float:
    """How often answers of each probability are right (a reliability diagram); returns the expected calibration error.

    Args:
        confidence: probability of each answer (N,).
        right: whether it was right (N,).
    """
    size, left, top = 340, 84, 104
    sheet = Sheet(left + size + 40, top + size + 84, minimum=520)
    bins = np.clip((confidence * BINS).astype(int), 0, BINS - 1)
    error = 0.0
    sheet.box(left, top, size, size, "#f6f8fa")
    for number in range(BINS):
        inside = bins == number
        if not inside.any():
            continue
        accuracy, mean = float(right[inside].mean()), float(confidence[inside].mean())
        error += inside.mean() * abs(accuracy - mean)
        x, width = left + number * size / BINS, size / BINS - 3
        sheet.box(x, top + size * (1 - accuracy), width, size * accuracy, "#1c5fb8")
        sheet.text(x + width / 2, top + size + 6, f"{int(inside.sum())}", 8, PALE, ha="center")
    sheet.line((left, left + size), (top + size, top), INK)
    for tick in (0, 0.5, 1):
        sheet.text(left - 8, top + size * (1 - tick) - 7, f"{tick:.0%}", 10, ha="right")
        sheet.text(left + size * tick, top + size + 22, f"{tick:.0%}", 10, ha="center")
    below = "probability of the answer, with the number of images"
    sheet.text(left + size / 2, top + size + 46, below, 10, ha="center")
    about = "bars: how many were right; on the line, as many as the probability says"
    sheet.heading("calibration", f"expected calibration error {error:.4f}", about)
    sheet.save(path)
    return error


def save_mistakes(path: Path, examples: Sequence[Example]) -> None:
    """Wrong answers, the most certain first."""
    columns = min(len(examples), 6)
    step, row = TILE + GAP + 18, TILE + 52
    rows = -(-len(examples) // columns)
    sheet = Sheet(GAP + columns * step, 74 + rows * row, minimum=560)
    sheet.heading(
        "worst mistakes", "wrong answers that were the most certain", "below each image: its class, then the answer"
    )
    for place, example in enumerate(examples):
        x, y = GAP + place % columns * step, 74 + place // columns * row
        sheet.picture(x, y, TILE, TILE, pixels(example.image))
        sheet.text(x, y + TILE + 4, shorten(example.true), 10, GREEN, weight="bold")
        sheet.text(x, y + TILE + 20, f"{shorten(example.answer)}  {example.probability:.0%}", 10, "#b3261e")
    sheet.save(path)


def save_attention(path: Path, examples: Sequence[Example], saliency: Array, cam: Array | None, layer: str) -> None:
    """Images beside their saliency (N,H,W) and Grad-CAM (N,h,w), each for the answer and each with its own maximum."""
    titles = ["image", "saliency"] + (["Grad-CAM"] if cam is not None else [])
    step, row, top = TILE + GAP, TILE + 40, 112
    groups = 2 if len(examples) > 4 else 1
    width = len(titles) * step + 20
    sheet = Sheet(GAP + groups * width, top + -(-len(examples) // groups) * row, minimum=560)
    about = f"and parts that speak for its class (Grad-CAM, at {layer})" if layer else ""
    sheet.heading("where the network looks", "pixels that change the score of an answer (saliency)", about)
    for place, example in enumerate(examples):
        x, y = GAP + place % groups * width, top + place // groups * row
        pictures = [pixels(example.image), heat(saliency[place], example.image)]
        if cam is not None:
            pictures.append(heat(cam[place], example.image))
        for column, picture in enumerate(pictures):
            sheet.picture(x + column * step, y, TILE, TILE, picture)
            if place < groups:
                sheet.text(x + column * step, top - 20, titles[column], 10, PALE)
        wrong = example.answer != example.true
        said = f"{shorten(example.answer)}  {example.probability:.0%}" + (
            f"  (is {shorten(example.true)})" if wrong else ""
        )
        sheet.text(x, y + TILE + 4, said, 10, "#b3261e" if wrong else GREEN, weight="bold")
    sheet.save(path)


def save_filters(path: Path, weight: Array, name: str) -> None:
    """The filters (F,KH,KW,C) of a first layer: in colour where C is 3, else signed; one scale for all."""
    count = min(len(weight), 64)
    columns = min(count, 8 if count > 6 else count)
    tile, step = 64, 64 + 30
    sheet = Sheet(GAP + columns * step, 80 + -(-count // columns) * (tile + 30), minimum=560)
    limit = float(np.abs(weight).max()) or 1.0
    colour = weight.shape[3] == 3
    how = "grey is 0" if colour else "white is 0, red positive, blue negative"
    sheet.heading(f"filters of {name}", " x ".join(map(str, weight.shape)), f"{how}; the largest weight is {limit:.3g}")
    for f, values in enumerate(weight[:count]):
        shades = np.rint(127.5 + 127.5 * values / limit).astype(np.uint8)
        x, y = GAP + f % columns * step, 80 + f // columns * (tile + 30)
        sheet.picture(x, y, tile, tile, shades if colour else signed(values[:, :, 0], limit))
        sheet.text(x, y + tile + 3, f"{f}", 9, PALE)
    sheet.save(path)


def heat(values: Array, image: Array) -> Array:
    """A map (h,w) over the image in grey, as colours (H,W,3), enlarged to at least 112 pixels: white, yellow, red."""
    from PIL import Image

    size = max(TILE, image.shape[0]), max(TILE, image.shape[1])
    part = values / (float(values.max()) or 1.0)
    enlarged = Image.fromarray(part.astype(np.float32)).resize(size[::-1], Image.Resampling.BICUBIC)
    strength = np.clip(np.asarray(enlarged), 0.0, 1.0)[..., np.newaxis]
    ground = Image.fromarray(pixels(image)).convert("L").resize(size[::-1], Image.Resampling.NEAREST)
    grey = np.repeat(np.asarray(ground, np.float64)[..., np.newaxis], 3, axis=2)
    warm = np.concatenate([np.full_like(strength, 255.0), 255.0 * (1 - strength) * 0.9, 40.0 * (1 - strength)], axis=2)
    opacity = 0.75 * np.sqrt(strength)
    return np.rint(grey * (1 - opacity) + warm * opacity).astype(np.uint8)


def pixels(image: Array) -> Array:
    """uint8 (H,W,1) or (H,W,3) -> (H,W) or (H,W,3)."""
    return image[:, :, 0] if image.shape[2] == 1 else image


def shorten(name: str) -> str:
    """A class name of at most 14 characters."""
    return name if len(name) <= 14 else f"{name[:13]}…"


def save_report(
    folder: Path, title: str, model: Layer, data: Any, dataset: Dataset, answers: Array, report: Mapping[str, Any]
) -> Path:
    """All pictures of an evaluation and their ``index.html``, whose path it returns.

    Args:
        model: in evaluation mode.
        data: mean, std of the training images.
        answers: probabilities (N,K).
        report: accuracy, loss, examples and confusion_matrix of the evaluation.
    """
    names, said, confidence = dataset.classes, answers.argmax(axis=1), answers.max(axis=1)
    right = said == dataset.labels

    def example(i: int) -> Example:
        return Example(
            visible(dataset.images[i : i + 1])[0], names[dataset.labels[i]], names[said[i]], float(confidence[i])
        )

    wrong = np.flatnonzero(~right)
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")][:24]
    error = save_calibration(folder / "calibration.png", confidence, right)
    pictures = [("calibration.png", "Calibration: how often answers of each probability are right")]
    if len(names) <= DRAWN:
        save_confusion(folder / "confusion.png", np.array(report["confusion_matrix"]), names)
        pictures.insert(0, ("confusion.png", "Confusion matrix: which class is taken for which"))
    if len(worst):
        save_mistakes(folder / "mistakes.png", [example(i) for i in worst])
        pictures.append(("mistakes.png", f"The {len(worst)} most certain of {len(wrong):,} wrong answers"))
    of_class = [np.flatnonzero(right & (dataset.labels == k)) for k in range(len(names))]
    firsts = [int(found[0]) for found in of_class if len(found)]
    shown = [*firsts[:8], *(int(i) for i in worst[:4])]
    x = normalise(dataset.images[shown], data.mean, data.std, model.backend)
    saliency, cam, layer = attribute(model, x, said[shown])
    save_attention(folder / "attention.png", [example(i) for i in shown], saliency, cam, layer)
    pictures.append(("attention.png", "Where the network looks for its answer: saliency and Grad-CAM"))
    for name, parameter in model.parameters().items():
        if parameter.group in ("filter", "frozen") and len(parameter.shape) == 4:
            save_filters(folder / "filters.png", model.backend.to_host(parameter.data), name)
            pictures.append(("filters.png", f"The filters of the first convolution, {name}"))
            break
    facts = [
        ("accuracy", f"{report['accuracy']:.4f}, {int(right.sum()):,} of {report['examples']:,} images"),
        ("loss", f"{report['loss']:.6f}"),
        ("expected calibration error", f"{error:.4f}"),
        ("checkpoint", str(report["checkpoint"])),
    ]
    return write_index(folder, title, facts, pictures)
