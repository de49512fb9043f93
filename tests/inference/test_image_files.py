"""Image files as arrays: every mode that PNG and JPEG can have."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gpucnn.errors import DataError, ShapeError
from gpucnn.inference.image_files import fit, grey, open_image

RAMP = np.add.outer(np.arange(0, 120, 12), np.arange(0, 130, 13)).astype(np.uint8)  # (10,10)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P", "I;16", "1"])
def test_every_mode_becomes_grey_or_colour(tmp_path: Path, mode) -> None:
    path = tmp_path / "image.png"
    image = Image.fromarray(RAMP)
    if mode == "I;16":
        Image.fromarray(RAMP.astype(np.uint16) * 257).save(path)
    else:
        image.convert(mode).save(path)
    opened = open_image(path)
    assert opened.mode in ("L", "RGB")
    wanted = np.where(RAMP > 127, 255, 0) if mode == "1" else RAMP
    got = np.asarray(opened.convert("L")).astype(int)
    if mode == "1":  # dithered: the mean remains
        assert abs(got.mean() - RAMP.mean()) < 15
    else:
        np.testing.assert_allclose(got, wanted, atol=1)


def test_transparent_is_white_paper(tmp_path: Path) -> None:
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[:, 2:, 3] = 255
    Image.fromarray(pixels).save(tmp_path / "ink.png")
    np.testing.assert_array_equal(grey(open_image(tmp_path / "ink.png"))[0], [1, 1, 0, 0])


def test_photographs_stand_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # taken with the camera turned
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(tmp_path / "turned.jpg", exif=exif)
    assert open_image(tmp_path / "turned.jpg").size == (20, 30)


def test_fit_crops_the_middle_and_keeps_proportions() -> None:
    wide = np.zeros((20, 60), np.uint8)
    wide[:, 20:40] = 100
    array, note = fit(Image.fromarray(wide), (10, 10, 3))
    assert (array.shape, array.dtype) == ((10, 10, 3), np.uint8)
    assert (array[2:-2, 2:-2] == 100).all()
    assert note == "grey made colour, cut to the middle and resized from 60 x 20 to 10 x 10"
    same, note = fit(Image.fromarray(RAMP), (10, 10, 1))
    np.testing.assert_array_equal(same[:, :, 0], RAMP)
    assert note == ""


def test_models_of_other_channels_refuse_image_files() -> None:
    with pytest.raises(ShapeError, match="4 channels"):
        fit(Image.fromarray(RAMP), (10, 10, 4))


def test_bad_files_name_themselves(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    for name in ("empty.png", "absent.png"):
        with pytest.raises(DataError, match=name):
            open_image(tmp_path / name)
