"""Arguments for every op of the GPU's table: those of the CPU's kernels, batches, wide and long arrays; in float16."""

from collections.abc import Iterator
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import numpy as np
from kernel_samples import BIG, SMALL, Op, Sample
from outcomes import WIDE_RESULTS, is_float

from gpucnn import losses, metrics
from gpucnn.data.augment import colour, crop_flip, warp
from gpucnn.data.augment.settings import CROP_MODES
from gpucnn.devices import gpu
from gpucnn.kernels.gpu.compile import FOLDER, Module
from gpucnn.kernels.gpu.cudnn.options import Options
from gpucnn.layers import activations, batchnorm, containers, conv2d, dropout, fusion, gelu, groupnorm, linear, pooling
from gpucnn.optim import loss_scale, muon

BY_CUDNN = (
    conv2d.conv2d,
    conv2d.conv2d_input_grad,
    conv2d.conv2d_weight_grad,
    conv2d.grouped_conv2d,
    conv2d.grouped_conv2d_input_grad,
    conv2d.grouped_conv2d_weight_grad,
)
TABLE = {op: kernel for op, kernel in gpu.table(Options()).items() if op not in BY_CUDNN}
"""Every row but those that choose among libraries, which are tested on doubles of them."""

MODULES = [
    value
    for found in iter_modules([str(FOLDER)], "gpucnn.kernels.gpu.")
    for value in vars(import_module(found.name)).values()
    if isinstance(value, Module)
]
"""Every ``.cu`` file: a module of the package that launches one has it as a global."""

STORED: dict[Op, tuple[int, ...]] = {
    linear.linear: (0, 1, 2),
    linear.linear_input_grad: (0, 1),
    linear.linear_weight_grad: (0, 1),
    conv2d.bias_grad: (0,),
    batchnorm.batchnorm: (0,),
    batchnorm.batchnorm_relu: (0,),
    batchnorm.batchnorm_eval: (0,),
    batchnorm.batchnorm_relu_eval: (0,),
    batchnorm.batchnorm_grad: (0, 1),
    batchnorm.batchnorm_relu_grad: (0, 1),
    groupnorm.groupnorm: (0,),
    groupnorm.groupnorm_grad: (0, 1),
    activations.relu: (0,),
    activations.relu_grad: (0, 1),
    activations.relu6: (0,),
    activations.relu6_grad: (0, 1),
    activations.leaky_relu: (0,),
    activations.leaky_relu_grad: (0, 1),
    activations.hardswish: (0,),
    activations.hardswish_grad: (0, 1),
    gelu.gelu: (0,),
    gelu.gelu_grad: (0, 1),
    containers.add: (0, 1),
    containers.add_relu: (0, 1),
    dropout.dropout: (0,),
    pooling.max_pool2d: (0,),
    pooling.max_pool2d_grad: (0, 1),
    pooling.avg_pool2d: (0,),
    pooling.avg_pool2d_grad: (0,),
    pooling.global_avg_pool2d: (0,),
    pooling.global_avg_pool2d_grad: (0,),
    fusion.relu_max_pool2d: (0,),
    fusion.relu_max_pool2d_grad: (0, 1),
    fusion.batchnorm_relu_max_pool2d: (0,),
    fusion.batchnorm_relu_max_pool2d_eval: (0,),
    fusion.batchnorm_relu_max_pool2d_grad: (0, 1),
    losses.softmax_cross_entropy: (0,),
    metrics.count_correct: (0,),
}
"""Op -> which arguments may be float16; parameters and optimizer state stay float32."""

SMALL_RESULTS = {conv2d.bias_grad: (0,), losses.softmax_cross_entropy: (0,), metrics.count_correct: (0,)}
"""Op -> results that are not stored as its arguments are; of all others the first one is, and what belongs to channels
is float32."""

OTHER_RESULTS = {loss_scale.unscale: ["bool"], loss_scale.adapt: ["int64"]}
"""Op -> what comes besides an array in float32."""

EXACT = {
    pooling.max_pool2d,
    pooling.max_pool2d_grad,
    pooling.avg_pool2d,
    pooling.avg_pool2d_grad,
    pooling.global_avg_pool2d_grad,
    fusion.relu_max_pool2d,
    fusion.relu_max_pool2d_grad,
    activations.relu,
    activations.relu_grad,
    activations.relu6,
    activations.relu6_grad,
    activations.leaky_relu,
    activations.leaky_relu_grad,
    containers.add,
    containers.add_relu,
    dropout.dropout,
    metrics.count_correct,
    loss_scale.keep,
    loss_scale.adapt,
    crop_flip.gather_normalize,
    crop_flip.gather_augment,
    warp.noise_planes,
    warp.warp,
    colour.jitter,
}
"""Ops that round nothing, or whose kernels round as they do, in the same order: the same bits in float32."""

# (N, H, W, C), crop: odd channels, lines that fill no vector, a batch of one
IMAGES = [((7, 6, 5, 3), 2), ((3, 8, 8, 1), 4), ((5, 4, 8, 4), 0), ((2, 9, 16, 3), 3), ((1, 3, 2, 5), 1)]


def _batches() -> Iterator[Sample]:
    for shape, crop in IMAGES:
        for count in (1, 6):
            label = f"{'x'.join(map(str, shape))},{count}"

            def plain(s, a=shape, count=count):
                images = s.rng.integers(0, 256, a).astype(np.uint8)
                return images, s.rng.integers(0, a[0], count), s(a[3], mean=0.5), np.abs(s(a[3])) + np.float32(1)

            def augmented(s, mode, plain=plain, count=count, crop=crop):
                images, index, *values = plain(s)
                drawn = s.rng.integers(0, 2, count) == 1, s.rng.integers(0, 2 * crop + 1, (count, 2)).astype(np.int32)
                return images, index, *drawn, crop, mode, *values

            def covered(s, mode, augmented=augmented, a=shape, count=count):
                row, column = (s.rng.integers(0, size, count) for size in a[1:3])
                return *augmented(s, mode), np.stack((row, column), axis=1), 2

            yield Sample(crop_flip.gather_normalize, label, plain)
            for mode in CROP_MODES:
                if mode == "zero" or crop < min(shape[1:3]):
                    make = lambda s, augmented=augmented, mode=mode: augmented(s, mode)  # noqa: E731
                    yield Sample(crop_flip.gather_augment, f"{label},{crop},{mode}", make)
                    make = lambda s, covered=covered, mode=mode: covered(s, mode)  # noqa: E731
                    yield Sample(crop_flip.gather_augment, f"{label},{crop},{mode},cutout", make)


# (N,H,W,C), B, alpha, sigma: planes that fill no block, or more than one; a Gaussian wider than the image, or a pixel
DISTORTED = [
    ((4, 7, 6, 3), 5, 34.0, 1.3),
    ((3, 5, 9, 1), 2, 2.0, 6.0),
    ((2, 1, 4, 4), 3, 8.0, 0.1),
    ((2, 28, 28, 1), 17, 34.0, 4.0),
    ((2, 64, 64, 3), 1, 5.0, 100.0),
]


def _distorted() -> Iterator[Sample]:
    """Displacements, places far outside, and other light."""
    for shape, count, alpha, sigma in DISTORTED:
        label = f"{'x'.join(map(str, shape))},{count}"
        planes = (count, 2, *shape[1:3])
        make = lambda s, a=planes, how=(alpha, sigma): (s.rng.uniform(-1, 1, a).astype(np.float32), *how)  # noqa: E731
        yield Sample(warp.smooth, f"{label},{alpha},{sigma}", make)

        def light(s, a=(count, *shape[1:])):
            factors = (s.rng.uniform(0, 2, a[0]).astype(np.float32) for _ in range(2))
            return s.rng.integers(0, 256, a).astype(np.uint8), *factors

        yield Sample(colour.jitter, label, light)
        for border in CROP_MODES:

            def far(s, a=shape, count=count, border=border, planes=planes):
                images, index = s.rng.integers(0, 256, a).astype(np.uint8), s.rng.integers(-a[0], a[0], count)
                field = s(*planes) * np.float32(10.0) ** s.rng.integers(-3, 4, planes).astype(np.float32)
                return images, index, s(count, 2, 2), field, border

            yield Sample(warp.warp, f"far,{label},{border}", far)


def _wide_and_long() -> Iterator[Sample]:
    """More columns than a tile has threads, more rows than a chunk, single rows; windows that overlap, in vectors."""
    for shape in [(3, 1000), (2, 3, 520), (20_000, 1), (9000, 24), (1, 3), (1, 2, 2, 8)]:
        label, c = "x".join(map(str, shape)), shape[-1]

        def values(s, a=shape, c=c):
            return s(*a, mean=1.0), s(*a), s(c), s(c), s(c), np.abs(s(c)) + np.float32(0.5)

        def train(s, values=values):
            x, _, scale, shift, *_ = values(s)
            return x, scale, shift, 1e-3

        def back(s, values=values):
            x, dy, *lines = values(s)
            return dy, x, *lines, 1e-3

        yield Sample(conv2d.bias_grad, label, lambda s, values=values: values(s)[:1])
        yield Sample(batchnorm.batchnorm_relu, label, train)
        yield Sample(batchnorm.batchnorm_relu_grad, label, back)
    overlapping = ((3, 3), (2, 2), ((1, 1), (1, 1)))
    for channels in (8, 1):
        dy, x = (2, 4, 5, channels), (2, 7, 9, channels)
        make = lambda s, dy=dy, x=x: (s(*dy), np.round(s(*x)), *overlapping)  # noqa: E731
        yield Sample(pooling.max_pool2d_grad, f"overlapping,{channels}", make)
        yield Sample(fusion.relu_max_pool2d_grad, f"overlapping,{channels}", make)
        large = ((3, 6), (2, 1), ((2, 1), (3, 4)))  # lines of more values than a thread loads at once
        make = lambda s, x=x, large=large: (s(*x), *large)  # noqa: E731
        yield Sample(pooling.max_pool2d, f"large,{channels}", make)
        yield Sample(fusion.relu_max_pool2d, f"large,{channels}", make)
        yield Sample(
            pooling.avg_pool2d_grad, f"overlapping,{channels}", lambda s, dy=dy, x=x: (s(*dy), x, *overlapping)
        )
    for c in (1, 64, 70_000):
        make = lambda s, c=c: (s(c), np.abs(s(c)), s(c), np.abs(s(c)), 0.1, 1.25)  # noqa: E731
        yield Sample(batchnorm.move_running, str(c), make)
    tiles = ((2, 2), (2, 2), ((0, 0), (0, 0)))
    yield Sample(pooling.max_pool2d_grad, "wide", lambda s: (s(1, 2, 70, 8), s(1, 4, 140, 8), *tiles))
    yield Sample(pooling.global_avg_pool2d, "tall", lambda s: (s(2, 150, 130, 3),))
    yield Sample(losses.softmax_cross_entropy, "one class", lambda s: (s(3, 1), np.zeros(3, np.int64), 0.1))
    yield Sample(metrics.count_correct, "ties", lambda s: (np.round(s(200, 40)), s.rng.integers(0, 40, 200)))


def _products() -> Iterator[Sample]:
    """Deep ones, whose sums are cut into pieces; tiles that are full, and ones that are not; rows of no vector."""
    for n, c, f in [(7, 1030, 10), (40, 520, 33), (600, 3, 9), (70, 64, 32)]:
        label = f"deep,{n},{c},{f}"
        yield Sample(linear.linear, label, lambda s, n=n, c=c, f=f: (s(n, c), s(f, c), s(f)))
        yield Sample(linear.linear_input_grad, label, lambda s, n=n, c=c, f=f: (s(n, c), s(c, f)))
        yield Sample(linear.linear_weight_grad, label, lambda s, n=n, c=c, f=f: (s(c, n), s(c, f)))


def _mixed_precision() -> Iterator[Sample]:
    """Gradients that are finite and ones that are not, in the first place, in the last, everywhere."""
    truth = lambda value: np.array(value)  # noqa: E731
    for n in (1, 5, 3000):
        for poison, places in ((None, slice(0, 0)), (np.inf, 0), (-np.inf, -1), (np.nan, slice(None))):

            def poisoned(s, n=n, poison=poison, places=places):
                g = s(n)
                g[places] = poison
                return g, np.array(poison is not None), np.array(2**13, np.float32)

            yield Sample(loss_scale.unscale, f"{n},{poison}", poisoned)
        for finite in (True, False):
            make = lambda s, n=n, finite=finite: (s(n), s(n), truth(finite))  # noqa: E731
            yield Sample(loss_scale.keep, f"{n},{finite}", make)
    for scale, good, finite in [(2**16, 0, True), (2**16, 2, True), (8, 1, False), (1, 5, False), (2**24, 2, True)]:
        make = lambda s, state=(scale, good, finite): (  # noqa: E731
            np.array(state[0], np.float32), np.array(state[1]), truth(state[2]), 3,
        )  # fmt: skip
        yield Sample(loss_scale.adapt, f"{scale},{good},{finite}", make)


# (F, C): wide, tall, square and single filters; sides that are multiples of eight and sides that are not
MATRICES = [(16, 24), (9, 4), (5, 13), (24, 8), (1, 3), (8, 8), (12, 108), (40, 27)]


def _matrices() -> Iterator[Sample]:
    """Muon's, looking ahead and not."""
    for shape in MATRICES:
        for nesterov in (True, False):
            numbers = (0.25, 0.6, nesterov, 3)
            make = lambda s, a=shape, numbers=numbers: (s(*a), 100 * s(*a), 30 * s(*a), *numbers)  # noqa: E731
            yield Sample(muon.muon_update, f"{'x'.join(map(str, shape))},nesterov={nesterov}", make)
    still = np.zeros((2, 3, 4), np.float32)
    yield Sample(muon.muon_update, "no gradient", lambda s: (s(3, 4), *still, 0.25, 0.6, True, 1))


SAMPLES = [
    *(sample for sample in SMALL + BIG if sample.op in TABLE),
    *_batches(),
    *_distorted(),
    *_products(),
    *_mixed_precision(),
    *_matrices(),
    *_wide_and_long(),
]

# (N,H,W,C), filters, kernel, padding: runs of eight pixels and ends of them, vectors of filters and single ones, more
# border than image, one line under a filter and many
FIRST_LAYERS = [
    ((2, 9, 11, 3), 24, (2, 2), ((0, 0), (0, 0))),
    ((3, 6, 8, 3), 64, (3, 3), ((1, 1), (1, 1))),
    ((2, 7, 9, 1), 6, (5, 5), ((2, 2), (2, 2))),
    ((2, 5, 20, 1), 8, (10, 3), ((6, 5), (0, 3))),
    ((1, 2, 2, 1), 16, (2, 2), ((1, 1), (1, 1))),
    ((2, 6, 17, 1), 32, (5, 5), ((2, 2), (2, 2))),
    ((2, 4, 5, 3), 5, (2, 3), ((0, 0), (0, 0))),
    ((2, 4, 5, 3), 3, (5, 2), ((3, 1), (1, 0))),
    ((2, 4, 5, 1), 3, (16, 2), ((6, 7), (0, 1))),
    ((1, 4, 5, 1), 3, (1, 3), ((0, 0), (1, 1))),
    ((1, 1, 1, 3), 8, (3, 3), ((4, 3), (3, 4))),
]


def _first_layers() -> Iterator[Sample]:
    for x_shape, f, kernel, padding in FIRST_LAYERS:
        label = f"{'x'.join(map(str, x_shape))},{f},{kernel},{padding}"
        for bias in (True, False):
            make = lambda s, a=x_shape, f=f, kernel=kernel, padding=padding, bias=bias: (  # noqa: E731
                s(*a), s(f, *kernel, a[3]), s(f) if bias else None, (1, 1), padding,
            )  # fmt: skip
            yield Sample(conv2d.conv2d, label if bias else f"no bias,{label}", make)


STEMS = list(_first_layers())
"""Convolutions that go to ``stem.cu``; their op is no row of the table, since it chooses among libraries too."""


def halved(op: Op, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The same arguments stored in float16, where the op's kernel has a choice."""
    return tuple(a.astype(np.float16) if i in STORED.get(op, ()) and is_float(a) else a for i, a in enumerate(args))


def result_types(op: Op, args: tuple[Any, ...], count: int) -> list[np.dtype]:
    """What its kernel's results have to be stored in."""
    if op is metrics.count_correct:
        return [np.dtype("int64")]
    if op in (warp.warp, colour.jitter):
        return [np.dtype("uint8")]
    single = np.dtype("float32")
    if op in OTHER_RESULTS:
        return [single, *map(np.dtype, OTHER_RESULTS[op])]
    if op not in STORED:
        return [single] * count
    stored = args[STORED[op][0]].dtype
    small = SMALL_RESULTS.get(op, tuple(range(1, count)))
    types = [single if i in small else stored for i in range(count)]
    return [np.dtype("float64") if i in WIDE_RESULTS.get(op, ()) else kind for i, kind in enumerate(types)]


def stored_between(op: Op, args: tuple[Any, ...]) -> bool:
    """Whether a kernel rounds what lies between two of its steps to float16, as two layers would, or always."""
    if op is muon.muon_update:
        return True
    normalised = op.__name__.startswith("batchnorm_relu_max_pool")
    return normalised and args[0].dtype == np.float16 and args[-3:] != ((2, 2), (2, 2), ((0, 0), (0, 0)))


TOLERANCES = {
    np.dtype("float16"): 1e-3, np.dtype("float32"): 2e-5, np.dtype("float64"): 2e-5, np.dtype("uint8"): 5e-3,
}  # fmt: skip


def close(got: np.ndarray, wanted: np.ndarray, tolerance: float = 0.0) -> None:
    """Near the op in float64: to 2e-5 of the largest value in float32, to 1e-3 (two roundings) in float16.

    A byte that is rounded in float32 may be the next one.
    """
    assert got.shape == wanted.shape
    tolerance = tolerance or TOLERANCES.get(got.dtype, 0)
    distance = np.abs(got.astype(np.float64) - wanted).max()
    assert distance <= tolerance * np.abs(wanted).max(), f"{distance} from {np.abs(wanted).max()}"
