"""The GPU: CuPy, and the table of what runs faster than its plain array code."""

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

from gpucnn.backend import Backend
from gpucnn.layers import conv2d

Op = Callable[..., Any]

KERNELS: Mapping[Op, Op] = {}
"""op -> kernel, besides ``convolutions``.  Empty: every other op runs on CuPy as it is written."""


def convolutions() -> dict[Op, Op]:
    """Op -> cuDNN."""
    from gpucnn.kernels.gpu import conv2d as fast

    return {
        conv2d.conv2d: fast.conv2d,
        conv2d.conv2d_input_grad: fast.conv2d_input_grad,
        conv2d.conv2d_weight_grad: fast.conv2d_weight_grad,
    }


def on_cudnn(op: Op, kernel: Op) -> Op:
    """The kernel where cuDNN ``supports`` the arguments, else the op: im2col and cuBLAS."""
    from gpucnn.kernels.gpu.conv2d import supports

    @wraps(kernel)
    def choose(*args: Any, **kwargs: Any) -> Any:
        return (kernel if supports(op.__name__, *args, **kwargs) else op)(*args, **kwargs)

    return choose


def convolution_engine() -> str:
    """What computes convolutions on the current GPU, and why it is not cuDNN where it is not; one line."""
    from gpucnn.kernels.gpu import conv2d as fast

    return fast.engine()


def gpu_backend(index: int = 0) -> Backend:
    """CuPy on GPU number ``index``, which becomes the current one of this thread."""
    import cupy

    cupy.cuda.Device(index).use()
    kernels = {**KERNELS, **{op: on_cudnn(op, kernel) for op, kernel in convolutions().items()}}
    return Backend(f"gpu:{index}", cupy, kernels, copy_to_host=cupy.asnumpy, synchronous=False)


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
