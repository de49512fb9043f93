"""A whole net, where the errors of its layers add up, and the same over training steps.

Rounding limits how well two float32 backends can agree, and the reference's own rounding is no standard.  So both are
compared with a third run, of the reference in float64: a good backend is as far from it as the reference in float32.
But where rounding changes the sign of a value near 0, all of a ReLU's gradient appears or vanishes (and max pooling
selects another pixel): a single gradient can differ by 1e-3 and more without an error.
"""

from collections.abc import Sequence
from dataclasses import dataclass

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
    """One array of a whole net: three ``relative`` distances.

    Attributes:
        part: "output", "loss", "gradient" or "statistic"; of training "loss curve" or "weights".
        name: of the layer, parameter or buffer.
    """

    part: str
    name: str
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


def deviation(part: str, name: str, reference: Array, candidate: Array, exact: Array) -> Deviation:
    """The three distances of an array that was computed three times."""
    return Deviation(part, name, relative(candidate, reference), relative(candidate, exact), relative(reference, exact))


def arrays(step: Step) -> dict[tuple[str, str], Array]:
    """(part, name) -> an array of a pass."""
    return {
        **{("output", name): step.y[name] for name in step.order},
        ("loss", "(loss)"): step.loss,
        **{("gradient", name): gradient for name, gradient in step.gradients.items()},
        **{("statistic", name): value for name, value in step.statistics.items()},
    }


def whole_net(reference: Step, candidate: Step, exact: Step) -> list[Deviation]:
    """All outputs, the loss, all gradients and running statistics of one pass."""
    mine, theirs, best = arrays(reference), arrays(candidate), arrays(exact)
    # of layers that the candidate runs fused, only the last has an output there
    return [deviation(*key, mine[key], theirs[key], best[key]) for key in mine if key in theirs]


def train(reference: Layer, candidate: Layer, exact: Layer, batches: Sequence[Batch]) -> Curves:
    """One step on each batch, by SGD with momentum, of three models with the same state."""
    (mine, my_weights), (theirs, their_weights), (best, best_weights) = (
        descend(model, batches) for model in (reference, candidate, exact)
    )
    curve = max_relative(theirs, mine), max_relative(theirs, best), max_relative(mine, best)
    weights = deviation("weights", "(all)", my_weights, their_weights, best_weights)
    return Curves(mine, theirs, best, [Deviation("loss curve", "(loss)", *curve), weights])


def max_relative(a: list[float], b: list[float]) -> float:
    """The largest |a_k - b_k| / |b_k| of two loss curves."""
    return max(relative(np.array(mine), np.array(theirs)) for mine, theirs in zip(a, b, strict=True))


def descend(model: Layer, batches: Sequence[Batch]) -> tuple[list[float], Array]:
    """Train a model -> (losses, flat weights (total,)).  # sync"""
    backend = model.backend
    optimizer = SGD(0.002, momentum=0.9, weight_decay=5e-4)
    optimizer.bind(model.flat, backend)
    model.train()
    losses = []
    for x, labels in batches:
        logits = model.forward(backend.to_device(x.astype(model.flat.data.dtype)))
        loss, dlogits = backend.run(softmax_cross_entropy, logits, backend.to_device(labels), 0.0)
        model.backward(dlogits)
        optimizer.step(optimizer.lr, model.clock.step)
        model.clock.step += 1
        losses.append(float(loss))
    return losses, backend.to_host(model.flat.data).copy()
