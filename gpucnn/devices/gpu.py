"""The GPU: CuPy, and the table of what runs faster than its plain array code."""

import inspect
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import Any

from gpucnn import losses, metrics
from gpucnn.backend import Backend
from gpucnn.data.augment import colour, crop_flip, warp
from gpucnn.devices.gpu_memory import MemoryLimit
from gpucnn.kernels.gpu.arguments import supports
from gpucnn.layers import activations, batchnorm, containers, conv2d, dropout, fusion, gelu, linear, pooling
from gpucnn.optim import averages, loss_scale, muon, optimizer

Op = Callable[..., Any]


def table() -> dict[Op, Op]:
    """Op -> kernel: every fast path of the GPU besides ``convolutions``.  Importing the kernels compiles nothing."""
    from gpucnn.kernels import gpu as fast

    return {
        # fully connected layers: small ones, the others run as written, on cuBLAS
        linear.linear: fast.linear.linear,
        linear.linear_input_grad: fast.linear.linear_input_grad,
        linear.linear_weight_grad: fast.linear.linear_weight_grad,
        conv2d.bias_grad: fast.sums.bias_grad,
        # batch norm, alone and with ReLU
        batchnorm.batchnorm: fast.batchnorm.batchnorm,
        batchnorm.batchnorm_eval: fast.batchnorm.batchnorm_eval,
        batchnorm.batchnorm_grad: fast.batchnorm.batchnorm_grad,
        batchnorm.batchnorm_relu: fast.batchnorm.batchnorm_relu,
        batchnorm.batchnorm_relu_eval: fast.batchnorm.batchnorm_relu_eval,
        batchnorm.batchnorm_relu_grad: fast.batchnorm.batchnorm_relu_grad,
        batchnorm.move_running: fast.batchnorm.move_running,
        # activations and sums
        activations.relu: fast.elementwise.relu,
        activations.relu_grad: fast.elementwise.relu_grad,
        activations.leaky_relu: fast.elementwise.leaky_relu,
        activations.leaky_relu_grad: fast.elementwise.leaky_relu_grad,
        gelu.gelu: fast.elementwise.gelu,
        gelu.gelu_grad: fast.elementwise.gelu_grad,
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
        fusion.relu_max_pool2d: fast.fused.relu_max_pool2d,
        fusion.relu_max_pool2d_grad: fast.fused.relu_max_pool2d_grad,
        fusion.batchnorm_relu_max_pool2d: fast.fused.batchnorm_relu_max_pool2d,
        fusion.batchnorm_relu_max_pool2d_eval: fast.fused.batchnorm_relu_max_pool2d_eval,
        fusion.batchnorm_relu_max_pool2d_grad: fast.fused.batchnorm_relu_max_pool2d_grad,
        # loss, metrics, optimisers
        losses.softmax_cross_entropy: fast.loss.softmax_cross_entropy,
        metrics.count_correct: fast.loss.count_correct,
        optimizer.sgd_update: fast.optim.sgd_update,
        optimizer.momentum_update: fast.optim.momentum_update,
        optimizer.adam_update: fast.optim.adam_update,
        muon.muon_update: fast.muon.muon_update,
        averages.lerp: fast.optim.lerp,
        # mixed precision
        loss_scale.unscale: fast.precision.unscale,
        loss_scale.keep: fast.precision.keep,
        loss_scale.adapt: fast.precision.adapt,
        # batches
        crop_flip.gather_normalize: fast.augment.gather_normalize,
        crop_flip.gather_augment: fast.augment.gather_augment,
        warp.noise_planes: fast.warp.noise_planes,
        warp.smooth: fast.warp.smooth,
        warp.warp: fast.warp.warp,
        colour.jitter: fast.colour.jitter,
    }


def convolutions() -> dict[Op, Op]:
    """Op -> cuDNN."""
    from gpucnn.kernels.gpu.cudnn import conv2d as fast

    return {
        conv2d.conv2d: fast.conv2d,
        conv2d.conv2d_input_grad: fast.conv2d_input_grad,
        conv2d.conv2d_weight_grad: fast.conv2d_weight_grad,
    }


class OnCublas:
    """Matrix products that ran on cuBLAS, which CuPy refuses during the capture of a CUDA graph."""

    ops = (
        conv2d.conv2d,
        conv2d.conv2d_input_grad,
        conv2d.conv2d_weight_grad,
        linear.linear,
        linear.linear_input_grad,
        linear.linear_weight_grad,
        muon.muon_update,
    )

    def __init__(self) -> None:
        self.names: set[str] = set()

    def note(self, op: Op) -> None:
        """An op runs as it is written."""
        if op in self.ops:
            self.names.add(op.__name__)

    def take(self) -> list[str]:
        """Which ran since this was last asked."""
        found = sorted(self.names)
        self.names.clear()
        return found


def on_cudnn(op: Op, kernel: Op, noted: OnCublas | None = None) -> Op:
    """The kernel where cuDNN ``supports`` the arguments, else the op: im2col and cuBLAS."""
    from gpucnn.kernels.gpu.cudnn.conv2d import supports

    @wraps(kernel)
    def choose(*args: Any, **kwargs: Any) -> Any:
        if supports(op.__name__, *args, **kwargs):
            return kernel(*args, **kwargs)
        if noted:
            noted.note(op)
        return op(*args, **kwargs)

    return choose


def set_tf32(allowed: bool) -> None:
    """Let convolutions of float32 use tensor cores from now on, or not; ``GPUCNN_TF32=1`` allows it in any case."""
    from gpucnn.kernels.gpu.cudnn import library
    from gpucnn.kernels.gpu.cudnn.options import Options

    wanted = replace(library.options(), tf32=allowed or Options.from_environment().tf32)
    if wanted != library.options():
        library.configure(wanted)


def convolution_engine() -> str:
    """What computes convolutions on the current GPU, and why it is not cuDNN where it is not; one line."""
    from gpucnn.kernels.gpu.cudnn import conv2d as fast

    return fast.engine()


def about(index: int) -> dict[str, Any]:
    """Name, memory, driver and libraries of GPU number ``index``, the current one, for the record of a run."""
    from gpucnn.kernels.gpu import device

    return device.about(index)


def limit_memory(limit: MemoryLimit) -> None:
    """What the current GPU may give to arrays and to cuDNN's scratch memory; CUDA's own libraries take more."""
    from gpucnn.kernels.gpu import device

    device.limit_memory(limit.bytes, limit.share)


def guarded(op: Op, kernel: Op, noted: OnCublas | None = None) -> Op:
    """The kernel where it ``supports`` its arguments, else the op."""
    signature = inspect.signature(op)

    @wraps(kernel)
    def choose(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs).args if kwargs else args
        if supports(op, *given):
            return kernel(*args, **kwargs)
        if noted:
            noted.note(op)
        return op(*args, **kwargs)

    return choose


def gpu_backend(index: int = 0) -> Backend:
    """CuPy with kernels on GPU number ``index``, which becomes the current one of this thread."""
    import cupy

    cupy.cuda.Device(index).use()
    noted = OnCublas()
    kernels = {
        **{op: on_cudnn(op, kernel, noted) for op, kernel in convolutions().items()},
        **{op: guarded(op, kernel, noted) for op, kernel in table().items()},
    }
    how = {"copy_to_host": cupy.asnumpy, "synchronous": False, "uncapturable": noted.take, "set_tf32": set_tf32}
    return Backend(f"gpu:{index}", cupy, kernels, **how)


def problem(index: int = 0) -> str | None:
    """Why this GPU cannot be used, and what to do; None where it can."""
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


def first_line(error: Exception) -> str:
    """Why, in one line: CuPy wraps what went wrong into a page of advice."""
    cause = error.__cause__ or error
    return (str(cause).strip().splitlines() or [type(cause).__name__])[0]
