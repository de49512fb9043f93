"""Running loss and accuracy: sums that stay on the device and are read now and then."""

from collections.abc import Mapping
from typing import Any

from gpucnn.backend import Backend, array_module
from gpucnn.types import Array


def count_correct(logits: Array, labels: Array) -> Array:
    """How many rows of logits (N,K) have their maximum at the label, integer (N,) -> 0-d integer.

    Labels may be rows of probabilities (N,K), as mixed images have them; the most probable class counts.  A row with
    NaN has no maximum and is never right.
    """
    xp = array_module(logits)
    if labels.ndim == 2:
        labels = labels.argmax(axis=1)
    return ((logits.argmax(axis=1) == labels) & ~xp.isnan(logits).any(axis=1)).sum()


class RunningMetrics:
    """Sums over the batches of the current epoch, on the device.

    Attributes:
        loss_sum: of all examples, float64 (), so that many batches lose no digits.
        correct: examples classified correctly, int64 ().
        examples: how many there were.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.loss_sum = backend.xp.zeros((), dtype="float64")
        self.correct = backend.xp.zeros((), dtype="int64")
        self.examples = 0

    def reset(self) -> None:
        """Begin again at zero."""
        self.load_state_dict({"loss_sum": 0.0, "correct": 0, "examples": 0})

    def state_dict(self) -> dict[str, Any]:
        """The sums as numbers of the host, for a checkpoint.  # sync"""
        return dict(zip(("loss_sum", "correct", "examples"), self.sums(), strict=True))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a ``state_dict``, in the same arrays, whose addresses CUDA graphs know."""
        self.loss_sum[...] = state["loss_sum"]
        self.correct[...] = state["correct"]
        self.examples = state["examples"]

    def update(self, loss: Array, logits: Array, labels: Array) -> None:
        """Add a batch: its mean loss (), logits (N,K), labels (N,) or (N,K)."""
        self.add(loss, logits, labels)
        self.examples += len(labels)

    def add(self, loss: Array, logits: Array, labels: Array) -> None:
        """The part of ``update`` that a CUDA graph can replay: all but the number of examples."""
        self.loss_sum += loss * len(labels)
        self.correct += self.backend.run(count_correct, logits, labels)

    def sums(self) -> tuple[float, int, int]:
        """(loss_sum, correct, examples) as numbers of the host.  # sync"""
        to_host = self.backend.to_host
        return float(to_host(self.loss_sum)), int(to_host(self.correct)), self.examples

    def read(self) -> tuple[float, float]:
        """(mean loss, accuracy).  # sync"""
        loss_sum, correct, examples = self.sums()
        return loss_sum / max(examples, 1), correct / max(examples, 1)
