"""A whole net, where the errors of its layers add up, and the same over training steps.

Rounding limits how well two float32 backends can agree, and the reference's own rounding is no standard.  So both are
compared with a third run, of the reference in float64: a good backend is as far from it as the reference in float32.
But where rounding changes the sign of a value near 0, all of a ReLU's gradient appears or vanishes (and max pooling
selects another pixel): a single gradient can differ by 1e-3 and more without an error.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpucnn.checks.parity.distance import relative
from gpucnn.checks.parity.record import Step
from gpucnn.layers import Layer
from gpucnn.losses import softmax_cross_entropy
from gpucnn.optim.optimizer import SGD
from gpucnn.types import Array

Batch = tuple[Array, Array]


@dataclass(frozen=True)
class Deviation:
    """One array of a whole net: three ``relative`` distances."""

    part: str  # "output", "loss", "gradient" or "statistic"; of training "loss curve" or "weights"
    name: str  # of the layer, parameter or buffer
    candidate_to_reference: float
    candidate_to_float64: float
    reference_to_float64: float


@dataclass(frozen=True)
class Curves:
    """The losses of all steps of the three runs, and their largest distances."""

    reference: list[float]
    candidate: list[float]
    float64: list[float]
    deviations: list[Deviation]


def deviation(part: str, name: str, results: Sequence[Any], distance: Callable[..., float] = relative) -> Deviation:
    """The three distances of what the reference, the candidate and the reference in float64 have computed."""
    mine, theirs, best = results
    return Deviation(part, name, distance(theirs, mine), distance(theirs, best), distance(mine, best))


def arrays(step: Step) -> dict[tuple[str, str], Array]:
    """(part, name) -> an array of a pass."""
    parts = {"output": {name: step.y[name] for name in step.order}, "loss": {"(loss)": step.loss}}
    parts |= {"gradient": step.gradients, "statistic": step.statistics}
    return {(part, name): array for part, named in parts.items() for name, array in named.items()}


def whole_net(reference: Step, candidate: Step, exact: Step) -> list[Deviation]:
    """All outputs, the loss, all gradients and running statistics of one pass."""
    runs = [arrays(step) for step in (reference, candidate, exact)]
    # of layers that the candidate runs fused, only the last has an output there
    return [deviation(*key, [run[key] for run in runs]) for key in runs[0] if key in runs[1]]


def train(reference: Layer, candidate: Layer, exact: Layer, batches: Sequence[Batch]) -> Curves:
    """One step on each batch, by SGD with momentum, of three models with the same state."""
    runs = [descend(model, batches) for model in (reference, candidate, exact)]
    mine, theirs, best = losses = [losses for losses, _ in runs]
    curve = deviation("loss curve", "(loss)", losses, lambda a, b: max(map(relative, a, b)))
    return Curves(mine, theirs, best, [curve, deviation("weights", "(all)", [weights for _, weights in runs])])


def descend(model: Layer, batches: Sequence[Batch]) -> tuple[list[float], Array]:
    """Train a model -> (losses, flat weights (total,)).  # sync"""
    backend = model.backend
    optimizer = SGD(0.002, momentum=0.9, weight_decay=5e-4)
    optimizer.bind(model.flat, backend)
    model.train()
    losses: list[float] = []
    for x, labels in batches:
        logits = model.forward(backend.to_device(x.astype(model.flat.data.dtype)))
        loss, dlogits = backend.run(softmax_cross_entropy, logits, backend.to_device(labels), 0.0)
        model.backward(dlogits)
        optimizer.step(optimizer.lr, model.clock.step)
        model.clock.step += 1
        losses.append(np.float64(float(loss)))  # an array to ``relative``
    return losses, backend.to_host(model.flat.data).copy()
