"""Running sums: they equal those over all images at once, and stay where they are."""

import numpy as np
import strict_cupy

from gpucnn.metrics import RunningMetrics, count_correct


def test_sums_over_unequal_batches(backend) -> None:
    rng = np.random.default_rng(0)
    metrics = RunningMetrics(backend)
    losses, right, count = [], 0, 0
    for size in (5, 5, 2):
        logits, labels = rng.standard_normal((size, 3)).astype(np.float32), rng.integers(0, 3, size)
        loss = np.float32(rng.random())
        metrics.update(
            backend.to_device(loss) if backend.name != "cpu" else loss,
            backend.to_device(logits),
            backend.to_device(labels),
        )
        losses.append(float(loss) * size)
        right += int((logits.argmax(axis=1) == labels).sum())
        count += size
    loss, accuracy = metrics.read()
    np.testing.assert_allclose(loss, sum(losses) / count, rtol=1e-6)
    assert accuracy == right / count
    assert metrics.sums()[1:] == (right, count)


def test_they_go_on_from_earlier_sums(backend) -> None:
    metrics = RunningMetrics(backend)
    arrays = metrics.loss_sum, metrics.correct
    metrics.load_state_dict({"loss_sum": 6.0, "correct": 2, "examples": 4})
    assert metrics.read() == (1.5, 0.5)
    assert metrics.state_dict() == {"loss_sum": 6.0, "correct": 2, "examples": 4}
    metrics.reset()
    assert metrics.sums() == (0.0, 0, 0)
    assert metrics.loss_sum is arrays[0]  # a CUDA graph adds to them where they are
    assert metrics.correct is arrays[1]
    assert RunningMetrics(backend).read() == (0.0, 0.0)


def test_updating_reads_nothing() -> None:
    from strict_cupy import STRICT

    metrics = RunningMetrics(STRICT)
    on = STRICT.to_device
    strict_cupy.reset()
    metrics.update(on(np.float32(1.0)), on(np.eye(3, dtype=np.float32)), on(np.arange(3)))
    assert strict_cupy.syncs == 0
    assert metrics.read() == (1.0, 1.0)
    assert strict_cupy.syncs == 2


def test_a_tie_counts_for_the_first_class(backend) -> None:
    on = backend.to_device
    tied = on(np.zeros((2, 3), np.float32))
    assert int(backend.to_host(backend.run(count_correct, tied, on(np.array([0, 1]))))) == 1
