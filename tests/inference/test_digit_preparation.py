"""Digits found in photographs: what the preparation makes of them, and what a network trained on MNIST reads."""

import os
from pathlib import Path

import numpy as np
import pytest
from drawn_digits import forty
from PIL import Image, ImageFilter

from gpucnn.data import load_dataset
from gpucnn.data.image_files import grey
from gpucnn.errors import DataError
from gpucnn.inference.digit_preparation import otsu, prepare_digit, stroke_width
from gpucnn.inference.predict import normalise
from gpucnn.runs.state import load_trained

LENET = Path(__file__).parents[2] / "gpucnn" / "pretrained" / "mnist_lenet.h5"


def read(images: list[np.ndarray]) -> np.ndarray:
    """The digits that the LeNet of this repository reads in images (28,28)."""
    model, config, _ = load_trained(LENET)
    x = normalise(np.stack(images)[..., None], config.data.mean, config.data.std, model.backend)
    return np.asarray(model.backend.to_host(model(x))).argmax(axis=1)


def seven(size: int = 100, thick: int = 9, top: int = 20, left: int = 25) -> np.ndarray:
    """A 7 of two straight bars, (size,size): ink 1, paper 0."""
    ink = np.zeros((size, size))
    ink[top : top + thick, left : left + 40] = 1
    ink[top : top + 60, left + 40 - thick : left + 40] = 1
    return ink


def paper(ink: np.ndarray) -> np.ndarray:
    """Dark strokes on light paper."""
    return 0.85 - 0.6 * ink


def test_most_of_forty_drawn_and_photographed_digits_are_read() -> None:
    digits, _, pictures = zip(*forty(), strict=True)
    prepared = [prepare_digit(grey(picture))[0] for picture in pictures]
    assert (read(prepared) == digits).sum() >= 34


@pytest.mark.data
def test_mnist_s_digits_on_paper_come_back() -> None:
    _, test = load_dataset("mnist", os.environ["GPUCNN_DATA_DIR"], download=False)
    rng = np.random.default_rng(0)
    prepared = []
    for image in test.images[:60, :, :, 0]:
        side = int(rng.integers(60, 160))
        sheet = np.zeros((200, 240))
        y, x = rng.integers(0, 200 - side), rng.integers(0, 240 - side)
        sheet[y : y + side, x : x + side] = np.asarray(Image.fromarray(image).resize((side, side))) / 255
        light = np.linspace(1, 0.6, 240)
        prepared.append(prepare_digit(paper(sheet) * light + rng.normal(0, 0.01, sheet.shape))[0])
    assert (read(prepared) == test.labels[:60]).sum() >= 58
    distance = np.abs(np.stack(prepared).astype(int) - test.images[:60, :, :, 0]).mean()
    assert distance < 15  # MNIST's mean is 33


def test_it_is_as_long_as_mnist_s_box_and_centred_by_mass() -> None:
    image, notes = prepare_digit(paper(seven()))
    rows, columns = (np.flatnonzero(image.any(axis=axis)) for axis in (1, 0))
    assert (image.shape, image.dtype) == ((28, 28), np.uint8)
    assert np.ptp(rows) + 1 == 20  # the longer side
    assert abs(np.ptp(columns) + 1 - 20 * 40 / 60) <= 1  # proportions stay
    y, x = np.indices(image.shape)
    assert abs(np.average(y, weights=image) - 14) <= 0.5
    assert abs(np.average(x, weights=image) - 14) <= 0.5
    assert (image[image > 0] < 255).any()  # grey edges
    assert notes[0] == "dark strokes made light"
    width, height = map(int, notes[1].removeprefix("digit of ").split(" pixels")[0].split(" x "))
    assert abs(width - 40) <= 2
    assert abs(height - 60) <= 2


def test_either_side_may_be_dark() -> None:
    dark, notes = prepare_digit(paper(seven()))
    light, others = prepare_digit(1 - paper(seven()))
    assert np.abs(dark.astype(int) - light).mean() < 3
    assert others == notes[1:]


VARIANTS = {
    "a gradient of light": lambda v: v * np.linspace(1, 0.3, v.shape[1]),
    "a shadow": lambda v: v * np.where(np.add.outer(np.arange(v.shape[0]), np.arange(v.shape[1])) > 110, 0.5, 1),
    "noise": lambda v: v + np.random.default_rng(0).normal(0, 0.04, v.shape),
    "specks": lambda v: np.where(np.random.default_rng(0).random(v.shape) < 0.004, 0, v),
    "ruled lines": lambda v: np.where((np.arange(v.shape[0]) % 16 == 5)[:, None], 0.4, v),
    "squares": lambda v: np.where(np.logical_or.outer(*[np.arange(side) % 16 == 5 for side in v.shape]), 0.4, v),
    "the edge of a table": lambda v: np.where(np.arange(v.shape[1]) < 12, 0.1, v),
    "a black frame": lambda v: np.pad(v[4:-4, 4:-4], 4),
    "a box, as on forms": lambda v: np.pad(np.pad(v, 8, constant_values=0.2)[6:-6, 6:-6], 30, constant_values=0.85),
    "a sheet on a table": lambda v: np.pad(v, 60, constant_values=0.3),
    "far away": lambda v: np.pad(v, ((300, 500), (400, 100)), constant_values=0.85),
    "blur": lambda v: grey(Image.fromarray(np.uint8(255 * v)).filter(ImageFilter.GaussianBlur(2))),
    "few pixels": lambda v: np.asarray(Image.fromarray(v.astype(np.float32)).resize((30, 30), Image.Resampling.BOX)),
    "faint ink": lambda v: 0.85 - (0.85 - v) * 0.3,
}


@pytest.mark.parametrize("name", VARIANTS)
def test_what_surrounds_a_digit_does_not_matter(name) -> None:
    clean, _ = prepare_digit(paper(seven()))
    image, _ = prepare_digit(VARIANTS[name](paper(seven())))
    assert np.corrcoef(clean.ravel(), image.ravel())[0, 1] > 0.85


@pytest.mark.parametrize("pen", [1, 3, 8])
def test_fine_strokes_are_as_wide_as_mnist_s_thin_ones(pen) -> None:
    image, _ = prepare_digit(paper(seven(200, thick=pen)))
    large = np.asarray(Image.fromarray(image).resize((280, 280), Image.Resampling.BICUBIC)) > 127
    assert 1.9 < stroke_width(large) / 10 < 3.5


BLANK = {
    "white": np.ones((50, 60)),
    "black": np.zeros((50, 60)),
    "noise": 0.8 + 0.03 * np.random.default_rng(0).normal(size=(100, 150)),
    "a gradient": np.linspace(0, 1, 100) * np.ones((90, 1)),
    "an edge": (np.arange(100) > 50) * np.ones((90, 1)),
    "lines": paper((np.arange(100) % 20 < 2)[:, None] * np.ones((1, 100))),
    "one pixel": np.ones((1, 1)),
    "a row": np.linspace(0, 1, 5000)[None],
    "a column": np.random.default_rng(0).random((3000, 1)),
}


@pytest.mark.parametrize("name", BLANK)
def test_blank_paper_is_an_error(name) -> None:
    with pytest.raises(DataError, match="no strokes stand out"):
        prepare_digit(BLANK[name])


def test_otsu_s_threshold_is_that_of_all_thresholds_that_parts_best() -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(0.2, 0.05, 900), rng.normal(0.7, 0.1, 100)])
    weights = rng.random(1000)

    def between(threshold: float) -> float:
        low = values <= threshold
        w0, w1 = weights[low].sum(), weights[~low].sum()
        apart = np.average(values[~low], weights=weights[~low]) - np.average(values[low], weights=weights[low])
        return w0 * w1 * apart**2

    best = max(between(t) for t in np.linspace(0.1, 0.9, 2000))
    assert between(otsu(values, weights)) > 0.999 * best
