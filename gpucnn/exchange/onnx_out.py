"""A net as an ONNX graph: what other programs run, with normalisation in front and probabilities behind.

    pixels (N,H,W,C) -> x (N,C,H,W) -> (x - mean) / std -> the net, layer by layer -> logits, probabilities (N,K)

One function per layer says which ONNX operators compute what its ``forward`` computes in evaluation; ``CONVERTERS``
has them by class.  ONNX puts channels second, so here images are (N,C,H,W) and weights (F,C/G,KH,KW); ``shape`` is
gpucnn's, without the batch: (H,W,C) or (C,).  All padding is explicit.  The size of an image is fixed, that of a batch
is not.

Batch norm in evaluation multiplies by a = scale / sqrt(var + eps) and adds shift - a mean.  Both can be part of the
filters in front of it (``folded``), where it disappears:

    a (W x + b - mean) + shift  =  (a W) x + (a (b - mean) + shift)

Max pooling in between changes nothing where all a > 0: the largest stays the largest.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from math import pi, prod, sqrt
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from gpucnn import layers
from gpucnn.checkpoint.durable import replace_file
from gpucnn.errors import ShapeError, UsageError
from gpucnn.layers import BatchNorm, BatchNormReLU, Conv2D, ConvTranspose2D, Layer, Linear, MaxPool2D, Sequential
from gpucnn.layers.pooling import bins
from gpucnn.settings import checked
from gpucnn.types import Array, Padding, Shape
from gpucnn.version import __version__

OLDEST, DEFAULT, NEWEST = 13, 17, 22
"""Versions of ONNX's operators (opset); 17 is what most programs read."""

LARGEST = 2**31 - 2**24
"""Bytes of weights: a file of protocol buffers cannot have more than 2 GiB, and the graph needs some."""


class Graph:
    """Nodes and constants of a graph that is being made; tensors are known by their names.

    Attributes:
        place: the layer whose nodes are being added.
    """

    def __init__(self, opset: int, fold: bool) -> None:
        self.opset, self.fold, self.place = opset, fold, ""
        self.nodes: list[tuple[str, Sequence[str], str, dict[str, Any]]] = []  # operator, inputs, output, attributes
        self.constants: dict[str, Array] = {}
        self._names: dict[str, int] = {}

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add an operator; returns the name of its output."""
        name = ".".join(part for part in (self.place, operator.lower()) if part)
        self._names[name] = count = self._names.get(name, 0) + 1
        output = name if count == 1 else f"{name}_{count}"
        self.nodes.append((operator, inputs, output, attributes))
        return output

    def constant(self, name: str, values: Any, dtype: str = "float32") -> str:
        """Add an array under this name, or under a longer one where another array has it; returns the name."""
        array = np.asarray(values, dtype, order="C")
        while name in self.constants and not np.array_equal(self.constants[name], array):
            name += "_"  # a layer that stands in two places, folded in one of them
        self.constants[name] = array
        return name

    def number(self, value: float) -> str:
        """A constant that many layers use."""
        return self.constant(f"{value:g}", value)

    def own(self, name: str, values: Any, dtype: str = "float32") -> str:
        """A constant of this layer."""
        return self.constant(".".join(part for part in (self.place, name) if part), values, dtype)

    def integers(self, *values: int) -> str:
        return self.constant("x".join(map(str, values)), values, "int64")


Converter: TypeAlias = Callable[..., str]
"""(graph, layer, x, shape) -> y: adds a layer's nodes; x and y are names of tensors."""


def convert(g: Graph, layer: Layer, x: str, shape: Shape, *norm: BatchNorm) -> str:
    """Add any layer, with the batch norm that is folded into it; raises UsageError for one without an ONNX form."""
    if type(layer) not in CONVERTERS:  # a subclass may compute something else
        raise UsageError(f"layer {layer.name or 'net'} is a {layer.kind}, which has no ONNX form: export a net without")
    before, g.place = g.place, layer.name
    y = CONVERTERS[type(layer)](g, layer, x, shape, *norm)
    g.place = before
    return y


# -- filters, and batch norm folded into them ---------------------------------------------------------


def values(layer: Layer, name: str) -> Array:
    """A parameter or a buffer of a layer, float64 on the host."""
    return layer.backend.to_host(getattr(layer, name).data).astype(np.float64)


def factor_of(norm: BatchNorm) -> Array:
    """a (C,)"""
    factor: Array = values(norm, "scale") / np.sqrt(values(norm, "running_var") + norm.eps)
    return factor


def filters(g: Graph, layer: Any, norm: BatchNorm | None) -> list[str]:
    """Weight and bias as constants, those of images in ONNX's order."""
    w, b = values(layer, "weight"), values(layer, "bias") if layer.bias else None
    if norm:
        a = factor_of(norm)
        b = a * ((0 if b is None else b) - values(norm, "running_mean")) + values(norm, "shift")
        if isinstance(layer, ConvTranspose2D):  # (C,KH,KW,F/G): filter f is in the group of the C/G channels it reads
            in_groups = w.reshape(layer.groups, -1, *w.shape[1:])
            w = (in_groups * a.reshape(layer.groups, 1, 1, 1, -1)).reshape(w.shape)
        else:
            w = w * a.reshape(-1, *(1 for _ in w.shape[1:]))
    w = w.transpose(0, 3, 1, 2) if w.ndim == 4 else w  # (F,KH,KW,C/G) -> (F,C/G,KH,KW)
    return [g.own("weight", w)] + ([] if b is None else [g.own("bias", b)])


def norm_behind(steps: Sequence[Layer], i: int) -> int | None:
    """The position of a batch norm that step i can take over, exactly; None where there is none."""
    if type(steps[i]) not in FILTERS:
        return None
    j = i + 2 if [type(step) for step in steps[i + 1 : i + 2]] == [MaxPool2D] else i + 1
    norm = steps[j] if j < len(steps) else None
    if not isinstance(norm, BatchNorm) or type(norm) not in NORMS:
        return None
    return j if j == i + 1 or (factor_of(norm) > 0).all() else None


def pads(padding: Padding) -> list[int]:
    """((top, bottom), (left, right)) in ONNX's order."""
    (top, bottom), (left, right) = padding
    return [top, left, bottom, right]


def conv2d(g: Graph, layer: Conv2D, x: str, shape: Shape, norm: BatchNorm | None = None) -> str:
    return g.node(
        "Conv",
        x,
        *filters(g, layer, norm),
        kernel_shape=layer.kernel_size,
        strides=layer.stride,
        pads=pads(layer.padding),
        dilations=layer.dilation,
        group=layer.groups,
    )


def conv_transpose2d(g: Graph, layer: ConvTranspose2D, x: str, shape: Shape, norm: BatchNorm | None = None) -> str:
    return g.node(
        "ConvTranspose",
        x,
        *filters(g, layer, norm),
        kernel_shape=layer.kernel_size,
        strides=layer.stride,
        pads=pads(layer.padding),
        output_padding=layer.output_padding,
        group=layer.groups,
    )


def linear(g: Graph, layer: Linear, x: str, shape: Shape, norm: BatchNorm | None = None) -> str:
    return g.node("Gemm", x, *filters(g, layer, norm), transB=1)


# -- normalisation ------------------------------------------------------------------------------------


def batchnorm(g: Graph, layer: BatchNorm, x: str, shape: Shape) -> str:
    names = "scale", "shift", "running_mean", "running_var"
    y = g.node("BatchNormalization", x, *(g.own(name, values(layer, name)) for name in names), epsilon=layer.eps)
    return g.node("Relu", y) if isinstance(layer, BatchNormReLU) else y


def groupnorm(g: Graph, layer: layers.GroupNorm, x: str, shape: Shape) -> str:
    """A group's values as one row, which instance norm takes; then scale and shift of each channel."""
    one, none = np.ones(layer.groups), np.zeros(layer.groups)
    rows = g.node("Reshape", x, g.integers(0, layer.groups, -1))  # (N, G, C/G H W)
    rows = g.node("InstanceNormalization", rows, g.own("one", one), g.own("none", none), epsilon=layer.eps)
    xhat = g.node("Reshape", rows, g.integers(0, shape[2], *shape[:2]))
    scale, shift = (g.own(name, values(layer, name)[:, None, None]) for name in ("scale", "shift"))
    return g.node("Add", g.node("Mul", xhat, scale), shift)


def layernorm(g: Graph, layer: layers.LayerNorm, x: str, shape: Shape) -> str:
    if g.opset < 17:
        raise UsageError(
            f"layer {layer.name or 'net'} is a LayerNorm, which ONNX has from opset 17 on: give --opset 17"
        )
    scale, shift = (g.own(name, values(layer, name)) for name in ("scale", "shift"))
    last = channels_last(g, x, shape)
    return channels_second(g, g.node("LayerNormalization", last, scale, shift, epsilon=layer.eps), shape)


# -- activation functions -----------------------------------------------------------------------------


def simple(operator: str, **attributes: Any) -> Converter:
    """The converter of a layer that is one operator."""
    return lambda g, layer, x, shape: g.node(operator, x, **attributes)


def relu6(g: Graph, layer: layers.ReLU6, x: str, shape: Shape) -> str:
    return g.node("Clip", x, g.number(0), g.number(6))


def leaky_relu(g: Graph, layer: layers.LeakyReLU, x: str, shape: Shape) -> str:
    return g.node("LeakyRelu", x, alpha=float(layer.slope))


def elu(g: Graph, layer: layers.ELU, x: str, shape: Shape) -> str:
    return g.node("Elu", x, alpha=float(layer.alpha))


def silu(g: Graph, layer: layers.SiLU, x: str, shape: Shape) -> str:
    return g.node("Mul", x, g.node("Sigmoid", x))


hardsigmoid = simple("HardSigmoid", alpha=1 / 6, beta=0.5)


def hardswish(g: Graph, layer: layers.Hardswish, x: str, shape: Shape) -> str:
    return g.node("Mul", x, hardsigmoid(g, layer, x, shape))


def gelu(g: Graph, layer: layers.GELU, x: str, shape: Shape) -> str:
    """One operator from opset 20 on; before, x (1 + erf(x / sqrt 2)) / 2, or x sigmoid(2u) of the approximation."""
    if g.opset >= 20:
        return g.node("Gelu", x, approximate=layer.approximate)
    if layer.approximate == "none":
        erf = g.node("Erf", g.node("Div", x, g.number(sqrt(2))))
        return g.node("Mul", g.node("Mul", x, g.node("Add", erf, g.number(1))), g.number(0.5))
    cubic = g.node("Mul", g.node("Mul", x, x), g.number(0.044715))
    u = g.node("Mul", g.node("Add", cubic, g.number(1)), x)  # over sqrt(2/pi)
    return g.node("Mul", x, g.node("Sigmoid", g.node("Mul", u, g.number(2 * sqrt(2 / pi)))))


def scale(g: Graph, layer: layers.Scale, x: str, shape: Shape) -> str:
    return g.node("Mul", x, g.own("factor", layer.factor))


# -- pooling and sizes --------------------------------------------------------------------------------


def window(layer: Any, shape: Shape) -> dict[str, Any]:
    """Attributes of pooling; with ceil mode, padding is what the last window lacks as well (L2c)."""
    kernel, stride, padding = layer.window(shape)
    return {"kernel_shape": kernel, "strides": stride, "pads": pads(padding)}


def max_pool2d(g: Graph, layer: MaxPool2D, x: str, shape: Shape) -> str:
    return g.node("MaxPool", x, **window(layer, shape))


def avg_pool2d(g: Graph, layer: layers.AvgPool2D, x: str, shape: Shape) -> str:
    y = g.node("AveragePool", x, **window(layer, shape), count_include_pad=1)
    if not layer.ceil_mode:
        return y
    rows, columns = layer.weights(np.ones(1), (1, *shape))  # what the mean of a window at the border lacks
    return g.node("Mul", y, g.own("areas", np.outer(rows, columns)))


def adaptive_avg_pool2d(g: Graph, layer: layers.AdaptiveAvgPool2D, x: str, shape: Shape) -> str:
    """Windows where they are equal; else A x B, the means of rows and of columns as matrices."""
    if tile := layer.tiles((1, *shape)):
        return g.node("AveragePool", x, kernel_shape=tile, strides=tile)
    means = [
        np.stack([np.eye(size)[part].mean(axis=0) for part in bins(size, count)])  # (H',H) and (W',W)
        for size, count in zip(shape, layer.size, strict=False)
    ]
    return g.node("MatMul", g.own("rows", means[0]), g.node("MatMul", x, g.own("columns", means[1].T)))


def global_avg_pool2d(g: Graph, layer: layers.GlobalAvgPool2D, x: str, shape: Shape) -> str:
    return g.node("Flatten", g.node("GlobalAveragePool", x))


def upsample(g: Graph, layer: layers.Upsample, x: str, shape: Shape) -> str:
    factors = g.own("factors", (1, 1, *layer.factor))
    if layer.linear:
        return g.node("Resize", x, "", factors, mode="linear", coordinate_transformation_mode="half_pixel")
    how = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return g.node("Resize", x, "", factors, mode="nearest", **how)


def channels_last(g: Graph, x: str, shape: Shape) -> str:
    """(N,C,H,W) -> (N,H,W,C)"""
    return g.node("Transpose", x, perm=[0, *range(2, len(shape) + 1), 1]) if len(shape) > 1 else x


def channels_second(g: Graph, x: str, shape: Shape) -> str:
    """(N,H,W,C) -> (N,C,H,W)"""
    return g.node("Transpose", x, perm=[0, len(shape), *range(1, len(shape))]) if len(shape) > 1 else x


def flatten(g: Graph, layer: layers.Flatten, x: str, shape: Shape) -> str:
    """Row by row with channels last, as the weights behind it have it; where order matters, it is changed first."""
    alike = shape[-1] == 1 or prod(shape[:-1]) == 1
    return g.node("Flatten", x if alike else channels_last(g, x, shape))


def softmax(g: Graph, layer: layers.Softmax, x: str, shape: Shape) -> str:
    return g.node("Softmax", x, axis=1)


def nothing(g: Graph, layer: Layer, x: str, shape: Shape) -> str:
    """What only training does."""
    return x


# -- layers made of layers ----------------------------------------------------------------------------


def unnested(layer: Sequential) -> Iterator[Layer]:
    """The layers one after the other, those of a ``Sequential`` in it too."""
    for step in layer.layers.values():
        yield from unnested(step) if type(step) is Sequential else (step,)


def sequential(g: Graph, layer: Sequential, x: str, shape: Shape) -> str:
    steps, done = list(unnested(layer)), set()
    for i, step in enumerate(steps):
        if i in done:  # in the filters in front of it
            x = g.node("Relu", x) if isinstance(step, BatchNormReLU) else x
        elif g.fold and (j := norm_behind(steps, i)):
            x = convert(g, step, x, shape, steps[j])  # type: ignore[arg-type]
            done.add(j)
        else:
            x = convert(g, step, x, shape)
        shape = step.output_shape(shape)
    return x


def residual(g: Graph, layer: layers.Residual, x: str, shape: Shape) -> str:
    shortcut = convert(g, layer.shortcut, x, shape) if layer.shortcut else x
    y = g.node("Add", convert(g, layer.body, x, shape), shortcut)
    return g.node("Relu", y) if layer.relu else y


def concat(g: Graph, layer: layers.Concat, x: str, shape: Shape) -> str:
    return g.node("Concat", *(convert(g, branch, x, shape) for branch in layer.children().values()), axis=1)


def gate(g: Graph, layer: layers.Gate, x: str, shape: Shape) -> str:
    factors = g.node("Reshape", convert(g, layer.body, x, shape), g.integers(0, shape[2], 1, 1))  # (N,C,1,1)
    return g.node("Mul", x, factors)


FILTERS: dict[type[Layer], Converter] = {
    Conv2D: conv2d,
    layers.Whitening: conv2d,
    ConvTranspose2D: conv_transpose2d,
    Linear: linear,
}
NORMS: dict[type[Layer], Converter] = {BatchNorm: batchnorm, BatchNormReLU: batchnorm}

CONVERTERS: dict[type[Layer], Converter] = {
    **FILTERS,
    **NORMS,
    layers.GroupNorm: groupnorm,
    layers.LayerNorm: layernorm,
    layers.ReLU: simple("Relu"),
    layers.ReLU6: relu6,
    layers.LeakyReLU: leaky_relu,
    layers.ELU: elu,
    layers.GELU: gelu,
    layers.SiLU: silu,
    layers.Sigmoid: simple("Sigmoid"),
    layers.Tanh: simple("Tanh"),
    layers.Hardsigmoid: hardsigmoid,
    layers.Hardswish: hardswish,
    layers.Softmax: softmax,
    layers.Scale: scale,
    MaxPool2D: max_pool2d,
    layers.AvgPool2D: avg_pool2d,
    layers.AdaptiveAvgPool2D: adaptive_avg_pool2d,
    layers.GlobalAvgPool2D: global_avg_pool2d,
    layers.Upsample: upsample,
    layers.Flatten: flatten,
    layers.Dropout: nothing,
    layers.Dropout2D: nothing,
    layers.StochasticDepth: nothing,
    Sequential: sequential,
    layers.Residual: residual,
    layers.Concat: concat,
    layers.Gate: gate,
    layers.SqueezeExcite: gate,
}
"""Class -> converter."""


# -- the whole graph ----------------------------------------------------------------------------------


@checked
def to_onnx(
    model: Layer,
    input_shape: Shape,
    *,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    pixels: Literal["uint8", "float32"] = "uint8",
    classes: Sequence[str] = (),
    name: str = "",
    opset: int = DEFAULT,
    fold: bool = True,
) -> Any:
    """An initialised net in evaluation as a checked ``onnx.ModelProto``.

    Its input is ``pixels``, its outputs are ``logits`` and ``probabilities``.  Without ``mean`` and ``std`` the input
    is ``x``, float32, as the net itself takes it; a net whose output is an image has that as its output ``y``.

    Args:
        input_shape: of an image (H,W,C), or a vector (C,).
        mean, std: per channel; for bytes on a 0..1 scale, for floats on their own.
        pixels: what comes in, "uint8" or "float32".
        classes, name: of the model; both go into the file's metadata.
        opset: version of ONNX's operators.
        fold: multiply batch norm into the filters in front of it, where that is exact.

    Raises:
        UsageError: onnx is not installed, a layer has no ONNX form, the opset is out of range, or the net is too large.
        ShapeError: the net cannot take that shape, or ``mean`` and ``std`` have not one number for each channel.
    """
    try:
        import onnx
        from onnx import TensorProto, helper, numpy_helper
    except ImportError as error:
        raise UsageError(f"ONNX files need the package onnx ({error}): pip install 'gpucnn[onnx]'") from None
    if not OLDEST <= opset <= NEWEST:
        raise UsageError(f"opset {opset}: give a number from {OLDEST} to {NEWEST}")
    if 4 * sum(prod(entry.shape) for entry in model.parameters().values()) > LARGEST:
        raise UsageError("the weights are larger than 2 GiB, which no ONNX file can hold: export a smaller net")
    if len(mean) != len(std) or len(mean) not in (0, input_shape[-1]):
        raise ShapeError(f"mean = {mean}, std = {std} for {input_shape[-1]} channels: give a number for each channel")
    g, shape = Graph(opset, fold), model.output_shape(input_shape)
    source, kind = ("pixels", pixels) if len(mean) else ("x", "float32")
    dtypes = {"uint8": TensorProto.UINT8, "float32": TensorProto.FLOAT}
    g.place = "input"
    x = g.node("Cast", source, to=TensorProto.FLOAT) if kind == "uint8" else source
    x = channels_second(g, x, input_shape)
    if len(mean):
        unit = 255 if kind == "uint8" else 1
        x = g.node("Sub", x, g.own("mean", unit * np.array(mean)[:, None, None]))
        x = g.node("Mul", x, g.own("inv_std", (1 / unit / np.array(std))[:, None, None]))
    y = channels_last(g, convert(g, model, x, input_shape), shape)
    outputs = ["logits", "probabilities"] if len(shape) == 1 else ["y"]
    g.nodes.append(("Identity", [y], outputs[0], {}))
    if len(outputs) > 1:
        g.nodes.append(("Softmax", outputs[:1], outputs[1], {"axis": 1}))
    graph = helper.make_graph(
        [helper.make_node(kind, inputs, [out], name=out, **how) for kind, inputs, out, how in g.nodes],
        name or "net",
        [helper.make_tensor_value_info(source, dtypes[kind], ["N", *input_shape])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["N", *shape]) for output in outputs],
        [numpy_helper.from_array(array, key) for key, array in g.constants.items()],
    )
    versions = [helper.make_opsetid("", opset)]
    made = helper.make_model(
        graph,
        opset_imports=versions,
        ir_version=helper.find_min_ir_version_for(versions),
        producer_name="gpucnn",
        producer_version=__version__,
    )
    helper.set_model_props(made, {"classes": json.dumps(list(classes)), "model": name})
    onnx.checker.check_model(made, full_check=True)
    return made


def save_onnx(path: Path, model: Layer, input_shape: Shape, **options: Any) -> None:
    """Write ``to_onnx`` of these arguments as a file, atomically."""
    replace_file(path, [to_onnx(model, input_shape, **options).SerializeToString()])
