"""Losses by hand, by PyTorch, and the lecture's two steps against one."""

import math

import numpy as np
import pytest

from gpucnn.devices import get_backend
from gpucnn.errors import ShapeError, UsageError
from gpucnn.layers.activations import sigmoid, sigmoid_grad
from gpucnn.layers.softmax import softmax, softmax_grad
from gpucnn.losses import (
    binary_cross_entropy,
    categorical_cross_entropy,
    mean_squared_error,
    sigmoid_binary_cross_entropy,
    softmax_cross_entropy,
)

RNG = np.random.default_rng(6)
Z = RNG.standard_normal((6, 4)) * 3
LABELS = np.array([0, 3, 1, 1, 2, 0])
HOT = np.eye(4)[LABELS]
BITS = (RNG.random((6, 4)) > 0.5).astype(float)


def test_softmax_cross_entropy_by_hand() -> None:
    loss, dz = softmax_cross_entropy(Z, LABELS)
    rows = [[math.exp(v) / sum(math.exp(u) for u in row) for v in row] for row in Z.tolist()]
    assert loss == pytest.approx(-sum(math.log(row[k]) for row, k in zip(rows, LABELS, strict=True)) / 6)
    np.testing.assert_allclose(dz, (np.array(rows) - HOT) / 6, atol=1e-15)  # (L12)


def test_labels_may_be_integers_or_one_hot() -> None:
    for smoothing in (0.0, 0.3):
        for ours, theirs in zip(
            softmax_cross_entropy(Z, LABELS, smoothing), softmax_cross_entropy(Z, HOT, smoothing), strict=True
        ):
            np.testing.assert_allclose(ours, theirs, rtol=1e-15)


def test_the_two_steps_of_the_lecture_compose_to_y_minus_Y() -> None:
    y = softmax(Z)
    loss, dy = categorical_cross_entropy(y, LABELS)
    np.testing.assert_allclose(dy, -HOT / y / 6)  # the slides' third erratum: the minus sign
    np.testing.assert_allclose(softmax_grad(dy, y), (y - HOT) / 6, atol=1e-15)
    assert loss == pytest.approx(softmax_cross_entropy(Z, LABELS)[0])

    p = sigmoid(Z)
    loss, dp = binary_cross_entropy(p, BITS)
    np.testing.assert_allclose(sigmoid_grad(dp, p), (p - BITS) / 6, atol=1e-15)
    assert loss == pytest.approx(sigmoid_binary_cross_entropy(Z, BITS)[0])


@pytest.mark.torch
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_softmax_cross_entropy_against_pytorch(smoothing) -> None:
    import torch

    t = torch.from_numpy(Z.copy()).requires_grad_()
    loss = torch.nn.functional.cross_entropy(t, torch.from_numpy(LABELS), label_smoothing=smoothing)
    loss.backward()
    ours, dz = softmax_cross_entropy(Z, LABELS, smoothing)
    assert ours == pytest.approx(loss.item(), rel=1e-12)
    np.testing.assert_allclose(dz, t.grad, atol=1e-12)


@pytest.mark.torch
def test_the_other_losses_against_pytorch() -> None:
    import torch
    import torch.nn.functional as theirs

    for ours, loss, x in (
        (sigmoid_binary_cross_entropy, theirs.binary_cross_entropy_with_logits, Z),
        (binary_cross_entropy, theirs.binary_cross_entropy, sigmoid(Z)),
        (mean_squared_error, theirs.mse_loss, Z),
    ):
        t = torch.from_numpy(x.copy()).requires_grad_()
        value = loss(t, torch.from_numpy(BITS))
        # PyTorch averages over all outputs, the lecture over the batch
        value = value if ours is mean_squared_error else value * 4
        value.backward()
        got, dx = ours(x, BITS)
        assert got == pytest.approx(value.item(), rel=1e-10)
        np.testing.assert_allclose(dx, t.grad, rtol=1e-10, atol=1e-12)


def test_extremes_do_not_overflow(backend) -> None:
    z = np.array([[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0]], np.float32)
    loss, dz = backend.run(softmax_cross_entropy, backend.to_device(z), backend.to_device(np.array([0, 0])), 0.0)
    assert float(backend.to_host(loss)) == pytest.approx(1e4)
    np.testing.assert_allclose(backend.to_host(dz), [[0, 0, 0], [-0.5, 0.5, 0]], atol=1e-6)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        assert np.isfinite(sigmoid_binary_cross_entropy(z, np.zeros_like(z))[0])
        assert np.isfinite(categorical_cross_entropy(np.array([[0.0, 1.0]]), np.array([0]))[0])
        assert np.isfinite(binary_cross_entropy(np.array([0.0, 1.0]), np.array([1, 0]))[0])


def test_a_probability_of_0_counts_as_the_smallest() -> None:
    """log 0 is minus infinity; 1e-30 is small enough to change no other value in float32."""
    p = np.array([[0.0, 1.0], [0.25, 0.75]])
    loss, dp = categorical_cross_entropy(p, np.array([0, 0]))
    assert loss == pytest.approx((30 * math.log(10) - math.log(0.25)) / 2)
    np.testing.assert_allclose(dp, [[-0.5e30, 0], [-2.0, 0]], rtol=1e-12)
    loss, dp = binary_cross_entropy(np.array([0.0, 1.0, 0.25]), np.array([1, 0, 1]))
    assert loss == pytest.approx((60 * math.log(10) - math.log(0.25)) / 3)
    np.testing.assert_allclose(dp, [-1e30 / 3, 1e30 / 3, -4 / 3], rtol=1e-12)


def test_float32_on_every_backend(backend) -> None:
    on = backend.to_device
    loss, dz = backend.run(softmax_cross_entropy, on(Z.astype(np.float32)), on(LABELS), 0.1)
    wanted = softmax_cross_entropy(Z, LABELS, 0.1)
    assert str(dz.dtype) == "float32"
    assert float(backend.to_host(loss)) == pytest.approx(wanted[0], rel=1e-5)
    np.testing.assert_allclose(backend.to_host(dz), wanted[1], rtol=1e-4, atol=1e-6)


BAD_LABELS = {
    "a column, as Keras has them": (LABELS[:, None], ShapeError, r"labels of shape \(6, 1\).*reshape\(-1\)"),
    "numbers that are no integers": (LABELS.astype(float), ShapeError, "float64.*astype"),
    "truth values": (LABELS > 1, ShapeError, "bool"),
    "another length": (LABELS[:5], ShapeError, r"labels of shape \(5,\)"),
    "rows of another number of classes": (np.eye(3)[LABELS % 3], ShapeError, r"rows of probabilities \(6, 4\)"),
    "counted from 1": (LABELS + 1, UsageError, "label 4 for a net with 4 outputs: labels go from 0 to 3"),
    "below 0": (LABELS - 1, UsageError, "label -1 "),
    "8 bits, below 0": ((LABELS - 1).astype(np.int8), UsageError, "label -1 "),
}


@pytest.mark.parametrize("name", ["reference", "cpu"])
@pytest.mark.parametrize(("labels", "error", "message"), BAD_LABELS.values(), ids=BAD_LABELS)
def test_labels_that_are_no_class_are_refused(name: str, labels: np.ndarray, error: type, message: str) -> None:
    backend = get_backend(name)
    for scores in (Z, Z.astype(np.float32)):
        with pytest.raises(error, match=message):
            backend.run(softmax_cross_entropy, scores, labels)
    with pytest.raises(error, match=message):
        categorical_cross_entropy(softmax(Z), labels)


@pytest.mark.parametrize("name", ["reference", "cpu"])
def test_scores_that_are_not_rows_are_refused(name: str) -> None:
    with pytest.raises(ShapeError, match=r"scores of shape \(6, 1, 1, 4\)"):
        get_backend(name).run(softmax_cross_entropy, Z.astype(np.float32)[:, None, None], LABELS)


@pytest.mark.parametrize("loss", [sigmoid_binary_cross_entropy, binary_cross_entropy, mean_squared_error])
def test_targets_do_not_broadcast(loss) -> None:
    with pytest.raises(ShapeError, match=r"targets of shape \(6,\) for outputs \(6, 1\)"):
        loss(sigmoid(Z[:, :1]), BITS[:, 0])


@pytest.mark.parametrize("kind", ["int8", "uint8", "int32", "uint64"])
def test_labels_of_any_integer_type_count(kind: str) -> None:
    expected, _ = softmax_cross_entropy(Z, LABELS)
    loss, _ = get_backend("cpu").run(softmax_cross_entropy, Z.astype(np.float32), LABELS.astype(kind))
    assert loss == pytest.approx(float(expected), rel=1e-6)


def test_labels_on_a_device_are_not_waited_for() -> None:
    import strict_cupy

    on = strict_cupy.STRICT.to_device
    scores, labels = on(Z.astype(np.float32)), on(LABELS)
    strict_cupy.reset()
    strict_cupy.STRICT.run(softmax_cross_entropy, scores, labels)
    assert strict_cupy.syncs == 0
