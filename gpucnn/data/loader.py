"""Mini-batches (L22): the set goes to the device once, as bytes; batches are gathered and normalised there.

A set that stays in a file, or is too large for the device, goes there batch by batch: another thread gathers the bytes
of the next ones while a step runs, and the same ops make the same bits of them.

Everything random is sampled per epoch for the whole set (``Loader.sample_epoch``).
"""

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import repeat

import numpy as np

from gpucnn.backend import REFERENCE, Backend
from gpucnn.data.augment.colour import jitter
from gpucnn.data.augment.crop_flip import gather_augment, gather_normalize
from gpucnn.data.augment.mixing import Mix, cutmix, mixed_labels, mixup, sample_mixes
from gpucnn.data.augment.settings import ELASTIC, Augmentation, AugmentParams, sample_augmentation
from gpucnn.data.augment.warp import noise_planes, smooth, warp
from gpucnn.data.dataset import Dataset
from gpucnn.data.stored import StoredImages, read_ahead
from gpucnn.errors import ShapeError, UsageError
from gpucnn.random import permutation, stream_id
from gpucnn.settings import Checked
from gpucnn.types import Array

SHUFFLE = stream_id("shuffle")


class Loader(Checked):
    """Batches of a data set on a backend's device.

    Args:
        dataset: images on the host, uint8 or float32, or in a file.
        batch_size: images per batch; the last one of an epoch may have fewer.
        backend: the device on which batches are made.
        mean, std: per channel, of bytes on a 0..1 scale; the training set's, for the test set too.
        seed: of shuffles and augmentation.
        shuffle: a new order in every epoch.
        drop_last: leave out a last batch that is smaller than the others.
        augmentation: of the images; None for none.
        memory: bytes of a GPU that the images may take; where they are more, or by default more than half of what is
            free, they stay with the host.

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
        memory: int | None = None,
    ) -> None:
        check(dataset, batch_size, drop_last, mean, std, augmentation)
        self.batch_size, self.seed, self.shuffle, self.drop_last = batch_size, seed, shuffle, drop_last
        self.augmentation, self.backend = augmentation, backend
        self.size, self.classes = len(dataset), dataset.num_classes
        self.shape, self.source = dataset.image_shape, dataset.images
        if memory is None and backend.free_memory:
            memory = backend.free_memory() // 2
        self.streams = isinstance(self.source, StoredImages) or (
            not backend.synchronous and memory is not None and self.source.nbytes > memory
        )
        self.images = None if self.streams else backend.to_device(self.source)  # (N,H,W,C)
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

    def epoch(self, epoch: int, start: int = 0) -> Generator[tuple[Array, Array], None, None]:
        """The batches of an epoch from number ``start`` on: x float32 (B,H,W,C), labels int64 (B,).

        With mixup or cutmix the labels are rows of probabilities, float32 (B,K).
        The same (seed, epoch) gives the same batches, however often and wherever it starts.  Where images are read by
        another thread, closing the generator ends that; Python closes it when nothing refers to it any more.
        """
        order, params, mixes = self.ahead.get(epoch) or self.sample_epoch(epoch)
        numbers = range(start, len(self))
        with self.read(order, numbers) as read:
            for batch, images in zip(numbers, read, strict=False):
                index = self.batch(order, batch)
                x, labels = self.gather(index, params, epoch, images), self.labels[index]
                if batch == len(self) - 1 and (self.shuffle or self.augmentation) and not self.backend.synchronous:
                    self.ahead = {epoch + 1: self.sample_epoch(epoch + 1)}  # while the device has steps left to do
                yield self.mix(x, labels, mixes[batch]) if mixes else (x, labels)

    def batch(self, order: Array, number: int) -> Array:
        """The part of an order (N,) that is a batch: (B,)."""
        return order[number * self.batch_size : (number + 1) * self.batch_size]

    def read(self, order: Array, numbers: Iterable[int]) -> AbstractContextManager[Iterator[Array | None]]:
        """A block that gives the images of these batches on the host; None for each where the device has them all."""
        if not self.streams:
            return nullcontext(repeat(None))
        host = self.backend.to_host(order)  # sync
        return read_ahead(self.source, (self.batch(host, number) for number in numbers))

    def sample_epoch(self, epoch: int) -> tuple[Array, AugmentParams | None, list[Mix]]:
        """All that is random in an epoch: the order (N,), the parameters of augmentation, how each batch is mixed."""
        xp, n, shape, how = self.backend.xp, self.size, self.shape, self.augmentation
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

    def gather(self, index: Array, params: AugmentParams | None, epoch: int, images: Array | None = None) -> Array:
        """Images ``index`` (B,) as the model sees them in an epoch: float32 (B,H,W,C).

        ``images`` (B,H,W,C) on the host are they, where they have been read already.
        """
        how, run = self.augmentation, self.backend.run
        if self.streams and images is None:
            images = self.source[self.backend.to_host(index)]  # sync
        set_of_images, places = self.images, index
        if images is not None:
            set_of_images, places = self.backend.to_device(images), self.backend.xp.arange(len(index))
        if how is None or params is None:
            return run(gather_normalize, set_of_images, places, self.mean, self.inv_std)
        params = params.of(index)
        if how.warps or how.jitters:  # of the dtype that it was, of the batch alone
            set_of_images = self.distort(set_of_images, places, index, params, how, epoch)
            places = self.backend.xp.arange(len(index))
        crop_flip = (params.flip, params.shift, how.crop, how.crop_mode)
        statistics = (self.mean, self.inv_std)
        return run(gather_augment, set_of_images, places, *crop_flip, *statistics, params.centre, how.cutout)

    def distort(
        self, images: Array, places: Array, index: Array, params: AugmentParams, how: Augmentation, epoch: int
    ) -> Array:
        """Images warped, with another brightness and contrast: (B,H,W,C) of their dtype.

        Args:
            images, places: where they lie, (N,H,W,C) and (B,).
            index: their numbers in the set, (B,), which noise belongs to.
            params: of these images.
        """
        run, field = self.backend.run, None
        if how.elastic:
            noise = run(noise_planes, index, self.shape, self.seed, ELASTIC, epoch)  # (B,2,H,W)
            field = run(smooth, noise, how.elastic, how.elastic_sigma)
        pixels = run(warp, images, places, params.matrix, field, how.crop_mode) if how.warps else images[places]
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
