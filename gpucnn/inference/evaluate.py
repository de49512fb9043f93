"""Loss, accuracy and predictions of a model on a data set."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from gpucnn.data import Loader
from gpucnn.errors import UsageError, closest
from gpucnn.inference.tta import VIEWS, mean_over_views
from gpucnn.losses import softmax_cross_entropy
from gpucnn.metrics import RunningMetrics
from gpucnn.types import Array


@dataclass(frozen=True)
class Evaluation:
    """Mean loss per image, fraction of images classified correctly, predicted class of each image (N,) on the host."""

    loss: float
    accuracy: float
    predictions: Array


def evaluate(
    forward: Callable[[Array], Array],
    batches: Loader,
    loss: Callable[..., tuple[Array, Array]] = softmax_cross_entropy,
    tta: str = "none",
) -> Evaluation:
    """Run a model over all batches.

    Args:
        forward: images (B,H,W,C) -> logits (B,K) on the batches' backend: a model in evaluation mode, for example.
        loss: (logits, labels) -> (mean loss, dlogits).
        tta: the name of the ``VIEWS`` of each image that logits are averaged over.

    Raises UsageError where there is no such name.
    """
    if tta not in VIEWS:
        raise UsageError(f"tta = {tta!r}{closest(tta, VIEWS)}")
    backend = batches.backend
    metrics = RunningMetrics(backend)
    predictions = []
    with closing(batches.epoch(0)) as reading:
        for x, labels in reading:
            logits = mean_over_views(forward, x, VIEWS[tta])
            value, _ = backend.run(loss, logits, labels)
            metrics.update(value, logits, labels)
            predictions.append(logits.argmax(axis=1))
    mean_loss, accuracy = metrics.read()  # sync
    return Evaluation(mean_loss, accuracy, np.concatenate([backend.to_host(p) for p in predictions]))
