"""What a training step takes: arrays of its backend, normalised images in float32, of a shape for the model."""

from gpucnn.backend import Backend
from gpucnn.errors import ShapeError, UsageError
from gpucnn.layers import Layer
from gpucnn.types import Array


def check_batch(model: Layer, backend: Backend, x: Array, labels: Array) -> None:
    """Refuse a batch, by its kind and not by its numbers.

    Raises:
        UsageError: no arrays of the backend, images that are not float32, or a model in evaluation mode.
        ShapeError: no images, or images that the model cannot take.
    """
    for name, array in (("x", x), ("labels", labels)):
        if not isinstance(array, backend.xp.ndarray):
            kind = f"{type(array).__module__}.{type(array).__name__}"
            raise UsageError(
                f"{name} is a {kind}, the {backend.name} backend takes {backend.xp.__name__} arrays: "
                f"backend.to_device(numpy.asarray({name})) makes one"
            )
    if x.dtype != "float32":
        raise UsageError(f"x is {x.dtype}: give float32, normalised as by Loader: (x / 255 - mean) / std")
    if not len(x):
        raise ShapeError(f"x of shape {x.shape} has no images: give at least one")
    model.output_shape(tuple(x.shape[1:]))
    if not model.training:
        raise UsageError("the model is in evaluation mode: call model.train() before a training step")
