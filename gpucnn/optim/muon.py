"""Muon: momentum whose direction is made orthogonal, for the filters of convolutions.

After K. Jordan et al. (kellerjordan.github.io/posts/muon, 2024).  With a weight W and its gradient G as matrices, a row
for each of the F filters and a column for each of the KH KW C taps:

    V <- mu V + G;   M = G + mu V                                 M = V without Nesterov
    W <- W sqrt(F) / |W|;   W <- W - lr newton_schulz(M)          |.| is the Frobenius norm

The singular values of a step are all about lr: no direction of the gradient drowns another, and its length is not
the gradient's.  The length of the weight is fixed, so there is no weight decay for filters.  All other parameters are
updated by gradient descent with momentum, as ``SGD`` does it.
"""

from collections.abc import Hashable, Mapping
from typing import Any

from gpucnn.backend import Backend, array_module
from gpucnn.errors import UsageError
from gpucnn.layers.parameter import FlatParameters
from gpucnn.optim.optimizer import SGD, GroupRule
from gpucnn.types import Array

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""a, b, c: three rounds of s <- a s + b s^3 + c s^5 take every s from 0.02 to 1 into 0.68 to 1.21."""

SMALLEST = 1e-7
"""Added to norms, so that a matrix of zeros stays one."""


def norm(x: Array) -> Array:
    """The Frobenius norm () of x, in its dtype; squares in float64, where those of 1e30 are finite."""
    xp = array_module(x)
    return xp.sqrt(xp.square(x, dtype="float64").sum()).astype(x.dtype)


def newton_schulz(m: Array, steps: int) -> Array:
    """m (R,C) = U S V^T -> about U V^T, the nearest matrix with singular values 1, by products alone.

    X <- m / |m|, then in each step  X <- a X + (b A + c A^2) X  with  A = X X^T.  An odd polynomial of X acts on its
    singular values and leaves U and V as they are.  A tall matrix is transposed, for a smaller A.
    """
    a, b, c = COEFFICIENTS
    tall = m.shape[0] > m.shape[1]
    x = m.T if tall else m
    x = x / (norm(x) + SMALLEST)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return x.T if tall else x


def muon_update(w: Array, g: Array, velocity: Array, lr: Any, momentum: float, nesterov: bool, steps: int) -> None:
    """One step for w (F,C); g and velocity are alike; w and velocity change in place.

    ``lr`` is a number, or float64 () on the device; either way it counts in the dtype of w.
    """
    velocity *= momentum
    velocity += g
    direction = g + momentum * velocity if nesterov else velocity
    w *= w.shape[0] ** 0.5 / (norm(w) + SMALLEST)
    rate = lr.astype(w.dtype) if hasattr(lr, "astype") else lr  # a float64 array would make the rest float64
    w -= rate * newton_schulz(direction, steps)


class Muon(SGD):
    """Muon for the group "filter", SGD for all others.

    Args:
        steps: of ``newton_schulz``.
        lr, momentum, nesterov, weight_decay, decoupled, groups: as for SGD.  Rates of the two kinds differ by much:
            give groups their factors, as "filter" 0.24 and "weight" 0.67 with lr = 1.

    Raises:
        UsageError: as SGD does, for fewer steps than one, or for a weight decay of the filters.
    """

    def __init__(
        self,
        lr: float,
        *,
        momentum: float = 0.6,
        nesterov: bool = True,
        weight_decay: float = 0.0,
        decoupled: bool = False,
        groups: Mapping[str, GroupRule] | None = None,
        steps: int = 3,
    ) -> None:
        super().__init__(
            lr, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay, decoupled=decoupled, groups=groups
        )
        if steps < 1:
            raise UsageError(f"Muon with {steps} Newton-Schulz steps: give a number >= 1")
        if self.rules["filter"].weight_decay:
            raise UsageError("the group 'filter' has a weight decay, but Muon keeps the norm of filters: leave it out")
        self.steps = steps
        self.state_names = ("velocity",)

    def bind(self, flat: FlatParameters, backend: Backend) -> None:
        super().bind(flat, backend)
        self.filters = [name for name, parameter in flat.parameters.items() if parameter.group == "filter"]

    def treatment(self, group: str) -> Hashable:
        return group == "filter", super().treatment(group)

    def update(self, group: str, part: slice, lr: Any, step: Any) -> None:
        if group != "filter":
            super().update(group, part, lr, step)
            return
        for name in self.filters:
            views = (self.flat.view(flat, name) for flat in (self.flat.data, self.flat.grad, self.state["velocity"]))
            w, g, velocity = (view.reshape(len(view), -1) for view in views)
            self.backend.run(muon_update, w, g, velocity, lr, self.momenta[group], self.nesterov, self.steps)
