"""Figures of activations: value ranges, layout, and what is refused."""

import numpy as np
import pytest

from gpucnn.plots.feature_maps import Stage, best_columns, grey_scale, save_bars, save_grid, save_units, span, to_grey
from gpucnn.plots.lecture_demo import run

RNG = np.random.default_rng(6)


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        (np.linspace(0, 100, 101), (0.0, 99.0)),  # black is 0 where nothing is negative
        (np.linspace(-50, 50, 101), (-49.0, 49.0)),  # else the 1st percentile
        (np.append(np.zeros(999), 7.0), (0.0, 7.0)),  # a single bright pixel among 1000 is visible
        (np.full(9, 3.0), (0.0, 3.0)),
        (np.zeros(9), (0.0, 1.0)),
    ],
)
def test_the_grey_scale_of_a_tile(values, scale) -> None:
    assert grey_scale(values.reshape(1, -1)) == pytest.approx(scale)


def test_values_become_bytes_and_nan_is_white() -> None:
    values = np.array([[-1.0, 0.0, 0.5, 2.0, np.nan]])
    np.testing.assert_array_equal(to_grey(values, (0.0, 1.0)), [[0, 0, 128, 255, 255]])


@pytest.mark.parametrize(("count", "aspect", "columns"), [(1, 1, 1), (8, 1, 4), (32, 1, 8), (64, 1, 8), (8, 4, 2)])
def test_tiles_fill_their_rows(count, aspect, columns) -> None:
    assert best_columns(count, aspect) == columns


def test_numbers_have_three_digits_and_zero_no_sign() -> None:
    found = [span(np.array([low, high])) for low, high in ((-0.0, 1234.5), (-7, 0.12345))]
    assert found == ["0 to 1.23e+03", "-7 to 0.123"]


def test_every_kind_of_stage_is_drawn(tmp_path) -> None:
    image_of = pytest.importorskip("PIL.Image").open
    pytest.importorskip("matplotlib")
    stages = {
        "grid": lambda path: save_grid(path, Stage("conv", "Conv2D", RNG.standard_normal((6, 5, 70)))),
        "units": lambda path: save_units(path, Stage("hidden", "Linear", RNG.standard_normal(40))),
        "bars": lambda path: save_bars(
            path, Stage("head", "Linear", RNG.standard_normal(3)), ["cat", "dog", "owl"], np.array([0.1, 0.7, 0.2])
        ),
    }
    for name, draw in stages.items():
        draw(tmp_path / f"{name}.png")
        pixels = np.asarray(image_of(tmp_path / f"{name}.png").convert("L"))
        assert min(pixels.shape) > 100
        assert pixels.min() < 100 < 250 < pixels.max()


def test_demo_1_has_the_shapes_of_the_lecture() -> None:
    kernels, stages = run(RNG.random((20, 30)))
    assert kernels.shape == (8, 3, 3)
    assert [stage.values.shape for stage in stages] == [(22, 32, 8), (22, 32, 8), (11, 16, 8), (11, 16, 8)]
    conv, relu, maximum, average = (stage.values for stage in stages)
    np.testing.assert_array_equal(relu, np.maximum(conv, 0))
    assert (maximum >= average).all()
