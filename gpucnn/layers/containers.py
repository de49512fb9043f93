"""Layers made of layers: one after the other, or side by side.

By the chain rule, F(x) = f(u(x)) has F'(x) = f'(u(x)) u'(x), so gradients pass through a sequence in reverse.
A sum passes its gradient to both branches, and a fork adds the gradients of its branches.
"""

from math import prod
from typing import Any, TypeAlias

from gpucnn.backend import Backend
from gpucnn.errors import ShapeError, UsageError
from gpucnn.layers.activations import relu, relu_grad
from gpucnn.layers.base import Layer
from gpucnn.layers.fusion import fuse
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


class Residual(Layer):
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
        through_body = self.body.backward(dy) if self.body.needs_backward else None
        through_shortcut = dy
        if self.shortcut:
            through_shortcut = self.shortcut.backward(dy) if self.shortcut.needs_backward else None
        if not self.needs_input_grad:
            return None
        return self.run(add, through_body, through_shortcut)

    def symbols(self) -> dict[str, Any]:
        return dict(self.children())

    def skip_input_grad(self) -> None:
        super().skip_input_grad()
        for child in self.children().values():
            child.skip_input_grad()

    def output_shape(self, shape: Shape) -> Shape:
        out = self.body.output_shape(shape)
        other = self.shortcut.output_shape(shape) if self.shortcut else shape
        if out != other:
            raise ShapeError(f"Residual adds {out} from its body to {other} from its shortcut: make them equal")
        return out

    def flops(self, shape: Shape) -> int:
        return sum(child.flops(shape) for child in self.children().values()) + prod(self.output_shape(shape))
