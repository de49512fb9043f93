"""A trained model with all that its answers need: how images are normalised, and what the classes are called.

    classifier = gpucnn.load("best.h5")
    print(classifier.predict("digit.png"))
    print(classifier.evaluate(test).accuracy)

``load`` makes it of a file, and a ``Trainer`` of what it has trained.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from math import inf
from pathlib import Path
from typing import Any

import numpy as np

from gpucnn.backend import Backend
from gpucnn.data import Dataset, Loader
from gpucnn.data.dataset import Arrays, check_order
from gpucnn.data.folders import images_below
from gpucnn.data.image_files import FITS, fit, open_image, titled
from gpucnn.devices import get_backend
from gpucnn.errors import DataError, ShapeError, UsageError
from gpucnn.explain import Recording, record
from gpucnn.inference.evaluate import Evaluation, evaluate
from gpucnn.inference.predict import class_names, normalise, probabilities
from gpucnn.inference.predictions import Prediction, Predictions
from gpucnn.inference.tta import VIEWS, mean_over_views
from gpucnn.layers import Layer
from gpucnn.runs.build import check_files
from gpucnn.settings import Checked, checked, in_short, named
from gpucnn.types import Array, Shape

BATCH = 256
PIXELS = ("uint8", "float32")


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

    Images are given as arrays of the size and the scale of the training images: (H,W,C) is one, (N,H,W,C) are many,
    and C may be left out where it is 1.  Whole numbers from 0 to 255 are bytes.  Or as files, where the training images
    were bytes: a path, a sequence of paths, a folder with images in it or below it, or an image of Pillow; they are
    resized.

    Attributes:
        model: in evaluation mode.
        mean, std: per channel, of bytes on a 0..1 scale; those of the training set.
        classes: the name of each class.
        input_shape: of an image, (H,W,C).
        pixels: dtype of the training images, "uint8" or "float32" (on a scale of their own).
        fit: how files come to another aspect ratio: "crop", "pad" or "stretch".
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
        pixels: str = "uint8",
        fit: str = "crop",
        name: str = "",
        forward: Callable[[Array], Array] | None = None,
    ) -> None:
        self.model, self.mean, self.std = model.eval(), tuple(mean), tuple(std)
        self.input_shape, self.name = tuple(input_shape), name or model.kind
        self.pixels, self.fit = chosen("pixels", pixels, PIXELS), chosen("fit", fit, FITS)
        if len(self.input_shape) != 3:
            raise ShapeError(f"input_shape = {self.input_shape}: give (height, width, channels)")
        if not all(0 < deviation < inf for deviation in self.std):
            raise UsageError(f"std = {self.std}: give positive numbers")
        outputs = model.output_shape(self.input_shape)
        if len(outputs) != 1:
            raise ShapeError(f"the model gives {outputs} for an image, no number per class: call model(x) itself")
        if 0 < len(classes) != outputs[0]:
            raise ShapeError(
                f"{len(classes)} classes for a model of {outputs[0]} outputs: give the name of each output"
            )
        self.classes = class_names(tuple(classes), outputs[0])
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
            DataError: arrays that are not on its scale, files that cannot be read, a folder without images.
            UsageError: what is neither an array nor a path, files for a model of float images, an unknown name of
                views.
            NotANumberError: the model's answer is NaN.
        """
        views = named("tta", tta, VIEWS)
        one = False
        if isinstance(images, Dataset):
            pixels, sources = self._fitting(images.images), list[str]()
        elif is_path(images) or (isinstance(images, list | tuple) and images and all(map(is_path, images))):
            one = is_path(images) and not os.path.isdir(images)
            read = [self._read(path) for path in files_of(images)]
            pixels, sources = np.stack([image for image, _ in read]), [source for _, source in read]
        elif hasattr(images, "getbands"):  # of Pillow
            one = True
            pixels, sources = self._fitted(images)[0][np.newaxis], list[str]()
        else:
            one = np.ndim(images) == len(self.input_shape) - 1 or np.shape(images) == self.input_shape
            pixels, sources = self._fitting(images), []
        if invert and self.pixels != "uint8":
            raise UsageError("invert is for bytes, the model was trained on float images: invert them yourself")
        pixels = 255 - pixels if invert else pixels
        rows = [self._answers(pixels[start : start + BATCH], views) for start in range(0, len(pixels), BATCH)]
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
            ShapeError: its images are not of the model's size, or its classes are more than the model's.
            DataError: its images are bytes where the model was trained on floats, or the other way round.
        """
        if dataset.image_shape != self.input_shape or dataset.num_classes > len(self.classes):
            found = f"images {dataset.image_shape} in {dataset.num_classes} classes"
            raise ShapeError(f"{dataset.name} has {found}, the model takes {self.input_shape} in {len(self.classes)}")
        check_order(dataset, self.classes)
        self._check_scale(dataset.images)
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
        if not 0 <= lr < inf:
            raise UsageError(f"lr = {lr}: give a number >= 0")
        x = normalise(found.image[np.newaxis], self.mean, self.std, self.backend)  # (1,H,W,C)
        try:
            recorded = record(self.model, x, np.array([label]), lr=lr, steps=steps)
        finally:
            self.model.eval()
        scale = (self.mean, self.std) if self.pixels == "uint8" else ((), ())
        flops = self.model.flops(self.input_shape)
        facts = Subject(self.name, found.source or "an array", *scale, self.classes, label, flops)
        return Explanation(recorded, build(recorded, facts))

    def _answers(self, images: Array, views: tuple[Any, ...]) -> Array:
        """Probabilities float32 (B,K) of images uint8 (B,H,W,C)."""
        self.model.eval()  # whoever trained it since
        x = normalise(images, self.mean, self.std, self.backend)
        return probabilities(mean_over_views(self.forward, x, views), self.backend)

    def _read(self, path: Path) -> tuple[Array, str]:
        """A file as the model's image uint8 (H,W,C), and what it is."""
        picture, notes = open_image(path)
        image, done = self._fitted(picture)
        return image, titled(path, notes + done)

    def _fitted(self, picture: Any) -> tuple[Array, list[str]]:
        """An image of Pillow as the model's, uint8 (H,W,C), and what was done."""
        check_files(self.pixels)
        return fit(picture, self.input_shape, self.fit)

    def _check_scale(self, images: Array) -> None:
        """Raises DataError where images are bytes and the model's were floats, or the other way round."""
        if images.dtype == self.pixels:
            return
        remedy = "images.astype('float32') on the scale of the training images"
        if self.pixels == "uint8":
            remedy = "(255 * images).round().astype('uint8') of 0 to 1, images.astype('uint8') of 0 to 255"
        raise DataError(f"images are {images.dtype}, the model was trained on {self.pixels}: give {remedy}")

    def _fitting(self, images: Any) -> Array:
        """Arrays as (N,H,W,C) of the dtype ``pixels``; raises ShapeError or DataError where they cannot be that."""
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
        if self.pixels == "uint8":
            pixels = Arrays("images").images(pixels, None)
        elif pixels.dtype.kind == "f":
            pixels = pixels.astype(np.float32, copy=False)
        self._check_scale(pixels)
        return pixels

    def __repr__(self) -> str:
        size = " x ".join(map(str, self.input_shape))
        return f"{self.name}: images {size} in {len(self.classes)} classes, on {self.backend.name}"

    def _repr_html_(self) -> str:
        """What it takes and the model's table, for notebooks."""
        return f"<p>{escape(repr(self))}</p>{self.model._repr_html_()}"


def chosen(what: str, name: str, known: Sequence[str]) -> str:
    """A name that is known; else raises UsageError."""
    return named(what, name, {one: one for one in known})


def is_path(value: object) -> bool:
    """Whether this names a file."""
    return isinstance(value, str | os.PathLike)


def files_of(paths: Any) -> Iterator[Path]:
    """The files of a path, a folder or a list of them; raises DataError for a folder without images."""
    for path in map(Path, [paths] if is_path(paths) else paths):
        found = images_below(path) if os.path.isdir(path) else [path]
        if not found:
            raise DataError(f"{path}: a folder without images: name one that has some, or image files")
        yield from found


@checked
def load(path: str | os.PathLike[str], backend: Backend | str = "auto") -> Classifier:
    """The trained model in a checkpoint: of ``gpucnn train`` or ``export``, or of ``Trainer.save``.

    Args:
        path: best.h5 of a run, say; or the name of a pretrained model, as "mnist_lenet".
        backend: where it runs; by name, what ``get_backend`` knows.

    Raises:
        CheckpointError: it is missing, damaged, or holds no model.
        DeviceError: the GPU that was asked for cannot be used.
    """
    from gpucnn.runs.state import load_trained  # which needs h5py

    where = get_backend(backend) if isinstance(backend, str) else backend
    model, config, _ = load_trained(Path(path), where)
    data, shape = config.data, config.model.input_shape
    name = Path(path).stem if config.model.layers else config.model.name
    return Classifier(
        model,
        mean=data.mean,
        std=data.std,
        classes=data.classes,
        input_shape=shape,
        pixels=data.pixels,
        fit=data.fit,
        name=name,
    )
