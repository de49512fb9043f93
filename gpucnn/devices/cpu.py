"""The CPU: NumPy, and the table of what runs faster than its plain array code."""

from collections.abc import Callable, Mapping
from functools import wraps
from importlib.util import find_spec
from math import prod
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from gpucnn import losses, metrics
from gpucnn.backend import Backend
from gpucnn.data.augment import crop_flip, warp
from gpucnn.devices.cores import usable_cores
from gpucnn.layers import activations, batchnorm, containers, conv2d, dropout, fusion, gelu, linear, pooling
from gpucnn.optim import averages, optimizer
from gpucnn.types import Array, Shape

Op = Callable[..., Any]


def table() -> dict[Op, Op]:
    """Op -> kernel: every fast path of the CPU."""
    from gpucnn.kernels import cpu as fast

    return {
        # convolution: Winograd or direct, by ``plan``
        conv2d.conv2d: fast.conv2d.conv2d,
        conv2d.conv2d_input_grad: fast.conv2d.conv2d_input_grad,
        conv2d.conv2d_weight_grad: fast.conv2d.conv2d_weight_grad,
        conv2d.bias_grad: fast.linear.bias_grad,
        # fully connected
        linear.linear: fast.linear.linear,
        linear.linear_input_grad: fast.linear.linear_input_grad,
        linear.linear_weight_grad: fast.linear.linear_weight_grad,
        # batch norm, alone and with ReLU
        batchnorm.batchnorm: fast.batchnorm.batchnorm,
        batchnorm.batchnorm_eval: fast.batchnorm.batchnorm_eval,
        batchnorm.batchnorm_grad: fast.batchnorm.batchnorm_grad,
        batchnorm.batchnorm_relu: fast.batchnorm.batchnorm_relu,
        batchnorm.batchnorm_relu_eval: fast.batchnorm.batchnorm_relu_eval,
        batchnorm.batchnorm_relu_grad: fast.batchnorm.batchnorm_relu_grad,
        # activations and sums
        activations.relu: fast.elementwise.relu,
        activations.relu_grad: fast.elementwise.relu_grad,
        activations.leaky_relu: fast.elementwise.leaky_relu,
        activations.leaky_relu_grad: fast.elementwise.leaky_relu_grad,
        gelu.gelu: fast.gelu.gelu,
        gelu.gelu_grad: fast.gelu.gelu_grad,
        containers.add: fast.elementwise.add,
        containers.add_relu: fast.elementwise.add_relu,
        dropout.dropout: fast.dropout.dropout,
        # pooling
        pooling.max_pool2d: fast.pooling.max_pool2d,
        pooling.max_pool2d_grad: fast.pooling.max_pool2d_grad,
        pooling.avg_pool2d: fast.pooling.avg_pool2d,
        pooling.avg_pool2d_grad: fast.pooling.avg_pool2d_grad,
        pooling.global_avg_pool2d: fast.pooling.global_avg_pool2d,
        pooling.global_avg_pool2d_grad: fast.pooling.global_avg_pool2d_grad,
        # neighbours in one pass
        fusion.relu_max_pool2d: fast.pooling.relu_max_pool2d,
        fusion.relu_max_pool2d_grad: fast.pooling.relu_max_pool2d_grad,
        fusion.batchnorm_relu_max_pool2d: fast.fused.batchnorm_relu_max_pool2d,
        fusion.batchnorm_relu_max_pool2d_eval: fast.fused.batchnorm_relu_max_pool2d_eval,
        fusion.batchnorm_relu_max_pool2d_grad: fast.fused.batchnorm_relu_max_pool2d_grad,
        # loss, metrics, optimisers
        losses.softmax_cross_entropy: fast.loss.softmax_cross_entropy,
        metrics.count_correct: fast.loss.count_correct,
        optimizer.sgd_update: fast.optim.sgd_update,
        optimizer.momentum_update: fast.optim.momentum_update,
        optimizer.adam_update: fast.optim.adam_update,
        averages.lerp: fast.optim.lerp,
        # batches of pictures
        crop_flip.gather_normalize: fast.augment.gather_normalize,
        crop_flip.gather_augment: fast.augment.gather_augment,
        warp.noise_planes: fast.warp.noise_planes,
        warp.warp: fast.warp.warp,
    }


def alike(first: Array, *others: Array) -> bool:
    """Arrays of one shape."""
    return all(other.shape == first.shape for other in others)


def lines(x: Array, *values: Array) -> bool:
    """One value per channel of x (..., C)."""
    return all(value.shape == x.shape[-1:] for value in values)


def weighs(x: Array, w: Array, *b: Array) -> bool:
    """Weights (F, ..., C) and perhaps a bias (F,) for x (N, ..., C)."""
    return x.ndim == w.ndim and x.shape[-1] == w.shape[-1] and all(bias.shape == w.shape[:1] for bias in b)


def pools(dy: Array, x: Array) -> bool:
    """The gradient (N,H',W',C) of windows of x (N,H,W,C)."""
    return bool(dy.ndim == x.ndim and dy.shape[::3] == x.shape[::3])


def classes(scores: Array, labels: Array) -> bool:
    """The classes of the rows of scores (N,K), integers (N,)."""
    return labels.dtype.kind in "iu" and labels.shape == scores.shape[:1]


def within(numbers: Array, shape: Shape, bound: int) -> bool:
    """Integers of this shape, at least one of them, and all in 0 .. bound - 1."""
    counts = numbers.dtype.kind in "iu" and numbers.shape == shape and numbers.size > 0
    return bool(counts and numbers.min() >= 0 and numbers.max() < bound)


def gathers(images: Array, index: Array, mean: Array, inv_std: Array) -> bool:
    """Grey or coloured images in bytes, numbers of some that exist, float32 statistics of each channel."""
    return (
        all(isinstance(array, np.ndarray) for array in (images, index, mean, inv_std))
        and images.dtype == np.uint8
        and images.ndim == 4
        and images.shape[3] in (1, 3)
        and prod(images.shape[1:]) >= 16  # a vector
        and within(index, (index.size,), len(images))
        and all(values.dtype == np.float32 and values.shape == images.shape[3:] for values in (mean, inv_std))
    )


def augments(
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
    """What ``gathers``, a bool for each image, and a corner inside the padded one; one reflection at most.

    Where a square is covered, its centre is a pixel of the image.
    """
    return (
        gathers(images, index, mean, inv_std)
        and all(isinstance(array, np.ndarray) for array in (flip, shift))
        and flip.dtype == bool
        and flip.shape == index.shape
        and (not crop or within(shift, (index.size, 2), 2 * crop + 1))
        and (crop_mode == "zero" or crop < min(images.shape[1:3]))
        and (not cutout or (isinstance(centre, np.ndarray) and within(centre, (index.size, 2), max(images.shape[1:3]))))
    )


def draws_noise(index: Array, shape: Shape, seed: int, stream: int, step: int) -> bool:
    """Numbers of some images, and a step that leaves the upper half of the counter to them."""
    return isinstance(index, np.ndarray) and within(index, (index.size,), 2**32) and 0 <= step < 2**32


def warps(images: Array, index: Array, matrix: Array, field: Array | None, border: str) -> bool:
    """Bytes, numbers of some images that exist, a float32 matrix for each, and displacements of each pixel."""
    if not (isinstance(images, np.ndarray) and images.dtype == np.uint8 and images.ndim == 4 and images.size):
        return False
    shapes = {"matrix": (len(index), 2, 2), "field": (len(index), 2, *images.shape[1:3])}
    return within(index, (index.size,), len(images)) and all(
        isinstance(part, np.ndarray) and part.dtype == np.float32 and part.shape == shapes[name]
        for name, part in (("matrix", matrix), ("field", field))
        if name == "matrix" or part is not None
    )


PICTURES: dict[Op, Callable[..., bool]] = {
    crop_flip.gather_normalize: gathers,
    crop_flip.gather_augment: augments,
    warp.noise_planes: draws_noise,
    warp.warp: warps,
}
"""Op -> whether its kernel covers these arguments, for ops on more than float32."""

FITS: dict[Op, Callable[..., bool]] = {
    conv2d.conv2d: weighs,
    conv2d.conv2d_input_grad: lambda dy, w: dy.shape[-1] == w.shape[0],
    conv2d.conv2d_weight_grad: lambda dy, x: dy.shape[0] == x.shape[0],
    linear.linear: weighs,
    linear.linear_input_grad: lambda dy, w: dy.shape[-1] == w.shape[0],
    linear.linear_weight_grad: lambda dy, x: dy.shape[0] == x.shape[0],
    batchnorm.batchnorm: lines,
    batchnorm.batchnorm_relu: lines,
    batchnorm.batchnorm_eval: lines,
    batchnorm.batchnorm_relu_eval: lines,
    batchnorm.batchnorm_grad: lambda dy, x, *values: alike(dy, x) and lines(x, *values),
    batchnorm.batchnorm_relu_grad: lambda dy, x, *values: alike(dy, x) and lines(x, *values),
    activations.relu_grad: alike,
    activations.leaky_relu_grad: alike,
    gelu.gelu_grad: alike,
    containers.add: alike,
    containers.add_relu: alike,
    pooling.max_pool2d_grad: pools,
    fusion.relu_max_pool2d_grad: pools,
    fusion.batchnorm_relu_max_pool2d: lines,
    fusion.batchnorm_relu_max_pool2d_eval: lines,
    fusion.batchnorm_relu_max_pool2d_grad: lambda dy, x, *values: pools(dy, x) and lines(x, *values),
    losses.softmax_cross_entropy: classes,
    metrics.count_correct: classes,
    optimizer.sgd_update: alike,
    optimizer.momentum_update: alike,
    optimizer.adam_update: alike,
    averages.lerp: alike,
}
"""Op -> whether its arrays fit together: kernels read by address and must not be given anything else."""


def supports(op: Op, *args: Any, **named: Any) -> bool:
    """Whether op's kernel covers these arguments: float32 arrays that fit together, with something in them.

    Anything else runs as the op is written: float64 above all, and shapes that it broadcasts or refuses.
    """
    if covers := PICTURES.get(op):
        return covers(*args, **named)
    arrays = [arg for arg in (*args, *named.values()) if isinstance(arg, np.ndarray)]
    fit = FITS.get(op)
    if fit and not fit(*arrays):
        return False
    return all(a.size and a.dtype == np.float32 for a in (arrays[:1] if fit is classes else arrays))


def guarded(op: Op, kernel: Op) -> Op:
    """The kernel where it ``supports`` its arguments, else the op."""

    @wraps(kernel)
    def choose(*args: Any, **kwargs: Any) -> Any:
        return (kernel if supports(op, *args, **kwargs) else op)(*args, **kwargs)

    return choose


def problem() -> str | None:
    """Why the kernels cannot be used; None where they can."""
    if find_spec("numba") is None:
        return "Numba is not installed: pip install numba; every op runs on NumPy as written"
    from gpucnn.kernels.cpu.engine import blas

    if not blas.ADDRESS:
        return "NumPy was built without OpenBLAS: pip install numpy from a wheel; every op runs as written"
    return None


def cpu_backend() -> Backend:
    """NumPy with kernels, where Numba is installed."""
    kernels: Mapping[Op, Op] = {}
    if problem() is None:
        from gpucnn.kernels.cpu.engine.compile import compile_ahead, notice

        if notice() and usable_cores() > 1:
            compile_ahead()
        kernels = {op: guarded(op, kernel) for op, kernel in table().items()}
    return Backend("cpu", np, kernels, half=False)


def set_threads(threads: int) -> None:
    """How many threads the CPU's ops may use in this process."""
    if problem() is None:
        from gpucnn.kernels.cpu.engine.threads import TEAM

        TEAM.resize(threads)
    else:
        threadpool_limits(threads)
