"""Loss and accuracy while they run: sums that stay on the device and are read once in a while."""

from gpucnn.backend import Backend
from gpucnn.types import Array


def count_correct(logits: Array, labels: Array) -> Array:
    """How many rows of logits (N,K) have their maximum at the label, integer (N,) -> 0-d integer.

    Of labels that are rows of probabilities (N,K), as mixed images have them, it is the class of the larger share.
    """
    if labels.ndim == 2:
        labels = labels.argmax(axis=1)
    return (logits.argmax(axis=1) == labels).sum()


class RunningMetrics:
    """Sums over the batches so far, on the device; float64, so that many batches lose no digits."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.loss_sum = backend.xp.zeros((), dtype="float64")
        self.correct = backend.xp.zeros((), dtype="int64")
        self.examples = 0

    def restart(self, loss_sum: float, correct: int, examples: int) -> None:
        """Go on from these sums, in the same arrays."""
        self.loss_sum[...] = loss_sum
        self.correct[...] = correct
        self.examples = examples

    def update(self, loss: Array, logits: Array, labels: Array) -> None:
        """Add a batch: its mean loss (), logits (N,K), labels (N,) or (N,K)."""
        self.add(loss, logits, labels)
        self.examples += len(labels)

    def add(self, loss: Array, logits: Array, labels: Array) -> None:
        """The device's part of ``update``."""
        self.loss_sum += loss * len(labels)
        self.correct += self.backend.run(count_correct, logits, labels)

    def sums(self) -> tuple[float, int, int]:
        """(sum of losses, correct, examples) as numbers of the host.  # sync"""
        return (
            float(self.backend.to_host(self.loss_sum)),
            int(self.backend.to_host(self.correct)),
            self.examples,
        )

    def read(self) -> tuple[float, float]:
        """(mean loss, accuracy).  # sync"""
        loss_sum, correct, examples = self.sums()
        return loss_sum / max(examples, 1), correct / max(examples, 1)
