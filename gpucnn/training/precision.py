"""The precision of a training step: float32 throughout, or mixed with float16.

Mixed precision (Micikevicius et al., arXiv 1710.03740) stores activations and multiplies in float16.  Weights, their
gradients, statistics and the loss stay float32:

    w16 = float16(w)                            all weights, once a step
    L   = loss(float32(model(x; w16)))
    g   = backward(float16(S dL/dz)) / S        float32; S keeps small gradients from becoming 0 in float16
    update by g where all of g is finite; else nothing changes and S is too large

S is halved when g is not finite, and doubled after a number of finite gradients in a row.  S and all decisions stay on
the device: the host never waits to learn whether a step was skipped.
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

FIRST_SCALE = 2.0**16
"""S of the first step, for a loss that is a mean."""


@dataclass(frozen=True)
class Policy:
    """Which dtype is used where.

    Attributes:
        compute: dtype of activations, and of the weights in products: "float32" or "float16".
        interval: finite gradients in a row before S is doubled.
        tf32: convolutions in float32 may round their factors to 10 bits of mantissa, as a GPU's tensor cores do;
            their sums stay float32.
    """

    compute: str = "float32"
    interval: int = 2000
    tf32: bool = False

    def suits(self, backend: Backend) -> bool:
        """Whether a backend computes like this; the CPU's kernels only know float32."""
        return (self.compute == "float32" or backend.half) and (not self.tf32 or backend.tf32_kernels is not None)

    def bind(self, backend: Backend, examples: int = 1) -> "SinglePrecision":
        """This policy on a backend.

        Args:
            examples: how many images a gradient is summed over.  S starts at ``FIRST_SCALE`` for a mean, and at about
                ``FIRST_SCALE / examples``, a power of two, for a sum.

        Raises:
            UsageError: the backend does not compute like that.
        """
        if not self.suits(backend):
            kind = "TF32" if self.tf32 else self.compute
            raise UsageError(f"the {backend.name} backend does not compute in {kind}: leave out train.amp (--amp)")
        if self.compute == "float32":
            return SinglePrecision()
        return MixedPrecision(self, backend, 2.0 ** floor(log2(max(FIRST_SCALE / examples, SMALLEST))))


FLOAT32, FLOAT16, TF32 = Policy(), Policy("float16"), Policy(tf32=True)
POLICIES = {"off": FLOAT32, "fp16": FLOAT16, "tf32": TF32}
"""Setting ``train.amp`` -> policy."""


class SinglePrecision:
    """Float32 from end to end.

    Attributes:
        skips_nonfinite: whether a step whose gradient is not finite is skipped, rather than an error.
    """

    skips_nonfinite = False

    def stored(self, x: Array) -> Array:
        """Images in the dtype that the model computes in."""
        return x

    def forward(self, model: Layer, x: Array) -> Array:
        """Images (N,H,W,C) -> logits (N,K), float32."""
        return model.forward(x)

    def backward(self, model: Layer, dlogits: Array) -> None:
        """Assign the gradients of all parameters, float32."""
        model.backward(dlogits)

    def update(self, optimizer: Optimizer, rates: Mapping[str, Any], step: Any) -> None:
        """A step of the optimizer, as ``Optimizer.apply``."""
        optimizer.apply(rates, step)

    def exhausted(self) -> bool:
        """Whether S is at its minimum and the last gradient still was not finite.  # sync"""
        return False

    def state_dict(self) -> dict[str, Any]:
        """S, and the finite gradients in a row since it was set, for a checkpoint.  # sync"""
        return {"loss_scale": FIRST_SCALE, "good_steps": 0}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a ``state_dict``."""


quiet = np.errstate(over="ignore", invalid="ignore")
"""A decorator, for no NumPy warnings of overflow: ``unscale`` checks the complete gradient."""


class MixedPrecision(SinglePrecision):
    """Float16 between float32 weights and a float32 loss: the equations above."""

    skips_nonfinite = True

    def __init__(self, policy: Policy, backend: Backend, first_scale: float = FIRST_SCALE) -> None:
        self.policy, self.backend = policy, backend
        self.scale = backend.xp.full((), first_scale, dtype="float32")  # S
        self.good = backend.xp.zeros((), dtype="int64")  # finite gradients in a row
        self.finite = backend.xp.ones((), dtype=bool)  # whether the current gradient is

    def stored(self, x: Array) -> Array:
        return x.astype(self.policy.compute, copy=False)

    @quiet
    def forward(self, model: Layer, x: Array) -> Array:
        model.flat.round(self.policy.compute)
        return model.forward(self.stored(x)).astype("float32")

    @quiet
    def backward(self, model: Layer, dlogits: Array) -> None:
        model.backward((dlogits * self.scale).astype(self.policy.compute))
        self.backend.run(unscale, model.flat.grad, self.finite, self.scale)

    def update(self, optimizer: Optimizer, rates: Mapping[str, Any], step: Any) -> None:
        arrays = [optimizer.flat.data, *optimizer.state.values()]
        before = [array.copy() for array in arrays]
        optimizer.apply(rates, step)
        for pair in zip(arrays, before, strict=True):
            self.backend.run(keep, *pair, self.finite)
        self.backend.run(adapt, self.scale, self.good, self.finite, self.policy.interval)

    def exhausted(self) -> bool:
        return self.state_dict() == {"loss_scale": SMALLEST, "good_steps": 0}

    def state_dict(self) -> dict[str, Any]:
        to_host = self.backend.to_host
        return {"loss_scale": float(to_host(self.scale)), "good_steps": int(to_host(self.good))}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.scale[...] = state["loss_scale"]
        self.good[...] = state["good_steps"]
