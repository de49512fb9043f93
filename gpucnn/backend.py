"""A backend is an array module and a table that says which ops it replaces by a faster kernel."""

import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import wraps
from types import ModuleType
from typing import Any, Self

import numpy as np

from gpucnn.errors import UsageError
from gpucnn.types import Array

Op = Callable[..., Any]
"""A reference function: plain array code that runs on NumPy and CuPy alike."""


@dataclass(frozen=True)
class Kernel:
    """A row of a device's table: what may run in place of an op.

    Attributes:
        run: a faster function of the op's signature.
        accepts: (the op's arguments, with its defaults) -> whether ``run`` computes them, without a launch or a wait.
        plan: (the op's arguments) -> the name of the algorithm that ``run`` takes, where it has a choice.
    """

    run: Op
    accepts: Callable[..., bool]
    plan: Callable[..., str] | None = None


def guarded(op: Op, kernel: Kernel, fallback: Op | None = None) -> Op:
    """The kernel where it accepts its arguments, else ``fallback``, the op itself where not given.

    The result's attribute ``kernel`` is the row.
    """
    otherwise, run, accepts, signature = fallback or op, kernel.run, kernel.accepts, inspect.signature(op)

    @wraps(run)
    def choose(*args: Any, **kwargs: Any) -> Any:
        given = args
        if kwargs:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            given = bound.args
        return (run if accepts(*given) else otherwise)(*args, **kwargs)

    vars(choose)["kernel"] = kernel
    return choose


@dataclass(frozen=True)
class Backend:
    """Where arrays live and how ops run.

    Attributes:
        name: ``"reference"``, ``"cpu"``, ``"gpu"`` or ``"gpu:1"``; human-readable, never for an ``if``.
        xp: the array module, ``numpy`` or ``cupy``.
        kernels: reference function -> faster function of the same signature, which falls back to it by itself.
        copy_to_host: device array -> ``numpy.ndarray``; waits for the device.
        synchronous: results are there when a call returns (NumPy), so reading one costs nothing.
        uncapturable_ops: names of ops that ran since it was last called and cannot be part of a CUDA graph; None where
            there are no graphs.
        free_memory: bytes of the device that are free; None where it has none of its own.
        half: worth training on in float16; the CPU's kernels know float32 alone.
        tf32_kernels: (allowed) -> ``kernels`` whose float32 convolutions may, or may not, round their factors to 10
            bits of mantissa (TF32); None where they never do.
    """

    name: str
    xp: ModuleType
    kernels: Mapping[Op, Op] = field(default_factory=dict)
    copy_to_host: Callable[[Array], Array] = np.asarray
    synchronous: bool = True
    half: bool = True
    tf32_kernels: Callable[[bool], Mapping[Op, Op]] | None = None
    uncapturable_ops: Callable[[], list[str]] | None = None
    free_memory: Callable[[], int] | None = None

    def with_tf32(self, allowed: bool) -> Self:
        """The same device with convolutions that may use TF32 or not; this backend itself stays as it is."""
        return replace(self, kernels=self.tf32_kernels(allowed)) if self.tf32_kernels else self

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise UsageError(
            f"the {self.name} backend cannot be copied or pickled, nor a model, loader or trainer on it: build the "
            "model again, and give it the weights by load_state_dict(model.state_dict())"
        )

    def run(self, op: Op, *args: Any, **kwargs: Any) -> Any:
        """Run op with this backend's kernel for it; an op without one runs on the reference implementation."""
        return self.kernels.get(op, op)(*args, **kwargs)

    def to_device(self, host: Array) -> Array:
        """Host array -> an array of this backend (no copy where it already is one)."""
        return self.xp.asarray(host)

    def to_host(self, array: Array) -> Array:
        """Array of this backend -> ``numpy.ndarray``.  # sync"""
        return self.copy_to_host(array)


REFERENCE = Backend("reference", np)
"""The oracle: NumPy and the reference implementation of every op."""


def accumulator_dtype(array: Array) -> np.dtype[Any]:
    """The dtype of sums, statistics and losses over a float array: its own, but float32 for float16."""
    return np.promote_types(array.dtype, np.float32)


def array_module(array: Array) -> ModuleType:
    """The module whose functions work on this array: ``numpy`` for its arrays, ``cupy`` for CuPy's.

    It is the top-level package that defines the array's class, so nothing here imports CuPy.
    """
    module = sys.modules[type(array).__module__.partition(".")[0]]
    if not hasattr(module, "ndarray"):
        raise UsageError(f"a {type(array).__name__} where an array is needed: give a NumPy or CuPy array")
    return module
