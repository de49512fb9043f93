"""A backend is an array module and a table that says which ops it replaces by a faster kernel."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np

from gpucnn.types import Array


@dataclass(frozen=True)
class Backend:
    """Where arrays live and how ops run.

    Attributes:
        name: ``"reference"``, ``"cpu"``, ``"gpu"`` or ``"gpu:1"``; for people, never for an ``if``.
        xp: the array module, ``numpy`` or ``cupy``.
        kernels: reference function -> faster function of the same signature.
        copy_to_host: device array -> ``numpy.ndarray``; waits for the device.
        synchronous: results are there when a call returns (NumPy), so reading one costs nothing.
        uncapturable: names of ops that ran since it was last called and cannot be part of a CUDA graph; None where
            there are no graphs.
        half: worth training on in float16; the CPU's kernels know float32 alone.
        set_tf32: lets convolutions of float32 round their factors to 10 bits of fraction, or not; None where they
            never do.
    """

    name: str
    xp: ModuleType
    kernels: Mapping[Callable[..., Any], Callable[..., Any]] = field(default_factory=dict)
    copy_to_host: Callable[[Array], Array] = np.asarray
    synchronous: bool = True
    half: bool = True
    set_tf32: Callable[[bool], None] | None = None
    uncapturable: Callable[[], list[str]] | None = None

    def run(self, op: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run op with this backend's kernel for it; an op without one runs as written."""
        return self.kernels.get(op, op)(*args, **kwargs)

    def to_device(self, host: Array) -> Array:
        """Host array -> an array of this backend (no copy where it already is one)."""
        return self.xp.asarray(host)

    def to_host(self, array: Array) -> Array:
        """Array of this backend -> ``numpy.ndarray``.  # sync"""
        return self.copy_to_host(array)


REFERENCE = Backend("reference", np)
"""The oracle: NumPy and every op as it is written."""


def accumulator_dtype(array: Array) -> np.dtype[Any]:
    """The dtype of sums, statistics and losses over a float array: its own, but float32 for float16."""
    return np.promote_types(array.dtype, np.float32)


def array_module(array: Array) -> ModuleType:
    """The module whose functions work on this array: ``numpy`` for its arrays, ``cupy`` for CuPy's.

    It is the top-level package that defines the array's class, so nothing here imports CuPy.
    """
    return sys.modules[type(array).__module__.partition(".")[0]]
