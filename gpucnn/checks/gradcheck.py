"""Gradients against finite differences: the check that needs no second implementation.

For a layer, L = sum(v * layer(x)) with fixed random v; for a loss, L is its value.  In float64, with step h,

    numeric_i = (L(x + h e_i) - L(x - h e_i)) / 2h
    error     = max_i |numeric_i - gradient_i| / max(max_i |numeric_i|, max_i |gradient_i|, 1e-8)

``x`` has evenly spaced values in random order: no two are equal and none is near 0, so no step crosses the kink of a
ReLU or changes which pixel of a window is the largest.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import numpy as np

from gpucnn import layers, losses, random
from gpucnn.backend import Backend
from gpucnn.layers import Layer
from gpucnn.layers.fusion import FUSIONS
from gpucnn.types import Array, Shape

STEP = 1e-5
TOLERANCE = 1e-6
SAMPLES = 60  # elements checked of each array, sampled by the seed
FUSING = Backend("fusing reference", np, {step.ops[0]: step.ops[0] for step in FUSIONS.values()})


@dataclass(frozen=True)
class Check:
    """The result for one array: the case, the array's name, and the error defined above."""

    case: str
    array: str
    error: float

    @property
    def passed(self) -> bool:
        return self.error < TOLERANCE


def spaced(shape: Shape, seed: int = 0) -> Array:
    """Distinct values in (-2, 2), at least 0.5 / size away from 0, in random order."""
    size = prod(shape)
    order = random.permutation(size, seed=seed, stream=random.stream_id("gradcheck"))
    return ((order - (size - 1) / 2) * (4.0 / size) + (0.5 / size if size % 2 else 0.0)).reshape(shape)


def gradient_error(value: Callable[[], float], array: Array, gradient: Array, seed: int = 0) -> float:
    """The error of the gradient of ``value()`` for ``array``, whose elements are moved one by one and restored."""
    index = random.permutation(array.size, seed=seed, stream=random.stream_id("elements"))[:SAMPLES]
    flat, numeric = array.reshape(-1), np.empty(len(index))
    for place, i in enumerate(index):
        before = flat[i]
        flat[i] = before + STEP
        above = value()
        flat[i] = before - STEP
        numeric[place] = (above - value()) / (2 * STEP)
        flat[i] = before
    analytic = gradient.reshape(-1)[index]
    largest = max(np.abs(numeric).max(), np.abs(gradient).max(), 1e-8)
    return float(np.abs(numeric - analytic).max() / largest)


def check_layer(layer: Layer, shape: Shape, *, case: str = "", seed: int = 0) -> list[Check]:
    """The gradients of a layer for its input, of this shape with the batch, and for all its parameters.

    The layer is initialised in float64 and left in training mode.  Neighbours that have a fused op run through it.
    """
    layer.initialize(seed, FUSING, "float64").train()
    x = spaced(shape, seed)
    for name, parameter in layer.parameters().items():  # zeros and ones hide mistakes
        parameter.data[...] += 0.1 * random.normal(parameter.shape, seed=seed, stream=random.stream_id(name))
    v = random.normal(layer.forward(x).shape, seed=seed, stream=random.stream_id("direction"))

    def value() -> float:
        return float((v * layer.forward(x)).sum())

    value()
    pairs = {"x": (x, layer.backward(v))}
    pairs |= {name: (p.data, p.grad.copy()) for name, p in layer.parameters().items() if p.trainable}
    return [Check(case or layer.kind, name, gradient_error(value, *pair, seed)) for name, pair in pairs.items()]


def check_loss(loss: Callable[[Array], tuple[Array, Array]], x: Array, *, case: str, seed: int = 0) -> list[Check]:
    """The gradient of a loss for its first argument."""
    return [Check(case, "x", gradient_error(lambda: float(loss(x)[0]), x, loss(x)[1], seed))]


LAYERS: dict[str, tuple[Callable[[], Layer], Shape]] = {
    "Conv2D 3x3": (lambda: layers.Conv2D(2, 3, 3, padding=1), (2, 5, 6, 2)),
    "Conv2D stride 3, padding 2": (lambda: layers.Conv2D(2, 3, 3, stride=3, padding=2), (2, 7, 8, 2)),
    "Conv2D even kernel, same": (lambda: layers.Conv2D(1, 2, (4, 2), padding="same"), (1, 5, 5, 1)),
    "Conv2D 1x1, no bias": (lambda: layers.Conv2D(3, 2, 1, bias=False), (2, 3, 3, 3)),
    "Conv2D whole image": (lambda: layers.Conv2D(2, 3, (4, 5)), (2, 4, 5, 2)),
    "Conv2D depthwise, stride 2": (lambda: layers.Conv2D(4, 4, 3, stride=2, padding=1, groups=4), (2, 6, 5, 4)),
    "Conv2D groups, dilation, four paddings": (
        lambda: layers.Conv2D(4, 6, (3, 2), stride=(2, 1), padding=((1, 2), (0, 3)), dilation=(1, 3), groups=2),
        (2, 6, 5, 4),
    ),
    "ConvTranspose2D": (
        lambda: layers.ConvTranspose2D(4, 6, 3, stride=2, padding=1, output_padding=(1, 0), groups=2),
        (2, 3, 4, 4),
    ),
    "Linear": (lambda: layers.Linear(5, 4), (3, 5)),
    "BatchNorm images": (lambda: layers.BatchNorm(3), (4, 3, 2, 3)),
    "BatchNorm vectors": (lambda: layers.BatchNorm(4), (6, 4)),
    "BatchNormReLU": (lambda: layers.BatchNormReLU(3), (4, 3, 2, 3)),
    "BatchNorm + ReLU": (lambda: layers.Sequential(layers.BatchNorm(3), layers.ReLU()), (4, 3, 2, 3)),
    "BatchNorm + ReLU6": (lambda: layers.Sequential(layers.BatchNorm(3), layers.ReLU6()), (4, 3, 2, 3)),
    "ReLU + MaxPool2D": (lambda: layers.Sequential(layers.ReLU(), layers.MaxPool2D(3, stride=2)), (2, 5, 7, 2)),
    "BatchNorm + ReLU + MaxPool2D": (
        lambda: layers.Sequential(layers.BatchNorm(3), layers.ReLU(), layers.MaxPool2D(2)),
        (3, 4, 6, 3),
    ),
    "GroupNorm": (lambda: layers.GroupNorm(2, 6), (3, 2, 3, 6)),
    "GroupNorm, one channel a group": (lambda: layers.GroupNorm(3, 3, eps=0.1, affine=False), (2, 2, 3, 3)),
    "LayerNorm images": (lambda: layers.LayerNorm(5), (2, 2, 3, 5)),
    "LayerNorm vectors": (lambda: layers.LayerNorm(4, eps=0.1), (3, 4)),
    "ReLU": (layers.ReLU, (2, 3, 3, 2)),
    "ReLU6": (layers.ReLU6, (2, 3, 3, 2)),
    "LeakyReLU": (lambda: layers.LeakyReLU(0.1), (2, 3, 3, 2)),
    "Tanh": (layers.Tanh, (2, 3, 3, 2)),
    "Sigmoid": (layers.Sigmoid, (2, 3, 3, 2)),
    "GELU": (layers.GELU, (2, 3, 3, 2)),
    "GELU tanh": (lambda: layers.GELU("tanh"), (2, 3, 3, 2)),
    "SiLU": (layers.SiLU, (2, 3, 3, 2)),
    "ELU": (lambda: layers.ELU(0.7), (2, 3, 3, 2)),
    "Hardsigmoid": (lambda: layers.Sequential(layers.Scale(2.1), layers.Hardsigmoid()), (2, 3, 3, 2)),
    "Hardswish": (lambda: layers.Sequential(layers.Scale(2.1), layers.Hardswish()), (2, 3, 3, 2)),
    "Softmax": (layers.Softmax, (3, 5)),
    "MaxPool2D": (lambda: layers.MaxPool2D(2), (2, 4, 6, 2)),
    "MaxPool2D overlapping, padded": (lambda: layers.MaxPool2D(3, stride=2, padding=1), (2, 7, 6, 2)),
    "AvgPool2D": (lambda: layers.AvgPool2D(2), (2, 5, 4, 2)),
    "AvgPool2D overlapping, padded": (lambda: layers.AvgPool2D((3, 2), stride=1, padding=1), (2, 4, 5, 2)),
    "MaxPool2D, ceil mode": (lambda: layers.MaxPool2D(3, stride=2, padding=1, ceil_mode=True), (2, 6, 7, 2)),
    "AvgPool2D, ceil mode": (lambda: layers.AvgPool2D((3, 2), stride=(2, 3), padding=1, ceil_mode=True), (2, 6, 7, 2)),
    "AdaptiveAvgPool2D": (lambda: layers.AdaptiveAvgPool2D((3, 5)), (2, 7, 4, 2)),
    "AdaptiveAvgPool2D, tiles": (lambda: layers.AdaptiveAvgPool2D((3, 1)), (2, 6, 4, 2)),
    "Upsample": (lambda: layers.Upsample((2, 3)), (2, 3, 2, 2)),
    "Upsample bilinear": (lambda: layers.Upsample((2, 3), mode="bilinear"), (2, 3, 4, 2)),
    "Upsample bilinear, one row": (lambda: layers.Upsample(4, mode="bilinear"), (1, 1, 2, 2)),
    "GlobalAvgPool2D": (layers.GlobalAvgPool2D, (2, 3, 4, 2)),
    "Scale": (lambda: layers.Scale(-0.3), (2, 3, 3, 2)),
    "Whitening": (lambda: layers.Whitening(3), (2, 4, 5, 3)),
    "Flatten": (layers.Flatten, (2, 3, 2, 2)),
    "Dropout": (lambda: layers.Dropout(0.4), (4, 10)),
    "Dropout2D": (lambda: layers.Dropout2D(0.4), (3, 2, 2, 5)),
    "StochasticDepth": (lambda: layers.StochasticDepth(0.4), (6, 2, 3)),
    "Concat": (
        lambda: layers.Concat(layers.Conv2D(2, 3, 3, padding=1), layers.Sequential(), layers.Conv2D(2, 1, 1)),
        (2, 4, 4, 2),
    ),
    "Gate": (lambda: layers.Gate(layers.Sequential(layers.GlobalAvgPool2D(), layers.Linear(3, 3))), (2, 3, 2, 3)),
    "SqueezeExcite": (lambda: layers.SqueezeExcite(4, 2), (2, 3, 2, 4)),
    "Residual": (lambda: layers.Residual(layers.Conv2D(2, 2, 3, padding=1)), (2, 4, 4, 2)),
    "Residual with ReLU": (lambda: layers.Residual(layers.Linear(4, 4), relu=True), (3, 4)),
    "Residual with shortcut": (
        lambda: layers.Residual(layers.Conv2D(2, 3, 3, stride=2, padding=1), layers.Conv2D(2, 3, 1, stride=2)),
        (2, 4, 5, 2),
    ),
    "Sequential": (
        lambda: layers.Sequential(
            layers.Conv2D(1, 3, 3, bias=False),
            layers.BatchNorm(3),
            layers.Tanh(),
            layers.Flatten(),
            layers.Linear(27, 4),
        ),
        (4, 5, 5, 1),
    ),
}
"""Every layer, some of them in unusual shapes: name -> (makes one, shape of its input)."""

_LABELS = np.array([2, 0, 3, 3, 1])
_BITS = np.array([[1, 0, 1, 1], [0, 0, 1, 0], [1, 1, 0, 0], [0, 1, 1, 1], [1, 0, 0, 1]])
_LOGITS = spaced((5, 4))
_PROBABILITIES = 0.5 + _LOGITS / 5

LOSSES: dict[str, tuple[Callable[[Array], tuple[Array, Array]], Array]] = {
    "softmax cross-entropy": (lambda z: losses.softmax_cross_entropy(z, _LABELS), _LOGITS),
    "softmax cross-entropy, smoothed": (lambda z: losses.softmax_cross_entropy(z, _LABELS, 0.2), _LOGITS),
    "categorical cross-entropy": (lambda p: losses.categorical_cross_entropy(p, _LABELS), _PROBABILITIES),
    "sigmoid binary cross-entropy": (lambda z: losses.sigmoid_binary_cross_entropy(z, _BITS), _LOGITS),
    "binary cross-entropy": (lambda p: losses.binary_cross_entropy(p, _BITS), _PROBABILITIES),
    "mean squared error": (lambda y: losses.mean_squared_error(y, _BITS), _LOGITS),
}
"""Every loss: name -> (loss, its first argument (5,4))."""


def check_all(names: str = "") -> list[Check]:
    """All cases whose name contains ``names``, without regard to case."""
    checks: list[Check] = []
    for case, (make, shape) in LAYERS.items():
        if names.lower() in case.lower():
            checks += check_layer(make(), shape, case=case)
    for case, (loss, x) in LOSSES.items():
        if names.lower() in case.lower():
            checks += check_loss(loss, x, case=case)
    return checks
