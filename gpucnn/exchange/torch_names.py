"""A model's tensors under PyTorch's names and in its layouts, and back.

    convolution              weight (F,KH,KW,C/G) <-> (F,C/G,KH,KW)
    transposed convolution   weight (C,KH,KW,F/G) <-> (C,F/G,KH,KW)
    norms                    scale, shift <-> weight, bias; running statistics keep their names
    behind a Flatten         columns in the order (H,W,C) <-> (C,H,W)

PyTorch's images are (N,C,H,W), and its Flatten follows that order.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import prod

import numpy as np

from gpucnn.errors import CheckpointError, UsageError, shown
from gpucnn.exchange.safetensors_file import Tensors
from gpucnn.layers import (
    BatchNorm,
    BatchNormReLU,
    Conv2D,
    ConvTranspose2D,
    Dropout,
    Flatten,
    GroupNorm,
    Layer,
    LayerNorm,
    Linear,
    Scale,
    Sequential,
    Whitening,
)
from gpucnn.layers.activations import Activation
from gpucnn.layers.containers import Branches
from gpucnn.layers.parameter import Buffer, Parameter
from gpucnn.types import Array, Shape

CONVOLUTIONS = (Conv2D, Whitening, ConvTranspose2D)
NORMS = (BatchNorm, BatchNormReLU, GroupNorm, LayerNorm)
NORM_NAMES = {"scale": "weight", "shift": "bias", "running_mean": "running_mean", "running_var": "running_var"}
COUNTER = "num_batches_tracked"  # PyTorch's, in each batch norm; here nothing asks for it

MOST_NAMED = 12  # tensors in a message


# -- names --------------------------------------------------------------------------------------------


def resnet_name(path: str) -> str:
    """torchvision's name of a layer of ``resnet18``, ``resnet34`` or ``resnet50``."""
    first, *rest = path.split(".")
    if first == "classifier":
        return "fc"
    if first == "stem":
        return {"0": "conv1", "1": "bn1"}[rest[0]]
    block, branch, number = rest
    place = f"layer{first.removeprefix('stage')}.{block}"
    if branch == "shortcut":
        return f"{place}.downsample.{number}"
    return f"{place}.{'bn' if int(number) % 2 else 'conv'}{int(number) // 2 + 1}"


def mobilenet_names(paths: Iterable[str]) -> dict[str, str]:
    """torchvision's names of the layers of ``mobilenet_v2``: its blocks are numbered through, the stem is 0."""
    names, blocks = {}, dict[str, list[str]]()
    for path in paths:
        first, _, rest = path.partition(".")
        if first == "classifier":
            names[path] = "classifier.1"
        elif first in ("stem", "head"):
            names[path] = f"features.{0 if first == 'stem' else len(blocks) + 1}.{rest}"
        else:  # "stage2.1.body.3", or "stage2.0.3" where there is no residual branch
            blocks.setdefault(".".join(path.split(".")[:2]), []).append(path)
            last = int(path.rpartition(".")[2])
            names[path] = f"features.{len(blocks)}.conv.{last // 2}.{last % 2}"
    for paths_of_block in blocks.values():  # its last convolution and norm have no activation, and one number each
        for path, number in zip(paths_of_block[-2:], (0, 1), strict=True):
            at, half, _ = names[path].rsplit(".", 2)
            names[path] = f"{at}.{int(half) + number}"
    return names


TORCHVISION: dict[str, Callable[[list[str]], dict[str, str]]] = {
    **dict.fromkeys(("resnet18", "resnet34", "resnet50"), lambda paths: {path: resnet_name(path) for path in paths}),
    "mobilenet_v2": mobilenet_names,
}
"""Model -> layers that have tensors -> torchvision's names of them."""


def entries(layer: Layer) -> dict[str, Parameter | Buffer]:
    """The parameters and buffers of a layer, and of those in it."""
    return {**layer.parameters(), **layer.buffers()}


def owners(model: Layer) -> dict[str, Layer]:
    """Name -> layer of those that have tensors.

    Raises:
        UsageError: one of them has no form in PyTorch.
    """
    found = {}
    for name, layer in model.named_layers():
        own = {key for key in entries(layer) if "." not in key}
        if own and type(layer) not in (*CONVOLUTIONS, *NORMS, Linear):
            raise UsageError(f"layer {name or 'of the net'} ({layer.kind}) has no form in PyTorch: export it as .h5")
        if own:
            found[name] = layer
    return found


def torch_names(model: Layer) -> dict[str, str]:
    """Layer -> its name in files for PyTorch: torchvision's where it has this model, else its own."""
    paths = list(owners(model))
    rename = TORCHVISION.get((model.built or {}).get("name", ""))
    return rename(paths) if rename else {path: path for path in paths}


# -- layouts ------------------------------------------------------------------------------------------


def turned(model: Layer, input_shape: Shape) -> dict[str, Shape]:
    """Name -> (H,W,C) of the layers whose vectors come out of a Flatten of such images, for images of this shape.

    Raises:
        UsageError: two orders meet, or the net's output is in the order of a Flatten.
    """
    found: dict[str, Shape] = {}
    if follow(model, "", tuple(input_shape), None, found):
        raise UsageError("the net ends in the pixels of a Flatten, which PyTorch orders in another way: add a Linear")
    return found


def follow(layer: Layer, name: str, shape: Shape, order: Shape | None, found: dict[str, Shape]) -> Shape | None:
    """The image (H,W,C) that a layer's output has the order of, None where that is nothing to PyTorch."""
    inner = {key: (f"{name}.{key}" if name else key, child) for key, child in layer.children().items()}
    if isinstance(layer, Sequential):
        for path, child in inner.values():
            order = follow(child, path, shape, order, found)
            shape = child.output_shape(shape)
        return order
    if isinstance(layer, Branches):
        orders = {follow(child, path, shape, order, found) for path, child in inner.values()}
        if len(inner) == 1 and "body" in inner:  # of a residual branch or a gate: x itself is the other one
            orders.add(order)
        if len(orders) > 1 or (orders != {None} and type(layer).__name__ == "Concat"):
            raise UsageError(f"layer {name} ({layer.kind}) joins vectors of two orders: put its Flatten behind it")
        return orders.pop()
    if isinstance(layer, Flatten):
        height, width, channels = shape if len(shape) == 3 else (1, 1, 1)
        return (height, width, channels) if height * width > 1 and channels > 1 else order
    if order is None:
        return None
    if isinstance(layer, Linear | BatchNorm | LayerNorm):
        found[name] = order
        return None if isinstance(layer, Linear) else order
    if not isinstance(layer, Activation | Dropout | Scale):
        raise UsageError(f"layer {name} ({layer.kind}) behind a Flatten has no form in PyTorch: put a Linear between")
    return order


@dataclass(frozen=True)
class Place:
    """A tensor in PyTorch.

    Attributes:
        name: its name in a file.
        own: the same with the layer's own name.
        split, axes: ours is reshaped to ``split``, and its axes then taken in the order ``axes``.
        shape: in PyTorch.
    """

    name: str
    own: str
    split: Shape
    axes: tuple[int, ...]
    shape: Shape

    def outward(self, array: Array) -> Array:
        """Ours -> PyTorch's."""
        return np.ascontiguousarray(array.reshape(self.split).transpose(self.axes).reshape(self.shape))

    def inward(self, array: Array, shape: Shape) -> Array:
        """PyTorch's -> ours, of this shape."""
        parts = array.reshape([self.split[axis] for axis in self.axes])
        return np.ascontiguousarray(parts.transpose(np.argsort(self.axes)).reshape(shape))


def places(model: Layer, input_shape: Shape) -> dict[str, Place]:
    """Name of each parameter and buffer of a model for images (H,W,C) -> its place in PyTorch."""
    images, names, found = turned(model, input_shape), torch_names(model), {}
    for path, layer in owners(model).items():
        for key, entry in entries(layer).items():
            theirs = NORM_NAMES[key] if type(layer) in NORMS else key
            split = shape = entry.shape
            axes = tuple(range(len(shape)))
            if len(shape) == 4:
                axes = 0, 3, 1, 2
                shape = tuple(shape[axis] for axis in axes)
            elif (image := images.get(path)) and shape[-1] == prod(image) and key != "bias":
                split = (*shape[:-1], *image)
                axes = (*range(len(shape) - 1), len(split) - 1, len(split) - 3, len(split) - 2)
            found[dotted(path, key)] = Place(dotted(names[path], theirs), dotted(path, theirs), split, axes, shape)
    return found


def dotted(layer: str, key: str) -> str:
    return f"{layer}.{key}" if layer else key


def to_torch(model: Layer, input_shape: Shape) -> dict[str, Array]:
    """PyTorch's name -> float32 array of every parameter and buffer of a model that takes images (H,W,C).

    Raises:
        UsageError: a layer has no form in PyTorch.
    """
    state = model.state_dict()
    return {place.name: place.outward(state[name]) for name, place in places(model, input_shape).items()}


def from_torch(model: Layer, input_shape: Shape, tensors: Tensors) -> dict[str, Array]:
    """Our name -> float32 array of every parameter and buffer, from a file with names of torchvision's or our own.

    Raises:
        UsageError: a layer has no form in PyTorch.
        CheckpointError: tensors are missing, left over, of another shape, or hold what no weight is.
    """
    wanted = places(model, input_shape)
    choices = [{name: getattr(place, kind) for name, place in wanted.items()} for kind in ("name", "own")]
    names = max(choices, key=lambda names: len(tensors.shapes.keys() & set(names.values())))
    check_fit({names[name]: place.shape for name, place in wanted.items()}, tensors)
    out = {}
    for name, entry in entries(model).items():
        array = tensors.read(names[name])
        if name.rpartition(".")[2] == "running_var" and array.min() < 0:
            raise CheckpointError(f"{tensors.path}: {shown(names[name])} is negative, which no variance is")
        out[name] = wanted[name].inward(array, entry.shape)
    return out


def check_fit(wanted: Mapping[str, Shape], tensors: Tensors) -> None:
    """Raises CheckpointError, which names the tensors, where a file is not exactly the model's."""
    path, found = tensors.path, tensors.shapes
    missing = [name for name in wanted if name not in found]
    extra = [name for name in found if name not in wanted and name.rpartition(".")[2] != COUNTER]
    other = [name for name, shape in wanted.items() if name in found and found[name] != shape]
    if not (missing or extra or other):
        return
    last = ([name for name in wanted if len(wanted[name]) == 2] or [""])[-1].rpartition(".")[0]
    if not missing and not extra and all(name.rpartition(".")[0] == last for name in other):
        there, here = found[other[0]], wanted[other[0]]
        remedy = f"give --classes {there[0]}" if there[1:] == here[1:] and there else "give the --model of the file"
        raise CheckpointError(f"{path}: {other[0]} is {sized(there)}, the model's {sized(here)}: {remedy}")
    sentences = [
        listed("lacks", missing),
        listed("has, and the model lacks,", extra),
        listed("has of another shape", [f"{name} ({sized(found[name])}, not {sized(wanted[name])})" for name in other]),
    ]
    raise CheckpointError(f"{path} is not of this model: it {'; it '.join(filter(None, sentences))}")


def listed(what: str, names: list[str]) -> str:
    """The first tensors by name, and how many more there are."""
    more = f" and {len(names) - MOST_NAMED:,} more" if len(names) > MOST_NAMED else ""
    return f"{what} {', '.join(names[:MOST_NAMED])}{more}" if names else ""


def sized(shape: Shape) -> str:
    return " x ".join(map(str, shape)) or "one number"
