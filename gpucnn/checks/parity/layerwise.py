"""Every layer of a net alone, on the reference's own x and dy, so that errors do not pass from layer to layer.

Neighbours that the candidate runs fused are checked as what runs: one step.

The tolerance, relative to the largest value of an array, is 2e-5 in float32, and 0 where a layer only selects, masks,
moves or adds two numbers.  Winograd's convolution, the least exact of the kernels, reached 1.6e-5 in the small models
of the registry at batch 8 over ten seeds; sums in another order differ by 1e-7 to 1e-6.

The gradient of a weight or a bias is a long sum, and where its terms cancel, float32 cannot keep 2e-5 of the result: in
front of batch norm a bias has gradient 0, as has batch norm's shift in front of a 1x1 convolution and batch norm, and
both backends show rounding errors only.  So such a gradient may also be
wrong by one rounding of its terms, 2^-23 times the sum of their magnitudes.
"""

from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass
from math import inf
from types import SimpleNamespace

import numpy as np

from gpucnn.backend import REFERENCE, Backend
from gpucnn.checks.parity.distance import relative, ulps
from gpucnn.checks.parity.record import Step, fused_steps, on_host
from gpucnn.layers import (
    BatchNorm,
    Conv2D,
    ConvTranspose2D,
    Dropout,
    Flatten,
    Layer,
    Linear,
    MaxPool2D,
    ReLU,
    ReLU6,
    Residual,
)
from gpucnn.layers.batchnorm import batchnorm
from gpucnn.layers.fusion import Fused, NormOps
from gpucnn.layers.pooling import max_pool2d
from gpucnn.layers.windows import pad, view_taps
from gpucnn.losses import softmax_cross_entropy
from gpucnn.optim.optimizer import SGD, AdamW, Optimizer
from gpucnn.types import Array

TOLERANCE = 2e-5
ROUNDING = 2.0**-23  # of the terms of a gradient
EXACT = (Dropout, Flatten, MaxPool2D, ReLU, ReLU6, Residual)

OPTIMIZERS: dict[str, Callable[[], Optimizer]] = {
    "SGD": lambda: SGD(0.1, weight_decay=0.01),
    "momentum": lambda: SGD(0.1, momentum=0.9, weight_decay=0.01),
    "AdamW": lambda: AdamW(0.1, weight_decay=0.01),
}


@dataclass(frozen=True)
class Difference:
    """One array of one layer: the candidate's beside the reference's."""

    layer: str  # its name, as in ``state_dict``, the first one's of fused layers; in parentheses for what is no layer
    kind: str  # its class, or those of fused layers
    direction: str  # "forward" or "backward"
    array: str  # "y", "y in evaluation", "dx", or the name of a buffer or of a parameter, whose gradient it is
    relative: float  # see ``distance``; infinite also where the candidate's dtype differs, as ``ulps`` is
    ulps: float
    tolerance: float  # of ``relative``

    @property
    def passed(self) -> bool:
        return self.relative <= self.tolerance

    @property
    def used(self) -> float:
        """relative / tolerance; above 1 it does not pass."""
        return self.relative / self.tolerance if self.tolerance else self.relative and inf


def given(y: Array, dx: Array) -> SimpleNamespace:
    """Replaces a child of a container and returns the results of the reference's child."""
    return SimpleNamespace(forward=lambda x: y, backward=lambda dy: dx, needs_backward=True)


def layer_by_layer(reference: Layer, candidate: Layer, step: Step) -> Iterator[Difference]:
    """Differences of every layer that computes, in the order of computation.

    ``reference`` and ``candidate`` are one model twice, with the same state, on the reference and on another backend;
    their gradients and statistics change.  ``step`` was recorded on the reference from that state.
    """
    mine, theirs = dict(reference.named_layers()), dict(candidate.named_layers())
    fused = {part.name: whole for whole in fused_steps(candidate) for part in whole.layers}
    for name in step.order:
        layer, other, last = mine[name], theirs[name], name
        if name in fused:
            other = fused[name]
            if name != other.name:  # not the first of its layers
                continue
            last = other.layers[-1].name
            layer = type(other)(*(mine[part.name] for part in other.layers))
        x, dy = step.x[name], decided(layer, step.x[name], step.dy[last])
        inside = {} if name in fused else layer.children()
        results = {child: (step.y[part.name], step.dx[part.name]) for child, part in inside.items()}
        sizes = terms(layer, x, dy)
        wanted, got = alone(layer, x, dy, results), alone(other, x, dy, results)
        for (direction, array), b in wanted.items():
            limit = tolerance(layer, direction)
            if array in sizes and b.any():
                limit = max(limit, ROUNDING * sizes[array] / float(abs(b).max()))
            yield difference((name, layer.kind, direction, array), got[direction, array], b, limit)


def alone(layer: Layer, x: Array, dy: Array, results: dict[str, tuple[Array, Array]]) -> dict[tuple[str, str], Array]:
    """All that a layer computes from x and dy on its own backend: ("forward" or "backward", name) -> host array.

    Its children only return given results (y, dx).
    """
    backend = layer.backend
    if results:
        layer = copy(layer)
        for child, pair in results.items():
            setattr(layer, child, given(*(backend.to_device(array.copy()) for array in pair)))
    x, dy = backend.to_device(x.copy()), backend.to_device(dy.copy())
    made = {}
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
    """The gradient to give to a layer: dy, but 0 where rounding decides which values it passes through to.

    There all of dy or none of it is right, and backends may differ.  It concerns batch norm fused with ReLU or max
    pooling, which compare numbers that they compute; every other layer compares numbers that it is given.
    """
    if not isinstance(layer, NormOps):
        return dy
    norm = layer.layers[0]
    z, _, _ = batchnorm(x, norm.scale.data, norm.shift.data, norm.eps)
    close = TOLERANCE * abs(z).max()
    if not layer.window:
        at_six = isinstance(layer.layers[-1], ReLU6) & (abs(z - 6) <= close)
        return np.where((abs(z) > close) & ~at_six, dy, 0)
    kernel, stride, padding = layer.window
    y = max_pool2d(z, *layer.window)
    taps = view_taps(pad(z, padding, -np.inf), kernel, (dy.shape[1], dy.shape[2]), stride)
    candidates = sum((tap > y - close).astype(int) for tap in taps)  # pixels of a window that may be its maximum
    return np.where((abs(y) > close) & (candidates == 1), dy, 0)


def terms(layer: Layer, x: Array, dy: Array) -> dict[str, float]:
    """Parameter -> the largest sum of the magnitudes of its gradient's terms, where these are products of x and dy.

    It is computed as the gradient for |x| and |dy|, which stays in the layer's ``grad``; batch norm's x is xhat.
    """
    if isinstance(layer, BatchNorm):
        xhat, _, _ = batchnorm(x, np.ones_like(layer.scale.data), np.zeros_like(layer.shift.data), layer.eps)
        axes = tuple(range(x.ndim - 1))
        return {"scale": float(abs(dy * xhat).sum(axes).max()), "shift": float(abs(dy).sum(axes).max())}
    if not isinstance(layer, Conv2D | ConvTranspose2D | Linear):
        return {}
    layer = copy(layer)
    layer.needs_input_grad = False
    layer.train().forward(abs(x))
    layer.backward(abs(dy))
    return {name: float(parameter.grad.max()) for name, parameter in layer.parameters().items()}


def tolerance(layer: Layer, direction: str) -> float:
    """Of ``relative``; overlapping windows of max pooling add up gradients, in any order."""
    if isinstance(layer, Fused):
        return max(tolerance(part, direction) for part in layer.layers)
    overlap = isinstance(layer, MaxPool2D) and any(k > s for k, s in zip(layer.kernel, layer.stride, strict=True))
    inexact = overlap and direction == "backward"
    return 0.0 if isinstance(layer, EXACT) and not inexact else TOLERANCE


def difference(title: tuple[str, str, str, str], a: Array, b: Array, limit: float = TOLERANCE) -> Difference:
    """The candidate's a beside the reference's b."""
    distances = (relative(a, b), ulps(a, b)) if a.dtype == b.dtype else (inf, inf)
    return Difference(*title, *distances, limit)


def loss_alone(candidate: Backend, step: Step) -> Iterator[Difference]:
    """Softmax cross-entropy of the reference's logits, plain and smoothed."""
    for kind, smoothing in {"cross-entropy": 0.0, "smoothed": 0.1}.items():
        loss, dlogits = REFERENCE.run(softmax_cross_entropy, step.logits, step.labels, smoothing)
        arrays = (candidate.to_device(step.logits.copy()), candidate.to_device(step.labels))
        their_loss, their_dlogits = candidate.run(softmax_cross_entropy, *arrays, smoothing)
        yield difference(("(loss)", kind, "forward", "loss"), on_host(their_loss, candidate), np.asarray(loss))
        yield difference(("(loss)", kind, "backward", "dlogits"), on_host(their_dlogits, candidate), dlogits)


def optimizers_alone(reference: Layer, candidate: Layer, step: Step) -> Iterator[Difference]:
    """Two updates by each optimizer, from the reference's gradient.

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
            yield difference(("(optimizer)", kind, "backward", array), got[array], b)
