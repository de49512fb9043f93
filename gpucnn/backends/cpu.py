"""The CPU: NumPy, and the table of what runs faster than its plain array code."""

from collections.abc import Callable, Mapping
from functools import wraps
from importlib.util import find_spec
from inspect import signature
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from gpucnn import losses, metrics, optim
from gpucnn.backend import Backend
from gpucnn.layers import activations, batchnorm, containers, conv2d, dropout, linear, pooling

Op = Callable[..., Any]


def table() -> dict[Op, Op]:
    """Op -> kernel: every fast path of the CPU."""
    from gpucnn.kernels import cpu as fast

    return {
        # convolution: Winograd, direct or im2col, by ``plan``
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
        # loss, metrics, optimisers
        losses.softmax_cross_entropy: fast.loss.softmax_cross_entropy,
        metrics.count_correct: fast.loss.count_correct,
        optim.sgd_update: fast.optim.sgd_update,
        optim.momentum_update: fast.optim.momentum_update,
        optim.adam_update: fast.optim.adam_update,
    }


def supports(*args: Any, labels: bool = False) -> bool:
    """Whether the kernels cover these arguments: float32 arrays with something in them.

    Anything else, float64 above all, runs as the op is written.

    Args:
        labels: whether the last array must be the classes of the first one's rows, integers (N,).
    """
    arrays = [arg for arg in args if isinstance(arg, np.ndarray)]
    if labels:
        *arrays, last = arrays
        if last.dtype.kind not in "iu" or last.shape != arrays[0].shape[:1]:
            return False
    return all(a.size and a.dtype == np.float32 for a in arrays)


def guarded(op: Op, kernel: Op) -> Op:
    """The kernel where it ``supports`` its arguments, else the op."""
    labels = "labels" in signature(op).parameters

    @wraps(kernel)
    def choose(*args: Any, **kwargs: Any) -> Any:
        return (kernel if supports(*args, *kwargs.values(), labels=labels) else op)(*args, **kwargs)

    return choose


def problem() -> str | None:
    """Why the kernels cannot be used; None where they can."""
    if find_spec("numba") is None:
        return "Numba is not installed: pip install numba; every op runs on NumPy as written"
    from gpucnn.kernels.cpu import gemm

    if not gemm.ADDRESS:
        return "NumPy was built without OpenBLAS: pip install numpy from a wheel; every op runs as written"
    return None


def cpu_backend() -> Backend:
    """NumPy with kernels, where Numba is installed."""
    kernels: Mapping[Op, Op] = {}
    if problem() is None:
        from gpucnn.kernels.cpu.compile import notice

        notice()
        kernels = {op: guarded(op, kernel) for op, kernel in table().items()}
    return Backend("cpu", np, kernels)


def set_threads(threads: int) -> None:
    """How many threads the CPU's ops may use in this process."""
    if problem() is None:
        from gpucnn.kernels.cpu.threads import TEAM

        TEAM.resize(threads)
    else:
        threadpool_limits(threads)
