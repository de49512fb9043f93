"""Softmax cross-entropy and the count of right answers, one row after the other."""

import numpy as np

from gpucnn.kernels.arguments import class_indices
from gpucnn.kernels.cpu.arguments import float32_arrays
from gpucnn.kernels.cpu.engine.compile import jit
from gpucnn.types import Array


@jit
def _softmax_cross_entropy(logits, labels, smoothing, dlogits):
    n, classes = logits.shape
    loss = 0.0
    base = smoothing / classes
    for i in range(n):
        top = logits[i, 0]
        for k in range(1, classes):
            top = max(top, logits[i, k])
        total = 0.0
        plain = 0.0
        for k in range(classes):
            shifted = logits[i, k] - top
            plain += shifted
            e = np.exp(shifted)
            dlogits[i, k] = e
            total += e
        log_total = np.log(total)
        label = labels[i]
        if base > 0:  # else a logit of minus infinity costs nothing where it is not asked for
            loss -= base * (plain - classes * log_total)
        if 0 <= label < classes:
            loss -= (1.0 - smoothing) * (logits[i, label] - top - log_total)
        for k in range(classes):
            target = base + (1.0 - smoothing if k == label else 0.0)
            dlogits[i, k] = (dlogits[i, k] / total - target) / n
    return loss / n


@jit
def _count_correct(logits, labels):
    n, classes = logits.shape
    right = 0
    for i in range(n):
        best, numbers = 0, True
        for k in range(classes):
            numbers &= logits[i, k] == logits[i, k]
            if logits[i, k] > logits[i, best]:
                best = k
        right += numbers & (best == labels[i])
    return right


def accepts(logits: Array, labels: Array, *smoothing: float) -> bool:
    """Scores (N,K) and integers (N,) of 0 .. K-1."""
    if not (logits.ndim == 2 and class_indices(logits, labels) and float32_arrays(logits)):
        return False
    return bool(labels.view(f"u{labels.itemsize}").max() < logits.shape[1])  # unsigned, a negative one is large


def softmax_cross_entropy(logits: Array, labels: Array, smoothing: float = 0.0) -> tuple[Array, Array]:
    """logits (N,K), labels (N,) -> loss (), dlogits (N,K)."""
    logits = np.ascontiguousarray(logits)
    dlogits = np.empty_like(logits)
    loss = _softmax_cross_entropy(logits, labels, float(smoothing), dlogits)
    return np.float32(loss), dlogits


def count_correct(logits: Array, labels: Array) -> Array:
    """How many rows of logits have their maximum at the label."""
    return np.int64(_count_correct(np.ascontiguousarray(logits), labels))
