"""Models by name.  A new model is one short function that returns a Layer, and its row here."""

from collections.abc import Callable
from inspect import signature
from typing import Any

from gpucnn.errors import ShapeError, UsageError, closest, shown
from gpucnn.layers import Layer
from gpucnn.models.lenet import lenet5
from gpucnn.models.mobilenet import mobilenet_v2
from gpucnn.models.plain import mlp, mnist_cnn, vgg_small
from gpucnn.models.resnet import resnet9, resnet18, resnet20
from gpucnn.models.speedrun import speedrun94, speedrun95, speedrun96
from gpucnn.models.wide_resnet import wide_resnet
from gpucnn.settings import checked
from gpucnn.types import Shape

MODELS: dict[str, Callable[..., Layer]] = {
    "lenet5": lenet5,
    "mnist_cnn": mnist_cnn,
    "vgg_small": vgg_small,
    "resnet9": resnet9,
    "resnet20": resnet20,
    "resnet18": resnet18,
    "wide_resnet": wide_resnet,
    "mobilenet_v2": mobilenet_v2,
    "speedrun94": speedrun94,
    "speedrun95": speedrun95,
    "speedrun96": speedrun96,
    "mlp": mlp,
}


@checked
def build(name: str, input_shape: Shape, num_classes: int = 10, **options: Any) -> Layer:
    """The model of this name for images (H, W, C), not initialised yet.

    Raises:
        UsageError: unknown name or option, with the closest match; an option of another type or out of range.
        ShapeError: the model cannot take images of this shape.
    """
    if name not in MODELS:
        raise UsageError(f"unknown model {name!r}{closest(name, MODELS)}")
    builder = MODELS[name]
    parameters = signature(builder).parameters.values()
    known = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    for option, value in options.items():
        if option not in known:
            raise UsageError(f"unknown option {option!r} of model {name!r}{closest(option, known)}")
        wanted = type(known[option])
        if type(value) is not wanted and not (wanted is float and type(value) is int):
            raise UsageError(f"option {option} = {shown(value)} of model {name!r}: give {wanted.__name__}")
    if len(input_shape) != 3 or min(*input_shape, num_classes) < 1:
        raise ShapeError(f"{name} for images {tuple(input_shape)} in {num_classes} classes: give (H, W, C), all >= 1")
    model = builder(tuple(input_shape), num_classes, **options)
    model.output_shape(tuple(input_shape))
    return model
