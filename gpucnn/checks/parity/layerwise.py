"""Every layer of a net alone, on the reference's own x and dy, so that no layer answers for the errors of another.

What is tolerated, relative to the largest value of an array: 2e-5 in float32, and nothing at all where a layer only
picks, masks, moves or adds two numbers.  Winograd's convolution, the roughest of the kernels, came to 1.6e-5 in the
small models of the registry at batch 8 over ten seeds; sums in another order are at 1e-7 to 1e-6.

The gradient of a weight or a bias is a long sum, and where its terms cancel, float32 cannot keep 2e-5 of what is left:
in front of batch norm a bias has gradient 0, and both backends show rounding errors alone.  So such a gradient may
also be wrong by one rounding of its terms, 2^-23 times the sum of their magnitudes.
"""

from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass
from math import inf

import numpy as np

from gpucnn.backend import REFERENCE, Backend
from gpucnn.checks.parity.distance import relative, ulps
from gpucnn.checks.parity.record import Step, on_host
from gpucnn.layers import BatchNormReLU, Conv2D, Dropout, Flatten, Layer, Linear, MaxPool2D, ReLU, Residual
from gpucnn.layers.batchnorm import batchnorm
from gpucnn.losses import softmax_cross_entropy
from gpucnn.optim.optimizer import SGD, AdamW, Optimizer
from gpucnn.types import Array

TOLERANCE = 2e-5
ROUNDING = 2.0**-23  # of the terms of a gradient
EXACT = (Dropout, Flatten, MaxPool2D, ReLU, Residual)

OPTIMIZERS: dict[str, Callable[[], Optimizer]] = {
    "SGD": lambda: SGD(0.1, weight_decay=0.01),
    "momentum": lambda: SGD(0.1, momentum=0.9, weight_decay=0.01),
    "AdamW": lambda: AdamW(0.1, weight_decay=0.01),
}

Made = dict[tuple[str, str], Array]
"""("forward" or "backward", name of an array) -> host array"""


@dataclass(frozen=True)
class Difference:
    """One array of one layer: the candidate's beside the reference's.

    Attributes:
        layer: its name, as in ``state_dict``; in parentheses for what is no layer.
        kind: its class.
        direction: "forward" or "backward".
        array: "y", "y in evaluation", "dx", or the name of a buffer or of a parameter, whose gradient it is.
        relative, ulps: see ``distance``; infinite also where the candidate's dtype is another one.
        tolerance: of ``relative``.
    """

    layer: str
    kind: str
    direction: str
    array: str
    relative: float
    ulps: float
    tolerance: float

    @property
    def passed(self) -> bool:
        return self.relative <= self.tolerance

    @property
    def used(self) -> float:
        """The share of the tolerance that is used up; above 1 it does not pass."""
        return self.relative / self.tolerance if self.tolerance else self.relative and inf


class Given(Layer):
    """Stands in a container for a child, and answers with what the child of the reference answered."""

    def __init__(self, y: Array, dx: Array) -> None:
        self.y, self.dx = y, dx

    def forward(self, x: Array) -> Array:
        return self.y

    def backward(self, dy: Array) -> Array | None:
        return self.dx


def layer_by_layer(reference: Layer, candidate: Layer, step: Step) -> Iterator[Difference]:
    """Differences of every layer that computes, in the order of computation.

    Args:
        reference, candidate: one model twice, with the same state, on the reference and on another backend; their
            gradients and statistics move.
        step: what the reference recorded from that state.
    """
    mine, theirs = dict(reference.named_layers()), dict(candidate.named_layers())
    for name in step.order:
        layer, x = mine[name], step.x[name]
        dy = decided(layer, x, step.dy[name])
        inside = {child: f"{name}.{child}" if name else child for child in layer.children()}
        answers = {child: (step.y[full], step.dx[full]) for child, full in inside.items()}
        sizes = terms(layer, x, dy)
        wanted, got = alone(layer, x, dy, answers), alone(theirs[name], x, dy, answers)
        for (direction, array), b in wanted.items():
            limit = tolerance(layer, direction)
            if array in sizes and b.any():
                limit = max(limit, ROUNDING * sizes[array] / float(abs(b).max()))
            yield difference((name, type(layer).__name__, direction, array), got[direction, array], b, limit)


def alone(layer: Layer, x: Array, dy: Array, answers: dict[str, tuple[Array, Array]]) -> Made:
    """All that a layer makes of x and dy, on its own backend; its children only give their ``answers`` (y, dx)."""
    backend = layer.backend
    if answers:
        layer = copy(layer)
        for child, pair in answers.items():
            setattr(layer, child, Given(*(backend.to_device(array.copy()) for array in pair)))
    x, dy = backend.to_device(x.copy()), backend.to_device(dy.copy())
    made: Made = {}
    buffers = layer.buffers()
    if buffers:
        made["forward", "y in evaluation"] = on_host(layer.eval().forward(x), backend)
    made["forward", "y"] = on_host(layer.train().forward(x), backend)
    made |= {("forward", name): on_host(buffer.data, backend) for name, buffer in buffers.items()}
    dx = layer.backward(dy)
    assert dx is not None  # nobody told the layer that it is not needed
    made["backward", "dx"] = on_host(dx, backend)
    made |= {("backward", name): on_host(p.grad, backend) for name, p in layer.parameters().items()}
    return made


def decided(layer: Layer, x: Array, dy: Array) -> Array:
    """The gradient to give to a layer: dy, but 0 where rounding decides on which side of ReLU's kink a value lies.

    There the whole of dy or nothing is right, and each backend may take another side.  It concerns batch norm with
    ReLU, whose mask is of a number that it computes; every other layer masks by a number that it is given.
    """
    if not isinstance(layer, BatchNormReLU):
        return dy
    z, _, _ = batchnorm(x, layer.scale.data, layer.shift.data, layer.eps)
    return np.where(abs(z) > TOLERANCE * abs(z).max(), dy, 0)


def terms(layer: Layer, x: Array, dy: Array) -> dict[str, float]:
    """Parameter -> the largest sum of the magnitudes of its gradient's terms, where these are products of x and dy.

    It is the gradient for |x| and |dy|, and is left in the layer.
    """
    if not isinstance(layer, Conv2D | Linear):
        return {}
    layer = copy(layer)
    layer.needs_input_grad = False
    layer.train().forward(abs(x))
    layer.backward(abs(dy))
    return {name: float(parameter.grad.max()) for name, parameter in layer.parameters().items()}


def tolerance(layer: Layer, direction: str) -> float:
    """What is tolerated; windows of max pooling that overlap add up gradients, in any order."""
    if direction == "backward" and isinstance(layer, MaxPool2D):
        overlap = any(k > s for k, s in zip(layer.kernel, layer.stride, strict=True))
        return TOLERANCE if overlap else 0.0
    return 0.0 if isinstance(layer, EXACT) else TOLERANCE


def difference(title: tuple[str, str, str, str], a: Array, b: Array, limit: float = TOLERANCE) -> Difference:
    """The candidate's a beside the reference's b."""
    alike = a.dtype == b.dtype
    return Difference(*title, relative(a, b) if alike else inf, ulps(a, b) if alike else inf, limit)


def loss_alone(candidate: Backend, step: Step) -> Iterator[Difference]:
    """Softmax cross-entropy of the reference's logits, plain and smoothed."""
    for smoothing in (0.0, 0.1):
        loss, dlogits = REFERENCE.run(softmax_cross_entropy, step.logits, step.labels, smoothing)
        arrays = (candidate.to_device(step.logits.copy()), candidate.to_device(step.labels))
        their_loss, their_dlogits = candidate.run(softmax_cross_entropy, *arrays, smoothing)
        kind = "smoothed" if smoothing else "cross-entropy"
        yield difference(("(loss)", kind, "forward", "loss"), on_host(their_loss, candidate), np.asarray(loss))
        yield difference(("(loss)", kind, "backward", "dlogits"), on_host(their_dlogits, candidate), dlogits)


def optimizers_alone(reference: Layer, candidate: Layer, step: Step) -> Iterator[Difference]:
    """Two updates by each optimiser, from the reference's gradient.

    The gradient is stretched until its largest element is 1, so that updates are as large as the weights and an
    error in them shows.
    """
    if not step.flat_grad.any():  # nothing to learn
        return
    gradient = step.flat_grad / abs(step.flat_grad).max()
    start = reference.flat.data.copy()

    def updated(model: Layer, optimizer: Optimizer) -> dict[str, Array]:
        backend = model.backend
        optimizer.bind(model.flat, backend)
        model.flat.data[...] = backend.to_device(start)
        model.flat.grad[...] = backend.to_device(gradient)
        for number in range(2):
            optimizer.step(optimizer.lr, number)
        return {name: on_host(a, backend) for name, a in {"weights": model.flat.data, **optimizer.state}.items()}

    for kind, make in OPTIMIZERS.items():
        wanted, got = updated(reference, make()), updated(candidate, make())
        for array, b in wanted.items():
            yield difference(("(optimiser)", kind, "backward", array), got[array], b)
