"""A net as data: a list of tables, one per layer, from which the net is made again by the names of its layers alone.

    [{"layer": "Conv2D", "out_channels": 8, "kernel_size": 3}, {"layer": "ReLU"}, {"layer": "Flatten"},
     {"layer": "Linear", "out_features": "classes"}]

A table has the name of a layer and arguments of its constructor: numbers, booleans, strings and lists.

    in_channels, in_features   and the like may be left out: they are the last size of what arrives
    "classes"                  for a number: the number of classes
    weight_init = "dirac"      a function of ``layers/initializers.py`` by its name
    body = [{...}, {...}]      a branch: a list of tables, which makes a ``Sequential``, or one table
    branches = [[{...}], {...}]  several of them, for a constructor with ``*branches``
    layers = [{...}, {...}]    of a ``Sequential`` in the list
    name = "features"          of a position; without it, positions are numbered
    joined = true              at the position of the layer before, as in a tuple (see ``Sequential``)

What a table can name is in ``LAYERS``; sizes and counts are bounded, so a table from a file is no danger.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from functools import cache
from inspect import Parameter as Argument
from inspect import Signature, isfunction, signature
from math import inf, prod
from numbers import Integral, Real
from types import NoneType
from typing import Any, TypeAlias, get_args, get_origin, get_type_hints

from gpucnn import layers
from gpucnn.errors import GpucnnError, ShapeError, UsageError, closest, cut, shown
from gpucnn.layers import Layer, Sequential, initializers
from gpucnn.settings import checked, is_sequence
from gpucnn.types import Shape

Table: TypeAlias = Mapping[str, Any]

LAYERS: dict[str, type[Layer]] = {
    name: kind
    for name in layers.__all__
    if isinstance(kind := getattr(layers, name), type) and issubclass(kind, Layer) and kind is not Layer
}
"""Name in a table -> layer; ``models.register`` adds to it."""

INITIALIZERS: dict[str, Callable[..., Any]] = {
    name: function
    for name, function in vars(initializers).items()
    if isfunction(function) and name[0] != "_" and [*signature(function).parameters] == ["shape", "seed", "stream"]
}

IMPLIED = ("in_channels", "in_features", "channels", "features", "num_channels", "num_features")
WINDOWS = ("kernel_size", "kernel", "stride", "padding", "dilation", "output_padding", "output_size", "scale_factor")
CUSTOM = "custom"
"""The name of a model that is given layer by layer."""
CLASSES, RESERVED = "classes", {"layer", "name", "joined"}

MOST_LAYERS, DEEPEST = 2000, 12  # a file must not build a huge net
MOST_PARAMETERS, LARGEST_OUTPUT, LARGEST_WINDOW = 2**31, 2**27, 512  # the last: pixels of an image's side
POSITION = re.compile(r"[A-Za-z0-9_-]{1,40}")


def plain(value: Any, depth: int = 0) -> Any:
    """The same value of numbers, booleans, strings, lists (as tuples) and tables alone.

    Raises:
        UsageError: it holds something else, or nests too deeply.
    """
    if depth > 4 * DEEPEST:
        raise UsageError(f"layers nest more than {DEEPEST} deep: give fewer branches in branches")
    if isinstance(value, Mapping):
        return {key: plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return tuple(plain(item, depth + 1) for item in value)
    if isinstance(value, Real) and not isinstance(value, bool):
        value = int(value) if isinstance(value, Integral) else float(value)
    if not isinstance(value, bool | int | float | str) or value in (inf, -inf) or value != value:
        raise UsageError(f"layers with {shown(value)}: give finite numbers, booleans, strings and lists")
    return value


# -- from tables to layers ----------------------------------------------------------------------------


@checked
def from_spec(spec: Sequence[Table], input_shape: Shape | None = None, num_classes: int | None = None) -> Layer:
    """The net that a list of tables describes, not initialised yet.

    Args:
        spec: see above; a list of one table with the name "" is that layer itself, and not a ``Sequential``.
        input_shape: of an image (H, W, C), from which the numbers that are left out follow; without it, none may be.
        num_classes: what "classes" stands for, and the length of what the net gives; without it, anything goes.

    Raises:
        UsageError: a layer or an argument that does not exist, a number that is missing, or a net that is too large.
        ShapeError: a layer cannot take what arrives, or the net does not give a number per class.
    """
    reader, shape = Reader(num_classes), None if input_shape is None else tuple(input_shape)
    if len(spec) == 1 and isinstance(spec[0], Mapping) and spec[0].get("name") == "":
        table = {key: value for key, value in spec[0].items() if key != "name"}
        net, out = reader.layer(table, shape, "0", 0)
    else:
        net, out = reader.sequence(spec, shape, "", 0)
    names = [name for name, _ in net.named_layers()]
    if len(set(names)) < len(names):
        raise UsageError("two layers of the net have one name: give each position a name of its own")
    for name, parameter in net.parameters().items():
        try:
            parameter.init((1,) * len(parameter.shape), 0, 0)
        except ValueError:
            raise UsageError(f"{name}: {parameter.init.__name__} cannot fill {parameter.shape}: take another") from None
    size = sum(prod(parameter.shape) for parameter in net.parameters().values())
    if size > MOST_PARAMETERS:
        raise UsageError(f"a net of {size:,} parameters: give layers with {MOST_PARAMETERS:,} at most")
    if out is not None and num_classes is not None and out != (num_classes,):
        raise ShapeError(
            f"the net gives {out} for {num_classes} classes: "
            'end it with {layer = "Linear", out_features = "classes"}, after Flatten or GlobalAvgPool2D'
        )
    return net


class Reader:
    """Makes layers from tables, and counts them."""

    def __init__(self, classes: int | None) -> None:
        self.classes, self.made = classes, 0

    def net(self, value: Any, shape: Shape | None, place: str, depth: int) -> tuple[Layer, Shape | None]:
        """A layer from a table, a ``Sequential`` from a list of them; and the shape it gives."""
        return (self.layer if isinstance(value, Mapping) else self.sequence)(value, shape, place, depth)

    def sequence(self, tables: Any, shape: Shape | None, place: str, depth: int) -> tuple[Sequential, Shape | None]:
        if isinstance(tables, str | Mapping) or not isinstance(tables, Sequence) or not (tables or place):
            raise UsageError(f"{at(place)}{shown(tables)}: give a list of tables, as [{{layer = 'ReLU'}}]")
        found: dict[str, Layer] = {}
        positions, last = 0, ""
        for i, entry in enumerate(tables):
            here = dotted(place, str(i))
            if not isinstance(entry, Mapping):
                raise UsageError(f"{at(here)}{shown(entry)}: give a table, as {{layer = 'ReLU'}}")
            table = dict(entry)
            name, joined = table.pop("name", None), table.pop("joined", False)
            if type(joined) is not bool or (joined and (name is not None or not found)):
                raise UsageError(f"{at(here)}joined is true or false, for a layer without a name behind another one")
            if name is not None and not (isinstance(name, str) and POSITION.fullmatch(name)):
                raise UsageError(f"{at(here)}name = {shown(name)}: give letters, digits, - and _")
            if not joined:
                last, positions = str(positions) if name is None else name, positions + 1
            layer, shape = self.layer(table, shape, dotted(place, last if name else str(i)), depth)
            key = f"{last}.{type(layer).__name__.lower()}" if joined else last
            if key in found:
                raise UsageError(f"{at(here)}two layers have the name {key!r}: give another one")
            found[key] = layer
        return Sequential(**found), shape

    def layer(self, table: Table, shape: Shape | None, place: str, depth: int) -> tuple[Layer, Shape | None]:
        self.made += 1
        if self.made > MOST_LAYERS or depth > DEEPEST:
            raise UsageError(f"a net of more than {MOST_LAYERS} layers, or {DEEPEST} deep: give a smaller one")
        name = table.get("layer")
        if not isinstance(name, str) or name not in LAYERS:
            raise UsageError(
                f"{at(place)}layer = {shown(name)}{closest(name, LAYERS) if isinstance(name, str) else ': give a name'}"
            )
        kind: Any = LAYERS[name]
        place = f"{place} ({name})"
        given = {key: value for key, value in table.items() if key != "layer"}
        if kind is Sequential:
            if given.keys() != {"layers"}:
                raise UsageError(f"{at(place)}give layers = [...], and nothing else")
            return self.sequence(given["layers"], shape, place, depth + 1)
        declared, hints = declared_by(kind)
        if unknown := [key for key in given if key not in declared.parameters]:
            key = cut(str(unknown[0]), 100)
            raise UsageError(f"{at(place)}there is no argument {key!r}{closest(key, declared.parameters)}")
        arguments = {
            argument.name: self.argument(given[argument.name], argument, hints, shape, place, depth)
            for argument in declared.parameters.values()
            if argument.name in given
        }
        for argument in declared.parameters.values():
            if argument.name in given or argument.default is not Argument.empty or argument.kind in SEVERAL:
                continue
            if argument.name not in IMPLIED or not shape:
                raise UsageError(f"{at(place)}{argument.name} is missing: give it a value")
            arguments[argument.name] = shape[-1]
        bound = declared.bind_partial()
        bound.arguments.update(arguments)
        bound.apply_defaults()
        try:
            layer = kind(*bound.args, **bound.kwargs)
            out = None if shape is None else tuple(layer.output_shape(shape))
        except UsageError as error:
            raise type(error)(f"{at(place)}{error}") from None
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise UsageError(f"{at(place)}{type(error).__name__}: {error}") from error
        if out and prod(out) > LARGEST_OUTPUT:
            raise UsageError(f"{at(place)}it gives {out} for one image: give layers with {LARGEST_OUTPUT:,} at most")
        return layer, out

    def argument(
        self, value: Any, argument: Argument, hints: Table, shape: Shape | None, place: str, depth: int
    ) -> Any:
        """The value of a constructor's argument: branches made, names looked up, and the rest as it is."""
        hint, here = hints.get(argument.name, Any), dotted(place, argument.name)
        one = takes_layer(hint)
        if argument.kind is Argument.VAR_KEYWORD and one and isinstance(value, Mapping):
            return {key: self.net(item, shape, dotted(here, key), depth + 1)[0] for key, item in value.items()}
        if (argument.kind is Argument.VAR_POSITIONAL and one) or takes_layers(hint):
            if isinstance(value, str | Mapping) or not isinstance(value, Sequence):
                raise UsageError(f"{at(here)}{shown(value)}: give a list of branches, each a list of tables")
            return tuple(self.net(v, shape, dotted(here, str(i)), depth + 1)[0] for i, v in enumerate(value))
        if one:
            return self.net(value, shape, here, depth + 1)[0]
        if isinstance(value, str) and FUNCTION in [get_origin(kind) for kind in (hint, *get_args(hint))]:
            if value not in INITIALIZERS:
                raise UsageError(f"{at(here)}{shown(value)}{closest(value, INITIALIZERS)}")
            return INITIALIZERS[value]
        if value == CLASSES and int in (hint, *get_args(hint)):
            if self.classes is None:
                raise UsageError(f"{at(here)}'classes' needs their number: give num_classes, or a number here")
            return self.classes
        value = plain(value)
        if argument.name in WINDOWS and largest(value) > LARGEST_WINDOW:
            raise UsageError(f"{at(here)}{shown(value)}: give {LARGEST_WINDOW} at most")
        return value


SEVERAL = (Argument.VAR_POSITIONAL, Argument.VAR_KEYWORD)
FUNCTION = get_origin(Callable[..., Any])


@cache
def declared_by(kind: Any) -> tuple[Signature, dict[str, Any]]:
    """The arguments of a layer's constructor, and their annotations as far as they can be read."""
    try:
        return signature(kind), get_type_hints(kind.__init__)
    except NameError:  # of a name that is there for type checkers alone
        return signature(kind), {}


def takes_layer(hint: Any) -> bool:
    """Whether an annotation is ``Layer``, or that and others."""
    parts = [part for part in get_args(hint) if part is not NoneType] if not is_sequence(get_origin(hint)) else []
    return (isinstance(hint, type) and issubclass(hint, Layer)) or any(map(takes_layer, parts))


def takes_layers(hint: Any) -> bool:
    """Whether an annotation is a list of layers."""
    return is_sequence(get_origin(hint)) and any(map(takes_layer, get_args(hint)))


def largest(value: Any) -> float:
    """The largest number in nested lists."""
    if isinstance(value, tuple):
        return max(map(largest, value), default=0)
    return abs(value) if isinstance(value, int | float) else 0


def dotted(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name


def at(place: str) -> str:
    return f"layer {place}: " if place else "layers: "


# -- from layers to tables ----------------------------------------------------------------------------


@checked
def to_spec(layer: Layer) -> list[dict[str, Any]]:
    """The tables that ``from_spec`` makes an equal net from: parameters of the same names, and shapes, and values.

    Arguments that have their defaults are left out.

    Raises:
        UsageError: a layer that is not registered, an argument that no table can hold, or a net that was changed
            after it was made.
    """
    seen: set[int] = set()
    for name, part in layer.named_layers():
        if id(part) in seen:
            raise UsageError(f"layer {name} ({part.kind}) stands twice in the net: make one for each place")
        seen.add(id(part))
    spec = tables_of(layer) if type(layer) is Sequential else [{**table_of(layer, ""), "name": ""}]
    if not alike(from_spec(spec), layer):
        raise UsageError(f"the net ({layer.kind}) was changed after it was made, and is not what its layers say")
    return spec


def general(spec: list[dict[str, Any]], input_shape: Shape, num_classes: int) -> list[dict[str, Any]]:
    """The same net without the numbers that follow from its images and classes, where there are such."""
    loose, found = deepcopy(spec), []
    for table in tables_in(loose):
        for name in IMPLIED:
            table.pop(name, None)
        found += [table] if table.get("out_features") == num_classes else []
    if found:
        found[-1]["out_features"] = CLASSES
    with suppress(UsageError):
        if tensors(from_spec(loose, input_shape, num_classes)) == tensors(from_spec(spec)):
            return loose
    return spec


def tables_in(value: Any) -> Iterator[dict[str, Any]]:
    """The tables in lists and tables, those of branches before the one that has them."""
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from tables_in(item)
    if isinstance(value, dict):
        yield value


def tensors(layer: Layer) -> dict[str, Any]:
    """What makes a net's state: names, shapes and groups."""
    return {name: (p.shape, p.made_in) for name, p in layer.parameters().items()} | {
        name: buffer.shape for name, buffer in layer.buffers().items()
    }


def alike(made: Layer, layer: Layer) -> bool:
    """Whether a net has the state of one as it was made, though some of its parameters may be frozen."""
    before, now = tensors(made), tensors(layer)
    frozen = ((name, (*before.get(name, ())[:1], "frozen")) for name in now)
    return before.keys() == now.keys() and all(now[name] in (before[name], kept) for name, kept in frozen)


def tables_of(sequence: Sequential, place: str = "") -> list[dict[str, Any]]:
    tables: list[dict[str, Any]] = []
    positions, last = 0, ""
    for name, layer in sequence.layers.items():
        table = table_of(layer, dotted(place, name))
        if last and name == f"{last}.{type(layer).__name__.lower()}":
            tables.append({**table, "joined": True})
            continue
        named = {} if name == str(positions) else {"name": name}
        tables.append({"layer": table.pop("layer"), **named, **table})
        last, positions = name, positions + 1
    return tables


def table_of(layer: Layer, place: str) -> dict[str, Any]:
    kind: Any = type(layer)
    if LAYERS.get(kind.__name__) != kind:
        raise UsageError(f"{at(place)}{kind.__name__} is no layer that a file can name: put @models.register above it")
    if kind is Sequential:
        return {"layer": "Sequential", "layers": tables_of(layer, place)}  # type: ignore[arg-type]
    args, kwargs = layer.made_with
    declared, table = declared_by(kind)[0], {"layer": kind.__name__}
    for name, value in declared.bind(*args, **kwargs).arguments.items():
        now = getattr(layer, name, value) if isinstance(value, Layer) else value
        if now is not declared.parameters[name].default and not same(now, declared.parameters[name].default):
            table[name] = written(now, dotted(place, name))
    return table


def same(value: Any, default: Any) -> bool:
    """Whether a value is the default, type and all."""
    return type(value) is type(default) and isinstance(value, bool | int | float | str | tuple) and value == default


def written(value: Any, place: str) -> Any:
    """A constructor's argument as a table has it."""
    if isinstance(value, Layer):
        return tables_of(value, place) if type(value) is Sequential else table_of(value, place)
    if isinstance(value, Mapping):
        return {key: written(item, dotted(place, str(key))) for key, item in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [written(item, f"{place}.{i}") for i, item in enumerate(value)]
    if callable(value):
        if INITIALIZERS.get(name := getattr(value, "__name__", "")) is not value:
            raise UsageError(f"{at(place)}no table can hold {shown(value)}: take one of {', '.join(INITIALIZERS)}")
        return name
    try:
        return plain(value)
    except GpucnnError as error:
        raise UsageError(f"{at(place)}{error}") from None
