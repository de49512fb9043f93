"""Arguments for every op that has a kernel: ordinary and odd shapes, and some that are worth a second thread."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from gpucnn import losses, metrics, optim
from gpucnn.data.augment import crop_flip, warp
from gpucnn.layers import activations, batchnorm, containers, conv2d, dropout, fusion, gelu, groupnorm, linear, pooling
from gpucnn.layers.windows import as_padding, as_pair, extent, output_size
from gpucnn.optim import averages

Op = Callable[..., Any]
Make = Callable[["Source"], tuple[Any, ...]]
Case = tuple[tuple[int, ...], int, Any, Any, Any]


class Sample(NamedTuple):
    """One call: the op, a label, and what makes its arguments."""

    op: Op
    label: str
    make: Make

    def __str__(self) -> str:
        return f"{self.op.__name__}-{self.label}"

    def arguments(self) -> tuple[Any, ...]:
        return self.make(Source(0))


class Source:
    """Normal numbers in float32, one array after the other."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def __call__(self, *shape: int, mean: float = 0.0) -> np.ndarray:
        return (self.rng.standard_normal(shape) + mean).astype(np.float32)


ASYMMETRIC = ((1, 2), (0, 3))

# (N, H, W, C), filters, kernel, stride, padding
CONVOLUTIONS: list[Case] = [
    ((2, 8, 8, 16), 16, 3, 1, 1),
    ((2, 7, 9, 48), 32, 3, 1, 0),
    ((1, 5, 6, 80), 16, 3, 1, 2),
    ((2, 8, 7, 16), 48, 3, 1, ASYMMETRIC),
    ((1, 4, 4, 32), 80, 3, 1, 1),
    ((2, 9, 9, 4), 7, 3, 3, 2),  # stride 3, padding 2
    ((2, 6, 7, 5), 4, 2, 2, 0),  # even kernels, a column that the stride leaves over
    ((1, 7, 6, 20), 33, 4, 1, "same"),
    ((2, 5, 4, 20), 65, 1, 1, 0),
    ((2, 5, 4, 3), 6, 1, 2, 0),
    ((2, 6, 6, 3), 5, 6, 1, 0),  # as large as the image
    ((1, 3, 4, 40), 70, (3, 4), 1, 0),
    ((1, 9, 4, 2), 3, (1, 3), (2, 1), (0, 1)),
    ((1, 5, 11, 24), 40, (5, 2), (1, 3), (2, 0)),
    ((1, 8, 8, 1), 4, 3, 3, 2),
    ((2, 3, 3, 1), 2, 5, 1, 2),  # larger than the image without its border
    ((2, 12, 12, 1), 6, 5, 1, 2),  # LeNet's
    ((2, 9, 8, 6), 16, 5, 1, 0),
    ((2, 7, 7, 6), 17, 3, 1, 1),
    ((2, 7, 7, 17), 33, 3, 2, 1),
    ((1, 6, 7, 3), 5, (2, 4), (3, 1), ASYMMETRIC),
    ((1, 6, 7, 18), 35, (2, 4), (3, 1), ASYMMETRIC),
]
# x, filters, kernel, stride, padding, dilation, groups
GROUPED: list[tuple[Any, ...]] = [
    ((2, 7, 6, 16), 16, 3, 1, 1, 1, 16),  # depthwise: whole vectors, and none, and one filled up
    ((1, 5, 9, 5), 5, 3, 1, ASYMMETRIC, 1, 5),
    ((2, 8, 7, 24), 24, 3, 2, 1, 1, 24),
    ((1, 2, 3, 33), 33, 3, 1, 1, 1, 33),
    ((1, 11, 4, 6), 6, (5, 2), (1, 3), (4, 0), (2, 1), 6),
    ((2, 9, 8, 17), 17, 5, 2, "same", 1, 17),
    ((2, 6, 7, 3), 6, 3, 1, 1, 2, 3),  # two filters a channel
    ((1, 7, 7, 1), 3, 2, 3, 0, 4, 1),  # dilation alone
    ((2, 9, 8, 20), 33, 3, 1, "same", (2, 3), 1),
    ((1, 8, 8, 16), 7, (1, 3), 1, ASYMMETRIC, (1, 2), 1),
    ((2, 8, 8, 32), 48, 3, 1, 1, 1, 2),  # groups, by tiles and directly
    ((2, 6, 5, 12), 8, 3, 2, 1, 1, 4),
    ((1, 9, 9, 10), 6, 2, 1, ASYMMETRIC, 2, 2),
]
MANY_PIXELS: list[Case] = [
    ((8, 16, 16, 16), 32, 3, 1, 1),
    ((8, 16, 16, 1), 6, 5, 1, 2),
    ((8, 15, 13, 24), 32, 3, 1, 1),  # three quarters of two vectors
    ((8, 8, 9, 13), 80, 3, 1, ASYMMETRIC),
    ((8, 12, 12, 6), 16, 5, 1, 0),
    ((8, 17, 15, 20), 33, 3, 2, 1),
]

POOLINGS: list[tuple[tuple[int, ...], Any, Any, Any]] = [
    ((2, 4, 6, 3), 2, 2, 0),
    ((2, 8, 8, 32), 2, 2, 0),
    ((1, 5, 7, 1), 2, 2, 0),  # a line and a column left over
    ((3, 14, 15, 6), 2, 2, 0),
    ((2, 9, 8, 17), 2, 2, 0),
    ((1, 2, 2, 1), 2, 2, 0),
    ((2, 7, 7, 2), 3, 2, 1),  # overlapping and padded
    ((2, 5, 4, 18), 3, 1, 1),
    ((1, 6, 6, 2), (3, 2), (2, 3), 0),
    ((2, 4, 4, 3), 4, 4, 0),
    ((2, 8, 6, 1), 2, 3, 0),  # gaps between windows
    ((1, 5, 6, 4), 3, 2, ((1, 0), (0, 1))),
]
MANY_WINDOWS = [((16, 20, 20, 16), 2, 2, 0), ((16, 21, 21, 6), 2, 2, 0), ((16, 17, 19, 6), 3, 2, 1)]

ROWS = [(5, 1), (7, 10), (64, 16), (3, 4, 5, 3), (2, 5, 3, 33), (9, 6, 7, 48)]
MANY_ROWS = [(5000, 10), (16, 16, 16, 32)]
# images (N,H,W,C), how many of them, largest shift
IMAGES = [
    ((3, 4, 4, 1), 1, 0),
    ((5, 9, 7, 1), 4, 3),
    ((6, 7, 5, 3), 5, 2),
    ((4, 8, 8, 3), 1, 4),
    ((2, 16, 16, 1), 6, 1),
    ((3, 6, 33, 3), 3, 4),
]
MANY_IMAGES = [((40, 32, 32, 3), 50, 4), ((40, 28, 28, 1), 60, 2)]
# (N, ..., C), groups: layer norm's rows, instance norm, one value a group but one, whole images
GROUPS = [((5, 7), 1), ((3, 4, 5, 6), 3), ((2, 3, 3, 4), 4), ((130, 33), 1), ((1, 9, 8, 16), 1), ((2, 25, 22, 4), 2)]
MANY_GROUPS = [((3000, 10), 1), ((9, 16, 16, 32), 8)]
PRODUCTS = [(1, 1, 1), (5, 7, 3), (16, 400, 120), (128, 256, 100), (130, 127, 129)]  # N, C, F
SIZES = [1, 15, 16, 33, 1000]
MANY = 50_001


def _convolutions(cases: list[Case]) -> Iterator[Sample]:
    for x_shape, f, kernel_size, step, border in cases:
        kernel, stride = as_pair(kernel_size, "kernel", 1), as_pair(step, "stride", 1)
        padding = border if border == ASYMMETRIC else as_padding(border, kernel, stride)
        w_shape = (f, *kernel, x_shape[3])
        y_shape = (x_shape[0], *output_size(x_shape, kernel, stride, padding), f)
        label = f"{'x'.join(map(str, x_shape))},{f},{kernel},{stride},{padding}"

        def forward(s, a=x_shape, b=w_shape, how=(stride, padding)):
            return s(*a), s(*b), s(b[0]), *how

        def no_bias(s, a=x_shape, b=w_shape, how=(stride, padding)):
            return s(*a), s(*b), None, *how

        def back(s, a=x_shape, b=w_shape, y=y_shape, how=(stride, padding)):
            return s(*y), s(*b), a, *how

        def weights(s, a=x_shape, b=w_shape, y=y_shape, how=(stride, padding)):
            return s(*y), s(*a), b, *how

        yield Sample(conv2d.conv2d, label, forward)
        yield Sample(conv2d.conv2d, f"no bias,{label}", no_bias)
        yield Sample(conv2d.conv2d_input_grad, label, back)
        yield Sample(conv2d.conv2d_weight_grad, label, weights)


def grouped(case: tuple[Any, ...]) -> tuple[Any, ...]:
    """Shapes of x, w and y, and what the ops take behind the arrays: stride, padding, dilation, groups."""
    x_shape, f, kernel_size, step, border, apart, groups = case
    kernel, stride = as_pair(kernel_size, "kernel", 1), as_pair(step, "stride", 1)
    dilation = as_pair(apart, "dilation", 1)
    reach = extent(kernel, dilation)
    padding = as_padding(border, reach, (1, 1) if border == "same" else stride)
    y_shape = (x_shape[0], *output_size(x_shape, reach, stride, padding), f)
    return x_shape, (f, *kernel, x_shape[3] // groups), y_shape, (stride, padding, dilation, groups)


def _grouped(cases: list[tuple[Any, ...]]) -> Iterator[Sample]:
    for case in cases:
        x, w, y, how = grouped(case)
        label = f"{'x'.join(map(str, x))},{','.join(map(str, case[1:]))}"

        def forward(s, x=x, w=w, how=how):
            return s(*x), s(*w), s(w[0]), *how

        yield Sample(conv2d.grouped_conv2d, label, forward)
        make = lambda s, x=x, w=w, how=how: (s(*x), s(*w), None, *how)  # noqa: E731
        yield Sample(conv2d.grouped_conv2d, f"no bias,{label}", make)
        make = lambda s, x=x, w=w, y=y, how=how: (s(*y), s(*w), x, *how)  # noqa: E731
        yield Sample(conv2d.grouped_conv2d_input_grad, label, make)
        make = lambda s, x=x, w=w, y=y, how=how: (s(*y), s(*x), w, *how)  # noqa: E731
        yield Sample(conv2d.grouped_conv2d_weight_grad, label, make)


def convolution_arrays(case: Case, dtype: str = "float32") -> tuple[Any, ...]:
    """x, w, b, dy of one dtype, stride, padding."""
    x_shape, f, kernel_size, step, border = case
    kernel, stride = as_pair(kernel_size, "kernel", 1), as_pair(step, "stride", 1)
    padding = border if border == ASYMMETRIC else as_padding(border, kernel, stride)
    y_shape = (x_shape[0], *output_size(x_shape, kernel, stride, padding), f)
    rng = np.random.default_rng(0)
    shapes = (x_shape, (f, *kernel, x_shape[3]), (f,), y_shape)
    return *(rng.standard_normal(shape).astype(dtype) for shape in shapes), stride, padding


def convolution_calls(x: Any, w: Any, b: Any, dy: Any, stride: Any, padding: Any) -> Iterator[tuple[Op, Any]]:
    """Each op of a convolution with its arguments, forward with and without a bias."""
    yield conv2d.conv2d, (x, w, b, stride, padding)
    yield conv2d.conv2d, (x, w, None, stride, padding)
    yield conv2d.conv2d_input_grad, (dy, w, x.shape, stride, padding)
    yield conv2d.conv2d_weight_grad, (dy, x, w.shape, stride, padding)


def _poolings(cases: list[Any]) -> Iterator[Sample]:
    for shape, kernel_size, step, border in cases:
        kernel, stride = as_pair(kernel_size, "kernel", 1), as_pair(step, "stride", 1)
        padding = border if isinstance(border, tuple) else as_padding(border, kernel, stride)
        n, h, w = shape[0], *output_size(shape, kernel, stride, padding)
        label = f"{'x'.join(map(str, shape))},{kernel},{stride},{padding}"
        how, dy = (kernel, stride, padding), (n, h, w, shape[3])

        def forward(s, a=shape, how=how):
            return s(*a), *how

        def ties(s, a=shape, how=how):
            return np.round(s(*a)), *how

        def back(s, a=shape, dy=dy, how=how):
            return s(*dy), s(*a), *how

        def back_of_ties(s, a=shape, dy=dy, how=how):
            return s(*dy), np.round(s(*a)), *how

        def average_back(s, a=shape, dy=dy, how=how):
            return s(*dy), a, *how

        for op in (pooling.max_pool2d, fusion.relu_max_pool2d):
            yield Sample(op, label, forward)
            yield Sample(op, f"ties,{label}", ties)
        for op in (pooling.max_pool2d_grad, fusion.relu_max_pool2d_grad):
            yield Sample(op, label, back)
            yield Sample(op, f"ties,{label}", back_of_ties)
        yield from _normalized_poolings(shape, dy, how, label)
        yield Sample(pooling.avg_pool2d, label, forward)
        yield Sample(pooling.avg_pool2d_grad, label, average_back)
        yield Sample(pooling.global_avg_pool2d, label, lambda s, a=shape: (s(*a),))
        yield Sample(pooling.global_avg_pool2d_grad, label, lambda s, a=shape: (s(a[0], a[3]), a))


def _normalized_poolings(shape: tuple[int, ...], dy: tuple[int, ...], how: Any, label: str) -> Iterator[Sample]:
    """Batch norm, ReLU and pooling in one."""
    c, eps = shape[3], 1e-5

    def train(s):
        return s(*shape, mean=3.0), s(c), s(c), eps, *how

    def evaluate(s):
        return s(*shape), s(c), s(c), s(c), np.abs(s(c)) + np.float32(0.5), eps, *how

    yield Sample(fusion.batchnorm_relu_max_pool2d, label, train)
    yield Sample(fusion.batchnorm_relu_max_pool2d_eval, label, evaluate)
    yield Sample(fusion.batchnorm_relu_max_pool2d_grad, label, lambda s: (s(*dy), *evaluate(s)))


def _rows(shapes: list[tuple[int, ...]]) -> Iterator[Sample]:
    """Batch norm and sums over rows."""
    eps = 1e-5
    for shape in shapes:
        label, c = "x".join(map(str, shape)), shape[-1]

        def lines(s, c=c):
            return s(c), s(c), s(c), np.abs(s(c)) + np.float32(0.5)  # scale, shift, mean, variance

        def train(s, a=shape, c=c):
            return s(*a, mean=3.0), s(c), s(c), eps

        def evaluate(s, a=shape, lines=lines):
            return s(*a), *lines(s), eps

        def back(s, a=shape, lines=lines):
            scale, _, mean, var = lines(s)
            return s(*a), s(*a), scale, mean, var, eps

        def back_relu(s, a=shape, lines=lines):
            return s(*a), s(*a), *lines(s), eps

        for op in (batchnorm.batchnorm, batchnorm.batchnorm_relu):
            yield Sample(op, label, train)
        for op in (batchnorm.batchnorm_eval, batchnorm.batchnorm_relu_eval):
            yield Sample(op, label, evaluate)
        yield Sample(batchnorm.batchnorm_grad, label, back)
        yield Sample(batchnorm.batchnorm_relu_grad, label, back_relu)

        def beyond(s, make, place):  # far enough for ReLU6 to end some
            args = list(make(s))
            args[place] = 6 * args[place]
            return tuple(args)

        for op, make, place in (
            (fusion.batchnorm_relu6, train, 1),
            (fusion.batchnorm_relu6_eval, evaluate, 1),
            (fusion.batchnorm_relu6_grad, back_relu, 2),
        ):
            yield Sample(op, label, lambda s, make=make, place=place, beyond=beyond: beyond(s, make, place))
        yield Sample(conv2d.bias_grad, label, lambda s, a=shape: (s(*a),))


def _groups(cases: list[tuple[tuple[int, ...], int]]) -> Iterator[Sample]:
    """Group norm, and layer norm: one group of a row."""
    for shape, groups in cases:
        label, c = f"{'x'.join(map(str, shape))},{groups}", shape[-1]

        def forward(s, a=shape, c=c, groups=groups):
            return s(*a, mean=3.0), s(c), s(c), groups, 1e-5

        def back(s, a=shape, c=c, groups=groups):
            statistics = s(a[0], groups).astype(np.float64), np.abs(s(a[0], groups)).astype(np.float64) + 0.5
            return s(*a), s(*a), s(c), *statistics, groups, 1e-5

        yield Sample(groupnorm.groupnorm, label, forward)
        yield Sample(groupnorm.groupnorm_grad, label, back)


def _elements(sizes: list[int]) -> Iterator[Sample]:
    """Activations, sums, dropout, optimizers."""
    for n in sizes:
        label = str(n)
        yield Sample(activations.relu, label, lambda s, n=n: (s(n),))
        yield Sample(activations.relu_grad, label, lambda s, n=n: (s(n), np.round(s(n))))
        yield Sample(activations.relu6, label, lambda s, n=n: (np.round(4 * s(n)),))
        yield Sample(activations.relu6_grad, label, lambda s, n=n: (s(n), np.round(4 * s(n))))
        yield Sample(activations.leaky_relu, label, lambda s, n=n: (s(n), 0.1))
        yield Sample(activations.leaky_relu_grad, label, lambda s, n=n: (s(n), np.round(s(n)), 0.1))
        yield Sample(activations.hardswish, label, lambda s, n=n: (3 * s(n),))
        yield Sample(activations.hardswish_grad, label, lambda s, n=n: (s(n), np.round(3 * s(n))))
        yield Sample(gelu.gelu, label, lambda s, n=n: (3 * s(n),))
        yield Sample(gelu.gelu_grad, label, lambda s, n=n: (s(n), 3 * s(n)))
        yield Sample(containers.add, label, lambda s, n=n: (s(n), s(n)))
        yield Sample(containers.add_relu, label, lambda s, n=n: (s(n), s(n)))
        for rate, seed in ((0.5, 3), (0.1, 2**63 - 1), (0.0, 0)):
            draw = (rate, seed, 7, 2**33)
            yield Sample(dropout.dropout, f"{label},{rate}", lambda s, n=n, draw=draw: (s(n), *draw))
        yield Sample(optim.sgd_update, label, lambda s, n=n: (s(n), s(n), 0.1, 0.01))
        yield Sample(averages.lerp, label, lambda s, n=n: (s(n), s(n), 0.3))
        for nesterov in (False, True):
            numbers = (0.1, 0.9, 0.01, nesterov)
            make = lambda s, n=n, numbers=numbers: (s(n), s(n), s(n), *numbers)  # noqa: E731
            yield Sample(optim.momentum_update, f"{label},nesterov={nesterov}", make)
        for decoupled, step in ((False, 1), (True, 100)):
            numbers = (0.001, 0.9, 0.999, 1e-8, 0.01, decoupled, step)
            make = lambda s, n=n, numbers=numbers: (s(n), s(n), s(n), np.abs(s(n)), *numbers)  # noqa: E731
            yield Sample(optim.adam_update, f"{label},decoupled={decoupled}", make)


def _products(sizes: list[tuple[int, int, int]]) -> Iterator[Sample]:
    """Fully connected layers, and the loss on what comes out."""
    for n, c, f in sizes:
        label = f"{n},{c},{f}"
        yield Sample(linear.linear, label, lambda s, n=n, c=c, f=f: (s(n, c), s(f, c), s(f)))
        yield Sample(linear.linear, f"no bias,{label}", lambda s, n=n, c=c, f=f: (s(n, c), s(f, c), None))
        yield Sample(linear.linear_input_grad, label, lambda s, n=n, c=c, f=f: (s(n, f), s(f, c)))
        yield Sample(linear.linear_weight_grad, label, lambda s, n=n, c=c, f=f: (s(n, f), s(n, c)))
        scores = lambda s, n=n, f=f: (10 * s(n, f), s.rng.integers(0, f, n))  # noqa: E731
        for smoothing in (0.0, 0.1):
            make = lambda s, scores=scores, smoothing=smoothing: (*scores(s), smoothing)  # noqa: E731
            yield Sample(losses.softmax_cross_entropy, f"{n},{f},{smoothing}", make)
        yield Sample(metrics.count_correct, f"{n},{f}", scores)


def _images(cases: list[tuple[tuple[int, ...], int, int]]) -> Iterator[Sample]:
    """Batches of bytes."""
    for shape, batch, crop in cases:
        label = f"{'x'.join(map(str, shape))},{batch},{crop}"

        def plain(s, shape=shape, batch=batch):
            images = s.rng.integers(0, 256, shape, dtype=np.uint8)
            return images, s.rng.integers(0, shape[0], batch), s(shape[3]), np.abs(s(shape[3])) + np.float32(0.5)

        yield Sample(crop_flip.gather_normalize, label, plain)
        for mode in ("zero", "reflect"):

            def moved(s, plain=plain, batch=batch, crop=crop, mode=mode):
                images, index, mean, inv_std = plain(s)
                flip, shift = s.rng.integers(0, 2, batch) == 1, s.rng.integers(0, 2 * crop + 1, (batch, 2), np.int32)
                return images, index, flip, shift, crop, mode, mean, inv_std

            def covered(s, shape=shape, moved=moved, batch=batch):
                row, column = (s.rng.integers(0, size, batch, np.int32) for size in shape[1:3])
                return *moved(s), np.stack((row, column), axis=1), 3

            yield Sample(crop_flip.gather_augment, f"{label},{mode}", moved)
            yield Sample(crop_flip.gather_augment, f"{label},{mode},cutout", covered)


def _warped(cases: list[tuple[tuple[int, ...], int]]) -> Iterator[Sample]:
    """Batches of bytes, turned and bent."""
    for shape, batch in cases:
        label = f"{'x'.join(map(str, shape))},{batch}"

        def noise(s, shape=shape, batch=batch):
            return s.rng.integers(0, 2**32, batch), shape[1:], int(s.rng.integers(2**62)), 77, 5

        yield Sample(warp.noise_planes, label, noise)
        for border in ("zero", "reflect"):
            for bent in (True, False):

                def moved(s, shape=shape, batch=batch, border=border, bent=bent):
                    images = s.rng.integers(0, 256, shape, dtype=np.uint8)
                    matrix = np.eye(2, dtype=np.float32) + np.float32(0.3) * s(batch, 2, 2)
                    field = 2 * s(batch, 2, *shape[1:3]) if bent else None
                    return images, s.rng.integers(0, shape[0], batch), matrix, field, border

                yield Sample(warp.warp, f"{label},{border},{'bent' if bent else 'straight'}", moved)


SMALL = [
    *_convolutions(CONVOLUTIONS),
    *_grouped(GROUPED),
    *_poolings(POOLINGS),
    *_rows(ROWS),
    *_groups(GROUPS),
    *_elements(SIZES),
    *_products(PRODUCTS),
    *_images(IMAGES),
    *_warped([((4, 7, 6, 3), 5), ((3, 5, 9, 1), 2), ((2, 1, 4, 2), 3), ((2, 9, 9, 1), 1)]),
]
BIG = [
    *_convolutions(MANY_PIXELS),
    *_grouped([((8, 16, 17, 48), 48, 3, 1, 1, 1, 48), ((8, 17, 15, 20), 20, 3, 2, 1, 1, 20)]),
    *_poolings(MANY_WINDOWS),
    *_rows(MANY_ROWS),
    *_groups(MANY_GROUPS),
    *_elements([MANY]),
    *_products([(200, 300, 100)]),
    *_images(MANY_IMAGES),
    *_warped([((40, 28, 28, 1), 33), ((20, 32, 31, 3), 16)]),
]


def one_of_each() -> list[Sample]:
    """For every op its third sample: neither the smallest nor the largest."""
    by_op: dict[Op, list[Sample]] = {}
    for sample in SMALL:
        by_op.setdefault(sample.op, []).append(sample)
    return [samples[2] for samples in by_op.values()]
