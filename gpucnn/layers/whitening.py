"""A first convolution whose filters whiten image patches: computed from the images, then frozen (arXiv 2404.00498).

With the m patches of the images as vectors p of K = KH KW C numbers:

    (W1)  S = 1/m sum p p^T                           the mean is not subtracted
    (W2)  S v_k = lambda_k v_k                        v_k orthonormal, lambda_1 >= lambda_2 >= ...
    (W3)  filters  u_k = v_k / sqrt(lambda_k + eps),  and then -u_k

The responses u_k . p are uncorrelated, with mean square lambda_k / (lambda_k + eps), which is close to 1.  The
negatives are there because an activation passes only one sign of each response.
"""

from collections.abc import Collection, Sequence

import numpy as np

from gpucnn.backend import REFERENCE, Backend
from gpucnn.errors import ShapeError
from gpucnn.layers.base import Layer
from gpucnn.layers.conv2d import Conv2D
from gpucnn.layers.initializers import lecun_normal
from gpucnn.layers.windows import as_pair, view_windows
from gpucnn.types import Array, Pair

IMAGES, AT_ONCE = 5000, 50  # images that filters are computed from, and images per pass


def patch_sums(images: Array, kernel: Pair, backend: Backend) -> tuple[int, Array, Array]:
    """Over all patches q of images (N,H,W,C), K = KH KW C numbers each: m, sum q (K,), sum q q^T (K,K), on the device.

    In float64 these sums of bytes are exact, so their order changes no bit and a GPU gives the same result.
    """
    k, xp = kernel[0] * kernel[1] * images.shape[3], backend.xp
    count, sums, products = 0, xp.zeros(k), xp.zeros((k, k))
    for start in range(0, len(images), AT_ONCE):
        some = backend.to_device(images[start : start + AT_ONCE]).astype("float64")
        patches = view_windows(some, kernel, (1, 1)).reshape(-1, k)
        count += len(patches)
        sums += patches.sum(axis=0)
        products += patches.T @ patches
    return count, sums, products


def patch_covariance(
    images: Array, kernel: Pair, mean: Sequence[float], std: Sequence[float], backend: Backend = REFERENCE
) -> Array:
    """(W1)  images (N,H,W,C) -> S (K,K) of all normalised patches, on the host, in float64.

    A patch q is normalised to p = a q + b, so
    sum p p^T = a a^T sum q q^T + a sum q b^T + b (a sum q)^T + m b b^T.

    Args:
        images: uint8 or float32, on the host or in a file.
        mean, std: per channel, of bytes on a 0..1 scale.
        backend: where the patches are summed.
    """
    count, *device = patch_sums(images, kernel, backend)
    sums, products = map(backend.to_host, device)  # sync
    taps, scale = kernel[0] * kernel[1], 255.0 if images.dtype == np.uint8 else 1.0
    a = np.tile(1.0 / (scale * np.array(std)), taps)  # (K,)
    b = np.tile(-np.array(mean) / np.array(std), taps)
    mixed = np.outer(a * sums, b)
    return (np.outer(a, a) * products + mixed + mixed.T) / count + np.outer(b, b)


def whitening_filters(covariance: Array, eps: float) -> Array:
    """(W2, W3)  S (K,K) -> u_1 .. u_K, -u_1 .. -u_K as rows (2K,K).

    An eigenvector's sign is arbitrary.  Here the first component that is at least half as large as the largest is
    positive, a choice that rounding does not change.
    """
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = values[::-1], vectors.T[::-1]  # largest first; eigenvectors as rows
    size = abs(vectors)
    first = (size >= size.max(axis=1, keepdims=True) / 2).argmax(axis=1)
    signs = np.sign(np.take_along_axis(vectors, first[:, None], axis=1))
    filters = signs * vectors / np.sqrt(np.maximum(values, 0.0) + eps)[:, None]
    return np.concatenate([filters, -filters])


class Whitening(Conv2D):
    """2K filters of ``kernel_size`` without padding, K = KH KW C: computed by ``fit``; only the bias is learned.

    Until then they are random, so that shapes and times can be tried without images.

    Args:
        in_channels: C.
        kernel_size: an int or a (height, width) pair.
        eps: added to the eigenvalues; without it directions with almost no variance would be amplified.
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

    @property
    def fitted(self) -> bool:
        """Whether its filters come from images: the second half is the first one with the other sign."""
        first, second = self.weight.data.reshape(2, -1)
        return bool((first == -second).all())

    def fit(self, images: Array, mean: Sequence[float], std: Sequence[float]) -> None:
        """Make the filters from images (N,H,W,C); arguments are those of ``patch_covariance``.

        Raises:
            ShapeError: images with other channels, or another count of means or deviations.
        """
        if images.ndim != 4 or images.shape[3] != self.in_channels:
            raise ShapeError(f"Whitening(in_channels={self.in_channels}) cannot be fitted to images of {images.shape}")
        for name, values in (("mean", mean), ("std", std)):
            if len(values) != self.in_channels:
                raise ShapeError(f"{name} = {tuple(values)}: give {self.in_channels} numbers, one per channel")
        filters = whitening_filters(patch_covariance(images, self.kernel_size, mean, std, self.backend), self.eps)
        self.weight.data[...] = self.backend.to_device(filters.reshape(self.weight.shape).astype(np.float32))


def whiten(
    model: Layer, images: Array, mean: Sequence[float], std: Sequence[float], kept: Collection[str] = ()
) -> None:
    """Fit a model's ``Whitening`` layers, which are its first, to the first 5000 of these images.

    Args:
        model: initialised; one without such a layer is not changed.
        images: (N,H,W,C), uint8 or float32, on the host or in a file.
        mean, std: per channel, of bytes on a 0..1 scale.
        kept: names of parameters that had values before; filters among them that come from images stay.
    """
    for name, layer in model.named_layers():
        if isinstance(layer, Whitening) and not (f"{name}.weight" in kept and layer.fitted):
            first = images.select(slice(IMAGES)) if hasattr(images, "select") else images[:IMAGES]  # a file's, unread
            layer.fit(first, mean, std)
