"""What a training step is computed in: float32 throughout, or float16 where that is safe.

Mixed precision (Micikevicius et al., arXiv 1710.03740) stores activations and multiplies in float16.  Weights, their
gradients, statistics and the loss stay float32:

    w16 = float16(w)                            all weights, once a step
    L   = loss(float32(model(x; w16)))
    g   = backward(float16(S dL/dz)) / S        float32; S keeps small gradients from becoming 0 in float16
    update by g where all of g is finite; else nothing changes and S is too large

S is halved where g is not finite, and doubled after so many finite ones in a row.  All this is device data: the host
never asks whether a step counted.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import floor, log2
from typing import Any

import numpy as np

from gpucnn.backend import Backend
from gpucnn.errors import UsageError
from gpucnn.layers import Layer
from gpucnn.optim.loss_scale import SMALLEST, adapt, keep, unscale
from gpucnn.optim.optimizer import Optimizer
from gpucnn.types import Array

FIRST = 2.0**16
"""S of the first step, for a loss that is a mean."""


@dataclass(frozen=True)
class Policy:
    """What is stored and computed in which dtype.

    Attributes:
        compute: of activations, and of weights in products: "float32" or "float16".
        tf32: convolutions of float32 may round their factors to 10 bits of fraction, as a GPU's tensor cores do;
            what they add up stays float32.
        interval: finite gradients in a row before S is doubled.
    """

    compute: str = "float32"
    interval: int = 2000
    tf32: bool = False

    def suits(self, backend: Backend) -> bool:
        """Whether a backend has a use for it; the CPU's kernels compute in float32 alone."""
        return (self.compute == "float32" or backend.half) and (not self.tf32 or backend.tf32_kernels is not None)

    def bind(self, backend: Backend, examples: int = 1) -> "SinglePrecision":
        """This policy at work on a backend.

        Args:
            examples: over how many images gradients are summed; S begins at ``FIRST`` for a mean, and lower by as much
                as a sum is larger.

        Raises:
            UsageError: the backend does not compute like that.
        """
        if not self.suits(backend):
            kind = "TF32" if self.tf32 else self.compute
            raise UsageError(f"the {backend.name} backend does not compute in {kind}: leave out train.amp (--amp)")
        if self.compute == "float32":
            return SinglePrecision()
        return MixedPrecision(self, backend, 2.0 ** floor(log2(max(FIRST / examples, SMALLEST))))


FLOAT32, FLOAT16, TF32 = Policy(), Policy("float16"), Policy(tf32=True)
POLICIES = {"off": FLOAT32, "fp16": FLOAT16, "tf32": TF32}
"""Setting ``train.amp`` -> policy."""


class SinglePrecision:
    """Float32 from end to end."""

    def stored(self, x: Array) -> Array:
        """Images as the model takes them."""
        return x

    def forward(self, model: Layer, x: Array) -> Array:
        """Images (N,H,W,C) -> logits (N,K), float32."""
        return model.forward(x)

    def backward(self, model: Layer, dlogits: Array) -> None:
        """Assign the gradients of all parameters, float32."""
        model.backward(dlogits)

    def update(self, optimizer: Optimizer, rates: Mapping[str, Any], step: Any) -> None:
        """A step of the optimiser, as its ``apply``."""
        optimizer.apply(rates, step)

    def state(self) -> tuple[float, int]:
        """S, and finite gradients in a row: what a checkpoint needs.  # sync"""
        return FIRST, 0

    def restore(self, scale: float, good: int) -> None:
        """Go on from a ``state``."""

    @property
    def forgives(self) -> bool:
        """Whether a gradient that is not finite is passed over."""
        return False


class MixedPrecision(SinglePrecision):
    """Float16 between float32 weights and float32 loss, as the equations above."""

    def __init__(self, policy: Policy, backend: Backend, first: float = FIRST) -> None:
        self.policy, self.backend = policy, backend
        self.scale = backend.xp.full((), first, dtype="float32")
        self.good = backend.xp.zeros((), dtype="int64")
        self.finite = backend.xp.ones((), dtype=bool)  # of the gradient of the step under way

    def stored(self, x: Array) -> Array:
        return x.astype(self.policy.compute, copy=False)

    def forward(self, model: Layer, x: Array) -> Array:
        with quiet():
            model.flat.round(self.policy.compute)
            logits = model.forward(self.stored(x))
        return logits.astype("float32")

    def backward(self, model: Layer, dlogits: Array) -> None:
        with quiet():
            model.backward((dlogits * self.scale).astype(self.policy.compute))
        self.backend.run(unscale, model.flat.grad, self.finite, self.scale)

    def update(self, optimizer: Optimizer, rates: Mapping[str, Any], step: Any) -> None:
        arrays = [optimizer.flat.data, *optimizer.state.values()]
        before = [array.copy() for array in arrays]
        optimizer.apply(rates, step)
        for pair in zip(arrays, before, strict=True):
            self.backend.run(keep, *pair, self.finite)
        self.backend.run(adapt, self.scale, self.good, self.finite, self.policy.interval)

    def state(self) -> tuple[float, int]:
        to_host = self.backend.to_host
        return float(to_host(self.scale)), int(to_host(self.good))

    def restore(self, scale: float, good: int) -> None:
        self.scale[...] = scale
        self.good[...] = good

    @property
    def forgives(self) -> bool:
        return True


def quiet() -> np.errstate:
    """NumPy need not warn of what overflows: that is looked for where the gradient is complete."""
    return np.errstate(over="ignore", invalid="ignore")
