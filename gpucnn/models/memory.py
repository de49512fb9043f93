"""What a model needs at the least, so that one far too large for this machine is refused before it is made."""

import os
from math import prod
from pathlib import Path

from gpucnn.errors import UsageError
from gpucnn.layers import Layer
from gpucnn.models.summary import rows
from gpucnn.types import Shape

GIB, FLOAT = 2**30, 4  # bytes
LIMIT = Path("/sys/fs/cgroup/memory.max")


def main_memory() -> int:
    """Bytes of main memory, or what a container may use of it."""
    size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if LIMIT.exists() and (text := LIMIT.read_text().strip()).isdecimal():
        size = min(size, int(text))
    return size


def check_memory(model: Layer, input_shape: Shape, images: int) -> None:
    """Raises UsageError for a model whose weights, gradients and largest output for a batch exceed the main memory."""
    layers = list(rows(model, input_shape))
    parameters = sum(layer.parameters for layer in layers)
    output = images * max(prod(layer.shape) for layer in layers)
    need, have = FLOAT * (2 * parameters + output), main_memory()
    if need > have:
        raise UsageError(
            f"a model of {parameters:,} parameters, on {images:,} images at once, needs {need / GIB:,.1f} GiB or more, "
            f"this machine has {have / GIB:,.1f}: give a smaller model, image or batch"
        )
