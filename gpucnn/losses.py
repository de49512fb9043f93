"""Losses, each with its gradient: (value, dL/d input).  Values are 0-d arrays, means over the batch.

    (L10)  binary cross-entropy       L = -1/N sum_i y_i log p_i + (1 - y_i) log(1 - p_i)
    (L11)  categorical cross-entropy  L = -1/N sum_i sum_j y_ij log p_ij
    (L12)  on a softmax's input       dL/dz = (p - y) / N;  likewise on a sigmoid's

The lecture takes two steps: Softmax (or Sigmoid), then the loss of probabilities.  Their gradients compose to (L12).
``softmax_cross_entropy`` and ``sigmoid_binary_cross_entropy`` take both steps at once, from scores ("logits"), and so
never take the logarithm of a probability that was rounded to 0.
"""

from collections.abc import Callable

import numpy as np

from gpucnn.backend import accumulator_dtype, array_module
from gpucnn.errors import ShapeError, UsageError
from gpucnn.layers.activations import sigmoid
from gpucnn.types import Array

SMALLEST = 1e-30  # smaller probabilities are set to it: log 0 is minus infinity


def check_labels(labels: Array, scores: Array) -> None:
    """Refuse labels that do not belong to scores; their values are read on the host alone, where that costs no wait.

    Raises:
        ShapeError: scores that are not (N,K), or labels that are neither integers (N,) nor rows (N,K).
        UsageError: a label outside of 0 .. K-1.
    """
    array_module(labels)  # refuses what is no array
    if scores.ndim != 2:
        raise ShapeError(f"scores of shape {scores.shape}: give (N, K), as a Linear layer behind Flatten makes them")
    n, classes = scores.shape
    if labels.shape == scores.shape:
        return
    if labels.shape != (n,) or labels.dtype.kind not in "iu":
        raise ShapeError(
            f"labels of shape {labels.shape}, {labels.dtype}, for {n} rows of {classes} scores: give integers ({n},), "
            f"as labels.reshape(-1).astype('int64'), or rows of probabilities ({n}, {classes})"
        )
    if isinstance(labels, np.ndarray) and n and not 0 <= labels.min() <= labels.max() < classes:
        wrong = labels.min() if labels.min() < 0 else labels.max()
        raise UsageError(f"label {wrong} for a net with {classes} outputs: labels go from 0 to {classes - 1}")


def check_targets(targets: Array, scores: Array) -> None:
    """Raises ShapeError where targets are not of the shape of what they are compared with."""
    array_module(targets), array_module(scores)  # refuse what is no array
    if targets.shape != scores.shape:
        raise ShapeError(f"targets of shape {targets.shape} for outputs {scores.shape}: give one for each output")


def as_targets(labels: Array, scores: Array, smoothing: float = 0.0) -> Array:
    """Labels, integers (N,) or one-hot rows (N,K), as rows of probabilities in the dtype of scores (N,K).

    Smoothing takes this probability from the true class and spreads it evenly over all (arXiv 1512.00567).
    """
    check_labels(labels, scores)
    xp = array_module(scores)
    classes = scores.shape[1]
    if labels.ndim == 1:
        labels = labels[:, None] == xp.arange(classes)
    targets = labels.astype(scores.dtype)
    return targets * (1.0 - smoothing) + smoothing / classes if smoothing else targets


def softmax_cross_entropy(logits: Array, labels: Array, smoothing: float = 0.0) -> tuple[Array, Array]:
    """(L9, L11, L12)  logits (N,K), labels (N,) or (N,K) -> loss (), dlogits (N,K)."""
    xp = array_module(logits)
    scores = logits.astype(accumulator_dtype(logits), copy=False)
    targets = as_targets(labels, scores, smoothing)
    shifted = scores - scores.max(axis=1, keepdims=True)
    e = xp.exp(shifted)
    total = e.sum(axis=1, keepdims=True)
    log_p = shifted - xp.log(total)
    n = logits.shape[0]
    wanted = xp.where(targets > 0, log_p, 0)  # a logit of minus infinity costs nothing where it is not asked for
    return -(targets * wanted).sum() / n, ((e / total - targets) / n).astype(logits.dtype, copy=False)


def categorical_cross_entropy(p: Array, labels: Array) -> tuple[Array, Array]:
    """(L11)  probabilities p (N,K), labels (N,) or (N,K) -> loss (), dp (N,K) = -y / (p N)."""
    targets = as_targets(labels, p)
    n = p.shape[0]
    p = array_module(p).maximum(p, SMALLEST)
    return -(targets * array_module(p).log(p)).sum() / n, -targets / p / n


CLASS_LOSSES = (softmax_cross_entropy, categorical_cross_entropy)
"""Losses of one class out of K: a net for them has an output for each."""


def sigmoid_binary_cross_entropy(logits: Array, targets: Array) -> tuple[Array, Array]:
    """(L10)  logits (N,) or (N,K), targets 0..1 of the same shape -> loss (), dlogits.

    -log p = max(z, 0) - z + log(1 + e^-|z|), and -log(1 - p) is the same without - z.
    """
    check_targets(targets, logits)
    xp = array_module(logits)
    targets = targets.astype(logits.dtype)
    losses = xp.maximum(logits, 0) - targets * logits + xp.log1p(xp.exp(-abs(logits)))
    n = logits.shape[0]
    return losses.sum() / n, (sigmoid(logits) - targets) / n


def binary_cross_entropy(p: Array, targets: Array) -> tuple[Array, Array]:
    """(L10)  probabilities p, targets 0..1 of the same shape -> loss (), dp = (p - y) / (p (1 - p) N)."""
    check_targets(targets, p)
    xp = array_module(p)
    targets = targets.astype(p.dtype)
    n = p.shape[0]
    yes, no = xp.maximum(p, SMALLEST), xp.maximum(1 - p, SMALLEST)
    loss = -(targets * xp.log(yes) + (1 - targets) * xp.log(no)).sum() / n
    return loss, ((1 - targets) / no - targets / yes) / n


def mean_squared_error(y: Array, targets: Array) -> tuple[Array, Array]:
    """Mean of (y - t)^2 over all elements -> loss (), dy = 2 (y - t) / size."""
    check_targets(targets, y)
    difference = y - targets
    return (difference * difference).mean(), difference * (2.0 / difference.size)


EQUATIONS: dict[Callable[..., tuple[Array, Array]], tuple[str, ...]] = {
    softmax_cross_entropy: (
        "top[e] = max[j](x[e,j])  # softmax_cross_entropy",
        "total[e] = sum[j](exp(x[e,j] - top[e]))  # (L9) softmax_cross_entropy",
        "p[e,k] = exp(x[e,k] - top[e]) / total[e]  # (L9) softmax_cross_entropy",
        "nll[e,k] = log(total[e]) + top[e] - x[e,k]  # -log p",
        "y[z] = sum[e,k](t[e,k] * nll[e,k] / images)  # (L11) softmax_cross_entropy",
        "dx[e,k] = p[e,k] / images - t[e,k] / images  # (L12) softmax_cross_entropy",
    ),
    categorical_cross_entropy: (
        "nll[e,k] = -log(x[e,k])  # categorical_cross_entropy",
        "y[z] = sum[e,k](t[e,k] * nll[e,k] / images)  # (L11) categorical_cross_entropy",
        "dx[e,k] = -t[e,k] / x[e,k] / images  # (L11) categorical_cross_entropy",
    ),
    sigmoid_binary_cross_entropy: (
        "p[...] = 1 / (1 + exp(-x[...]))  # (L5) sigmoid",
        "y[z] = sum[...]((-t[...] * log(p[...]) - (1 - t[...]) * log(1 - p[...])) / images)"
        "  # (L10) sigmoid_binary_cross_entropy",
        "dx[...] = p[...] / images - t[...] / images  # (L12) sigmoid_binary_cross_entropy",
    ),
    binary_cross_entropy: (
        "y[z] = sum[...]((-t[...] * log(x[...]) - (1 - t[...]) * log(1 - x[...])) / images)"
        "  # (L10) binary_cross_entropy",
        "dx[...] = ((1 - t[...]) / (1 - x[...]) - t[...] / x[...]) / images  # (L10) binary_cross_entropy",
    ),
    mean_squared_error: (
        "y[z] = mean[...]((x[...] - t[...])**2)  # mean_squared_error",
        "dx[...] = 2 * (x[...] - t[...]) / size  # mean_squared_error",
    ),
}
"""A loss -> its equations (``explain/equations.py``), with x its input, t the targets and y the loss."""

LOSSES = {loss.__name__: loss for loss in EQUATIONS} | {"cross_entropy": softmax_cross_entropy}
"""Name -> loss; the last one is what PyTorch calls so."""
