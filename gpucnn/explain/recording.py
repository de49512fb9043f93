"""Every tensor of one training step, forward and backward, by name.

While a step is recorded, hooks keep what goes into each layer and comes out of it.  Neighbours that a backend would
fuse run one by one.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpucnn.explain.equations import Equation, read
from gpucnn.inference.hooks import Hook, Method, hooked
from gpucnn.layers import Layer, Sequential
from gpucnn.layers.parameter import Parameter
from gpucnn.losses import EQUATIONS, as_targets, softmax_cross_entropy
from gpucnn.types import Array

UPDATE = "after[...] = w[...] - lr * dw[...]  # (L21) sgd_update"


@dataclass
class LayerRecord:
    """One layer in one step.

    Attributes:
        name, kind: dotted name in the model, class.
        arrays: symbol -> host array: x, y, dx and dy, parameters and their gradients (w, dw) and what else the layer's
            equations call by name.
        paths: symbol -> dotted name of the parameter.
        sources: symbol -> (layer, symbol) of the same tensor where it was made, as a layer's x is another's y.
        numbers: symbol -> number, as the stride.
        equations: those of ``Layer.equations`` that hold for this layer, read.
    """

    name: str
    kind: str
    arrays: dict[str, Array] = field(default_factory=dict)
    paths: dict[str, str] = field(default_factory=dict)
    sources: dict[str, tuple[str, str]] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)
    equations: list[Equation] = field(default_factory=list)


@dataclass
class Recording:
    """One step: the layers in the order of computation, the loss, and the rate of the update behind it.

    Attributes:
        layers: dotted name -> record, in the order of computation.
        loss: the loss, whose x are the logits, t the targets and dx the gradient that backward starts from.
        value: the mean loss.
        lr: the learning rate of the update.
    """

    layers: dict[str, LayerRecord]
    loss: LayerRecord
    value: float
    lr: float

    def __getitem__(self, name: str) -> Array:
        """A tensor by "layer.symbol", as ``recording["features.0.dw"]``.

        Raises:
            KeyError: no such layer or symbol.
        """
        layer, _, symbol = name.rpartition(".")
        return self.layers[layer].arrays[symbol]

    def names(self) -> list[str]:
        """All names that ``recording[...]`` knows."""
        return [f"{name}.{symbol}" for name, layer in self.layers.items() for symbol in layer.arrays]


def record(
    model: Layer,
    x: Array,
    labels: Array,
    *,
    lr: float = 0.001,
    steps: int = 1,
    loss: Callable[..., tuple[Array, Array]] = softmax_cross_entropy,
) -> list[Recording]:
    """Steps of plain gradient descent (L21) on one batch, each with all its tensors; the model is as before afterwards.

    Args:
        model: initialised; it runs in training mode, where batch norm uses this batch and dropout drops.
        x: normalised images (N,H,W,C) on the model's backend.
        labels: (N,) or rows (N,K).
        lr: learning rate.
        steps: how many.
        loss: of (logits, labels), one of ``losses``.

    Raises:
        UsageError: no forward pass has been prepared by ``initialize``, or labels that the loss refuses.
        ShapeError: images of another shape than the model takes.
    """
    model.output_shape(tuple(x.shape[1:]))
    with unchanged(model):
        return [record_step(model, x, labels, lr, loss) for _ in range(steps)]


def record_step(
    model: Layer, x: Array, labels: Array, lr: float, loss: Callable[..., tuple[Array, Array]]
) -> Recording:
    """Forward, loss and backward, recorded, and then the update."""
    layers = {name: LayerRecord(name, layer.kind) for name, layer in model.named_layers()}
    modules, heard = dict(model.named_layers()), Heard()
    with hooked(model, listen(heard, layers, "x", "y"), listen(heard, layers, "dy", "dx")):
        model.train()
        logits = model.forward(x)
        value, dlogits = model.backend.run(loss, logits, labels)
        heard.made[id(dlogits)] = dlogits, ("loss", "dx")
        model.backward(dlogits)
    for name in heard.order:
        complete(layers[name], modules[name], layers)
    shown = {name: layers[name] for name in heard.order if not isinstance(modules[name], Sequential)}
    at_loss = loss_record(model, logits, labels, value, dlogits, loss)
    at_loss.sources["x"] = heard.made[id(logits)][1]
    for parameter in model.parameters().values():
        if parameter.trainable:
            parameter.data[...] -= lr * parameter.grad
    return Recording(shown, at_loss, float(value), lr)


@dataclass
class Heard:
    """The layers in the order in which their forward ended, and where each tensor was made, by its address."""

    order: list[str] = field(default_factory=list)
    made: dict[int, tuple[Array, tuple[str, str]]] = field(default_factory=dict)


def listen(heard: Heard, layers: dict[str, LayerRecord], given: str, made: str) -> Hook:
    """Keeps what passes through each layer in its record: ``given`` goes in and ``made`` comes out."""

    def hook(name: str, layer: Layer, method: Method) -> Method:
        record, to_host = layers[name], layer.backend.to_host

        def run(argument: Array) -> Array:
            result = method(argument)
            record.arrays |= {given: to_host(argument).copy(), made: to_host(result).copy()}
            if id(argument) in heard.made:
                record.sources[given] = heard.made[id(argument)][1]
            maker = heard.made.setdefault(id(result), (result, (name, made)))  # of a container: a layer in it
            record.sources[made] = maker[1]
            if made == "y":
                heard.order.append(name)
            return result

        return run

    return hook


@contextmanager
def unchanged(model: Layer) -> Iterator[None]:
    """Afterwards parameters, statistics and gradients are as before."""
    flats = [model.flat.data, model.flat.grad, model.flat_buffers.data]
    before = [flat.copy() for flat in flats]
    try:
        yield
    finally:
        for flat, values in zip(flats, before, strict=True):
            flat[...] = values


def complete(found: LayerRecord, layer: Layer, layers: dict[str, LayerRecord]) -> None:
    """Add what the layer's equations call by name, and the equations."""
    to_host = layer.backend.to_host
    missing = []
    for symbol, value in layer.symbols().items():
        if isinstance(value, Parameter):
            found.arrays[symbol] = to_host(value.data).copy()
            local = next(name for name, own in layer.parameters().items() if own is value)
            found.paths[symbol] = f"{found.name}.{local}".lstrip(".")
            if value.trainable:
                found.arrays[f"d{symbol}"] = to_host(value.grad).copy()
        elif isinstance(value, Layer):
            for own, theirs in ((symbol, "y"), (f"d{symbol}", "dx")):
                found.arrays[own] = layers[value.name].arrays[theirs]
                found.sources[own] = layers[value.name].sources[theirs]
        elif callable(value):
            made = value(found.arrays["x"])
            target: dict[str, Any] = found.numbers if isinstance(made, int) else found.arrays
            target[symbol] = made
        elif value is None:
            missing.append(symbol)
        else:
            found.numbers[symbol] = value
    shapes = {symbol: array.shape for symbol, array in found.arrays.items()}
    read_all(found, layer.equations, shapes | dict.fromkeys(missing))


def read_all(found: LayerRecord, texts: tuple[str, ...], shapes: dict[str, Any]) -> None:
    """The equations that hold for this layer."""
    read_texts = (read(text, found.numbers, shapes) for text in texts)
    found.equations = [equation for equation in read_texts if equation is not None]


def loss_record(
    model: Layer, logits: Array, labels: Array, value: Array, dlogits: Array, loss: Callable[..., tuple[Array, Array]]
) -> LayerRecord:
    """The loss as if it were the last layer."""
    to_host = model.backend.to_host
    scores = to_host(logits)
    rows = np.asarray(to_host(labels))
    targets = as_targets(rows, scores) if rows.shape != scores.shape else rows.astype(scores.dtype)
    arrays = {"x": scores.copy(), "t": targets, "y": np.reshape(to_host(value), 1), "dx": to_host(dlogits).copy()}
    found = LayerRecord("loss", loss.__name__, arrays, numbers={"images": len(scores), "size": scores.size})
    read_all(found, EQUATIONS.get(loss, ()), {symbol: array.shape for symbol, array in arrays.items()})
    return found
