"""Shuffles, flips, crops and masks against Philox on Python's integers: every backend draws what the paper says."""

import numpy as np
import pytest

from gpucnn.data import Augmentation, Dataset, Loader
from gpucnn.layers.dropout import dropout
from gpucnn.random import stream_id

SEED, EPOCH, COUNT = 0x1234567_89ABCDEF, 2**32 + 3, 23
M, W, MASK = (0xD2511F53, 0xCD9E8D57), (0x9E3779B9, 0xBB67AE85), 0xFFFFFFFF


def word(element: int, stream: int, step: int, seed: int = SEED) -> int:
    """The 32-bit number at this place: Philox4x32-10 as its authors write it down."""
    c, k = [element // 4, stream, step & MASK, step >> 32], [seed & MASK, seed >> 32]
    for _ in range(10):
        high, low = zip(*(divmod(m * x, 2**32) for m, x in zip(M, (c[0], c[2]), strict=True)), strict=True)
        c = [high[1] ^ c[1] ^ k[0], low[1], high[0] ^ c[3] ^ k[1], low[0]]
        k = [(key + weyl) & MASK for key, weyl in zip(k, W, strict=True)]
    return c[element % 4]


def test_the_oracle_gives_the_published_words() -> None:
    words = [word(element, 0, 0, 0) for element in range(4)]
    assert words == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]


def loader(backend, **settings) -> Loader:
    """Images that are numbered: pixel (row, column) of image i is 10 i + 3 row + column; black is a border's alone."""
    places = 3 * np.arange(3)[:, None] + np.arange(3)
    images = (10 * np.arange(COUNT)[:, None, None] + places + 1).astype(np.uint8)[..., None]
    data = Dataset("numbered", images, np.arange(COUNT, dtype=np.uint8), tuple(map(str, range(COUNT))))
    return Loader(data, 5, backend=backend, mean=(0.0,), std=(1 / 255,), seed=SEED, shuffle=True, **settings)


def test_shuffles(backend) -> None:
    labels = [int(i) for _, part in loader(backend).epoch(EPOCH) for i in backend.to_host(part)]
    stream = stream_id("shuffle")
    keys = [word(i, stream, EPOCH) << 32 | word(COUNT + i, stream, EPOCH) for i in range(COUNT)]
    assert labels == sorted(range(COUNT), key=keys.__getitem__)
    assert labels[:6] == SHUFFLED


def test_flips_and_crops(backend) -> None:
    one = loader(backend, augmentation=Augmentation(flip=True, crop=1))
    seen = [(backend.to_host(x), backend.to_host(labels)) for x, labels in one.epoch(EPOCH)]
    images, labels = (np.concatenate(part) for part in zip(*seen, strict=True))
    for got, i in zip(np.rint(images[..., 0]).astype(int), labels, strict=True):
        row, column = (word(2 * int(i) + axis, stream_id("crop"), EPOCH) * 3 >> 32 for axis in (0, 1))
        padded = np.pad(10 * int(i) + 3 * np.arange(3)[:, None] + np.arange(3) + 1, 1)
        wanted = padded[row : row + 3, column : column + 3]
        if word(int(i), stream_id("flip"), EPOCH) * 2 >> 32:
            wanted = wanted[:, ::-1]
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("shape", [(3, 7), (2, 3, 5, 4)])
def test_masks(backend, shape) -> None:
    y = backend.run(dropout, backend.to_device(np.ones(shape, np.float32)), 0.25, SEED, stream_id("mask"), EPOCH)
    words = [word(element, stream_id("mask"), EPOCH) for element in range(int(np.prod(shape)))]
    keep = [(w >> 8) * 2.0**-24 >= 0.25 for w in words]
    np.testing.assert_array_equal(backend.to_host(y).reshape(-1) != 0, keep)
    assert 0 < sum(keep) < len(keep)


SHUFFLED = [13, 16, 2, 22, 17, 1]
"""The first images of the epoch, kept here as well."""
