"""Softmax cross-entropy and the count of right answers: a warp a row, then one sum over the rows."""

from typing import Any

import numpy as np

from gpucnn.kernels.arguments import class_indices
from gpucnn.kernels.gpu.arguments import on_host, storage
from gpucnn.kernels.gpu.compile import TYPES, Module
from gpucnn.kernels.gpu.launch import contiguous, empty, launch, line_of
from gpucnn.kernels.gpu.sums import total
from gpucnn.types import Array

MODULE = Module(
    "loss.cu", [f"{kernel}<{storage}>" for kernel in ("softmax_rows", "correct_rows") for storage in TYPES.values()]
)
WARP = 32  # threads


def accepts(logits: Array, labels: Array, smoothing: Any = 0.0) -> bool:
    """Scores (N,K) and integers (N,)."""
    return storage(logits) and logits.ndim == 2 and class_indices(logits, labels) and on_host(smoothing)


def softmax_cross_entropy(logits: Array, labels: Array, smoothing: float = 0.0) -> tuple[Array, Array]:
    """logits (N,K), labels (N,) -> loss (), float32, and dlogits (N,K)."""
    logits, labels = contiguous(logits), contiguous(labels).astype("int64", copy=False)
    n, classes = logits.shape
    losses, dlogits = empty((n,), "float64"), empty(logits.shape, logits.dtype)
    numbers = (np.float32(smoothing), np.int64(n), np.int32(classes))
    name = f"softmax_rows<{TYPES[logits.dtype.name]}>"
    launch(MODULE, name, line_of(n * WARP), logits, labels, *numbers, losses, dlogits)
    return total(losses, "float32", 1.0 / n), dlogits


def count_correct(logits: Array, labels: Array) -> Array:
    """How many rows of logits have their first maximum at the label, int64 ()."""
    logits, labels = contiguous(logits), contiguous(labels).astype("int64", copy=False)
    n, classes = logits.shape
    hits = empty((n,), "float32")
    name = f"correct_rows<{TYPES[logits.dtype.name]}>"
    launch(MODULE, name, line_of(n * WARP), logits, labels, np.int64(n), np.int32(classes), hits)
    return total(hits, "int64")
