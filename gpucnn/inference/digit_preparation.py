"""A digit found in a photograph, and prepared as the digits of MNIST were.

Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-based learning applied to document recognition", Proc. IEEE 86
(1998), section III.A: NIST's black and white digits were "size normalized to fit in a 20x20 pixel box while preserving
their aspect ratio.  The resulting images contain grey levels as a result of the anti-aliasing technique used by the
normalization algorithm" and were placed so that "the center of mass of the pixels" is at the center of a 28x28 field.
A photograph v (0..1) has to become black and white first:

    (D1)  paper = closing(v, k x k)               the light on the paper: closing removes what is dark and narrower
                                                  than k, and keeps gradients and the edges of shadows
    (D2)  ink = 1 - v / paper                     the part of that light that a stroke absorbs
    (D3)  t = argmax_t w0 w1 (mu1 - mu0)^2        Otsu's threshold (IEEE Trans. SMC 9, 1979): w and mu are the
                                                  weights and the means of ink <= t and ink > t
    (D4)  mask = ink > t
    (D5)  width = 4 mean(distance to the paper)   of a stroke, since that distance is on average w/4 in a strip
                                                  of width w

Pixels count in (D3) by the square of the gradient, so that a small digit counts as much as its paper.  For strokes
that are lighter than their ground 1 - v takes v's place; whichever gives more of a digit is taken.
"""

from typing import Any

import numpy as np

from gpucnn.errors import DataError
from gpucnn.types import Array

MNIST_SHAPE = (28, 28, 1)
BOX = 20  # pixels of the digit's longer side
LOOK = 256  # pixels of the longer side of what is searched
MARGIN = 0.4  # around the digit at the second look, of its longer side
THINNEST = 2.3  # pixels of a stroke's width in the box; of MNIST's digits a quarter are thinner, the mean is 2.8
FAINTEST = 0.08  # of the light that a stroke absorbs
SPECK = 0.04  # of the longer side of what is searched
CUT = 0.3  # how much a piece that the border cuts looks like a digit, where an uncut one is 1
LONG = 8  # widths that a stroke is long, where longer is no more like a digit
STEEPEST = 0.2  # slope of a ruled line
CROSSING = 0.8  # of the picture's width that a ruled line covers
FRAMED = 0.3  # of a frame's longer side, what it is drawn around
GAP = 0.2  # between the pieces of a digit, of its longer side


def prepare_digit(picture: Array) -> tuple[Array, list[str]]:
    """A grey picture (H,W), 0..1, of one digit -> (uint8 (28,28), light strokes on black; notes).

    Raises:
        DataError: no strokes stand out from the paper.
    """
    from PIL import Image

    image = Image.fromarray(np.asarray(picture, np.float32))
    view, scale = look(image, (0, 0, *image.size))
    finds = {dark: find_strokes(view, LOOK / 4, dark) for dark in (True, False)}
    dark = max(finds, key=lambda side: finds[side][1])
    mask, score = finds[dark]
    if not score:
        raise DataError("no strokes stand out from the paper: take the picture closer, or in better light")
    box = np.array(bounds(mask)) / scale  # a second look, at the digit alone, which may be small in the picture
    box += MARGIN * max(box[2:] - box[:2]) * np.array([-1, -1, 1, 1])
    view, closer = look(image, tuple(np.clip(box, 0, image.size * 2)))
    found, score = find_strokes(view, 3 * stroke_width(mask) / scale * closer, dark)
    if score:
        mask, scale = found, closer
    left, top, right, bottom = np.array(bounds(mask)) / scale
    notes = ["dark strokes made light"] if dark else []
    size = f"{np.ceil(right - left):.0f} x {np.ceil(bottom - top):.0f}"
    return centre(widened(mask)), [*notes, f"digit of {size} pixels cut out and centred"]


def look(image: Any, box: tuple[float, ...]) -> tuple[Array, float]:
    """A box of a ``PIL.Image`` -> ((H,W), its longer side ``LOOK``; how much larger it is)."""
    from PIL import Image

    scale = LOOK / max(box[2] - box[0], box[3] - box[1])
    size = [max(1, round((box[i + 2] - box[i]) * scale)) for i in (0, 1)]
    return np.asarray(image.resize(size, Image.Resampling.BICUBIC, box=box)), scale


def find_strokes(view: Array, window: float, dark: bool) -> tuple[Array, float]:
    """(D1) to (D4)  a grey picture (H,W) -> (the digit's mask (H,W), how much it looks like one; 0: not at all).

    Args:
        window: k of (D1).
        dark: whether to look for strokes that are darker than their paper, or lighter.
    """
    from scipy import ndimage

    v = ndimage.gaussian_filter(view, 1.0)
    v = np.maximum(v if dark else 1 - v, 0.02)
    paper = ndimage.grey_closing(v, size=[max(1, min(round(window), side)) for side in v.shape])  # (D1)
    ink = 1 - v / paper  # (D2)
    threshold = otsu(ink, ndimage.gaussian_gradient_magnitude(ink, 1.0) ** 2)
    mask, score = best_group(without_lines(ink > threshold), ink)
    noise = 1.5 * np.median(np.abs(ink - np.median(ink)))  # a standard deviation
    if not score or ink[mask].mean() - np.median(ink) < max(FAINTEST, 4 * noise):
        return mask, 0.0
    return mask, score


def otsu(values: Array, weights: Array) -> float:
    """(D3)"""
    counts, edges = np.histogram(values, 256, weights=weights)
    w0, sums = np.cumsum(counts)[:-1], np.cumsum(counts * (edges[:-1] + edges[1:]) / 2)
    w1 = counts.sum() - w0
    apart = w0 * sums[-1] - counts.sum() * sums[:-1]  # w0 w1 (mu1 - mu0)
    variance = np.divide(apart**2, w0 * w1, out=np.zeros_like(apart), where=w0 * w1 > 0)
    return float(edges[1 + variance.argmax()])


def without_lines(mask: Array) -> Array:
    """Without ruled lines, which cross the whole picture, except where a stroke crosses them."""
    from scipy import ndimage

    for turned in (mask, mask.T):  # a view: what is removed is removed from the mask
        height, width = turned.shape
        labels, _ = ndimage.label(turned, np.ones((3, 3)))
        if not np.intersect1d(labels[:, 0], labels[:, -1]).any():
            continue
        y, x = np.ogrid[:height, :width]
        best, line = 0.0, None
        for slope in np.arange(-STEEPEST, STEEPEST, 2 / width):
            rows = np.clip(y + np.rint(slope * (x - width / 2)).astype(int), 0, height - 1)  # (H,W)
            cover = turned[rows, x].mean(axis=1)
            if (cover[cover > CROSSING]).sum() > best:
                best, line = (cover[cover > CROSSING]).sum(), (rows, cover > CROSSING)
        if line is not None:
            rows, ruled = line
            level = turned[rows, x]
            thick = round(ruled.sum() / ndimage.label(ruled)[1])  # rows of a line
            crossing = ndimage.binary_opening(level, np.ones((2 * thick + 4, 1)))
            gone = level & ndimage.binary_dilation(ruled, iterations=2)[:, None] & ~crossing
            turned[rows[gone], np.broadcast_to(x, rows.shape)[gone]] = False
    return mask


def best_group(mask: Array, ink: Array) -> tuple[Array, float]:
    """The piece that looks most like a digit, with the pieces that belong to it -> (mask, how much it does).

    It is long for its width, large, dark and not cut by the border, if there is one.  Others belong to it if they are
    no specks beside it, and close: the bars of a 5 or a 7, broken strokes.
    """
    from scipy import ndimage

    labels, count = ndimage.label(mask, np.ones((3, 3)))
    if not count:
        return mask, 0.0
    index = np.arange(1, count + 1)
    boxes = ndimage.find_objects(labels)
    sides = np.array([max(part.stop - part.start for part in box) for box in boxes])
    inside = np.array([cut_free(box, mask.shape) for box in boxes])
    areas = ndimage.sum_labels(mask, labels, index)
    depths = np.zeros(count + 1)
    np.maximum.at(depths, labels, ndimage.distance_transform_edt(mask))
    lengths = areas / (2 * depths[1:]) ** 2  # in widths
    scores = np.minimum(lengths, LONG) ** 2 * np.sqrt(sides) * ndimage.mean(ink, labels, index) ** 2
    if (preferred := inside & (sides >= SPECK * LOOK)).any():
        scores *= preferred
    else:
        scores *= CUT
    main = int(scores.argmax())
    large = np.flatnonzero((sides >= FRAMED * sides[main]) & (scores > 0)).tolist()
    main = max((i for i in large if frames(labels, boxes, main, i)), key=lambda i: scores[i], default=main)
    group = index == main + 1
    candidates = (areas >= 0.02 * areas[main]) & (inside | ~inside[main])
    candidates[[j for j in np.flatnonzero(candidates).tolist() if frames(labels, boxes, j, main)]] = False
    size = 0
    while size < (size := group.sum()):  # what is close to the group, then what is close to that
        near = ndimage.distance_transform_edt(~np.isin(labels, index[group])) <= GAP * sides[main]
        group |= candidates & np.isin(index, labels[near])
    return np.isin(labels, index[group]), float(scores[main])


def frames(labels: Array, boxes: list[tuple[slice, ...]], outer: int, inner: int) -> bool:
    """Whether a piece is a closed line around another, as on forms."""
    from scipy import ndimage

    around = all(a.start < b.start and b.stop < a.stop for a, b in zip(boxes[outer], boxes[inner], strict=True))
    return around and bool(ndimage.binary_fill_holes(labels[boxes[outer]] == outer + 1).mean() > 0.5)


def cut_free(box: tuple[slice, ...], shape: tuple[int, ...]) -> bool:
    """Whether a piece does not touch the border."""
    return all(part.start > 0 and part.stop < side for part, side in zip(box, shape, strict=True))


def bounds(mask: Array) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of what is true, the last two exclusive."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def stroke_width(mask: Array) -> float:
    """(D5)"""
    from scipy import ndimage

    return 4 * float(ndimage.distance_transform_edt(mask)[mask].mean())


def widened(mask: Array) -> Array:
    """(D5)  Strokes of at least ``THINNEST`` pixels in the box; (H,W) -> (H+2R,W+2R) with room for what is added."""
    from scipy import ndimage

    left, top, right, bottom = bounds(mask)
    side = max(right - left, bottom - top)
    radius = (THINNEST * side / BOX - stroke_width(mask)) / 2
    if radius <= 0:
        return mask
    mask = np.pad(mask, int(radius) + 1)
    return ndimage.distance_transform_edt(~mask) <= radius


def centre(mask: Array) -> Array:
    """Scaled into the box, and placed by its centre of mass; (H,W) -> uint8 (28,28)."""
    from PIL import Image
    from scipy import ndimage

    left, top, right, bottom = box = bounds(mask)
    scale = BOX / max(right - left, bottom - top)
    size = [max(1, round(side * scale)) for side in (right - left, bottom - top)]
    scaled = Image.fromarray(mask.astype(np.float32)).resize(size, Image.Resampling.BOX, box=box)
    small = np.asarray(scaled)  # (20, at most 20) or the other way round
    field = np.zeros(MNIST_SHAPE[:2], np.uint8)
    corner = [
        int(np.clip(round(side / 2 - mass), 0, side - length))
        for side, mass, length in zip(field.shape, ndimage.center_of_mass(small), small.shape, strict=True)
    ]
    rows, columns = (slice(start, start + length) for start, length in zip(corner, small.shape, strict=True))
    field[rows, columns] = np.rint(255 * np.clip(small, 0, 1))
    return field
