"""Image files as arrays: every mode, depth and kind of damage that the formats can have."""

import struct
import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageDraw

from gpucnn.data import image_files
from gpucnn.data.image_files import fit, grey, open_image
from gpucnn.errors import DataError, ShapeError

RAMP = np.add.outer(np.arange(0, 120, 12), np.arange(0, 130, 13)).astype(np.uint8)  # (10,10)


def opened(path: Path) -> tuple[np.ndarray, str]:
    """Grey levels (H,W) of 0..255, and the notes as one line."""
    image, notes = open_image(path)
    assert image.mode in ("L", "RGB")
    return np.asarray(image.convert("L")).astype(int), ", ".join(notes)


def png(values: np.ndarray, kind: int, transparent: bytes = b"") -> bytes:
    """A PNG of 16 bits per channel, (H,W,C), written by hand: Pillow writes those of one channel only."""
    rows = values.astype(">u2")
    blocks = [
        (b"IHDR", struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, kind, 0, 0, 0)),
        *([(b"tRNS", transparent)] if transparent else []),
        (b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))),
        (b"IEND", b""),
    ]
    chunks = (struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in blocks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P", "I;16", "1"])
def test_every_mode_of_png_becomes_grey_or_colour(tmp_path: Path, mode) -> None:
    path = tmp_path / "image.png"
    image = Image.fromarray(RAMP)
    if mode == "I;16":
        Image.fromarray(RAMP.astype(np.uint16) * 257).save(path)
    else:
        image.convert(mode).save(path)
    got, note = opened(path)
    if mode == "1":  # dithered: the mean remains
        assert abs(got.mean() - RAMP.mean()) < 15
    else:
        np.testing.assert_allclose(got, RAMP, atol=1)
    assert note == ("16-bit values up to 57,825" if mode == "I;16" else "")


@pytest.mark.parametrize(
    ("name", "mode"),
    [("a.jpg", "CMYK"), ("a.jpg", "YCbCr"), ("a.tif", "CMYK"), ("a.tif", "YCbCr"), ("a.tif", "LAB"), ("a.tif", "LA")],
)
def test_colour_spaces_of_print_and_television(tmp_path: Path, name, mode) -> None:
    colour = np.repeat(np.repeat(np.stack([RAMP] * 3, axis=2), 8, axis=0), 8, axis=1)
    image = Image.fromarray(colour)
    if mode == "LAB":
        image = ImageCms.profileToProfile(
            image, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
        )
    else:
        image = image.convert(mode)
    image.save(tmp_path / name)
    got, note = opened(tmp_path / name)
    np.testing.assert_allclose(got[4::8, 4::8], RAMP, atol=6)
    assert note == ""


@pytest.mark.parametrize("name", ["a.gif", "a.bmp", "a.webp", "a.tif"])
def test_other_formats(tmp_path: Path, name) -> None:
    Image.fromarray(np.kron(RAMP, np.ones((8, 8), np.uint8))).save(tmp_path / name)
    got, note = opened(tmp_path / name)
    np.testing.assert_allclose(got[4::8, 4::8], RAMP, atol=8)
    assert note == ""


def test_the_content_counts_not_the_name(tmp_path: Path) -> None:
    Image.fromarray(RAMP).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.jpeg")
    np.testing.assert_array_equal(opened(tmp_path / "a.jpeg")[0], RAMP)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("kind", [0, 2, 4, 6])  # grey, colour, and both with transparency
def test_a_png_of_16_bits_is_scaled_by_the_bits_it_uses(tmp_path: Path, bits, kind) -> None:
    top = 2**bits - 1
    colour = np.repeat((RAMP / RAMP.max() * top).round()[..., None], 3 if kind & 2 else 1, axis=2)
    values = np.dstack([colour, np.full(RAMP.shape, 65535)]) if kind & 4 else colour
    (tmp_path / "a.png").write_bytes(png(values, kind))
    got, note = opened(tmp_path / "a.png")
    np.testing.assert_allclose(got, RAMP * (255 / RAMP.max()), atol=1)
    assert note == f"{bits}-bit values up to {top:,}"


def test_a_transparent_colour_of_16_bits(tmp_path: Path) -> None:
    values = np.array([[[0], [4000]], [[300], [4000]]])
    (tmp_path / "a.png").write_bytes(png(values, 0, struct.pack(">H", 4000)))
    got, note = opened(tmp_path / "a.png")
    np.testing.assert_array_equal(got, [[0, 255], [19, 255]])
    assert note == "12-bit values up to 4,000, laid on white"


@pytest.mark.parametrize(
    ("values", "wanted", "note"),
    [
        (np.float32([[0, 0.5, 1]]), [[0, 128, 255]], "values of 0 to 1"),
        (np.float32([[0.2, 0.4, 0.4]]), [[51, 102, 102]], "values of 0 to 1"),
        (np.float32([[-1, 0, 3]]), [[0, 64, 255]], "values of -1 to 3"),
        (np.float32([[10, np.nan, np.inf, 20]]), [[0, 0, 0, 255]], "values of 10 to 20"),
        (np.float32([[np.nan]]), [[0]], "values of 0 to 1"),
        (np.float32([[7, 7]]), [[0, 0]], "values of 7 to 7"),
        (np.int32([[0, 5, 10, 255]]), [[0, 5, 10, 255]], "8-bit values up to 255"),
        (np.int32([[0, 65536, 131072]]), [[0, 128, 255]], "values of 0 to 131072"),
        (np.int32([[-10, 0, 10]]), [[0, 128, 255]], "values of -10 to 10"),
        (np.int32([[0, 1, 1]]), [[0, 255, 255]], "1-bit values up to 1"),
    ],
)
def test_tiffs_of_floats_and_of_32_bits(tmp_path: Path, values, wanted, note) -> None:
    Image.fromarray(values).save(tmp_path / "a.tif")
    got, said = opened(tmp_path / "a.tif")
    np.testing.assert_array_equal(got, wanted)
    assert said == note


def drawn(ink, ground=None) -> Image.Image:
    """A ring and a bar; on a disc, if there is a ground."""
    image = Image.new("RGBA", (60, 60))
    draw = ImageDraw.Draw(image)
    if ground:
        draw.ellipse((2, 2, 57, 57), fill=ground)
    draw.ellipse((15, 15, 45, 45), outline=ink, width=5)
    draw.line((30, 15, 30, 45), fill=ink, width=4)
    return image


GREY = (128, 128, 128, 255)


@pytest.mark.parametrize("save", ["RGBA", "LA", "P", "tRNS"])
@pytest.mark.parametrize("ink", ["white", "black"])
def test_strokes_are_laid_on_the_side_that_they_stand_out_from(tmp_path: Path, ink, save) -> None:
    image = drawn(ink)
    if save == "tRNS":  # one colour of an opaque picture is transparent
        key = (1, 2, 3)
        Image.alpha_composite(Image.new("RGBA", image.size, key), image).convert("RGB").save(
            tmp_path / "a.png", transparency=key
        )
    elif save == "P":
        image.quantize(4).save(tmp_path / "a.png")
    else:
        image.convert(save).save(tmp_path / "a.png")
    got, note = opened(tmp_path / "a.png")
    assert np.ptp(got) == 255
    assert got[30, 30] == (255 if ink == "white" else 0)
    assert note == ("laid on black" if ink == "white" else "laid on white")


@pytest.mark.parametrize(
    ("image", "note"),
    [
        (drawn("black", "white"), "laid on white"),
        (drawn("white", "black"), "laid on black"),
        (drawn("yellow"), "laid on black"),
        (drawn("navy"), "laid on white"),
        (drawn("white", GREY), "laid on white"),
        (Image.new("RGBA", (9, 9)), "wholly transparent"),
        (Image.new("RGBA", (9, 9), "red"), ""),
    ],
)
def test_a_picture_with_a_ground_of_its_own_goes_on_with_it(tmp_path: Path, image, note) -> None:
    image.save(tmp_path / "a.png")
    assert opened(tmp_path / "a.png")[1] == note


def turned(exif: bytes, tmp_path: Path) -> tuple[tuple[int, int], str]:
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(tmp_path / "turned.jpg", exif=exif)
    image, notes = open_image(tmp_path / "turned.jpg")
    return image.size, ", ".join(notes)


def tags(orientation: object = 6) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "a maker"
    exif[0x011A] = 72.0
    exif.get_ifd(0x8769)[0x9003] = "2020:01:01 00:00:00"
    return exif.tobytes()


@pytest.mark.parametrize("value", range(1, 9))
def test_photographs_stand_upright(tmp_path: Path, value) -> None:
    scene = np.kron(np.array([[0, 80, 160], [255, 40, 120]], np.uint8), np.ones((16, 16), np.uint8))
    undo = [lambda a: a, np.fliplr, lambda a: a[::-1, ::-1], np.flipud, np.transpose]
    undo += [lambda a: np.rot90(a, 1), lambda a: a[::-1, ::-1].T, lambda a: np.rot90(a, -1)]
    Image.fromarray(np.ascontiguousarray(undo[value - 1](scene))).save(tmp_path / "a.jpg", exif=tags(value), quality=95)
    got, note = opened(tmp_path / "a.jpg")
    np.testing.assert_allclose(got[8::16, 8::16], scene[8::16, 8::16], atol=8)
    assert note == ("turned upright" if value > 1 else "")


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0",
        b"Exif\0\0MM\0",
        b"Exif\0\0nonsense",
        tags()[:40],
        tags()[:20],
        tags(9),
        tags().replace(b"\x01\x12\0\x03", b"\x01\x12\0\x02"),  # as text
        tags().replace(b"MM\0*\0\0\0\x08", b"MM\0*\xff\xff\xff\xff"),
    ],
)
def test_damaged_exif_is_said_and_the_picture_is_read(tmp_path: Path, exif) -> None:
    _, note = turned(exif, tmp_path)
    assert note.startswith("damaged EXIF data") or exif == b"Exif\0\0"


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(6, len(tags()) - 1), st.integers(0, 255)), max_size=8), st.integers(6, 400))
def test_no_damage_to_exif_stops_a_picture(tmp_path_factory, changes, length) -> None:
    exif = bytearray(tags())
    for place, value in changes:
        exif[place] = value
    size, note = turned(bytes(exif[:length]), tmp_path_factory.mktemp("exif"))
    assert size in ((20, 30), (30, 20))
    assert size == (30, 20) or "turned upright" in note or any(value in (5, 7, 8) for _, value in changes)


def test_of_moving_pictures_the_first_frame_is_read(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.full((8, 8), level, np.uint8)) for level in (10, 200)]
    for name in ("a.gif", "a.png", "a.webp", "a.tif"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        got, note = opened(tmp_path / name)
        assert abs(got.mean() - 10) < 3
        assert note == "first frame"


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (3, 3000)])
@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 32, 3)])
def test_narrow_pictures_fit_too(size, shape) -> None:
    array, notes = fit(Image.new("L", size, 90), shape)
    assert array.shape == shape
    assert (array == 90).all()
    assert f"resized from {size[0]} x {size[1]}" in ", ".join(notes)


def test_fit_crops_the_middle_and_keeps_proportions() -> None:
    wide = np.zeros((20, 60), np.uint8)
    wide[:, 20:40] = 100
    array, notes = fit(Image.fromarray(wide), (10, 10, 3))
    assert (array.shape, array.dtype) == ((10, 10, 3), np.uint8)
    assert (array[2:-2, 2:-2] == 100).all()
    assert notes == ["grey made colour", "cut to the middle and resized from 60 x 20 to 10 x 10"]
    same, notes = fit(Image.fromarray(RAMP), (10, 10, 1))
    np.testing.assert_array_equal(same[:, :, 0], RAMP)
    assert notes == []


def test_models_of_other_channels_refuse_image_files() -> None:
    with pytest.raises(ShapeError, match="4 channels"):
        fit(Image.fromarray(RAMP), (10, 10, 4))


def saved(name: str) -> Callable[[Path], None]:
    """Half of a file of this format."""

    def save(path: Path) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (64, 64)).astype(np.uint8)
        Image.fromarray(noise).save(path.with_name(name))
        path.write_bytes(path.with_name(name).read_bytes()[: path.with_name(name).stat().st_size // 2])

    return save


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: path.touch(), "cannot identify"),
        (lambda path: path.write_bytes(b"%PDF-1.7 not a picture"), "cannot identify"),
        (lambda path: path.mkdir(), "a folder: name the pictures in it"),
        (lambda path: None, "no such file"),
        (lambda path: path.write_bytes(png(np.zeros((0, 5, 1)), 0)), "PNG"),
        *((saved(f"whole.{kind}"), "") for kind in ("png", "jpg", "gif", "tif", "bmp", "webp")),
    ],
)
def test_bad_files_name_themselves(tmp_path: Path, make, reason) -> None:
    path = tmp_path / "bad.png"
    make(path)
    with pytest.raises(DataError, match=r"bad\.png.*" + reason) as caught:
        open_image(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["x" * 300, "null\0byte"])
def test_impossible_names(tmp_path: Path, name) -> None:
    with pytest.raises(DataError):
        open_image(tmp_path / name)


def test_large_pictures_are_refused_before_they_are_decoded(tmp_path: Path, monkeypatch) -> None:
    Image.new("1", (1200, 1000)).save(tmp_path / "large.png")
    monkeypatch.setattr(image_files, "LARGEST", 1_000_000)
    with pytest.raises(DataError, match=r"1200 x 1000 pixels, at most 1,000,000 are read: make it smaller"):
        open_image(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500_000)  # Pillow's own limit refuses the double
    with pytest.raises(DataError, match=r"large\.png"):
        open_image(tmp_path / "large.png")


def test_pillow_s_warnings_are_not_the_user_s(tmp_path: Path, monkeypatch) -> None:
    Image.new("1", (1200, 1000)).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000_000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert grey(open_image(tmp_path / "large.png")[0]).shape == (1000, 1200)


def test_damaged_files_are_read_or_refused_and_nothing_else_is_said() -> None:
    command = [sys.executable, str(Path(__file__).with_name("damaged_pictures.py")), "300", "5"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout
    assert "'read'" in done.stdout
    assert "'refused'" in done.stdout
