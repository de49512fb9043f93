"""How good a model is on a data set."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from gpucnn.data import Loader
from gpucnn.inference.tta import VIEWS, mean_over_views
from gpucnn.layers import Layer
from gpucnn.losses import softmax_cross_entropy
from gpucnn.metrics import RunningMetrics
from gpucnn.training.precision import SinglePrecision
from gpucnn.types import Array


@dataclass(frozen=True)
class Evaluation:
    """Mean loss per image, share of images that are right, class of each image by the model (N,) on the host."""

    loss: float
    accuracy: float
    predictions: Array


def evaluate(
    model: Layer,
    batches: Loader,
    loss: Callable[..., tuple[Array, Array]] = softmax_cross_entropy,
    precision: SinglePrecision | None = None,
    tta: str = "none",
) -> Evaluation:
    """Run the model over all batches in evaluation mode; its mode afterwards is evaluation.

    ``tta`` names the ``VIEWS`` of each image over which logits are averaged.
    """
    backend = model.backend
    metrics, precision = RunningMetrics(backend), precision or SinglePrecision()
    predictions = []
    model.eval()
    for x, labels in batches.epoch(0):
        logits = mean_over_views(partial(precision.forward, model), x, VIEWS[tta])
        value, _ = backend.run(loss, logits, labels)
        metrics.update(value, logits, labels)
        predictions.append(logits.argmax(axis=1))
    mean_loss, accuracy = metrics.read()  # sync
    return Evaluation(mean_loss, accuracy, np.concatenate([backend.to_host(p) for p in predictions]))
