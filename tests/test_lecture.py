"""The slides' worked examples, to the digit, and their errata."""

import numpy as np
import pytest

from gpucnn.layers import Conv2D, Layer, Linear, Sequential
from gpucnn.layers.conv2d import conv2d, conv2d_input_grad, conv2d_weight_grad
from gpucnn.layers.linear import linear, linear_input_grad, linear_weight_grad
from gpucnn.layers.softmax import softmax, softmax_grad


def planes(text: str) -> np.ndarray:
    """'1 2 / 3 4 | 5 6 / 7 8' -> (channels, rows, columns)."""
    return np.array([[[float(v) for v in row.split()] for row in plane.split("/")] for plane in text.split("|")])


X = planes(
    "0 0 1 0 2 / 1 0 2 0 1 / 1 0 2 2 0 / 2 0 0 2 0 / 2 1 2 2 0 |"
    "2 1 2 1 1 / 2 1 2 0 1 / 0 2 1 0 1 / 1 2 2 2 2 / 0 1 2 0 1 |"
    "2 1 1 2 0 / 1 0 0 1 0 / 0 1 0 0 0 / 1 0 2 1 0 / 2 2 1 1 1"
).transpose(1, 2, 0)[None]  # (1,5,5,3)
W = np.stack(
    [
        planes("-1 0 1 / 0 0 1 / 1 -1 1 | -1 0 1 / 1 -1 1 / 0 1 0 | -1 1 1 / 1 1 0 / 0 -1 0"),
        planes("0 1 -1 / 0 -1 0 / 0 -1 1 | -1 0 0 / 1 -1 0 / 1 -1 0 | -1 1 -1 / 0 -1 -1 / 1 0 0"),
    ]
).transpose(0, 2, 3, 1)  # (2,3,3,3)
B = np.array([1.0, 0.0])
Z = planes("2 3 3 / 3 7 3 / 8 10 -3 | -8 -8 -3 / -3 1 0 / -3 -8 -5").transpose(1, 2, 0)[None]
HOW = ((2, 2), ((1, 1), (1, 1)))


def test_the_worked_convolution_to_the_digit(backend) -> None:
    assert X.shape == (1, 5, 5, 3)
    np.testing.assert_array_equal(conv2d(X, W, B, *HOW), Z)
    arrays = (backend.to_device(a.astype(np.float32)) for a in (X, W, B))
    np.testing.assert_allclose(backend.to_host(backend.run(conv2d, *arrays, *HOW)), Z, atol=1e-5)
    layer = Conv2D(3, 2, 3, stride=2, padding=1).initialize(0, backend)
    layer.load_state_dict({"weight": W.astype(np.float32), "bias": B.astype(np.float32)})
    np.testing.assert_allclose(backend.to_host(layer(backend.to_device(X.astype(np.float32)))), Z, atol=1e-5)


class Polynomial(Layer):
    """2u^2 + 3u - 1."""

    def forward(self, x):
        self.keep(x)
        return 2 * x**2 + 3 * x - 1

    def backward(self, dy):
        (x,) = self.kept()
        return dy * (4 * x + 3)


class Affine(Layer):
    """2x - 2."""

    def forward(self, x):
        return 2 * x - 2

    def backward(self, dy):
        return 2 * dy


def test_the_chain_rule_example() -> None:
    f = Sequential(Affine(), Polynomial())
    x = np.array([-1.5, 0.0, 0.625, 3.0])
    np.testing.assert_allclose(f.forward(x), 2 * (2 * x - 2) ** 2 + 3 * (2 * x - 2) - 1)
    np.testing.assert_allclose(f.backward(np.ones(4)), 16 * x - 10)


def test_erratum_1_a_fully_connected_layer_on_a_photograph() -> None:
    layer = Linear(200 * 200 * 3, 500)
    assert layer.in_features == 120_000
    assert sum(parameter.size for parameter in layer.parameters().values()) == 60_000_500


def test_erratum_2_the_output_size() -> None:
    assert Conv2D(1, 1, 3, padding=2).output_shape((5, 5, 1)) == (7, 7, 1)


def test_erratum_3_the_signs_in_the_derivation() -> None:
    y = softmax(np.array([[0.5, -1.0, 2.0]]))
    jacobian = np.stack([softmax_grad(np.eye(3)[i][None], y)[0] for i in range(3)])
    for i in range(3):
        for k in range(3):
            wanted = y[0, k] * (1 - y[0, k]) if i == k else -y[0, i] * y[0, k]
            assert jacobian[i, k] == pytest.approx(wanted)


def test_erratum_4_the_transposes_of_the_fully_connected_layer() -> None:
    rng = np.random.default_rng(0)
    a, w, dz = rng.standard_normal((4, 3)), rng.standard_normal((5, 3)), rng.standard_normal((4, 5))
    # the lecture's columns: Z = W A, dA = W^T dZ, dW = dZ A^T
    np.testing.assert_allclose(linear(a, w, None).T, w @ a.T)
    np.testing.assert_allclose(linear_input_grad(dz, w).T, w.T @ dz.T)
    np.testing.assert_allclose(linear_weight_grad(dz, a), dz.T @ a)


def test_erratum_5_a_stride_steps_over_the_input() -> None:
    x = np.arange(36.0).reshape(1, 6, 6, 1)
    one = np.ones((1, 1, 1, 1))
    np.testing.assert_array_equal(conv2d(x, one, None, (2, 2), ((0, 0), (0, 0)))[0, :, :, 0], x[0, ::2, ::2, 0])


def test_the_lectures_gradients_for_stride_1() -> None:
    # (L18) and (L19) index by index: single channel, no padding
    rng = np.random.default_rng(1)
    x, w, dz = rng.standard_normal((5, 6)), rng.standard_normal((2, 3)), rng.standard_normal((4, 4))
    dx, dw = np.zeros((5, 6)), np.zeros((2, 3))
    for p in range(5):
        for q in range(6):
            for i in range(4):
                for j in range(4):
                    if 0 <= p - i < 2 and 0 <= q - j < 3:
                        dx[p, q] += dz[i, j] * w[p - i, q - j]
    for m in range(2):
        for n in range(3):
            dw[m, n] = (dz * x[m : m + 4, n : n + 4]).sum()
    how = ((1, 1), ((0, 0), (0, 0)))
    image, kernel, grad = x[None, :, :, None], w[None, :, :, None], dz[None, :, :, None]
    np.testing.assert_allclose(conv2d_input_grad(grad, kernel, image.shape, *how)[0, :, :, 0], dx)
    np.testing.assert_allclose(conv2d_weight_grad(grad, image, kernel.shape, *how)[0, :, :, 0], dw)
