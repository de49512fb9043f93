"""The GPU: CuPy, and the table of what runs faster than the reference implementation."""

import os
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gpucnn import losses, metrics
from gpucnn.backend import Backend, Kernel, Op, guarded
from gpucnn.data.augment import colour, crop_flip, warp
from gpucnn.devices.gpu_memory import MemoryLimit
from gpucnn.kernels.gpu.cudnn.options import Options
from gpucnn.layers import activations, batchnorm, containers, conv2d, dropout, fusion, gelu, groupnorm, linear, pooling
from gpucnn.optim import averages, loss_scale, muon, optimizer
from gpucnn.terminal import tell


def table(options: Options) -> dict[Op, Kernel]:
    """Op -> kernel: every fast path of the GPU.  What a kernel accepts is said beside it.

    Importing the kernels compiles nothing, and cuDNN is opened where it is first asked.

    Args:
        options: how convolutions are computed, and the matrix products of Muon.
    """
    from gpucnn.kernels.gpu import augment, elementwise, fused, loss, optim, precision, sums
    from gpucnn.kernels.gpu import batchnorm as norm
    from gpucnn.kernels.gpu import colour as colours
    from gpucnn.kernels.gpu import dropout as drop
    from gpucnn.kernels.gpu import groupnorm as groups
    from gpucnn.kernels.gpu import linear as products
    from gpucnn.kernels.gpu import pooling as pools
    from gpucnn.kernels.gpu import warp as warps
    from gpucnn.kernels.gpu.cudnn.conv2d import Convolutions
    from gpucnn.kernels.gpu.cudnn.library import Library
    from gpucnn.kernels.gpu.muon import Muon

    library = Library(options)
    convolutions, orthogonal = Convolutions(library), Muon(library)

    def by_cudnn(name: str) -> Kernel:
        """The convolution of this name, for which there is a choice of algorithms."""
        run, accepts, plan = getattr(convolutions, name), convolutions.accepts, convolutions.plan
        return Kernel(run, partial(accepts, name), partial(plan, name))

    return {
        # convolution: cuDNN, or a kernel of our own for few channels; the others run on cuBLAS
        conv2d.conv2d: by_cudnn("conv2d"),
        conv2d.conv2d_input_grad: by_cudnn("conv2d_input_grad"),
        conv2d.conv2d_weight_grad: by_cudnn("conv2d_weight_grad"),
        conv2d.grouped_conv2d: by_cudnn("grouped_conv2d"),
        conv2d.grouped_conv2d_input_grad: by_cudnn("grouped_conv2d_input_grad"),
        conv2d.grouped_conv2d_weight_grad: by_cudnn("grouped_conv2d_weight_grad"),
        conv2d.bias_grad: Kernel(sums.bias_grad, sums.accepts_bias_grad),
        # fully connected: small ones, the others run on cuBLAS
        linear.linear: Kernel(products.linear, products.accepts_linear),
        linear.linear_input_grad: Kernel(products.linear_input_grad, products.accepts_input_grad),
        linear.linear_weight_grad: Kernel(products.linear_weight_grad, products.accepts_weight_grad),
        # batch norm, alone and with ReLU
        batchnorm.batchnorm: Kernel(norm.batchnorm, norm.accepts_train),
        batchnorm.batchnorm_eval: Kernel(norm.batchnorm_eval, norm.accepts_eval),
        batchnorm.batchnorm_grad: Kernel(norm.batchnorm_grad, norm.accepts_grad),
        batchnorm.batchnorm_relu: Kernel(norm.batchnorm_relu, norm.accepts_train),
        batchnorm.batchnorm_relu_eval: Kernel(norm.batchnorm_relu_eval, norm.accepts_eval),
        batchnorm.batchnorm_relu_grad: Kernel(norm.batchnorm_relu_grad, norm.accepts_grad),
        batchnorm.move_running: Kernel(norm.move_running, norm.accepts_running),
        # group norm and layer norm
        groupnorm.groupnorm: Kernel(groups.groupnorm, groups.accepts),
        groupnorm.groupnorm_grad: Kernel(groups.groupnorm_grad, groups.accepts_grad),
        # activations and sums
        activations.relu: Kernel(elementwise.relu, elementwise.accepts_one),
        activations.relu_grad: Kernel(elementwise.relu_grad, elementwise.accepts_two),
        activations.relu6: Kernel(elementwise.relu6, elementwise.accepts_one),
        activations.relu6_grad: Kernel(elementwise.relu6_grad, elementwise.accepts_two),
        activations.leaky_relu: Kernel(elementwise.leaky_relu, elementwise.accepts_slope),
        activations.leaky_relu_grad: Kernel(elementwise.leaky_relu_grad, elementwise.accepts_slope_grad),
        activations.hardswish: Kernel(elementwise.hardswish, elementwise.accepts_one),
        activations.hardswish_grad: Kernel(elementwise.hardswish_grad, elementwise.accepts_two),
        gelu.gelu: Kernel(elementwise.gelu, elementwise.accepts_one),
        gelu.gelu_grad: Kernel(elementwise.gelu_grad, elementwise.accepts_two),
        containers.add: Kernel(elementwise.add, elementwise.accepts_two),
        containers.add_relu: Kernel(elementwise.add_relu, elementwise.accepts_two),
        dropout.dropout: Kernel(drop.dropout, drop.accepts),
        # pooling
        pooling.max_pool2d: Kernel(pools.max_pool2d, pools.accepts),
        pooling.max_pool2d_grad: Kernel(pools.max_pool2d_grad, pools.accepts_max_grad),
        pooling.avg_pool2d: Kernel(pools.avg_pool2d, pools.accepts),
        pooling.avg_pool2d_grad: Kernel(pools.avg_pool2d_grad, pools.accepts_grad),
        pooling.global_avg_pool2d: Kernel(pools.global_avg_pool2d, pools.accepts_global),
        pooling.global_avg_pool2d_grad: Kernel(pools.global_avg_pool2d_grad, pools.accepts_global_grad),
        # fused layers
        fusion.relu_max_pool2d: Kernel(fused.relu_max_pool2d, pools.accepts),
        fusion.relu_max_pool2d_grad: Kernel(fused.relu_max_pool2d_grad, pools.accepts_max_grad),
        fusion.batchnorm_relu_max_pool2d: Kernel(fused.batchnorm_relu_max_pool2d, fused.accepts_train),
        fusion.batchnorm_relu_max_pool2d_eval: Kernel(fused.batchnorm_relu_max_pool2d_eval, fused.accepts_eval),
        fusion.batchnorm_relu_max_pool2d_grad: Kernel(fused.batchnorm_relu_max_pool2d_grad, fused.accepts_grad),
        # loss, metrics, optimizers
        losses.softmax_cross_entropy: Kernel(loss.softmax_cross_entropy, loss.accepts),
        metrics.count_correct: Kernel(loss.count_correct, loss.accepts),
        optimizer.sgd_update: Kernel(optim.sgd_update, optim.accepts_sgd),
        optimizer.momentum_update: Kernel(optim.momentum_update, optim.accepts_momentum),
        optimizer.adam_update: Kernel(optim.adam_update, optim.accepts_adam),
        muon.muon_update: Kernel(orthogonal.muon_update, orthogonal.accepts),
        averages.lerp: Kernel(optim.lerp, optim.accepts_lerp),
        # mixed precision
        loss_scale.unscale: Kernel(precision.unscale, precision.accepts_unscale),
        loss_scale.keep: Kernel(precision.keep, precision.accepts_keep),
        loss_scale.adapt: Kernel(precision.adapt, precision.accepts_adapt),
        # batches of images
        crop_flip.gather_normalize: Kernel(augment.gather_normalize, augment.accepts_gather),
        crop_flip.gather_augment: Kernel(augment.gather_augment, augment.accepts_augment),
        warp.noise_planes: Kernel(warps.noise_planes, warps.accepts_noise),
        warp.smooth: Kernel(warps.smooth, warps.accepts_smooth),
        warp.warp: Kernel(warps.warp, warps.accepts_warp),
        colour.jitter: Kernel(colours.jitter, colours.accepts),
    }


ON_CUBLAS = (
    conv2d.conv2d,
    conv2d.conv2d_input_grad,
    conv2d.conv2d_weight_grad,
    conv2d.grouped_conv2d,
    conv2d.grouped_conv2d_input_grad,
    conv2d.grouped_conv2d_weight_grad,
    linear.linear,
    linear.linear_input_grad,
    linear.linear_weight_grad,
    muon.muon_update,
)
"""Ops whose reference implementation runs on cuBLAS, which CuPy refuses while a CUDA graph is captured."""


class UncapturableOps:
    """Names of the ops that ran on cuBLAS since they were last asked for."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def watched(self, op: Op) -> Op:
        """The op, whose name is noted when it runs if that is on cuBLAS."""

        def run(*args: Any, **kwargs: Any) -> Any:
            self.names.add(op.__name__)
            return op(*args, **kwargs)

        return run if op in ON_CUBLAS else op

    def pop(self) -> list[str]:
        """The names, which are forgotten."""
        found = sorted(self.names)
        self.names.clear()
        return found


def kernels(options: Options, uncapturable: UncapturableOps) -> dict[Op, Op]:
    """Op -> its kernel, or the op where the kernel does not accept the arguments."""
    return {op: guarded(op, kernel, uncapturable.watched(op)) for op, kernel in table(options).items()}


def gpu_backend(index: int = 0) -> Backend:
    """CuPy with kernels on GPU number ``index``, which becomes the current one of this thread.

    Options of convolutions are those of the environment by now, and the backend's own.
    """
    import cupy

    cupy.cuda.Device(index).use()
    options, uncapturable = Options.from_environment(), UncapturableOps()
    return Backend(
        f"gpu:{index}",
        cupy,
        kernels(options, uncapturable),
        copy_to_host=cupy.asnumpy,
        synchronous=False,
        tf32_kernels=lambda allowed: kernels(options.with_tf32(allowed), uncapturable),
        uncapturable_ops=uncapturable.pop,
        free_memory=lambda: int(cupy.cuda.runtime.memGetInfo()[0]),
    )


def convolution_engine() -> str:
    """What computes convolutions on the current GPU, and why it is not cuDNN where it is not; one line."""
    from gpucnn.kernels.gpu.cudnn.conv2d import Convolutions
    from gpucnn.kernels.gpu.cudnn.library import Library

    return Convolutions(Library(Options.from_environment())).engine()


def about(index: int, tf32: bool = False) -> dict[str, Any]:
    """Name, memory, driver and libraries of GPU number ``index``, the current one, for the record of a run."""
    from gpucnn.kernels.gpu import device

    return device.about(index, Options.from_environment().with_tf32(tf32))


def limit_memory(limit: MemoryLimit) -> None:
    """What the current GPU may give to arrays and to cuDNN's scratch memory; CUDA's own libraries take more."""
    from gpucnn.kernels.gpu import device

    device.limit_memory(limit.bytes, limit.fraction)


def problem(index: int = 0) -> str | None:
    """Why this GPU cannot be used, and what to do; None where it can."""
    keep_kernels()
    try:
        import cupy
    except Exception as error:  # a broken install may raise anything
        return f"CuPy cannot be imported ({first_line(error)}): pip install 'gpucnn[cuda13]' or 'gpucnn[cuda12]'"
    try:
        count = int(cupy.cuda.runtime.getDeviceCount())
    except Exception as error:  # CuPy raises its own classes, which exist only where it does
        return f"no usable CUDA driver or GPU ({first_line(error)}): see nvidia-smi"
    if index >= count:
        return f"there is no GPU number {index}: this machine has {count}, counted from 0"
    return None


def keep_kernels() -> None:
    """Let CuPy keep what it compiles in memory where it cannot write to its folder: it would fail at a first kernel."""
    if ("cupy" not in sys.modules and find_spec("cupy") is None) or "CUPY_CACHE_IN_MEMORY" in os.environ:
        return
    folder = Path(os.environ.get("CUPY_CACHE_DIR") or os.path.expanduser("~/.cupy/kernel_cache")).absolute()
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    if "~" in folder.parts or not (existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)):
        os.environ["CUPY_CACHE_IN_MEMORY"] = "1"
        tell(f"compiled GPU kernels are not kept: {folder} cannot be written to")


def first_line(error: Exception) -> str:
    """Why, in one line: CuPy wraps what went wrong into a page of advice."""
    cause = error.__cause__ or error
    return (str(cause).strip().splitlines() or [type(cause).__name__])[0]
