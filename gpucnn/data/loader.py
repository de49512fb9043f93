"""Mini-batches (L22): the set goes to the device once, as bytes; batches are gathered and normalised there.

Everything random is sampled per epoch for the whole set (``Loader.sample_epoch``).
"""

from collections.abc import Iterator, Sequence

import numpy as np

from gpucnn.backend import REFERENCE, Backend
from gpucnn.data.augment.colour import jitter
from gpucnn.data.augment.crop_flip import gather_augment, gather_normalize
from gpucnn.data.augment.mixing import Mix, cutmix, mixed_labels, mixup, sample_mixes
from gpucnn.data.augment.settings import ELASTIC, Augmentation, AugmentParams, sample_augmentation
from gpucnn.data.augment.warp import noise_planes, smooth, warp
from gpucnn.data.dataset import Dataset
from gpucnn.errors import ShapeError, UsageError
from gpucnn.random import permutation, stream_id
from gpucnn.settings import Checked
from gpucnn.types import Array

SHUFFLE = stream_id("shuffle")


class Loader(Checked):
    """Batches of a data set on a backend's device.

    Args:
        dataset: uint8 images on the host.
        batch_size: images per batch; the last one of an epoch may have fewer.
        backend: the device on which batches are made.
        mean, std: per channel, on a 0..1 scale; the training set's, for the test set too.
        seed: of shuffles and augmentation.
        shuffle: a new order in every epoch.
        drop_last: leave out a last batch that is smaller than the others.
        augmentation: of the images; None for none.

    Raises:
        UsageError: a batch size below 1, or with ``drop_last`` above the data's; a crop or cutout that is too large
            for the images.
        ShapeError: mean or std without one number per channel, or a std that is not positive.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        *,
        backend: Backend = REFERENCE,
        mean: Sequence[float],
        std: Sequence[float],
        seed: int = 0,
        shuffle: bool = False,
        drop_last: bool = False,
        augmentation: Augmentation | None = None,
    ) -> None:
        check(dataset, batch_size, drop_last, mean, std, augmentation)
        self.batch_size, self.seed, self.shuffle, self.drop_last = batch_size, seed, shuffle, drop_last
        self.augmentation, self.backend = augmentation, backend
        self.size, self.classes = len(dataset), dataset.num_classes
        self.images = backend.to_device(dataset.images)  # uint8 (N,H,W,C)
        self.labels = backend.to_device(dataset.labels.astype(np.int64))  # (N,)
        self.mean = backend.to_device(np.array(mean, dtype=np.float32))  # (C,)
        self.inv_std = backend.to_device((1.0 / np.array(std)).astype(np.float32))  # (C,)
        self.ahead: dict[int, tuple[Array, AugmentParams | None, list[Mix]]] = {}  # the next epoch, sampled early

    def __len__(self) -> int:
        """Batches per epoch."""
        return self.size // self.batch_size if self.drop_last else -(-self.size // self.batch_size)

    @property
    def examples(self) -> int:
        """Images per epoch."""
        return len(self) * self.batch_size if self.drop_last else self.size

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Array, Array]]:
        """The batches of an epoch from number ``start`` on: x float32 (B,H,W,C), labels int64 (B,).

        With mixup or cutmix the labels are rows of probabilities, float32 (B,K).
        The same (seed, epoch) gives the same batches, however often and wherever it starts.
        """
        order, params, mixes = self.ahead.get(epoch) or self.sample_epoch(epoch)
        for batch in range(start, len(self)):
            index = order[batch * self.batch_size : (batch + 1) * self.batch_size]  # (B,)
            x, labels = self.gather(index, params, epoch), self.labels[index]
            if batch == len(self) - 1 and (self.shuffle or self.augmentation) and not self.backend.synchronous:
                self.ahead = {epoch + 1: self.sample_epoch(epoch + 1)}  # while the device has steps left to do
            yield self.mix(x, labels, mixes[batch]) if mixes else (x, labels)

    def sample_epoch(self, epoch: int) -> tuple[Array, AugmentParams | None, list[Mix]]:
        """All that is random in an epoch: the order (N,), the parameters of augmentation, how each batch is mixed."""
        xp, n, shape, how = self.backend.xp, self.size, self.images.shape[1:], self.augmentation
        order, params, mixes = xp.arange(n), None, list[Mix]()
        if self.shuffle:
            order = permutation(n, seed=self.seed, stream=SHUFFLE, step=epoch, xp=xp)
        if how is not None:
            params = sample_augmentation(how, n, shape, seed=self.seed, epoch=epoch, xp=xp)
            mixes = sample_mixes(how, len(self), shape, seed=self.seed, epoch=epoch) if how.mixes else []
        return order, params, mixes

    def mix(self, x: Array, labels: Array, mix: Mix) -> tuple[Array, Array]:
        """A batch x (B,H,W,C), labels (B,) mixed with itself in reverse, and its labels as rows (B,K)."""
        if mix.weight < 1.0:
            x = self.backend.run(cutmix, x, *mix.box) if mix.box else self.backend.run(mixup, x, mix.weight)
        return x, mixed_labels(labels, self.classes, mix.weight)

    def gather(self, index: Array, params: AugmentParams | None, epoch: int) -> Array:
        """Images ``index`` (B,) as the model sees them in an epoch: float32 (B,H,W,C)."""
        how, run = self.augmentation, self.backend.run
        if how is None or params is None:
            return run(gather_normalize, self.images, index, self.mean, self.inv_std)
        params, images = params.of(index), self.images
        if how.warps or how.jitters:  # bytes again, of the batch alone
            images, index = self.distort(index, params, how, epoch), self.backend.xp.arange(len(index))
        crop_flip = (params.flip, params.shift, how.crop, how.crop_mode)
        return run(gather_augment, images, index, *crop_flip, self.mean, self.inv_std, params.centre, how.cutout)

    def distort(self, index: Array, params: AugmentParams, how: Augmentation, epoch: int) -> Array:
        """Images ``index`` (B,) warped, with another brightness and contrast: uint8 (B,H,W,C).

        ``params`` are those of these images.
        """
        run, field = self.backend.run, None
        if how.elastic:
            noise = run(noise_planes, index, self.images.shape[1:], self.seed, ELASTIC, epoch)  # (B,2,H,W)
            field = run(smooth, noise, how.elastic, how.elastic_sigma)
        pixels = run(warp, self.images, index, params.matrix, field, how.crop_mode) if how.warps else self.images[index]
        return run(jitter, pixels, params.brightness, params.contrast) if how.jitters else pixels


def check(
    dataset: Dataset,
    batch_size: int,
    drop_last: bool,
    mean: Sequence[float],
    std: Sequence[float],
    augmentation: Augmentation | None,
) -> None:
    """Check the arguments of a Loader, before anything is copied."""
    if batch_size < 1:
        raise UsageError(f"batch_size = {batch_size}: give at least 1")
    if drop_last and batch_size > len(dataset):
        raise UsageError(
            f"batch_size = {batch_size} with drop_last leaves no batch of the {len(dataset)} images of "
            f"{dataset.name}: give at most {len(dataset)}, or keep the last batch"
        )
    height, width, channels = dataset.image_shape
    for name, values in (("mean", mean), ("std", std)):
        if len(values) != channels:
            raise ShapeError(
                f"{name} = {tuple(values)} for images {dataset.image_shape} of {dataset.name}: "
                f"give {channels} numbers, one per channel"
            )
    if not all(s > 0.0 for s in std):
        raise ShapeError(
            f"std = {tuple(std)} of {dataset.name}: give positive numbers; "
            f"a channel whose pixels are all equal cannot be normalised"
        )
    if augmentation:
        augmentation.check(height, width)
