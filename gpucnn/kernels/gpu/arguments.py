"""What the GPU's kernels cover: for each op of ``gpu.table``, whether its kernel takes given arguments."""

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from gpucnn import losses, metrics
from gpucnn.data.augment import colour, crop_flip, warp
from gpucnn.devices.cpu import alike, classes, lines
from gpucnn.layers import activations, batchnorm, containers, conv2d, dropout, fusion, gelu, linear, pooling
from gpucnn.layers.windows import output_size
from gpucnn.optim import averages, loss_scale, muon, optimizer
from gpucnn.types import Array, Padding, Pair, Shape

Op = Callable[..., Any]


def is_array(value: Any) -> bool:
    """CuPy's ndarray, or NumPy's where tests run the kernels on the CPU."""
    return type(value).__name__ == "ndarray"


def host(*values: Any) -> bool:
    """Numbers that Python knows: reading one that lies on the device would wait for it."""
    return not any(map(is_array, values))


def number(value: Any, kind: type[np.generic]) -> bool:
    """A number, or a 0-d array of this dtype on the device, which the kernel itself reads."""
    return not is_array(value) or (value.shape == () and value.dtype == kind)


def storage(*arrays: Array) -> bool:
    """Float32 or all float16, with something in them, and nothing that a 32-bit place in an example cannot reach."""
    kind = arrays[0].dtype
    return kind in (np.float32, np.float16) and all(
        a.dtype == kind and a.ndim and a.size and prod(a.shape[1:]) < 2**31 for a in arrays
    )


def channels(x: Array, *values: Array) -> bool:
    """Float32 values, one per channel of x, whatever x is stored in: statistics and parameters."""
    return lines(x, *values) and all(value.dtype == np.float32 for value in values)


def pools(x: Array, kernel: Pair, stride: Pair, padding: Padding) -> bool:
    """Images that the windows fit into."""
    return storage(x) and x.ndim == 4 and fits(x.shape, kernel, padding)


def fits(shape: Shape, kernel: Pair, padding: Padding) -> bool:
    """A window is no larger than the image with its border."""
    return all(k <= size + sum(border) for k, size, border in zip(kernel, shape[1:3], padding, strict=True))


def pools_back(dy: Array, x_shape: Shape, kernel: Pair, stride: Pair, padding: Padding) -> bool:
    """A gradient of what the windows over such images give."""
    if not (storage(dy) and len(x_shape) == 4 and prod(x_shape[1:]) < 2**31 and fits(x_shape, kernel, padding)):
        return False
    return bool(dy.shape == (x_shape[0], *output_size(x_shape, kernel, stride, padding), x_shape[3]))


def scored(logits: Array, labels: Array, smoothing: float = 0.0) -> bool:
    """Scores (N,K) and integers (N,)."""
    return storage(logits) and logits.ndim == 2 and classes(logits, labels) and host(smoothing)


def bytes_of(images: Array) -> bool:
    """Pixels (N,H,W,C)."""
    return bool(images.dtype == np.uint8 and images.ndim == 4 and images.size and prod(images.shape[1:]) < 2**31)


def some(index: Array) -> bool:
    """Integers (B,), at least one."""
    return bool(index.dtype.kind in "iu" and index.ndim == 1 and index.size)


def single(*arrays: tuple[Array, Shape]) -> bool:
    """Float32 arrays of these shapes."""
    return all(array.dtype == np.float32 and array.shape == shape for array, shape in arrays)


def gathers(images: Array, index: Array, *values: Array) -> bool:
    """Pixels (N,H,W,C), integers (B,), float32 per channel."""
    return bytes_of(images) and some(index) and channels(images, *values)


def shifts(images: Array, index: Array, flip: Array, shift: Array, crop: int, crop_mode: str) -> bool:
    """What was drawn for each image, and a border that the mode can fill."""
    drawn = flip.dtype == np.bool_ and flip.shape == index.shape
    moved = shift.dtype.kind in "iu" and shift.shape == (len(index), 2)
    border = crop_mode == "zero" or (crop_mode == "reflect" and crop < min(images.shape[1:3]))
    return bool(drawn and moved and border)


def covers_squares(index: Array, centre: Array | None = None, cutout: int = 0) -> bool:
    """A pixel for each image, where a square is covered."""
    return not cutout or (centre is not None and centre.dtype.kind in "iu" and centre.shape == (len(index), 2))


def draws_noise(index: Array, shape: Shape, seed: int, stream: int, step: int) -> bool:
    """Numbers of some images, and a plane that a 32-bit place reaches."""
    return some(index) and host(*shape, seed, stream, step) and 0 < prod(shape[:2]) < 2**30


def smooths(noise: Array, alpha: float, sigma: float) -> bool:
    """Float32 planes and weights that both fit into shared memory."""
    from gpucnn.kernels.gpu import warp as kernel

    planes = noise.dtype == np.float32 and noise.ndim == 4 and noise.size and prod(noise.shape[2:]) <= kernel.PLANE
    few = host(alpha, sigma) and min(kernel.reach_of(sigma), max(noise.shape[2:]) - 1) < kernel.DISTANCES
    return bool(planes and few)


def warps(images: Array, index: Array, matrix: Array, field: Array | None, border: str) -> bool:
    """Bytes, numbers of some images, a float32 matrix for each, and displacements of each pixel."""
    if not (bytes_of(images) and some(index) and single((matrix, (len(index), 2, 2)))):
        return False
    return field is None or single((field, (len(index), 2, *images.shape[1:3])))


def products(layout: Callable[..., tuple[int, int, int]], a: Array, b: Array, *bias: Array | None) -> bool:
    """Two matrices that fit together, and a bias of theirs, few enough multiply-adds for a kernel of our own."""
    from gpucnn.kernels.gpu.linear import plan

    arrays = [array for array in (a, b, *bias) if array is not None]
    if not (storage(*arrays) and a.ndim == b.ndim == 2):
        return False
    m, n, k = layout(a, b)
    fit = a.size == m * k and b.size == n * k and all(array.shape == (n,) for array in arrays[2:])
    return bool(fit and plan(m, n, k) == "gemm.cu")


def flags(now: Array, before: Array, finite: Array) -> bool:
    """Float32 buffers of one length, and a truth on the device."""
    return flat(now, before) and finite.shape == () and finite.dtype == np.bool_


def flat(w: Array, g: Array, *state: Array) -> bool:
    """Float32 buffers of one length; those that change are changed where they lie."""
    in_place = all(a.flags.c_contiguous for a in (w, *state))
    return bool(storage(w, g, *state) and w.dtype == np.float32 and alike(w, g, *state) and in_place)


def orthogonalises(w: Array, g: Array, velocity: Array, lr: Any, *numbers: Any) -> bool:
    """Float32 matrices of one shape, whose products in float16 cuDNN computes."""
    from gpucnn.kernels.gpu import muon as kernel

    matrices = flat(w, g, velocity) and w.ndim == 2 and w.size < 2**30
    return bool(matrices and number(lr, np.float64) and host(*numbers) and not kernel.refusal(w.shape))


COVERS: dict[Op, Callable[..., bool]] = {
    linear.linear: lambda x, w, b: products(lambda x, w: (len(x), len(w), x.shape[1]), x, w, b),
    linear.linear_input_grad: lambda dy, w: products(lambda dy, w: (len(dy), w.shape[1], len(w)), dy, w),
    linear.linear_weight_grad: lambda dy, x: products(lambda dy, x: (dy.shape[1], x.shape[1], len(x)), dy, x),
    conv2d.bias_grad: storage,
    batchnorm.batchnorm: lambda x, scale, shift, eps: storage(x) and channels(x, scale, shift) and host(eps),
    batchnorm.batchnorm_relu: lambda x, scale, shift, eps: storage(x) and channels(x, scale, shift) and host(eps),
    batchnorm.batchnorm_eval: lambda x, *values: storage(x) and channels(x, *values[:-1]) and host(values[-1]),
    batchnorm.batchnorm_relu_eval: lambda x, *values: storage(x) and channels(x, *values[:-1]) and host(values[-1]),
    batchnorm.batchnorm_grad: lambda dy, x, *values: (
        storage(dy, x) and alike(dy, x) and channels(x, *values[:-1]) and host(values[-1])
    ),
    batchnorm.batchnorm_relu_grad: lambda dy, x, *values: (
        storage(dy, x) and alike(dy, x) and channels(x, *values[:-1]) and host(values[-1])
    ),
    batchnorm.move_running: lambda mean, var, *batch: (
        flat(mean, *batch[:2]) and flat(var, *batch[:2]) and alike(mean, var) and host(*batch[2:])
    ),
    activations.relu: storage,
    activations.relu_grad: lambda dy, x: storage(dy, x) and alike(dy, x),
    activations.leaky_relu: lambda x, slope: storage(x) and host(slope),
    activations.leaky_relu_grad: lambda dy, x, slope: storage(dy, x) and alike(dy, x) and host(slope),
    gelu.gelu: storage,
    gelu.gelu_grad: lambda dy, x: storage(dy, x) and alike(dy, x),
    containers.add: lambda a, b: storage(a, b) and alike(a, b),
    containers.add_relu: lambda a, b: storage(a, b) and alike(a, b),
    dropout.dropout: lambda x, rate, seed, stream, step: (
        storage(x) and host(rate, seed, stream) and number(step, np.int64) and x.size < 2**34
    ),
    pooling.max_pool2d: pools,
    pooling.avg_pool2d: pools,
    pooling.max_pool2d_grad: lambda dy, x, *how: storage(dy, x) and pools_back(dy, x.shape, *how),
    pooling.avg_pool2d_grad: pools_back,
    pooling.global_avg_pool2d: lambda x: storage(x) and x.ndim == 4,
    pooling.global_avg_pool2d_grad: lambda dy, x_shape: (
        storage(dy) and dy.shape == (x_shape[0], x_shape[3]) and 0 < prod(x_shape[1:]) < 2**31
    ),
    fusion.relu_max_pool2d: pools,
    fusion.relu_max_pool2d_grad: lambda dy, x, *how: storage(dy, x) and pools_back(dy, x.shape, *how),
    fusion.batchnorm_relu_max_pool2d: lambda x, scale, shift, eps, *how: (
        pools(x, *how) and channels(x, scale, shift) and host(eps)
    ),
    fusion.batchnorm_relu_max_pool2d_eval: lambda x, scale, shift, mean, var, eps, *how: (
        pools(x, *how) and channels(x, scale, shift, mean, var) and host(eps)
    ),
    fusion.batchnorm_relu_max_pool2d_grad: lambda dy, x, scale, shift, mean, var, eps, *how: (
        storage(dy, x) and pools_back(dy, x.shape, *how) and channels(x, scale, shift, mean, var) and host(eps)
    ),
    losses.softmax_cross_entropy: scored,
    metrics.count_correct: scored,
    optimizer.sgd_update: lambda w, g, lr, *numbers: flat(w, g) and number(lr, np.float64) and host(*numbers),
    optimizer.momentum_update: lambda w, g, v, lr, *numbers: (
        flat(w, g, v) and number(lr, np.float64) and host(*numbers)
    ),
    optimizer.adam_update: lambda w, g, m, v, lr, *numbers: (
        flat(w, g, m, v) and number(lr, np.float64) and host(*numbers[:-1]) and number(numbers[-1], np.int64)
    ),
    muon.muon_update: orthogonalises,
    averages.lerp: lambda a, w, share: flat(a, w) and number(share, np.float64),
    loss_scale.unscale: lambda g, finite, scale: flags(g, g, finite) and number(scale, np.float32) and is_array(scale),
    loss_scale.keep: flags,
    loss_scale.adapt: lambda scale, good, finite, interval: (
        (scale.dtype, good.dtype, finite.dtype) == (np.float32, np.int64, np.bool_)
        and scale.shape == good.shape == finite.shape == ()
        and host(interval)
    ),
    crop_flip.gather_normalize: gathers,
    crop_flip.gather_augment: lambda images, index, flip, shift, crop, crop_mode, mean, inv_std, *square: (
        gathers(images, index, mean, inv_std)
        and shifts(images, index, flip, shift, crop, crop_mode)
        and covers_squares(index, *square)
    ),
    warp.noise_planes: draws_noise,
    warp.smooth: smooths,
    warp.warp: warps,
    colour.jitter: lambda pixels, *factors: (
        bytes_of(pixels) and single(*((factor, pixels.shape[:1]) for factor in factors))
    ),
}
"""Op -> whether its kernel takes these arguments: kernels read by address and must not be given anything else."""


def supports(op: Op, *args: Any) -> bool:
    """Whether op's kernel covers these arguments: float32 or float16 arrays that fit together, of any strides.

    Anything else runs on CuPy as the op is written: float64 above all, mixtures, and shapes that it broadcasts or
    refuses.
    """
    return COVERS[op](*args)
