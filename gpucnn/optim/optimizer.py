"""Optimizers: one pass over the flat parameters for each group.

The update functions work in place on 1-D arrays: w and the optimizer's state change, g does not.

    (L21)      w <- w - lr g                                             plain gradient descent
    momentum   v <- mu v + g;   w <- w - lr v                            (Nesterov: w <- w - lr (g + mu v))
    Adam       m <- b1 m + (1 - b1) g;   v <- b2 v + (1 - b2) g^2        arXiv 1412.6980
               w <- w - lr m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps)

Weight decay adds wd w to g; AdamW (arXiv 1711.05101) takes lr wd w off w instead.  It spares biases and
batch norm, unless a ``GroupRule`` says otherwise.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from math import ceil
from typing import Any

from gpucnn.backend import Backend, array_module
from gpucnn.errors import UsageError, closest
from gpucnn.layers.parameter import DECAYED, GROUPS, FlatParameters
from gpucnn.settings import Checked, Settings, setting
from gpucnn.types import Array

TRAINED = tuple(group for group in GROUPS if group != "frozen")
"""The groups that an optimizer updates."""

MOST_EPOCHS, MOST_STEPS = 10**9, 10**12  # more than any run has
MOST = 1e30  # of a rate or a factor; it has a square in float64, and itself in float32


def sgd_update(w: Array, g: Array, lr: float, weight_decay: float) -> None:
    """(L21)"""
    w -= lr * (g + weight_decay * w)


def momentum_update(
    w: Array, g: Array, velocity: Array, lr: float, momentum: float, weight_decay: float, nesterov: bool
) -> None:
    """(L21) with momentum (Polyak 1964; Nesterov as in Sutskever et al., ICML 2013)."""
    g = g + weight_decay * w
    velocity *= momentum
    velocity += g
    w -= lr * (g + momentum * velocity if nesterov else velocity)


def adam_update(
    w: Array,
    g: Array,
    m: Array,
    v: Array,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    decoupled: bool,
    step: int,
) -> None:
    """Adam, and AdamW where decoupled; ``step`` counts from 1."""
    if decoupled:
        w *= 1.0 - lr * weight_decay
    else:
        g = g + weight_decay * w
    m *= beta1
    m += (1.0 - beta1) * g
    v *= beta2
    v += (1.0 - beta2) * g * g
    scale = lr / (1.0 - beta1**step)
    w -= scale * m / (array_module(v).sqrt(v) * (1.0 - beta2**step) ** -0.5 + eps)


def clip_by_norm(g: Array, max_norm: float) -> None:
    """Scale g (total,) in place so that its Euclidean norm is at most ``max_norm``."""
    xp = array_module(g)
    norm = xp.sqrt(xp.square(g, dtype="float64").sum())  # a square of 1e20 is infinite in float32
    g *= xp.minimum(1.0, max_norm / (norm + 1e-12)).astype(g.dtype)


@dataclass(frozen=True)
class GroupRule(Settings):
    """How one group of parameters is trained, where it differs from the other groups.

    Args:
        lr: factor of the learning rate.
        weight_decay: of this group; None takes the optimizer's for filters and weights, and 0 for the others.
        momentum: of this group; None takes the optimizer's.
        steps: the group is trained for so many steps and frozen after them; 0 trains it to the end.
        fade: until it is frozen its rate falls on a straight line from ``lr`` times the optimizer's to 0, whatever
            the schedule says.
        epochs: in place of ``steps`` in a run's settings; an optimizer takes steps only (``in_steps``).

    Raises:
        UsageError: a number out of its range.
    """

    lr: float = setting(1.0, at_least=0, at_most=MOST)
    weight_decay: float | None = setting(None, at_least=0, at_most=MOST)
    momentum: float | None = setting(None, at_least=0, below=1)
    steps: int = setting(0, at_least=0, at_most=MOST_STEPS)
    fade: bool = False
    epochs: float = setting(0.0, at_least=0, at_most=MOST_EPOCHS)

    def in_steps(self, steps_per_epoch: int) -> "GroupRule":
        """The same rule with ``epochs``, where there are no ``steps``, as steps; rounded up."""
        return replace(self, steps=self.steps or ceil(self.epochs * steps_per_epoch), epochs=0.0)


class Optimizer(Checked):
    """Updates flat parameters from their gradients, and owns the state for that, flat arrays too.

    Args:
        groups: group -> its rule; groups without one follow the optimizer.

    Attributes:
        lr: the learning rate that a schedule scales or replaces.
        rules: group -> its rule, for all groups but "frozen".
        parts: group -> slice of the flat arrays that holds it and the groups behind it that are treated alike.
        state: name -> flat array, (total,).

    Raises:
        UsageError: a number out of its range, a rule for a group that does not exist, or a rule in epochs or with
            ``fade`` but no steps.
    """

    state_names: tuple[str, ...] = ()

    def __init__(self, lr: float, weight_decay: float, groups: Mapping[str, GroupRule] | None = None) -> None:
        if not lr >= 0.0:
            raise UsageError(f"lr={lr}: the learning rate must be a number >= 0")
        if not weight_decay >= 0.0:
            raise UsageError(f"weight_decay={weight_decay}: give a number >= 0")
        self.lr, self.weight_decay = lr, weight_decay
        self.rules = {group: GroupRule() for group in TRAINED}
        for group, rule in (groups or {}).items():
            if group not in self.rules:
                raise UsageError(f"there is no parameter group {group!r} to train{closest(group, self.rules)}")
            if rule.epochs:
                raise UsageError(
                    f"group {group!r}: epochs = {rule.epochs}: an optimizer takes steps (GroupRule.in_steps)"
                )
            if rule.fade and not rule.steps:
                raise UsageError(
                    f"optimizer.groups.{group}.fade needs steps or epochs: in how many its rate falls to 0"
                )
            self.rules[group] = rule
        self.state: dict[str, Array] = {}

    def bind(self, flat: FlatParameters, backend: Backend) -> None:
        """Optimise these parameters; the state starts at zero."""
        self.flat, self.backend = flat, backend
        self.state = {name: backend.xp.zeros_like(flat.data) for name in self.state_names}
        present = (group for group in self.rules if flat.groups[group].start < flat.groups[group].stop)
        runs = [list(run) for _, run in groupby(present, self.treatment)]
        self.parts = {run[0]: slice(flat.groups[run[0]].start, flat.groups[run[-1]].stop) for run in runs}

    def treatment(self, group: str) -> Hashable:
        """Neighbouring groups for which this is equal are updated in one pass."""
        return self.rules[group], self.decay(group)

    def step(self, lr: float, step: int) -> None:
        """Update all parameters from their gradients; ``step`` counts from 0."""
        self.apply(self.rates(lr, step), step)

    def apply(self, rates: Mapping[str, Any], step: Any) -> None:
        """The same at these rates: numbers, or float64 () on the device, and ``step`` a number or int64 () there."""
        for group, part in self.parts.items():
            if group in rates:
                self.update(group, part, rates[group], step)

    def rates(self, lr: float, step: int) -> dict[str, float]:
        """Group -> its learning rate where the schedule's is ``lr``; frozen groups are left out."""
        trained = {group: rule for group, rule in self.rules.items() if group not in self.frozen_groups(step)}
        return {g: (self.lr * (1.0 - step / rule.steps) if rule.fade else lr) * rule.lr for g, rule in trained.items()}

    def frozen_groups(self, step: int) -> list[str]:
        """The groups that are frozen at this step, or were before."""
        return [group for group, rule in self.rules.items() if rule.steps and step >= rule.steps]

    def decay(self, group: str) -> float:
        """The weight decay of a group."""
        own, general = self.rules[group].weight_decay, self.weight_decay if group in DECAYED else 0.0
        return general if own is None else own

    def update(self, group: str, part: slice, lr: Any, step: Any) -> None:
        """Update this part of the flat arrays, a group and its equals, at the group's rate."""
        raise NotImplementedError

    def arrays(self, part: slice) -> list[Array]:
        """This part of the weights, of their gradients and of each state."""
        return [flat[part] for flat in (self.flat.data, self.flat.grad, *self.state.values())]

    def state_dict(self) -> dict[str, dict[str, Array]]:
        """State name -> parameter name -> host copy.  # sync"""
        return {
            kind: {name: self.backend.to_host(self.flat.view(flat, name)).copy() for name in self.flat.segments}
            for kind, flat in self.state.items()
        }

    def load_state_dict(self, state: Mapping[str, Mapping[str, Array]]) -> None:
        """Replace the state; the caller has checked names and shapes."""
        for kind, flat in self.state.items():
            for name in self.flat.segments:
                self.flat.view(flat, name)[...] = self.backend.to_device(state[kind][name])


class SGD(Optimizer):
    """Gradient descent, with momentum where it is not 0.

    Args:
        decoupled: weight decay is the fraction of w that one step at the full learning rate takes off w, whatever
            that rate is.  The gradient gets (weight_decay / lr) w, with the optimizer's lr times the group's factor, so
            the schedule and momentum act on it as on the gradient (the decay of arXiv 2404.00498).  Without it,
            the gradient gets weight_decay w, and a step takes lr weight_decay w off w.
    """

    def __init__(
        self,
        lr: float,
        *,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        decoupled: bool = False,
        groups: Mapping[str, GroupRule] | None = None,
    ) -> None:
        super().__init__(lr, weight_decay, groups)
        if not 0.0 <= momentum < 1.0:
            raise UsageError(f"momentum={momentum}: give a number in [0, 1)")
        own = {group: rule.momentum for group, rule in self.rules.items() if rule.momentum is not None}
        self.momenta = dict.fromkeys(self.rules, momentum) | own
        self.momentum, self.nesterov, self.decoupled = momentum, nesterov, decoupled
        self.state_names = ("velocity",) if any(self.momenta.values()) else ()

    def decay(self, group: str) -> float:
        full = self.lr * self.rules[group].lr if self.decoupled else 1.0
        return super().decay(group) / full if full else 0.0

    def update(self, group: str, part: slice, lr: Any, step: Any) -> None:
        w, g, *velocity = self.arrays(part)
        if velocity:
            momentum, decay = self.momenta[group], self.decay(group)
            self.backend.run(momentum_update, w, g, *velocity, lr, momentum, decay, self.nesterov)
        else:
            self.backend.run(sgd_update, w, g, lr, self.decay(group))


class Adam(Optimizer):
    """Adam: steps scaled by running moments of the gradient."""

    state_names = ("m", "v")
    decoupled = False

    def __init__(
        self,
        lr: float = 1e-3,
        *,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        groups: Mapping[str, GroupRule] | None = None,
    ) -> None:
        super().__init__(lr, weight_decay, groups)
        if odd := [group for group, rule in self.rules.items() if rule.momentum is not None]:
            raise UsageError(f"the group {odd[0]!r} has a momentum, but Adam has none: leave it out, or use SGD")
        if not (0.0 <= beta1 < 1.0 and 0.0 <= beta2 < 1.0 and eps > 0.0):
            raise UsageError(f"beta1={beta1}, beta2={beta2}, eps={eps}: give two numbers in [0, 1) and one > 0")
        self.beta1, self.beta2, self.eps = beta1, beta2, eps

    def update(self, group: str, part: slice, lr: Any, step: Any) -> None:
        decay = self.decay(group)
        numbers = (lr, self.beta1, self.beta2, self.eps, decay, self.decoupled, step + 1)
        self.backend.run(adam_update, *self.arrays(part), *numbers)


class AdamW(Adam):
    """Adam with decoupled weight decay."""

    decoupled = True
