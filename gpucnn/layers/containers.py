"""Layers made of layers: one after the other, or side by side.

By the chain rule, F(x) = f(u(x)) has F'(x) = f'(u(x)) u'(x), so gradients pass through a sequence in reverse.
A sum passes its gradient to both branches, and a fork adds the gradients of its branches.  Branches side by side each
get their channels of the gradient.  In a product y = x g(x) each factor gets the other one times the gradient, so for
g(x) of one value a channel

    dx = dy g + g.backward(dg),   dg = sum of dy x over the pixels of a channel
"""

from collections.abc import Callable
from functools import reduce
from math import prod
from typing import Any, TypeAlias

from gpucnn.backend import Backend, accumulator_dtype, array_module
from gpucnn.errors import ShapeError, UsageError
from gpucnn.layers.activations import ReLU, Sigmoid, relu, relu_grad
from gpucnn.layers.base import Layer
from gpucnn.layers.fusion import fuse
from gpucnn.layers.linear import Linear
from gpucnn.layers.pooling import GlobalAvgPool2D
from gpucnn.types import Array, Shape


def add(a: Array, b: Array) -> Array:
    """The sum of two arrays of one shape."""
    return a + b


def add_relu(a: Array, b: Array) -> Array:
    """The sum of two arrays of one shape, then ReLU (L4)."""
    return relu(add(a, b))


Entry: TypeAlias = Layer | tuple[Layer, ...]
"""What takes one position of a ``Sequential``."""


class Sequential(Layer):
    """Layers one after the other, named "0", "1", ... by position, or by keyword.

    A tuple of layers takes one position: its first layer has the plain name ("1"), each other one adds its lower-case
    class ("1.relu").  So an activation can be written out without renaming the parameters behind it, on whose names
    checkpoints and initial weights depend.

    Raises:
        UsageError: two layers of a tuple would have the same name.
    """

    def __init__(self, *layers: Entry, **named: Entry) -> None:
        self.layers: dict[str, Layer] = {}
        for name, entry in ({str(i): entry for i, entry in enumerate(layers)} | named).items():
            if isinstance(entry, list):
                raise UsageError("Sequential got a list: give the layers one by one, as Sequential(*layers)")
            first, *rest = entry if isinstance(entry, tuple) else (entry,)
            for key, layer in [(name, first), *((f"{name}.{type(layer).__name__.lower()}", layer) for layer in rest)]:
                if key in self.layers:
                    raise UsageError(f"Sequential would have two layers named {key!r}: give one a position of its own")
                self.layers[key] = layer
        self._steps: tuple[Backend, list[Layer]] | None = None

    def children(self) -> dict[str, Layer]:
        return self.layers

    def steps(self) -> list[Layer]:
        """What runs one after the other: the layers, some of them fused (``fusion.py``)."""
        if self._steps is None or self._steps[0] is not self.backend:
            self._steps = self.backend, fuse(list(self.layers.values()))
        return self._steps[1]

    def _enter_mode(self, training: bool) -> None:
        super()._enter_mode(training)
        for step in self._steps[1] if self._steps else []:
            step._kept = None  # fused ones are not in the tree

    def forward(self, x: Array) -> Array:
        for layer in self.steps():
            x = layer.forward(x)
        return x

    def backward(self, dy: Array) -> Array | None:
        if not self.needs_backward:
            return None
        grad: Array | None = dy
        for layer in reversed(self.steps()):
            grad = layer.backward(grad)
            if grad is None or not layer.needs_input_grad:  # no layer before this one learns
                return None
        return grad

    def skip_input_grad(self) -> None:
        super().skip_input_grad()
        for layer in self.layers.values():
            layer.skip_input_grad()
            if layer.learns():
                break

    def output_shape(self, shape: Shape) -> Shape:
        for name, layer in self.layers.items():
            try:
                shape = layer.output_shape(shape)
            except ShapeError as error:
                raise ShapeError(f"layer {name}: {error}") from None
        return shape

    def flops(self, shape: Shape) -> int:
        total = 0
        for layer in self.layers.values():
            total += layer.flops(shape)
            shape = layer.output_shape(shape)
        return total


class Branches(Layer):
    """A container whose children all get its x; ``result`` says what it makes of theirs."""

    result = "sum"

    def symbols(self) -> dict[str, Any]:
        return dict(self.children())

    def skip_input_grad(self) -> None:
        super().skip_input_grad()
        for child in self.children().values():
            child.skip_input_grad()

    @staticmethod
    def back(child: Layer, dy: Array) -> Array | None:
        """The child's dL/dx, where it has any backward to do."""
        return child.backward(dy) if child.needs_backward else None

    def flops(self, shape: Shape) -> int:
        return sum(child.flops(shape) for child in self.children().values()) + prod(self.output_shape(shape))


class Residual(Branches):
    """y = body(x) + shortcut(x) (He et al., arXiv 1512.03385); with ``relu``, y = relu(body(x) + shortcut(x)).

    Without a ``shortcut`` it is x itself.

    Raises:
        ShapeError: by ``output_shape``, where the two shapes differ.
    """

    def __init__(self, body: Layer, shortcut: Layer | None = None, *, relu: bool = False) -> None:
        self.body, self.shortcut, self.relu = body, shortcut, relu
        other, back = ("shortcut[...]", "dshortcut[...]") if shortcut else ("x[...]", "dz[...]")
        self.equations = (
            f"z[...] = body[...] + {other}  # add",
            f"y[...] = {'max(0, z[...])' if relu else 'z[...]'}  # {'add_relu' if relu else 'add'}",
            f"dz[...] = dy[...]{' * (z[...] > 0)' if relu else ''}  # {'relu_grad' if relu else 'add'}",
            f"dx[...] = dbody[...] + {back}  # add",
        )

    def forward(self, x: Array) -> Array:
        through_shortcut = self.shortcut.forward(x) if self.shortcut else x
        y = self.run(add_relu if self.relu else add, self.body.forward(x), through_shortcut)
        self.keep(y if self.relu else None)
        return y

    def backward(self, dy: Array) -> Array | None:
        if not self.needs_backward:
            return None
        (y,) = self.kept()
        if self.relu:
            dy = self.run(relu_grad, dy, y)  # (L17): y > 0 exactly where the sum was
        through_body = self.back(self.body, dy)
        through_shortcut = self.back(self.shortcut, dy) if self.shortcut else dy
        if not self.needs_input_grad:
            return None
        return self.run(add, through_body, through_shortcut)

    def output_shape(self, shape: Shape) -> Shape:
        out = self.body.output_shape(shape)
        other = self.shortcut.output_shape(shape) if self.shortcut else shape
        if out != other:
            raise ShapeError(f"Residual adds {out} from its body to {other} from its shortcut: make them equal")
        return out


def joined(*parts: Array) -> Array:
    """(..., C1), (..., C2), ... -> (..., C1 + C2 + ...)."""
    channels = sum(part.shape[-1] for part in parts)
    y = array_module(parts[0]).zeros((*parts[0].shape[:-1], channels), dtype=parts[0].dtype)
    end = 0  # no ``concatenate``: CuPy's may send addresses from the host, which a CUDA graph cannot replay
    for part in parts:
        start, end = end, end + part.shape[-1]
        y[..., start:end] = part
    return y


def cut(x: Array, *channels: int) -> tuple[Array, ...]:
    """(..., C1 + C2 + ...) -> (..., C1), (..., C2), ..., each in memory of its own."""
    ends = [sum(channels[: i + 1]) for i in range(len(channels))]
    return tuple(x[..., end - size : end].copy() for size, end in zip(channels, ends, strict=True))


class Concat(Branches):
    """Branches side by side: their channels one after the other (arXiv 1409.4842).

    Each gets the same x; an empty ``Sequential()`` passes x itself on.  They are named "branch0", "branch1", ...

    Raises:
        UsageError: no branch.
        ShapeError: by ``output_shape``, where they differ in more than channels.
    """

    result = "joined"

    def __init__(self, *branches: Layer) -> None:
        if not branches:
            raise UsageError("Concat() has no branches: give the layers that it puts side by side")
        self.names = [f"branch{i}" for i in range(len(branches))]
        vars(self).update(zip(self.names, branches, strict=True))
        *others, last = range(len(branches))
        text = f"branch{last}[...,c-start{last}]"
        for i in reversed(others):
            text = f"where(c < start{i + 1}, branch{i}[...,c-start{i}], {text})"
        gradients = " + ".join(f"d{name}[...]" for name in self.names)
        self.equations = f"y[...,c] = {text}  # joined", f"dx[...] = {gradients}  # add"

    def forward(self, x: Array) -> Array:
        parts = [getattr(self, name).forward(x) for name in self.names]
        self.keep([part.shape[-1] for part in parts])
        return self.run(joined, *parts)

    def backward(self, dy: Array) -> Array | None:
        if not self.needs_backward:
            return None
        (channels,) = self.kept()
        parts = zip(self.names, self.run(cut, dy, *channels), strict=True)
        gradients = [self.back(getattr(self, name), part) for name, part in parts]
        return reduce(lambda a, b: self.run(add, a, b), gradients) if self.needs_input_grad else None

    def flops(self, shape: Shape) -> int:
        return sum(child.flops(shape) for child in self.children().values())

    def symbols(self) -> dict[str, Any]:
        def start(i: int) -> Callable[[Array], int]:  # of the i-th branch's channels
            return lambda x: sum(getattr(self, name).output_shape(x.shape[1:])[-1] for name in self.names[:i])

        return super().symbols() | {f"start{i}": start(i) for i in range(len(self.names))}

    def output_shape(self, shape: Shape) -> Shape:
        shapes = [child.output_shape(shape) for child in self.children().values()]
        if len({out[:-1] for out in shapes}) > 1:
            raise ShapeError(f"Concat puts {' and '.join(map(str, shapes))} side by side: make all but channels equal")
        return *shapes[0][:-1], sum(out[-1] for out in shapes)


def gated(x: Array, gate: Array) -> Array:
    """x (N,H,W,C) times gate (N,C)."""
    return x * gate[:, None, None, :]


def gate_grad(dy: Array, x: Array) -> Array:
    """dg (N,C): dy x, summed over the pixels."""
    return (dy * x).sum(axis=(1, 2), dtype=accumulator_dtype(x)).astype(x.dtype, copy=False)


class Gate(Branches):
    """y = x body(x), where the body gives one factor for each channel of each image, (N,C).

    Raises:
        ShapeError: by ``output_shape``, where it does not.
    """

    result = "product"
    equations = (
        "y[e,p,q,c] = x[e,p,q,c] * body[e,c]  # gated",
        "dx[e,p,q,c] = dy[e,p,q,c] * body[e,c] + dbody[e,p,q,c]  # gated",
    )

    def __init__(self, body: Layer) -> None:
        self.body = body

    def forward(self, x: Array) -> Array:
        gate = self.body.forward(x)
        self.keep(x, gate)
        return self.run(gated, x, gate)

    def backward(self, dy: Array) -> Array | None:
        if not self.needs_backward:
            return None
        x, gate = self.kept()
        through_body = self.back(self.body, self.run(gate_grad, dy, x)) if self.body.needs_backward else None
        return self.run(add, self.run(gated, dy, gate), through_body) if self.needs_input_grad else None

    def output_shape(self, shape: Shape) -> Shape:
        gate = self.body.output_shape(shape)
        if len(shape) != 3 or gate != shape[-1:]:
            raise ShapeError(f"{self.kind} multiplies {shape} by {gate} of its body: give images, and factors (C,)")
        return shape


class SqueezeExcite(Gate):
    """Weigh each channel by what the whole image says of all channels (Hu et al., arXiv 1709.01507).

    The factors are sigmoid(w2 relu(w1 m + b1) + b2), where m is each channel's mean over the image.

    Args:
        channels: C.
        reduction: w1 leads to C / reduction values, at least 1.

    Raises:
        UsageError: a reduction below 1.
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        if reduction < 1:
            raise UsageError(f"SqueezeExcite(reduction={reduction}): give at least 1")
        few = max(channels // reduction, 1)
        self.channels, self.reduction = channels, reduction
        layers = GlobalAvgPool2D(), Linear(channels, few), ReLU(), Linear(few, channels), Sigmoid()
        super().__init__(Sequential(*layers))
