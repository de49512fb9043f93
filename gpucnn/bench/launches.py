"""How often a step starts something on the GPU: our kernels and calls of cuDNN; what CuPy starts itself is not seen."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gpucnn.kernels.gpu import launch
from gpucnn.kernels.gpu.compile import Module
from gpucnn.kernels.gpu.cudnn.library import executions
from gpucnn.kernels.gpu.launch import Grid

CUDNN = "cuDNN"


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Count by source file, and cuDNN's executions under ``CUDNN``, for as long as the block runs."""
    found: Counter[str] = Counter()
    launcher, before = launch.launcher, executions()
    start = launcher.launch

    def count(module: Module, name: str, grid: Grid, args: tuple[Any, ...]) -> None:
        found[module.file] += 1
        start(module, name, grid, args)

    launcher.launch = count  # type: ignore[method-assign]
    try:
        yield found
    finally:
        launcher.launch = start  # type: ignore[method-assign]
        found[CUDNN] += executions() - before
