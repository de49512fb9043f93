"""A trained model with all that its answers need: how images are normalised, and what the classes are called.

``load`` makes it of a file, and a ``Trainer`` of what it has trained:

    classifier = gpucnn.load("best.h5")
    print(classifier.predict("digit.png"))
    print(classifier.evaluate(test).accuracy)
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from gpucnn.backend import Backend
from gpucnn.data import Dataset, Loader
from gpucnn.data.image_files import fit, open_image, titled
from gpucnn.devices import get_backend
from gpucnn.errors import DataError, ShapeError, UsageError
from gpucnn.explain import Recording, record
from gpucnn.inference.evaluate import Evaluation, evaluate
from gpucnn.inference.predict import class_names, normalise, probabilities
from gpucnn.inference.predictions import Prediction, Predictions
from gpucnn.inference.tta import VIEWS, mean_over_views
from gpucnn.layers import Layer
from gpucnn.settings import Checked, checked, in_short, named
from gpucnn.types import Array, Shape

BATCH = 256
ENDINGS = (".png", ".jpg", ".jpeg", ".gif", ".tif", ".tiff", ".bmp", ".webp")
"""Of the files in a folder that are taken for images."""


@dataclass(frozen=True, eq=False)
class Explanation:
    """A training step on one image, number by number.

    Attributes:
        steps: the tensors of each step by name, as ``explanation.steps[0]["features.0.dw"]``.
        page: the HTML page that ``gpucnn explain`` writes.
    """

    steps: list[Recording]
    page: str

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the page; raises UsageError where no file can be written there."""
        try:
            Path(path).write_text(self.page, encoding="utf-8")
        except OSError as error:
            raise UsageError(f"cannot write {path}: {error.strerror or error}") from None

    def _repr_html_(self) -> str:
        """The page in a frame, for notebooks."""
        return f'<iframe srcdoc="{escape(self.page, quote=True)}" style="width:100%;height:700px"></iframe>'


class Classifier(Checked):
    """A trained model that takes images and gives classes.

    Images are given as uint8 arrays, 0..255, of the size of the training images: (H,W,C) is one, (N,H,W,C) are many,
    and grey ones may lack C.  Or as files, which are cut to the middle and resized to that size: a path, a sequence of
    paths, or a folder, whose images are taken in the order of their names.

    Attributes:
        model: in evaluation mode.
        mean, std: per channel, on a 0..1 scale; those of the training set.
        classes: the name of each class.
        input_shape: of an image, (H,W,C).
        name: of the model or its file, for titles.
    """

    def __init__(
        self,
        model: Layer,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        classes: Sequence[str] = (),
        input_shape: Shape,
        name: str = "",
        forward: Callable[[Array], Array] | None = None,
    ) -> None:
        self.model, self.mean, self.std = model.eval(), tuple(mean), tuple(std)
        self.input_shape, self.name = tuple(input_shape), name or model.kind
        self.classes = class_names(tuple(classes), model.output_shape(self.input_shape)[-1])
        self.forward = forward or model

    @property
    def backend(self) -> Backend:
        """Where it runs."""
        return self.model.backend

    @checked
    def predict(self, images: Any, *, tta: str = "none", invert: bool = False) -> Prediction | Predictions:
        """The classes of images: a ``Prediction`` of one image or file, ``Predictions`` of many.

        Args:
            images: arrays or files, as above; a ``Dataset`` too.
            tta: the name of the ``VIEWS`` of each image that logits are averaged over (``inference/tta.py``).
            invert: for dark strokes on white paper, where the model learned light ones on black.

        Raises:
            ShapeError: arrays of another size than the model's.
            DataError: files that cannot be read, a folder without images.
            UsageError: what is neither an array nor a path; an unknown name of views.
            NotANumberError: the model's answer is NaN.
        """
        views = named("tta", tta, VIEWS)
        one = False
        if isinstance(images, Dataset):
            pixels, sources = self.fitting(images.images), list[str]()
        elif is_path(images) or (isinstance(images, list | tuple) and images and all(map(is_path, images))):
            one = is_path(images) and not Path(images).is_dir()
            files = list(files_of(images))
            read = [self.read(path) for path in files]
            pixels, sources = np.stack([image for image, _ in read]), [source for _, source in read]
        else:
            one = np.ndim(images) == len(self.input_shape) - 1 or np.shape(images) == self.input_shape
            pixels, sources = self.fitting(images), []
        if invert:
            pixels = 255 - pixels
        rows = [self.answers(pixels[start : start + BATCH], views) for start in range(0, len(pixels), BATCH)]
        classes = len(self.classes)
        found = np.concatenate(rows) if rows else np.empty((0, classes), np.float32)
        predictions = Predictions(found, self.classes, pixels, sources)
        return predictions[0] if one else predictions

    def probabilities(self, images: Any, *, tta: str = "none") -> Array:
        """Of all classes, float32 (N,K), or (K,) of one image; images as for ``predict``."""
        return self.predict(images, tta=tta).probabilities

    @checked
    def evaluate(self, dataset: Dataset, *, tta: str = "none", batch_size: int = BATCH) -> Evaluation:
        """Loss, accuracy and predictions on a labelled data set, normalised as the training set was.

        Raises:
            ShapeError: its images are not of the model's size.
        """
        if dataset.image_shape != self.input_shape:
            raise ShapeError(f"{dataset.name} has images {dataset.image_shape}, the model takes {self.input_shape}")
        batches = Loader(dataset, batch_size, backend=self.backend, mean=self.mean, std=self.std)
        return evaluate(self.forward, batches, tta=tta)

    @checked
    def explain(self, image: Any, label: int | str | None = None, *, steps: int = 1, lr: float = 0.001) -> Explanation:
        """One step of training on one image, or several, number by number; the model is as before afterwards.

        Args:
            image: an array or a file.
            label: the true class, by number or name; the model's own answer where not given.
            lr: learning rate of the steps.

        Raises:
            UsageError: more than one image, or a class that does not exist.
        """
        from gpucnn.explain.page import Subject, build

        found = self.predict(image)
        if not isinstance(found, Prediction):
            raise UsageError(f"explain takes one image, not {len(found)}: give one of them, as images[0]")
        if isinstance(label, str):
            label = named("label", label, {name: i for i, name in enumerate(self.classes)})
        label = found.label if label is None else label
        if not 0 <= label < len(self.classes) or steps < 1:
            last = len(self.classes) - 1
            raise UsageError(f"label = {label}, steps = {steps}: labels go from 0 to {last}, steps from 1")
        x = normalise(found.image[np.newaxis], self.mean, self.std, self.backend)  # (1,H,W,C)
        try:
            recorded = record(self.model, x, np.array([label]), lr=lr, steps=steps)
        finally:
            self.model.eval()
        facts = Subject(
            self.name, found.source or "an array", self.mean, self.std, self.classes, label,
            self.model.flops(self.input_shape),
        )  # fmt: skip
        return Explanation(recorded, build(recorded, facts))

    def answers(self, images: Array, views: tuple[Any, ...]) -> Array:
        """Probabilities float32 (B,K) of images uint8 (B,H,W,C)."""
        self.model.eval()  # whoever trained it since
        x = normalise(images, self.mean, self.std, self.backend)
        return probabilities(mean_over_views(self.forward, x, views), self.backend)

    def read(self, path: Path) -> tuple[Array, str]:
        """A file as the model's image uint8 (H,W,C), and what it is."""
        picture, notes = open_image(path)
        image, done = fit(picture, self.input_shape)
        return image, titled(path, notes + done)

    def fitting(self, images: Any) -> Array:
        """Arrays as uint8 (N,H,W,C); raises ShapeError or DataError where they are not the model's."""
        try:
            pixels = np.asarray(images)
        except (TypeError, ValueError):
            pixels = np.asarray(None)
        shape, wanted = pixels.shape, self.input_shape
        if wanted[2] == 1 and (shape == wanted[:2] or shape[1:] == wanted[:2]):
            pixels = pixels[..., np.newaxis]
        pixels = pixels[np.newaxis] if pixels.shape == wanted else pixels
        if pixels.dtype.kind not in "biuf":
            raise UsageError(f"images = {in_short(images)}: give an array, a path or a list of paths")
        if pixels.shape[1:] != wanted:
            raise ShapeError(
                f"an array of shape {shape} for a model of images {wanted}: give {('N', *wanted)} or {wanted}; "
                "files are cut and resized, arrays are not".replace("'", "")
            )
        if pixels.dtype != np.uint8:
            remedy = "(255 * images).round().astype('uint8') of 0 to 1, images.astype('uint8') of 0 to 255"
            raise DataError(f"images are {pixels.dtype}: give uint8, 0 to 255, as {remedy}")
        return pixels

    def __repr__(self) -> str:
        size = " x ".join(map(str, self.input_shape))
        return f"{self.name}: images {size} in {len(self.classes)} classes, on {self.backend.name}"

    def _repr_html_(self) -> str:
        """What it takes and the model's table, for notebooks."""
        return f"<p>{escape(repr(self))}</p>{self.model._repr_html_()}"


def is_path(value: object) -> bool:
    """Whether this names a file."""
    return isinstance(value, str | os.PathLike)


def files_of(paths: Any) -> Iterator[Path]:
    """The files of a path, a folder or a list of them; raises DataError for a folder without images."""
    for path in map(Path, [paths] if is_path(paths) else paths):
        if path.is_dir():
            found = sorted(p for p in path.iterdir() if p.suffix.lower() in ENDINGS and p.is_file())
            if not found:
                raise DataError(f"{path}: a folder without images ({', '.join(ENDINGS)})")
            yield from found
        else:
            yield path


@checked
def load(path: str | os.PathLike[str], backend: Backend | str = "auto") -> Classifier:
    """The trained model in a checkpoint: of ``gpucnn train`` or ``export``, or of ``Trainer.save``.

    Args:
        path: best.h5 of a run, say.
        backend: where it runs; by name, what ``get_backend`` knows.

    Raises:
        CheckpointError: it is missing, damaged, or holds no model.
        DeviceError: the GPU that was asked for cannot be used.
    """
    from gpucnn.runs.state import load_trained  # which needs h5py

    where = get_backend(backend) if isinstance(backend, str) else backend
    model, config, _ = load_trained(Path(path), where)
    data, shape = config.data, config.model.input_shape
    name = config.model.name
    return Classifier(model, mean=data.mean, std=data.std, classes=data.classes, input_shape=shape, name=name)
