"""How often a step starts something on the GPU: our kernels and calls of cuDNN; what CuPy starts itself is not seen."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gpucnn.kernels.gpu import launch
from gpucnn.kernels.gpu.compile import Module
from gpucnn.kernels.gpu.cudnn.library import executions
from gpucnn.kernels.gpu.launch import Grid, Launcher
from gpucnn.types import Array, Shape

CUDNN = "cuDNN"


class Counting:
    """A launcher that counts by file what another one launches."""

    def __init__(self, inner: Launcher, found: Counter[str]) -> None:
        self.inner, self.found = inner, found

    def empty(self, shape: Shape, dtype: Any) -> Array:
        return self.inner.empty(shape, dtype)

    def address(self, array: Array) -> int:
        return self.inner.address(array)

    def launch(self, module: Module, name: str, grid: Grid, args: tuple[Any, ...]) -> None:
        self.found[module.file] += 1
        self.inner.launch(module, name, grid, args)


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Count by source file, and cuDNN's executions under ``CUDNN``, for as long as the block runs."""
    found: Counter[str] = Counter()
    launcher, before = launch.launcher, executions()
    launch.launcher = Counting(launcher, found)
    try:
        yield found
    finally:
        launch.launcher = launcher
        found[CUDNN] += executions() - before
