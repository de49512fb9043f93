"""The adjoint pair behind convolution and pooling: read all windows, and add windows back.

``view_windows`` reads every KH x KW window of an image; ``add_windows`` is its transpose: it adds values
that belong to windows back to the pixels they came from.  <view(x), v> = <x, add(v)> for all x and v.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from gpucnn.backend import array_module
from gpucnn.errors import ShapeError
from gpucnn.types import Array, Padding, Pair, Shape


def as_pair(value: int | Pair, what: str, minimum: int) -> Pair:
    """An int or a (height, width) pair -> a pair; raises ShapeError below the minimum."""
    pair = tuple(value) if isinstance(value, Sequence) else (value, value)
    if len(pair) != 2 or not all(isinstance(v, int) and v >= minimum for v in pair):
        raise ShapeError(f"{what}={value!r}: give an int >= {minimum} or a (height, width) pair of them")
    return pair[0], pair[1]


def extent(kernel: Pair, dilation: Pair) -> Pair:
    """How far a kernel reaches whose taps lie ``dilation`` pixels apart: d (k - 1) + 1, for height and width."""
    (kh, kw), (dh, dw) = kernel, dilation
    return dh * (kh - 1) + 1, dw * (kw - 1) + 1


def as_padding(value: int | Pair | Padding | str, kernel: Pair, stride: Pair) -> Padding:
    """An int, a (height, width) pair, ((top, bottom), (left, right)) or 'same' -> ((top, bottom), (left, right)).

    'same' keeps the image's size: k - 1 pixels in all, the odd one of an even kernel at bottom and right.

    Args:
        kernel: how far the kernel reaches (``extent``).
    """
    if isinstance(value, str):
        if value != "same":
            raise ShapeError(
                f"padding={value!r}: give an int, a (height, width) pair, ((top, bottom), (left, right)) or 'same'"
            )
        if stride != (1, 1):
            raise ShapeError(f"padding='same' needs stride 1, got {stride}: give the padding as numbers")
        kh, kw = kernel
        return ((kh - 1) // 2, kh // 2), ((kw - 1) // 2, kw // 2)
    sides: Any = value
    if isinstance(sides, Sequence) and len(sides) == 2 and all(isinstance(side, Sequence) for side in sides):
        return as_pair(sides[0], "padding", 0), as_pair(sides[1], "padding", 0)
    ph, pw = as_pair(sides, "padding", 0)
    return (ph, ph), (pw, pw)


def output_size(shape: Shape, kernel: Pair, stride: Pair, padding: Padding) -> Pair:
    """(L2)  floor((size - k + 2p) / s) + 1, for height and width.

    Args:
        shape: (..., H, W, C).
    """
    sizes = []
    for size, k, s, (before, after) in zip(shape[-3:-1], kernel, stride, padding, strict=True):
        room = size + before + after - k
        if room < 0:
            raise ShapeError(f"a kernel of {kernel} does not fit into an image of {shape} padded by {padding}")
        sizes.append(room // s + 1)
    return sizes[0], sizes[1]


def pad(x: Array, padding: Padding, value: float = 0.0) -> Array:
    """x (N,H,W,C) with a border of ``value``."""
    if padding == ((0, 0), (0, 0)):
        return x
    return array_module(x).pad(x, ((0, 0), *padding, (0, 0)), constant_values=value)


def crop(x: Array, padding: Padding) -> Array:
    """Remove the border: the transpose of ``pad``."""
    (top, bottom), (left, right) = padding
    return x[:, top : x.shape[1] - bottom, left : x.shape[2] - right, :]


def view_windows(x: Array, kernel: Pair, stride: Pair, dilation: Pair = (1, 1)) -> Array:
    """All windows of x (N,H,W,C), as a view (N,H',W',KH,KW,C) that copies nothing; their pixels ``dilation`` apart."""
    n, h, w, c = x.shape
    (kh, kw), (sh, sw), (dh, dw), (tall, wide) = kernel, stride, dilation, extent(kernel, dilation)
    along_n, along_h, along_w, along_c = x.strides
    return array_module(x).lib.stride_tricks.as_strided(
        x,
        shape=(n, (h - tall) // sh + 1, (w - wide) // sw + 1, kh, kw, c),
        strides=(along_n, sh * along_h, sw * along_w, dh * along_h, dw * along_w, along_c),
    )


def view_taps(x: Array, kernel: Pair, size: Pair, stride: Pair, dilation: Pair = (1, 1)) -> Iterator[Array]:
    """For each kernel tap (m, n), row by row: the pixel of x (N,H,W,C) under it in every window, (N,H',W',C).

    The slices are views: adding to one adds to the pixels.  Within one tap no pixel occurs twice.
    """
    (kh, kw), (h, w), (sh, sw), (dh, dw) = kernel, size, stride, dilation
    for m in range(0, dh * kh, dh):
        for n in range(0, dw * kw, dw):
            yield x[:, m : m + sh * h : sh, n : n + sw * w : sw, :]


def add_windows(windows: Array, shape: Shape, stride: Pair, dilation: Pair = (1, 1)) -> Array:
    """Add windows (N,H',W',KH,KW,C) into zeros of ``shape`` (N,H,W,C), each where it was read.

    One strided slice per kernel tap: a pixel in several windows gets the sum of their values.
    """
    _, h, w, kh, kw, _ = windows.shape
    x = array_module(windows).zeros(shape, dtype=windows.dtype)
    for tap, pixels in enumerate(view_taps(x, (kh, kw), (h, w), stride, dilation)):
        pixels += windows[:, :, :, tap // kw, tap % kw, :]
    return x
