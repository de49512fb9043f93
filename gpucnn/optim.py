"""Optimisers: one pass over the flat parameters for each group.

The update functions work in place on 1-D arrays: w and the optimiser's state change, g does not.

    (L21)      w <- w - lr g                                             plain gradient descent
    momentum   v <- mu v + g;   w <- w - lr v                            (Nesterov: w <- w - lr (g + mu v))
    Adam       m <- b1 m + (1 - b1) g;   v <- b2 v + (1 - b2) g^2        arXiv 1412.6980
               w <- w - lr m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps)

Weight decay adds wd w to g; AdamW (arXiv 1711.05101) takes lr wd w off w instead.  It spares biases and
batch norm.
"""

from collections.abc import Mapping
from typing import Any

from gpucnn.backend import Backend, array_module
from gpucnn.errors import UsageError
from gpucnn.parameter import FlatParameters
from gpucnn.typing import Array


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
    v += (1.0 - beta2) * (g * g)
    scale = lr / (1.0 - beta1**step)
    w -= scale * m / (array_module(v).sqrt(v / (1.0 - beta2**step)) + eps)


def clip_by_norm(g: Array, max_norm: float) -> None:
    """Shorten g (total,) in place to ``max_norm`` where its Euclidean length is greater."""
    xp = array_module(g)
    length = xp.sqrt((g * g).sum(dtype="float64"))
    g *= xp.minimum(1.0, max_norm / (length + 1e-12)).astype(g.dtype)


class Optimizer:
    """Owns the state arrays, flat as the parameters are.

    Attributes:
        lr: the learning rate that a schedule scales or replaces.
        state: name -> flat array, (total,).
    """

    state_names: tuple[str, ...] = ()

    def __init__(self, lr: float, weight_decay: float) -> None:
        if not lr >= 0.0:
            raise UsageError(f"lr={lr}: the learning rate must be a number >= 0")
        if not weight_decay >= 0.0:
            raise UsageError(f"weight_decay={weight_decay}: give a number >= 0")
        self.lr, self.weight_decay = lr, weight_decay
        self.state: dict[str, Array] = {}

    def bind(self, flat: FlatParameters, backend: Backend) -> None:
        """Take charge of these parameters; the state starts at zero."""
        self.flat, self.backend = flat, backend
        self.state = {name: backend.xp.zeros_like(flat.data) for name in self.state_names}

    def step(self, lr: float, step: int) -> None:
        """Update all parameters from their gradients; ``step`` counts from 0."""
        for group, part in self.flat.groups.items():
            if part.start < part.stop:
                decay = self.weight_decay if group == "weight" else 0.0
                state = (self.state[name][part] for name in self.state_names)
                self.update(self.flat.data[part], self.flat.grad[part], *state, lr=lr, decay=decay, step=step)

    def update(self, w: Array, g: Array, *state: Array, lr: float, decay: float, step: int) -> None:
        raise NotImplementedError

    def state_dict(self) -> dict[str, dict[str, Array]]:
        """State name -> parameter name -> host copy.  # sync"""
        return {
            kind: {name: self.backend.to_host(self.flat.view(flat, name)).copy() for name in self.flat.segments}
            for kind, flat in self.state.items()
        }

    def load_state_dict(self, state: Mapping[str, Mapping[str, Array]]) -> None:
        """Replace the state; names and shapes have been checked by whoever read them."""
        for kind, flat in self.state.items():
            for name in self.flat.segments:
                self.flat.view(flat, name)[...] = self.backend.to_device(state[kind][name])


class SGD(Optimizer):
    """Gradient descent, with momentum where it is not 0."""

    def __init__(self, lr: float, *, momentum: float = 0.0, nesterov: bool = False, weight_decay: float = 0.0) -> None:
        super().__init__(lr, weight_decay)
        if not 0.0 <= momentum < 1.0:
            raise UsageError(f"momentum={momentum}: give a number in [0, 1)")
        self.momentum, self.nesterov = momentum, nesterov
        self.state_names = ("velocity",) if momentum else ()

    def update(self, w: Array, g: Array, *state: Array, lr: float, decay: float, step: int) -> None:
        if state:
            self.backend.run(momentum_update, w, g, state[0], lr, self.momentum, decay, self.nesterov)
        else:
            self.backend.run(sgd_update, w, g, lr, decay)


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
    ) -> None:
        super().__init__(lr, weight_decay)
        self.beta1, self.beta2, self.eps = beta1, beta2, eps

    def update(self, w: Array, g: Array, *state: Array, lr: float, decay: float, step: int) -> None:
        numbers: tuple[Any, ...] = (lr, self.beta1, self.beta2, self.eps, decay, self.decoupled, step + 1)
        self.backend.run(adam_update, w, g, *state, *numbers)


class AdamW(Adam):
    """Adam with decoupled weight decay."""

    decoupled = True
