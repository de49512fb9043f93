"""Models by name.  A new model is one short function that returns a Layer, and its row here."""

import sys
from collections.abc import Callable
from hashlib import sha256
from inspect import signature
from pathlib import Path
from typing import Any, TypeVar

from gpucnn.errors import ShapeError, UsageError, closest, shown
from gpucnn.layers import Layer
from gpucnn.models.autoencoder import autoencoder
from gpucnn.models.densenet import densenet, densenet121
from gpucnn.models.lenet import lenet5
from gpucnn.models.mobilenet import mobilenet_v2
from gpucnn.models.plain import mlp, mnist_cnn, vgg_small
from gpucnn.models.resnet import resnet9, resnet18, resnet20, resnet34, resnet50
from gpucnn.models.spec import CUSTOM, LAYERS, RESERVED, from_spec, to_spec
from gpucnn.models.speedrun import speedrun94, speedrun95, speedrun96
from gpucnn.models.wide_resnet import wide_resnet
from gpucnn.settings import checked
from gpucnn.types import Shape

__all__ = ["MODELS", "autoencoder", "build", "from_spec", "register", "to_spec"]

Made = TypeVar("Made", bound=Callable[..., Layer])

MODELS: dict[str, Callable[..., Layer]] = {
    "lenet5": lenet5,
    "mnist_cnn": mnist_cnn,
    "vgg_small": vgg_small,
    "resnet9": resnet9,
    "resnet20": resnet20,
    "resnet18": resnet18,
    "resnet34": resnet34,
    "resnet50": resnet50,
    "densenet": densenet,
    "densenet121": densenet121,
    "wide_resnet": wide_resnet,
    "mobilenet_v2": mobilenet_v2,
    "speedrun94": speedrun94,
    "speedrun95": speedrun95,
    "speedrun96": speedrun96,
    "mlp": mlp,
}

ORIGINS: dict[str, str] = {}
"""Name of what ``register`` has added -> its file and the file's digest: "my_layers.py 0123456789abcdef"."""


def register(made: Made) -> Made:
    """A decorator: a class of ``Layer`` can be named in a list of layers, a function is a model by its name.

    The function takes (input_shape, num_classes) and options by keyword with defaults, as those of ``MODELS``.

    Raises:
        UsageError: it is neither, or its name is taken.
    """
    name, is_layer = getattr(made, "__name__", ""), isinstance(made, type)
    if not name.isidentifier() or (isinstance(made, type) and not issubclass(made, Layer)):
        raise UsageError(f"register({shown(made)}): give a class derived from Layer, or a function that returns one")
    if is_layer and (taken := RESERVED & signature(made).parameters.keys()):
        raise UsageError(f"register: {name} has an argument {min(taken)!r}, a word of every table: give another name")
    file = getattr(sys.modules.get(made.__module__), "__file__", None)
    place = Path(file).name if file else made.__module__
    if (name in LAYERS or name in MODELS or name == CUSTOM) and file_of(ORIGINS.get(name, "")) != place:
        raise UsageError(f"register: {name} of {place} has the name of another layer or model: choose another one")
    table: dict[str, Any] = LAYERS if is_layer else MODELS
    table[name] = made
    digest = sha256(Path(file).read_bytes()).hexdigest()[:16] if file and Path(file).is_file() else "unknown"
    ORIGINS[name] = f"{place} {digest}"
    return made


def file_of(origin: str) -> str:
    """The file in a text of ``ORIGINS``."""
    return origin.rpartition(" ")[0]


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
    if not isinstance(model, Layer):
        raise UsageError(f"model {name!r} is a function that returns {shown(model)}: return a Layer")
    model.output_shape(tuple(input_shape))
    model.built = {"name": name, "input_shape": tuple(input_shape), "num_classes": num_classes, "options": options}
    return model
