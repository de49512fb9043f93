"""A first convolution whose filters whiten what they see: fixed from the images, not learned (arXiv 2404.00498).

With the m patches of the images as vectors p of K = KH KW C numbers:

    (W1)  S = 1/m sum p p^T                           no mean is taken off
    (W2)  S v_k = lambda_k v_k                        v_k orthonormal, lambda_1 >= lambda_2 >= ...
    (W3)  filters  u_k = v_k / sqrt(lambda_k + eps),  and then -u_k

The responses u_k . p are uncorrelated, with mean square lambda_k / (lambda_k + eps), which is close to 1.  The
negatives are there because an activation hands on one side of each response alone.
"""

from collections.abc import Sequence

import numpy as np

from gpucnn.errors import ShapeError
from gpucnn.initializers import lecun_normal
from gpucnn.layers.base import Layer
from gpucnn.layers.conv2d import Conv2D
from gpucnn.layers.windows import as_pair, view_windows
from gpucnn.typing import Array, Pair

IMAGES, AT_ONCE = 5000, 250  # that filters are made from, and that are laid out as patches at a time


def patch_covariance(x: Array, kernel: Pair) -> Array:
    """(W1)  images x (N,H,W,C) -> S (K,K) of all their patches, K = KH KW C in that order; on the host, in float64."""
    k = kernel[0] * kernel[1] * x.shape[3]
    total, count = np.zeros((k, k)), 0
    for start in range(0, len(x), AT_ONCE):
        patches = view_windows(x[start : start + AT_ONCE].astype(np.float64), kernel, (1, 1)).reshape(-1, k)
        total += patches.T @ patches
        count += len(patches)
    return total / count


def whitening_filters(covariance: Array, eps: float) -> Array:
    """(W2, W3)  S (K,K) -> u_1 .. u_K, -u_1 .. -u_K as rows (2K,K).

    An eigenvector's sign is arbitrary.  Here its first component that is at least half as large as its largest one is
    positive, which no rounding changes.
    """
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = values[::-1], vectors.T[::-1]  # largest first; eigenvectors as rows
    size = abs(vectors)
    first = (size >= size.max(axis=1, keepdims=True) / 2).argmax(axis=1)
    signs = np.sign(np.take_along_axis(vectors, first[:, None], axis=1))
    filters = signs * vectors / np.sqrt(np.maximum(values, 0.0) + eps)[:, None]
    return np.concatenate([filters, -filters])


class Whitening(Conv2D):
    """2K filters of ``kernel_size`` without padding, K = KH KW C: fixed by ``fit``, only the bias is learned.

    Before that they are random, so that shapes and times can be tried without images.

    Args:
        in_channels: C.
        kernel_size: an int or a (height, width) pair.
        eps: added to the eigenvalues; without it directions with hardly any variance would be blown up.
    """

    def __init__(self, in_channels: int, kernel_size: int | Pair = 2, *, eps: float = 5e-4) -> None:
        kernel = as_pair(kernel_size, "kernel_size", 1)
        super().__init__(
            in_channels,
            2 * kernel[0] * kernel[1] * in_channels,
            kernel,
            weight_init=lecun_normal,
            weight_group="frozen",
            bias_group="whiten",
        )
        self.eps = eps

    def fit(self, x: Array) -> None:
        """Make the filters from images x (N,H,W,C) on the host, as the layer will see them."""
        if x.ndim != 4 or x.shape[3] != self.in_channels:
            raise ShapeError(f"Whitening(in_channels={self.in_channels}) cannot be fitted to images of {x.shape}")
        filters = whitening_filters(patch_covariance(x, self.kernel_size), self.eps)
        self.weight.data[...] = self.backend.to_device(filters.reshape(self.weight.shape).astype(np.float32))


def whiten(model: Layer, images: Array, mean: Sequence[float], std: Sequence[float]) -> None:
    """Fit a model's ``Whitening`` layers, which stand at its entrance, to the first 5000 of these images.

    Args:
        model: initialised; one without such a layer stays as it is.
        images: uint8 (N,H,W,C), on the host.
        mean, std: per channel, on a 0..1 scale.
    """
    for _, layer in model.named_layers():
        if isinstance(layer, Whitening):
            layer.fit((images[:IMAGES] / 255.0 - np.array(mean)) / np.array(std))
