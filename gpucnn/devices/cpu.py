"""The CPU: NumPy, and the table of what runs faster than the reference implementation."""

from collections.abc import Mapping
from importlib.util import find_spec

import numpy as np
from threadpoolctl import threadpool_limits

from gpucnn import losses, metrics
from gpucnn.backend import Backend, Kernel, Op, guarded
from gpucnn.data.augment import crop_flip, warp
from gpucnn.devices.cores import usable_cores
from gpucnn.layers import activations, batchnorm, containers, conv2d, dropout, fusion, gelu, groupnorm, linear, pooling
from gpucnn.optim import averages, optimizer


def table() -> dict[Op, Kernel]:
    """Op -> kernel: every fast path of the CPU.  What a kernel accepts is said beside it."""
    from gpucnn.kernels.cpu import augment, elementwise, fused, loss, optim
    from gpucnn.kernels.cpu import batchnorm as norm
    from gpucnn.kernels.cpu import dropout as drop
    from gpucnn.kernels.cpu import gelu as gelus
    from gpucnn.kernels.cpu import groupnorm as groups
    from gpucnn.kernels.cpu import linear as products
    from gpucnn.kernels.cpu import pooling as pools
    from gpucnn.kernels.cpu import warp as warps
    from gpucnn.kernels.cpu.conv import conv2d as conv
    from gpucnn.kernels.cpu.conv import grouped

    return {
        # convolution: Winograd or direct, by ``plan``
        conv2d.conv2d: Kernel(conv.conv2d, conv.accepts_forward, conv.plan_forward),
        conv2d.conv2d_input_grad: Kernel(conv.conv2d_input_grad, conv.accepts_input_grad, conv.plan_input_grad),
        conv2d.conv2d_weight_grad: Kernel(conv.conv2d_weight_grad, conv.accepts_weight_grad, conv.plan_weight_grad),
        # with groups or dilation: depthwise, or one of the two for each group
        conv2d.grouped_conv2d: Kernel(grouped.grouped_conv2d, grouped.accepts_forward, grouped.plan_forward),
        conv2d.grouped_conv2d_input_grad: Kernel(
            grouped.grouped_conv2d_input_grad, grouped.accepts_input_grad, grouped.plan_input_grad
        ),
        conv2d.grouped_conv2d_weight_grad: Kernel(
            grouped.grouped_conv2d_weight_grad, grouped.accepts_weight_grad, grouped.plan_weight_grad
        ),
        conv2d.bias_grad: Kernel(products.bias_grad, products.accepts_bias_grad),
        # fully connected
        linear.linear: Kernel(products.linear, products.accepts_forward),
        linear.linear_input_grad: Kernel(products.linear_input_grad, products.accepts_input_grad),
        linear.linear_weight_grad: Kernel(products.linear_weight_grad, products.accepts_weight_grad),
        # batch norm, alone and with ReLU
        batchnorm.batchnorm: Kernel(norm.batchnorm, norm.accepts_train),
        batchnorm.batchnorm_eval: Kernel(norm.batchnorm_eval, norm.accepts_eval),
        batchnorm.batchnorm_grad: Kernel(norm.batchnorm_grad, norm.accepts_grad),
        batchnorm.batchnorm_relu: Kernel(norm.batchnorm_relu, norm.accepts_train),
        batchnorm.batchnorm_relu_eval: Kernel(norm.batchnorm_relu_eval, norm.accepts_eval),
        batchnorm.batchnorm_relu_grad: Kernel(norm.batchnorm_relu_grad, norm.accepts_grad),
        # group norm and layer norm
        groupnorm.groupnorm: Kernel(groups.groupnorm, groups.accepts),
        groupnorm.groupnorm_grad: Kernel(groups.groupnorm_grad, groups.accepts_grad),
        # activations and sums
        activations.relu: Kernel(elementwise.relu, elementwise.accepts_one),
        activations.relu_grad: Kernel(elementwise.relu_grad, elementwise.accepts_two),
        activations.relu6: Kernel(elementwise.relu6, elementwise.accepts_one),
        activations.relu6_grad: Kernel(elementwise.relu6_grad, elementwise.accepts_two),
        activations.leaky_relu: Kernel(elementwise.leaky_relu, elementwise.accepts_one),
        activations.leaky_relu_grad: Kernel(elementwise.leaky_relu_grad, elementwise.accepts_two),
        activations.hardswish: Kernel(elementwise.hardswish, elementwise.accepts_one),
        activations.hardswish_grad: Kernel(elementwise.hardswish_grad, elementwise.accepts_two),
        gelu.gelu: Kernel(gelus.gelu, gelus.accepts),
        gelu.gelu_grad: Kernel(gelus.gelu_grad, gelus.accepts_grad),
        containers.add: Kernel(elementwise.add, elementwise.accepts_two),
        containers.add_relu: Kernel(elementwise.add_relu, elementwise.accepts_two),
        dropout.dropout: Kernel(drop.dropout, drop.accepts),
        # pooling
        pooling.max_pool2d: Kernel(pools.max_pool2d, pools.accepts),
        pooling.max_pool2d_grad: Kernel(pools.max_pool2d_grad, pools.accepts_max_grad),
        pooling.avg_pool2d: Kernel(pools.avg_pool2d, pools.accepts),
        pooling.avg_pool2d_grad: Kernel(pools.avg_pool2d_grad, pools.accepts),
        pooling.global_avg_pool2d: Kernel(pools.global_avg_pool2d, pools.accepts),
        pooling.global_avg_pool2d_grad: Kernel(pools.global_avg_pool2d_grad, pools.accepts),
        # fused layers
        fusion.batchnorm_relu6: Kernel(norm.batchnorm_relu6, norm.accepts_train),
        fusion.batchnorm_relu6_eval: Kernel(norm.batchnorm_relu6_eval, norm.accepts_eval),
        fusion.batchnorm_relu6_grad: Kernel(norm.batchnorm_relu6_grad, norm.accepts_grad),
        fusion.relu_max_pool2d: Kernel(pools.relu_max_pool2d, pools.accepts),
        fusion.relu_max_pool2d_grad: Kernel(pools.relu_max_pool2d_grad, pools.accepts_max_grad),
        fusion.batchnorm_relu_max_pool2d: Kernel(fused.batchnorm_relu_max_pool2d, fused.accepts_train),
        fusion.batchnorm_relu_max_pool2d_eval: Kernel(fused.batchnorm_relu_max_pool2d_eval, fused.accepts_eval),
        fusion.batchnorm_relu_max_pool2d_grad: Kernel(fused.batchnorm_relu_max_pool2d_grad, fused.accepts_grad),
        # loss, metrics, optimizers
        losses.softmax_cross_entropy: Kernel(loss.softmax_cross_entropy, loss.accepts),
        metrics.count_correct: Kernel(loss.count_correct, loss.accepts),
        optimizer.sgd_update: Kernel(optim.sgd_update, optim.accepts),
        optimizer.momentum_update: Kernel(optim.momentum_update, optim.accepts),
        optimizer.adam_update: Kernel(optim.adam_update, optim.accepts),
        averages.lerp: Kernel(optim.lerp, optim.accepts),
        # batches of images
        crop_flip.gather_normalize: Kernel(augment.gather_normalize, augment.accepts_gather),
        crop_flip.gather_augment: Kernel(augment.gather_augment, augment.accepts_augment),
        warp.noise_planes: Kernel(warps.noise_planes, warps.accepts_noise),
        warp.warp: Kernel(warps.warp, warps.accepts_warp),
    }


def problem() -> str | None:
    """Why the kernels cannot be used; None where they can."""
    if find_spec("numba") is None:
        return "Numba is not installed: pip install numba; every op runs on its reference implementation in NumPy"
    from gpucnn.kernels.cpu.engine import blas

    missing = "NumPy was built without OpenBLAS: pip install numpy from a wheel"
    return None if blas.ADDRESS else f"{missing}; every op runs on its reference implementation"


def cpu_backend() -> Backend:
    """NumPy with kernels, where Numba is installed; on all usable cores if ``set_threads`` has not been called."""
    kernels: Mapping[Op, Op] = {}
    if problem() is None:
        from gpucnn.kernels.cpu.engine.compile import compile_ahead, compiled

        if not compiled() and usable_cores() > 1:
            compile_ahead()
        from gpucnn.kernels.cpu.engine.threads import TEAM

        if not TEAM.sized:
            TEAM.resize(usable_cores())
        kernels = {op: guarded(op, kernel) for op, kernel in table().items()}
    return Backend("cpu", np, kernels, half=False)


def set_threads(threads: int) -> None:
    """How many threads the CPU's ops may use in this process."""
    if problem() is None:
        from gpucnn.kernels.cpu.engine.threads import TEAM

        TEAM.resize(threads)
    else:
        threadpool_limits(threads)
