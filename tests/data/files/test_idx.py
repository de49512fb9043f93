"""The IDX parser: what is well-formed comes back, what is not is refused without filling the memory."""

import gzip
import os
import tracemalloc
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from data_samples import idx_bytes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gpucnn.data.files.idx import read_idx
from gpucnn.errors import DataError

IMAGES = np.arange(2 * 28 * 28, dtype=np.uint64).astype(np.uint8).reshape(2, 28, 28)
GOOD = idx_bytes(IMAGES)
FAST = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@FAST
@given(array=arrays(np.uint8, st.tuples(*[st.integers(0, 5)] * 3)), packed=st.booleans())
def test_an_array_comes_back(tmp_path: Path, array: np.ndarray, packed: bool) -> None:
    path = tmp_path / "any-name"
    path.write_bytes(gzip.compress(idx_bytes(array)) if packed else idx_bytes(array))
    found = read_idx(path, 3)
    assert (found.shape, found.dtype) == (array.shape, np.uint8)
    assert np.array_equal(found, array)


def test_the_first_byte_varies_slowest(tmp_path: Path) -> None:
    path = tmp_path / "hand-made"
    path.write_bytes(bytes([0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3, 10, 11, 12, 20, 21, 22]))
    assert read_idx(path, 2).tolist() == [[10, 11, 12], [20, 21, 22]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it starts with nothing"),
        (b"\0\0\x08", "it starts with 00 00 08"),
        (b"<!DOCTYPE html><html>", "it starts with 3c 21 44 4f"),
        (b"\0\0\x0d\x03" + GOOD[4:], "not with 00 00 08 03"),  # floats
        (idx_bytes(IMAGES[0]), "not with 00 00 08 03"),  # two dimensions
        (GOOD[:10], "ends within its header, after 10 bytes"),
        (GOOD[:-1], "claims 2 x 28 x 28 = 1,568 bytes, but it holds 1,567"),
        (GOOD + b"\0", "but it holds more"),
        (b"\0\0\x08\x03" + b"\xff" * 12, "more than the 268,435,456"),
        (b"\0\0\x08\x03\0\0\x10\x01\0\0\1\0\0\0\1\0", "4097 x 256 x 256 bytes, more than the 268,435,456"),
        (gzip.compress(GOOD)[:-9], "is damaged"),
        (gzip.compress(GOOD)[:-8] + b"\0" * 8, "is damaged: CRC check failed"),
        (gzip.compress(GOOD) + b"rubbish", "is damaged: Not a gzipped file"),
        (gzip.compress(GOOD[:-1]), "but it holds 1,567"),
    ],
)
def test_a_bad_file_is_refused_by_name(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "t10k-images-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_idx(path, 3)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "download it again" in str(caught.value)
    assert "\n" not in str(caught.value)


@FAST
@given(place=st.integers(0, len(gzip.compress(GOOD, mtime=0)) - 1), bit=st.integers(0, 7))
def test_a_flipped_bit_is_noticed_or_harmless(tmp_path: Path, place: int, bit: int) -> None:
    content = bytearray(gzip.compress(GOOD, mtime=0))
    content[place] ^= 1 << bit
    path = tmp_path / "flipped"
    path.write_bytes(content)
    with suppress(DataError):
        assert np.array_equal(read_idx(path, 3), IMAGES)  # gzip's own header holds a time and the like


def test_a_gzip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(GOOD + bytes(64 << 20), compresslevel=1))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="holds more"):
            read_idx(path, 3)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_a_lying_count_does_not_reserve_memory(tmp_path: Path) -> None:
    path = tmp_path / "liar.gz"
    path.write_bytes(gzip.compress(b"\0\0\x08\x01\x0f\xff\xff\xff" + b"few"))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="claims 268435455"):
            read_idx(path, 1)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, message in (
        (tmp_path, "is not a regular file"),
        (tmp_path / "pipe", "is not a regular file"),
        (tmp_path / "nothing", "is missing"),
    ):
        with pytest.raises(DataError, match=message):
            read_idx(path, 3)
