"""The CPU: NumPy, and the table of what runs faster than the reference implementation."""

from collections.abc import Mapping
from importlib.util import find_spec

import numpy as np
from threadpoolctl import threadpool_limits

from gpucnn import losses, metrics
from gpucnn.backend import Backend, Kernel, Op, guarded, rows
from gpucnn.data.augment import crop_flip, warp
from gpucnn.devices.cores import usable_cores
from gpucnn.layers import activations, batchnorm, containers, conv2d, dropout, fusion, gelu, linear, pooling
from gpucnn.optim import averages, optimizer


def table() -> dict[Op, Kernel]:
    """Op -> kernel: every fast path of the CPU.  What a kernel accepts is said beside it."""
    from gpucnn.kernels.cpu import augment, elementwise, fused, loss, optim
    from gpucnn.kernels.cpu import batchnorm as norm
    from gpucnn.kernels.cpu import dropout as drop
    from gpucnn.kernels.cpu import gelu as gelus
    from gpucnn.kernels.cpu import linear as products
    from gpucnn.kernels.cpu import pooling as pools
    from gpucnn.kernels.cpu import warp as warps
    from gpucnn.kernels.cpu.conv import conv2d as conv

    return {
        # convolution: Winograd or direct, by ``plan``
        conv2d.conv2d: Kernel(conv.conv2d, conv.accepts_forward, conv.plan_forward),
        conv2d.conv2d_input_grad: Kernel(conv.conv2d_input_grad, conv.accepts_input_grad, conv.plan_input_grad),
        conv2d.conv2d_weight_grad: Kernel(conv.conv2d_weight_grad, conv.accepts_weight_grad, conv.plan_weight_grad),
        **rows(products, products.accepts_bias_grad, conv2d.bias_grad),
        # fully connected
        **rows(products, products.accepts_forward, linear.linear),
        **rows(products, products.accepts_input_grad, linear.linear_input_grad),
        **rows(products, products.accepts_weight_grad, linear.linear_weight_grad),
        # batch norm, alone and with ReLU
        **rows(norm, norm.accepts_forward, batchnorm.batchnorm, batchnorm.batchnorm_eval),
        **rows(norm, norm.accepts_forward, batchnorm.batchnorm_relu, batchnorm.batchnorm_relu_eval),
        **rows(norm, norm.accepts_grad, batchnorm.batchnorm_grad, batchnorm.batchnorm_relu_grad),
        # activations and sums
        **rows(elementwise, elementwise.accepts_one, activations.relu, activations.leaky_relu),
        **rows(elementwise, elementwise.accepts_two, activations.relu_grad, activations.leaky_relu_grad),
        **rows(gelus, gelus.accepts, gelu.gelu),
        **rows(gelus, gelus.accepts_grad, gelu.gelu_grad),
        **rows(elementwise, elementwise.accepts_two, containers.add, containers.add_relu),
        **rows(drop, drop.accepts, dropout.dropout),
        # pooling
        **rows(pools, pools.accepts, pooling.max_pool2d, pooling.avg_pool2d, pooling.avg_pool2d_grad),
        **rows(pools, pools.accepts, pooling.global_avg_pool2d, pooling.global_avg_pool2d_grad),
        **rows(pools, pools.accepts_max_grad, pooling.max_pool2d_grad),
        # fused layers
        **rows(pools, pools.accepts, fusion.relu_max_pool2d),
        **rows(pools, pools.accepts_max_grad, fusion.relu_max_pool2d_grad),
        **rows(fused, fused.accepts_forward, fusion.batchnorm_relu_max_pool2d, fusion.batchnorm_relu_max_pool2d_eval),
        **rows(fused, fused.accepts_grad, fusion.batchnorm_relu_max_pool2d_grad),
        # loss, metrics, optimisers
        **rows(loss, loss.accepts, losses.softmax_cross_entropy, metrics.count_correct),
        **rows(optim, optim.accepts, optimizer.sgd_update, optimizer.momentum_update, optimizer.adam_update),
        **rows(optim, optim.accepts, averages.lerp),
        # batches of images
        **rows(augment, augment.accepts_gather, crop_flip.gather_normalize),
        **rows(augment, augment.accepts_augment, crop_flip.gather_augment),
        **rows(warps, warps.accepts_noise, warp.noise_planes),
        **rows(warps, warps.accepts_warp, warp.warp),
    }


def problem() -> str | None:
    """Why the kernels cannot be used; None where they can."""
    if find_spec("numba") is None:
        return "Numba is not installed: pip install numba; every op runs on its reference implementation in NumPy"
    from gpucnn.kernels.cpu.engine import blas

    missing = "NumPy was built without OpenBLAS: pip install numpy from a wheel"
    return None if blas.ADDRESS else f"{missing}; every op runs on its reference implementation"


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
