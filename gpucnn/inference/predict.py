"""A trained model on images of one's own."""

import numpy as np

from gpucnn.data import Dataset, Loader
from gpucnn.layers import Layer
from gpucnn.layers.softmax import softmax
from gpucnn.runs.config import Config
from gpucnn.types import Array


def normalise(images: Array, config: Config, model: Layer) -> Array:
    """uint8 (N,H,W,C) on the host -> float32 (N,H,W,C) on the model's device, as training saw its images."""
    unlabelled = Dataset("images", images, np.zeros(len(images), np.uint8), class_names(config))
    mean, std = config.data.mean, config.data.std
    loader = Loader(unlabelled, len(images), backend=model.backend, mean=mean, std=std)
    x, _ = next(iter(loader.epoch(0)))
    return x


def class_names(config: Config) -> tuple[str, ...]:
    """A name per output of the model; numbers where the config does not name just as many."""
    names, count = config.data.classes, config.model.num_classes
    return names if len(names) == count else tuple(map(str, range(count)))


def class_shares(logits: Array, model: Layer) -> Array:
    """Logits (N,K) -> softmax (N,K) on the host: what the model calls probabilities.  # sync"""
    return model.backend.to_host(model.backend.run(softmax, logits))
