"""The GPU's table on the strict double: kernels are counted, not computed.

Which kernels a step launches, with what arrays, and what CuPy does around them, is what a GPU would be given; the
numbers are zeros.  A convolution by cuDNN counts as one launch: cuDNN may start more behind it.
"""

from collections import Counter
from math import prod
from typing import Any

import numpy as np
import strict_cupy

from gpucnn.backend import Backend
from gpucnn.devices import gpu
from gpucnn.kernels.gpu import stem
from gpucnn.kernels.gpu.compile import Module
from gpucnn.kernels.gpu.cudnn.conv2d import REQUESTS
from gpucnn.kernels.gpu.cudnn.geometry import Geometry
from gpucnn.kernels.gpu.cudnn.library import Library
from gpucnn.kernels.gpu.cudnn.options import Options
from gpucnn.kernels.gpu.launch import NULL, Grid
from gpucnn.layers.conv2d import conv2d, conv2d_input_grad, conv2d_weight_grad

BORDER = 512  # bytes: CuPy's memory begins on a multiple of them


class CountingLauncher:
    """Takes the place of ``launch.launcher``; ``kernels`` counts by (file, kernel)."""

    def __init__(self) -> None:
        self.kernels: Counter[tuple[str, str]] = Counter()

    def empty(self, shape: tuple[int, ...], dtype: Any) -> strict_cupy.ndarray:
        return strict_cupy.ndarray(np.zeros(shape, dtype))

    def address(self, array: strict_cupy.ndarray) -> int:
        assert isinstance(array, strict_cupy.ndarray)
        return BORDER

    def launch(self, module: Module, name: str, grid: Grid, args: tuple[Any, ...]) -> None:
        assert name in module.names
        assert 0 < prod(grid.threads) <= 1024
        for value in args:
            assert value is NULL or isinstance(value, strict_cupy.ndarray | np.generic), f"{name} is given {value!r}"
        strict_cupy.launches += 1
        self.kernels[module.file, name.partition("<")[0]] += 1


def convolution(launcher: CountingLauncher, name: str) -> Any:
    """Stands for cuDNN's kernel of this name; the first layer's own one is itself."""

    def count(*args: Any) -> strict_cupy.ndarray:
        geometry, arrays = REQUESTS[name](*args)
        assert [array.shape for array in arrays] == list(geometry.input_shapes)
        if stem.accepts(geometry, arrays):
            return stem.conv2d(*args)
        strict_cupy.launches += 1
        launcher.kernels["cudnn", geometry.op] += 1
        return launcher.empty(geometry.output_shape, geometry.dtype)

    return count


def product(launcher: CountingLauncher) -> Any:
    """Stands for ``Library.compute`` where it multiplies matrices: 1x1 filters over pixels in a line."""

    def count(self: Library, geometry: Geometry, arrays: tuple[strict_cupy.ndarray, ...]) -> strict_cupy.ndarray:
        for array, shape in zip(arrays, geometry.input_shapes, strict=True):
            assert (array.dtype, array.shape) == (geometry.dtype, tuple(side for side in shape if side > 1))
            assert array.flags.c_contiguous
        strict_cupy.launches += 1
        launcher.kernels["product", geometry.op] += 1
        return launcher.empty(geometry.output_shape, geometry.dtype)

    return count


def counted_gpu(launcher: CountingLauncher, uncapturable: gpu.UncapturableOps | None = None) -> Backend:
    """The backend ``gpu`` with its table; for the time that ``launch.launcher`` is this launcher."""
    kernels = gpu.kernels(Options(), uncapturable or gpu.UncapturableOps())
    kernels |= {op: convolution(launcher, op.__name__) for op in (conv2d, conv2d_input_grad, conv2d_weight_grad)}
    return Backend("counted", strict_cupy, kernels, copy_to_host=strict_cupy.asnumpy, synchronous=False, half=True)
