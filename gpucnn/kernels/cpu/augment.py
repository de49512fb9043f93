"""A batch of images in one pass, from bytes to float32: gather, shift, mirror, normalise, cover a square.

The images are those of the op to the bit, so that runs on all backends see the same ones: the product and the
difference of normalisation are rounded one after the other, where other kernels make one instruction of them.

A window is cut out as bytes, 16 of which go through one instruction, and stays in the cache until it is normalised.
"""

from math import prod
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from gpucnn.kernels.cpu.arguments import within
from gpucnn.kernels.cpu.engine.allocator import empty
from gpucnn.kernels.cpu.engine.compile import jit, jit_exact
from gpucnn.kernels.cpu.engine.simd import LANES, VECTOR, float32x16, load, store
from gpucnn.kernels.cpu.engine.threads import SHARDS, parallel
from gpucnn.types import Array

CHANNELS = (1, 3)
SLACK = 2 * LANES  # bytes before the windows and behind, for vectors that reach out of a line

_BYTES = ir.VectorType(ir.IntType(8), LANES)


def byte_pointer(builder: Any, address: Any, index: Any, kind: Any) -> Any:
    """To what lies ``index`` bytes behind an address."""
    place = builder.inttoptr(address, ir.IntType(8).as_pointer())
    return builder.bitcast(builder.gep(place, [index]), kind.as_pointer())


@intrinsic
def normalized(typingctx, address, index, scale, offset):
    """Sixteen bytes as numbers, times scale minus offset, rounded twice."""

    def generate(context, builder, signature, args):
        address, index, scale, offset = args
        pixels = builder.load(byte_pointer(builder, address, index, _BYTES), align=1)
        return builder.fsub(builder.fmul(builder.uitofp(pixels, VECTOR), scale), offset)

    return float32x16(types.uintp, types.intp, float32x16, float32x16), generate


def mirror(channels: int) -> Any:
    """Sixteen bytes from one place to another, as many pixels of so many channels as they hold in reverse."""
    pixels = LANES // channels
    order = [channels * (pixels - 1 - j) + k for j in range(pixels) for k in range(channels)]
    order += range(len(order), LANES)

    @intrinsic
    def operation(typingctx, source, source_index, target, target_index):
        def generate(context, builder, signature, args):
            source, source_index, target, target_index = args
            pixels = builder.load(byte_pointer(builder, source, source_index, _BYTES), align=1)
            lanes = ir.Constant(ir.VectorType(ir.IntType(32), LANES), order)
            mirrored = builder.shuffle_vector(pixels, pixels, lanes)
            builder.store(mirrored, byte_pointer(builder, target, target_index, _BYTES), align=1)
            return context.get_dummy_value()

        return types.void(types.uintp, types.intp, types.uintp, types.intp), generate

    return operation


_mirror_grey, _mirror_colour = (mirror(channels) for channels in CHANNELS)


@intrinsic
def copy(typingctx, source, source_index, target, target_index, size):
    """So many bytes from one place to another."""

    def generate(context, builder, signature, args):
        source, source_index, target, target_index, size = args
        source = byte_pointer(builder, source, source_index, ir.IntType(8))
        target = byte_pointer(builder, target, target_index, ir.IntType(8))
        cgutils.raw_memcpy(builder, target, source, size, 1)
        return context.get_dummy_value()

    return types.void(types.uintp, types.intp, types.uintp, types.intp, types.intp), generate


@jit
def _reflected(place, size):
    """Where a place less than ``size`` beyond the edge lies when the image is mirrored there."""
    return -place if place < 0 else 2 * (size - 1) - place if place >= size else place


@jit
def _cut(image, c, top, left, reflect, window):
    """The window of an image (H,W*C) whose upper left pixel is at (top, left), perhaps outside."""
    h, w = image.shape[0], image.shape[1] // c
    start, stop = max(-left, 0), min(w - left, w)  # the window's columns that show the image
    for i in range(h):
        row = _reflected(i + top, h) if reflect else i + top
        if not 0 <= row < h or start >= stop:
            for e in range(c * w):
                window[i, e] = 0
            continue
        place = c * (w * row + start + left)
        copy(image.ctypes.data, place, window.ctypes.data, c * (w * i + start), c * (stop - start))
        for j in range(w - stop + start):
            column = j if j < start else j + stop - start
            for k in range(c):
                window[i, c * column + k] = image[row, c * _reflected(column + left, w) + k] if reflect else 0


@jit
def _mirror(window, c, mirrored):
    """Mirror left and right; stores reach into the next line, which is written later."""
    h, size = window.shape
    step = LANES // c * c
    for i in range(h):
        for e in range(0, size, step):
            source, target = size * (i + 1) - e - step, size * i + e
            if c == 1:
                _mirror_grey(window.ctypes.data, source, mirrored.ctypes.data, target)
            else:
                _mirror_colour(window.ctypes.data, source, mirrored.ctypes.data, target)


@jit_exact
def _normalize(pixels, c, scale, offset, y):
    """Bytes at an address to floats y (size,): at least LANES."""
    last = y.size - LANES
    for e in range(0, y.size, LANES):
        at = min(e, last)
        phase = at % c
        values = normalized(pixels, at, load(scale.ctypes.data, phase), load(offset.ctypes.data, phase))
        store(y.ctypes.data, at, values)


@jit
def _cover(y, c, top, left, side):
    """Zeros in a square of an image (H,W*C) whose upper left pixel is at (top, left), perhaps outside."""
    h, w = y.shape[0], y.shape[1] // c
    start, stop = c * max(left, 0), c * min(left + side, w)
    for i in range(max(top, 0), min(top + side, h)):
        for e in range(start, stop):
            y[i, e] = 0


@jit_exact
def _gather(first, last, images, index, c, flip, corner, reflect, scale, offset, square, side, windows, y):
    n = index.size
    window, mirrored = windows[first, 0], windows[first, 1]
    for b in range(n * first // SHARDS, n * last // SHARDS):
        image = images[index[b]]
        pixels = image.ctypes.data
        top, left = corner[b]
        if top != 0 or left != 0 or flip[b]:
            _cut(image, c, top, left, reflect, window)
            pixels = window.ctypes.data
            if flip[b]:
                _mirror(window, c, mirrored)
                pixels = mirrored.ctypes.data
        _normalize(pixels, c, scale, offset, y[b])
        if side > 0:
            _cover(y[b].reshape(image.shape), c, square[b, 0], square[b, 1], side)


def accepts_gather(images: Array, index: Array, mean: Array, inv_std: Array) -> bool:
    """Grey or coloured images in bytes, indices of some that exist, float32 statistics of each channel."""
    return (
        all(isinstance(array, np.ndarray) for array in (images, index, mean, inv_std))
        and images.dtype == np.uint8
        and images.ndim == 4
        and images.shape[3] in (1, 3)
        and prod(images.shape[1:]) >= LANES
        and within(index, (index.size,), len(images))
        and all(values.dtype == np.float32 and values.shape == images.shape[3:] for values in (mean, inv_std))
    )


def accepts_augment(
    images: Array,
    index: Array,
    flip: Array,
    shift: Array,
    crop: int,
    crop_mode: str,
    mean: Array,
    inv_std: Array,
    centre: Array | None = None,
    cutout: int = 0,
) -> bool:
    """The same, a bool for each image, and a corner inside the padded one; one reflection at most.

    Where a square is covered, its centre is a pixel of the image.
    """
    return (
        accepts_gather(images, index, mean, inv_std)
        and all(isinstance(array, np.ndarray) for array in (flip, shift))
        and flip.dtype == bool
        and flip.shape == index.shape
        and (not crop or within(shift, (index.size, 2), 2 * crop + 1))
        and (crop_mode == "zero" or crop < min(images.shape[1:3]))
        and (not cutout or (isinstance(centre, np.ndarray) and within(centre, (index.size, 2), max(images.shape[1:3]))))
    )


def gather_normalize(images: Array, index: Array, mean: Array, inv_std: Array) -> Array:
    """images u8 (N,H,W,C), index (B,), mean and 1/std (C,) -> float32 (B,H,W,C)."""
    return _batch(images, index, np.zeros(len(index), bool), None, False, mean, inv_std)


def gather_augment(
    images: Array,
    index: Array,
    flip: Array,
    shift: Array,
    crop: int,
    crop_mode: str,
    mean: Array,
    inv_std: Array,
    centre: Array | None = None,
    cutout: int = 0,
) -> Array:
    """The same of windows ``shift`` (B,2) of the padded images, mirrored where ``flip`` (B,), with a covered square."""
    corner = shift.astype(np.int64) - crop if crop else None
    square = centre.astype(np.int64) - cutout // 2 if cutout and centre is not None else None
    return _batch(images, index, flip.copy(), corner, crop_mode != "zero", mean, inv_std, square, cutout)


def _batch(
    images: Array,
    index: Array,
    flip: Array,
    corner: Array | None,
    reflect: bool,
    mean: Array,
    inv_std: Array,
    square: Array | None = None,
    side: int = 0,
) -> Array:
    """Windows with their upper left pixel at ``corner`` (B,2) of the images, at (0, 0) where not given.

    ``square`` (B,2) is the upper left pixel of what is covered.
    """
    if images.flags.c_contiguous:
        index = index.astype(np.int64)
    else:  # the batch is copied, not the whole set
        images, index = np.ascontiguousarray(images[index]), np.arange(len(index))
    if corner is None:
        corner = np.zeros((len(index), 2), np.int64)
    if square is None:
        square = corner  # not looked at: a square without sides
    n, h, w, c = images.shape
    lines = images.reshape(n, h, w * c)
    lines.setflags(write=False)  # compiled once for sets that may be written to and for those that may not
    size = h * w * c
    memory = empty((SHARDS, 2, SLACK + size + SLACK), "uint8")
    windows = memory[:, :, SLACK : SLACK + size].reshape(SHARDS, 2, h, w * c)
    scale, offset = (np.resize(values, LANES + c) for values in (inv_std * (1.0 / 255.0), mean * inv_std))
    y = empty((len(index), h, w, c))
    how = (flip, corner, reflect, scale, offset, square, side)
    parallel(_gather, lines, index, c, *how, windows, y.reshape(len(index), size), work=y.size)
    return y
