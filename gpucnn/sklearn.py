"""A convolutional network as a scikit-learn classifier, for pipelines, grid searches and cross-validation.

    net = CNNClassifier("mnist_cnn", image_shape=(8, 8, 1), epochs=10)
    cross_val_score(net, digits.data, digits.target)

scikit-learn is imported when this module is, and not by ``gpucnn`` itself.
"""

from collections.abc import Mapping, Sequence
from math import isqrt
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, check_random_state, validate_data

from gpucnn import models
from gpucnn.data import Augmentation, Dataset
from gpucnn.devices import get_backend
from gpucnn.errors import ShapeError
from gpucnn.layers import Layer
from gpucnn.runs.classifier import Classifier
from gpucnn.runs.trainer import Trainer
from gpucnn.training.trainer import TrainerOptions
from gpucnn.types import Array, Shape


class CNNClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A network with scikit-learn's interface.

    X is (N,H,W), (N,H,W,C), or flat rows (N,D) of ``image_shape``: bytes, or numbers on any scale, which become
    float32.  They are normalised by mean and deviation of the training set.  Labels may be numbers or texts.

    Args:
        model: a name in ``models.MODELS``, or a list of layers as ``models.from_spec`` takes it.
        model_options: of a model by name, as {"width": 64}.
        image_shape: (H,W,C) or (H,W) of flat rows; None takes them for squares where D is a square, else for images
            that are one pixel high.
        epochs, batch_size, schedule: of the training, as for ``Trainer``.
        optimizer: the name of an optimizer.
        lr: its learning rate; None for its default.
        augmentation: of training images.
        backend: name of the device it runs on.
        random_state: of weights, shuffles, dropout and augmentation: an integer, a ``RandomState``, or None for another
            one in each fit.
        verbose: print a line per epoch.

    Attributes:
        classes_: the labels, sorted.
        n_features_in_: numbers of a flat row, or the height of images.
        image_shape_: (H,W,C) of an image.
        history_: a row of numbers per epoch.
        classifier_: the ``gpucnn.Classifier`` with the trained model.

    Raises:
        ValueError: X or y is not what scikit-learn takes, or another number of features than in ``fit``.
        ShapeError: X does not fit ``image_shape``, or the images do not fit the model.
    """

    def __init__(
        self,
        model: str | Sequence[Mapping[str, Any]] = "mnist_cnn",
        *,
        model_options: Mapping[str, Any] | None = None,
        image_shape: Shape | None = None,
        epochs: int = 10,
        optimizer: str = "adam",
        lr: float | None = None,
        batch_size: int = 64,
        schedule: str | None = None,
        augmentation: Augmentation | None = None,
        backend: str = "cpu",
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        self.model, self.model_options, self.image_shape = model, model_options, image_shape
        self.epochs, self.optimizer, self.lr, self.batch_size = epochs, optimizer, lr, batch_size
        self.schedule, self.augmentation, self.backend = schedule, augmentation, backend
        self.random_state, self.verbose = random_state, verbose

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.non_deterministic = False
        return tags

    def fit(self, X: Any, y: Any) -> Self:
        """Train a new network on X with labels y (N,)."""
        X, y = validate_data(self, X, y, allow_nd=True)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        seed = self.random_state
        if not isinstance(seed, int | np.integer):
            seed = check_random_state(seed).randint(2**31 - 1)
        self.image_shape_ = self._shape_of(X.shape[1:])
        self.pixels_ = "uint8" if X.dtype == np.uint8 else "float32"
        train = Dataset("X", self._pixels(X), labels.tolist(), tuple(map(str, range(len(self.classes_)))))
        std = tuple(deviation or 1.0 for deviation in train.std)  # of images of one colour
        net = self._net()
        trainer = Trainer(
            net,
            self.optimizer,
            lr=self.lr,
            backend=self.backend,
            batch_size=self.batch_size,
            schedule=self.schedule,
            augmentation=self.augmentation,
            seed=int(seed),
            options=TrainerOptions(std=std),
        )
        self.history_ = list(trainer.train(train, epochs=self.epochs, quiet=not self.verbose))
        self.mean_, self.std_ = trainer.mean, trainer.std
        self.classifier_ = self._classifier(net)
        return self

    def predict_proba(self, X: Any) -> Array:
        """Probabilities of the classes in the order of ``classes_``: float32 (N,K)."""
        check_is_fitted(self)
        X = validate_data(self, X, allow_nd=True, reset=False)
        return self.classifier_.probabilities(self._pixels(X))

    def predict(self, X: Any) -> Array:
        """The most probable label of each image (N,)."""
        check_is_fitted(self)
        return self.classes_[self.predict_proba(X).argmax(axis=1)]

    def _shape_of(self, shape: Shape) -> Shape:
        """(H,W,C) of images that X has in this shape."""
        if len(shape) == 1 and self.image_shape is None:
            side = isqrt(shape[0])
            return (side, side, 1) if side * side == shape[0] else (1, shape[0], 1)
        wanted = tuple(self.image_shape or shape)
        wanted = (*wanted, 1) if len(wanted) == 2 else wanted
        if len(wanted) != 3 or int(np.prod(shape)) != int(np.prod(wanted)):
            raise ShapeError(f"X has images of shape {shape}, image_shape is {self.image_shape}: give (H, W, C)")
        return wanted

    def _pixels(self, X: Array) -> Array:
        """X as (N,H,W,C) of the dtype ``pixels_``."""
        if int(np.prod(X.shape[1:])) != int(np.prod(self.image_shape_)):
            raise ShapeError(f"X has images of shape {X.shape[1:]}, the model was fitted to {self.image_shape_}")
        return X.astype(self.pixels_, copy=False).reshape(-1, *self.image_shape_)

    def _net(self) -> Layer:
        """A new network for ``image_shape_`` and ``classes_``."""
        shape, classes = self.image_shape_, len(self.classes_)
        if isinstance(self.model, str):
            return models.build(self.model, shape, classes, **(self.model_options or {}))
        return models.from_spec(self.model, shape, classes)

    def _classifier(self, net: Layer) -> Classifier:
        """The model with what its answers need."""
        names = tuple(dict.fromkeys(map(str, self.classes_)))
        return Classifier(
            net, mean=self.mean_, std=self.std_, classes=names, input_shape=self.image_shape_, pixels=self.pixels_
        )

    def __getstate__(self) -> dict[str, Any]:
        """For pickle and copies: the weights in place of the model, whose backend stays in its process."""
        state = dict(super().__getstate__())
        if "classifier_" in state:
            state["classifier_"] = self.classifier_.model.state_dict()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "classifier_" in state:
            net = self._net().initialize(0, get_backend(self.backend))
            net.load_state_dict(state["classifier_"])
            self.classifier_ = self._classifier(net)
