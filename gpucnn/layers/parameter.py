"""What a network learns (Parameter), what it keeps besides (Buffer), and the flat arrays of both."""

from collections.abc import Callable, Mapping

import numpy as np

from gpucnn.backend import Backend
from gpucnn.errors import ShapeError, UsageError, closest
from gpucnn.types import Array, Shape

Initializer = Callable[[Shape, int, int], Array]
"""(shape, seed, stream) -> host array"""

ALIGNMENT = 256  # elements: a segment starts on a 1 KiB border, fit for vector loads and per-block tables

GROUPS = ("filter", "weight", "bias", "norm", "whiten", "head", "head_bias", "frozen")
"""Optimizers treat all parameters of a group alike, by default and by a user's rules for it:

    filter   weights of convolutions
    weight   weights of linear layers
    bias     of convolutions and linear layers
    norm     scale and shift of batch, group and layer norm
    whiten   the bias of a convolution that whitens patches, which often trains for a few epochs only
    head, head_bias   weights, and biases, that fine-tuning trains at a rate of their own
    frozen   part of the model's state, but never updated, decayed or averaged; it has no part of the flat gradient
"""

DECAYED = ("filter", "weight", "head")
"""Weight decay applies to these, not to biases and norms."""


class Parameter:
    """A learned array and its gradient, both views into flat arrays once the model is initialised.

    Attributes:
        made_in: the group that its layer gave it, where fine-tuning has put it into another one.
        frozen: not updated, from the start (group "frozen") or since ``freeze``.

    Raises:
        UsageError: the group is not one of ``GROUPS``.
        ShapeError: it has no elements.
    """

    def __init__(self, shape: Shape, init: Initializer, group: str = "weight") -> None:
        if group not in GROUPS:
            raise UsageError(f"parameter group {group!r} does not exist{closest(group, GROUPS)}")
        if min(shape, default=1) < 1:
            raise ShapeError(f"a parameter of shape {shape}: give channels, features and classes of at least 1")
        self.shape = shape
        self.init = init
        self.group = self.made_in = group
        self.frozen = group == "frozen"
        self._data: Array | None = None
        self._grad: Array | None = None
        self._rounded: Array | None = None

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))

    @property
    def filled(self) -> bool:
        """Whether it has values."""
        return self._data is not None

    @property
    def trainable(self) -> bool:
        """Whether it is updated; where not, a layer need not compute its gradient."""
        return not self.frozen

    def freeze(self) -> None:
        """Stop updating it; its gradient is set to zero."""
        self.frozen = True
        self.grad[...] = 0.0

    @property
    def data(self) -> Array:
        if self._data is None:
            raise UsageError("the parameters have no values yet: call model.initialize(seed=...) first")
        return self._data

    @property
    def grad(self) -> Array:
        if self._grad is None:
            raise UsageError("the parameters have no values yet: call model.initialize(seed=...) first")
        return self._grad

    @property
    def value(self) -> Array:
        """What products use: ``data``, or its float16 copy where activations are float16."""
        return self.data if self._rounded is None else self._rounded

    def bind(self, data: Array, grad: Array) -> None:
        self._data, self._grad, self.frozen = data, grad, self.group == "frozen"

    def bind_rounded(self, rounded: Array | None) -> None:
        self._rounded = rounded


class Buffer:
    """An array that is part of the model's state but is not learned (batch norm's running statistics)."""

    def __init__(self, shape: Shape, fill: float) -> None:
        self.shape = shape
        self.fill = fill
        self._data: Array | None = None

    @property
    def filled(self) -> bool:
        """Whether it has values."""
        return self._data is not None

    @property
    def data(self) -> Array:
        if self._data is None:
            raise UsageError("the buffers have no values yet: call model.initialize(seed=...) first")
        return self._data

    def bind(self, data: Array) -> None:
        self._data = data


def place(sizes: Mapping[str, int], start: int = 0) -> tuple[dict[str, slice], int]:
    """Name -> slice of a flat array, one after the other at aligned offsets; and the offset after the last."""
    segments = {}
    for name, size in sizes.items():
        segments[name] = slice(start, start + size)
        start += -(-size // ALIGNMENT) * ALIGNMENT
    return segments, start


class FlatBuffers:
    """All buffers in one contiguous array, so that an average of them is one pass.

    Attributes:
        data: the flat array, (total,); gaps between segments are zero.
        segments: buffer name -> slice of it.
    """

    def __init__(self, buffers: Mapping[str, Buffer], backend: Backend, dtype: str) -> None:
        self.shapes = {name: buffer.shape for name, buffer in buffers.items()}
        self.segments, end = place({name: int(np.prod(shape)) for name, shape in self.shapes.items()})
        self.data = backend.xp.zeros(end, dtype=dtype)
        for name, buffer in buffers.items():
            buffer.bind(self.view(self.data, name))
            buffer.data[...] = buffer.fill

    def view(self, flat: Array, name: str) -> Array:
        """The part of a flat array that belongs to a buffer, in the buffer's shape."""
        return flat[self.segments[name]].reshape(self.shapes[name])


class FlatParameters:
    """All weights in one contiguous array, all gradients in a second: an optimizer step is one pass.

    Segments are ordered by group, so each group is one slice, and aligned to ``ALIGNMENT`` elements; the
    gaps are zero and stay so.

    Attributes:
        data: all values, (total,).
        grad: the gradients, (trained,), without those of the group "frozen", which comes last.
        segments: parameter name -> slice of the flat arrays.
        groups: group -> slice of the flat arrays.
        trained: slice of ``data`` that ``grad`` belongs to.
        rounded: a copy of ``data`` in float16, after the first ``round``.
    """

    rounded: Array | None = None

    def __init__(self, parameters: Mapping[str, Parameter], backend: Backend, dtype: str) -> None:
        self.segments: dict[str, slice] = {}
        self.groups: dict[str, slice] = {}
        self.shapes = {name: p.shape for name, p in parameters.items()}
        end = 0
        for group in GROUPS:
            start = end
            placed, end = place({name: p.size for name, p in parameters.items() if p.group == group}, start)
            self.segments |= placed
            self.groups[group] = slice(start, end)
        self.data = backend.xp.zeros(end, dtype=dtype)
        grad = backend.xp.zeros(end, dtype=dtype)
        self.trained = slice(0, self.groups["frozen"].start)
        self.grad = grad[self.trained]
        self.parameters = dict(parameters)
        for name, parameter in parameters.items():
            parameter.bind(self.view(self.data, name), self.view(grad, name))
            parameter.bind_rounded(None)

    def round(self, dtype: str) -> None:
        """Copy ``data`` to ``rounded``, in one pass, of which each parameter's ``value`` is a view from then on."""
        if self.rounded is None:
            self.rounded = self.data.astype(dtype)
            for name, parameter in self.parameters.items():
                parameter.bind_rounded(self.view(self.rounded, name))
        else:
            self.rounded[...] = self.data

    def view(self, flat: Array, name: str) -> Array:
        """The part of a flat array that belongs to a parameter, in the parameter's shape."""
        return flat[self.segments[name]].reshape(self.shapes[name])
