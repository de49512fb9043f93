"""A net as a PyTorch module: the text of one Python file that needs nothing but PyTorch.

The file has the net as an expression in ``net()``, small classes for what PyTorch has no module for, only where they
are used, and ``load`` and ``save`` for the safetensors file that ``gpucnn export`` writes beside it.  Its lines have at
most ``WIDTH`` characters and are broken as formatters do.
"""

import json
import keyword
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gpucnn import layers as L
from gpucnn.errors import UsageError
from gpucnn.exchange.torch_names import NORM_NAMES, NORMS, dotted, torch_names, turned
from gpucnn.layers import Layer
from gpucnn.types import Shape

WIDTH = 100

TAKEN = (
    "self add_module append apply bfloat16 buffers children compile cpu cuda double dump_patches eval extend "
    "extra_repr float forward get_buffer get_extra_state get_parameter get_submodule half insert ipu load_state_dict "
    "modules mtia named_buffers named_children named_modules named_parameters parameters pop register_backward_hook "
    "register_buffer register_forward_hook register_forward_pre_hook register_full_backward_hook register_module "
    "register_full_backward_pre_hook register_load_state_dict_post_hook register_load_state_dict_pre_hook "
    "register_parameter register_state_dict_post_hook register_state_dict_pre_hook requires_grad_ set_extra_state "
    "set_submodule share_memory state_dict to to_empty train training type xpu zero_grad"
)
"""Names that a module of PyTorch has itself."""

CLASSES = {
    "Steps": '''class Steps(nn.Sequential):
    """Modules one after the other, with names."""

    def __init__(self, *numbered, **named):
        super().__init__(OrderedDict([*numbered, *named.items()]))
''',
    "Residual": '''class Residual(nn.Module):
    """y = body(x) + shortcut(x), or + x; then ReLU where asked for."""

    def __init__(self, body, shortcut=None, relu=False):
        super().__init__()
        self.body, self.shortcut, self.relu = body, shortcut, relu

    def forward(self, x):
        y = self.body(x) + (x if self.shortcut is None else self.shortcut(x))
        return torch.relu(y) if self.relu else y
''',
    "Concat": '''class Concat(nn.Module):
    """The channels of several branches of x, one after the other."""

    def __init__(self, **branches):
        super().__init__()
        for name, branch in branches.items():
            self.add_module(name, branch)

    def forward(self, x):
        return torch.cat([branch(x) for branch in self.children()], dim=1)
''',
    "Gate": '''class Gate(nn.Module):
    """y = x body(x): the body gives one factor for each channel."""

    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, x):
        return x * self.body(x)[:, :, None, None]
''',
    "Scale": '''class Scale(nn.Module):
    """Multiply by a constant."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return x * self.factor
''',
    "GlobalAvgPool2d": '''class GlobalAvgPool2d(nn.Module):
    """The mean of each channel over the image: (N,C,H,W) -> (N,C)."""

    def forward(self, x):
        return x.mean(dim=(2, 3))
''',
    "PaddedConv2d": '''class PaddedConv2d(nn.Conv2d):
    """A convolution with zeros (left, right, top, bottom) around the image."""

    def __init__(self, *args, pads, **kwargs):
        super().__init__(*args, **kwargs)
        self.pads = pads

    def forward(self, x):
        return super().forward(functional.pad(x, self.pads))
''',
    "CroppedConvTranspose2d": '''class CroppedConvTranspose2d(nn.ConvTranspose2d):
    """A transposed convolution without (left, right, top, bottom) of its result."""

    def __init__(self, *args, crop, **kwargs):
        super().__init__(*args, **kwargs)
        self.crop = crop

    def forward(self, x):
        return functional.pad(super().forward(x), [-side for side in self.crop])
''',
    "BatchNormReLU1d": '''class BatchNormReLU1d(nn.BatchNorm1d):
    """Batch norm, then ReLU."""

    def forward(self, x):
        return torch.relu(super().forward(x))
''',
    "BatchNormReLU2d": '''class BatchNormReLU2d(nn.BatchNorm2d):
    """Batch norm, then ReLU."""

    def forward(self, x):
        return torch.relu(super().forward(x))
''',
    "ChannelNorm": '''class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of each pixel."""

    def forward(self, x):
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)
''',
    "StochasticDepth": '''class StochasticDepth(nn.Module):
    """In training, set all of an example to zero with this probability; divide the others."""

    def __init__(self, rate):
        super().__init__()
        self.rate = rate

    def forward(self, x):
        if not self.training:
            return x
        keep = torch.rand(len(x), *[1] * (x.dim() - 1), device=x.device) >= self.rate
        return x * keep / (1 - self.rate)
''',
}
"""Class -> its text, for what PyTorch has no module for."""


@dataclass(frozen=True)
class Call:
    """An expression: a function's name and its arguments, each a text or a call, by position or by keyword."""

    name: str
    args: Sequence["str | Call"] = ()
    named: Mapping[str, "str | Call"] = field(default_factory=dict)

    def text(self, indent: int = 0, used: int = 0) -> str:
        """On one line where it fits behind ``used`` characters, else an argument a line."""
        flat = self.flat()
        if indent + used + len(flat) <= WIDTH:
            return flat
        inside = " " * (indent + 4)
        lines = [f"{inside}{written(arg, indent + 4)},\n" for arg in self.args]
        lines += [f"{inside}{key}={written(arg, indent + 4, len(key) + 1)},\n" for key, arg in self.named.items()]
        return f"{self.name}(\n{''.join(lines)}{' ' * indent})"

    def flat(self) -> str:
        """On one line."""
        words = [arg if isinstance(arg, str) else arg.flat() for arg in self.args]
        words += [f"{key}={arg if isinstance(arg, str) else arg.flat()}" for key, arg in self.named.items()]
        return f"{self.name}({', '.join(words)})"


def written(value: "str | Call", indent: int, used: int = 0) -> str:
    """An argument in front of a comma."""
    return value if isinstance(value, str) else value.text(indent, used + 1)


def short(value: Any) -> str:
    """A number, or one number in place of an equal pair."""
    pair = isinstance(value, tuple) and len(value) == 2 and value[0] == value[1]
    return repr(value[0] if pair else value)


def options(defaults: Mapping[str, Any], **values: Any) -> dict[str, str]:
    """Keyword arguments, but for those that have PyTorch's defaults."""
    return {key: short(value) for key, value in values.items() if short(value) != short(defaults[key])}


def sides(padding: Any) -> tuple[int, int, int, int]:
    """((top, bottom), (left, right)) -> (left, right, top, bottom), as ``functional.pad`` takes them."""
    (top, bottom), (left, right) = padding
    return left, right, top, bottom


def even(padding: Any) -> bool:
    """Whether both sides of each axis have as many."""
    return all(before == after for before, after in padding)


def conv(layer: Any, shape: Shape) -> Call:
    transposed = isinstance(layer, L.ConvTranspose2D)
    found = options(
        {"stride": 1, "padding": 0, "output_padding": 0, "dilation": 1, "groups": 1, "bias": True},
        stride=layer.stride,
        padding=tuple(before for before, _ in layer.padding) if even(layer.padding) else 0,
        **{"output_padding": layer.output_padding} if transposed else {"dilation": layer.dilation},
        groups=layer.groups,
        bias=layer.bias is not None,
    )
    name = "nn.ConvTranspose2d" if transposed else "nn.Conv2d"
    if not even(layer.padding):
        name = "CroppedConvTranspose2d" if transposed else "PaddedConv2d"
        found["crop" if transposed else "pads"] = repr(sides(layer.padding))
    return Call(name, [repr(layer.in_channels), repr(layer.out_channels), short(layer.kernel_size)], found)


def norm(layer: Any, shape: Shape) -> Call:
    axes = "2d" if len(shape) == 3 else "1d"
    found = options({"eps": 1e-5, "momentum": 0.1}, eps=layer.eps, momentum=layer.momentum)
    name = "BatchNormReLU" if isinstance(layer, L.BatchNormReLU) else "nn.BatchNorm"
    return Call(f"{name}{axes}", [repr(layer.channels)], found)


def group_norm(layer: Any, shape: Shape) -> Call:
    return Call("nn.GroupNorm", [repr(layer.groups), repr(layer.channels)], options({"eps": 1e-5}, eps=layer.eps))


def layer_norm(layer: Any, shape: Shape) -> Call:
    name = "ChannelNorm" if len(shape) == 3 else "nn.LayerNorm"
    return Call(name, [repr(layer.channels)], options({"eps": 1e-5}, eps=layer.eps))


def pool(layer: Any, shape: Shape) -> Call:
    largest = isinstance(layer, L.MaxPool2D)
    found = options(
        {"stride": layer.kernel, "padding": 0, "ceil_mode": False},
        stride=layer.stride,
        padding=tuple(before for before, _ in layer.padding) if even(layer.padding) else 0,
        ceil_mode=layer.ceil_mode,
    )
    made = Call("nn.MaxPool2d" if largest else "nn.AvgPool2d", [short(layer.kernel)], found)
    if even(layer.padding):
        return made
    border = Call("nn.ConstantPad2d", [repr(sides(layer.padding)), 'float("-inf")' if largest else "0.0"])
    return Call("nn.Sequential", [border, made])


def linear(layer: Any, shape: Shape) -> Call:
    found = options({"bias": True}, bias=layer.bias is not None)
    return Call("nn.Linear", [repr(layer.in_features), repr(layer.out_features)], found)


def upsample(layer: Any, shape: Shape) -> Call:
    return Call("nn.Upsample", (), {"scale_factor": repr(layer.factor), "mode": f'"{layer.mode}"'})


def simply(name: str, *numbers: str) -> Callable[[Any, Shape], Call]:
    """A call with numbers of the layer as arguments."""
    return lambda layer, shape: Call(name, [short(getattr(layer, number)) for number in numbers])


FORMS: dict[type[Layer], Callable[[Any, Shape], Call]] = {
    **dict.fromkeys((L.Conv2D, L.Whitening, L.ConvTranspose2D), conv),
    **dict.fromkeys((L.BatchNorm, L.BatchNormReLU), norm),
    **dict.fromkeys((L.MaxPool2D, L.AvgPool2D), pool),
    L.GroupNorm: group_norm,
    L.LayerNorm: layer_norm,
    L.Linear: linear,
    L.Upsample: upsample,
    L.AdaptiveAvgPool2D: lambda layer, shape: Call("nn.AdaptiveAvgPool2d", [repr(layer.size)]),
    L.GlobalAvgPool2D: simply("GlobalAvgPool2d"),
    L.Flatten: simply("nn.Flatten"),
    L.Dropout: simply("nn.Dropout", "rate"),
    L.Dropout2D: simply("nn.Dropout2d", "rate"),
    L.StochasticDepth: simply("StochasticDepth", "rate"),
    L.Scale: simply("Scale", "factor"),
    L.ReLU: simply("nn.ReLU"),
    L.ReLU6: simply("nn.ReLU6"),
    L.LeakyReLU: simply("nn.LeakyReLU", "slope"),
    L.ELU: simply("nn.ELU", "alpha"),
    L.Tanh: simply("nn.Tanh"),
    L.Sigmoid: simply("nn.Sigmoid"),
    L.SiLU: simply("nn.SiLU"),
    L.Hardsigmoid: simply("nn.Hardsigmoid"),
    L.Hardswish: simply("nn.Hardswish"),
    L.GELU: lambda layer, shape: Call("nn.GELU", (), {} if layer.approximate == "none" else {"approximate": '"tanh"'}),
    L.Softmax: lambda layer, shape: Call("nn.Softmax", (), {"dim": "1"}),
}
"""Layer -> its expression in PyTorch, for an input (H,W,C) or (C,)."""


def key_of(name: str) -> str:
    """A layer's name in the module: no dot, and none of a module's own names."""
    name = name.replace(".", "_")
    return f"{name}_" if name in TAKEN.split() else name


def expression(layer: Layer, shape: Shape, name: str = "") -> Call:
    """A layer as PyTorch's.

    Raises:
        UsageError: a layer that has no form there.
    """
    kind = type(layer)
    if kind is L.Sequential:
        return sequence(layer, shape, name)
    if kind in (L.Residual, L.Concat, L.Gate, L.SqueezeExcite):
        inner: dict[str, str | Call] = {
            key: expression(child, shape, f"{name}.{key}" if name else key) for key, child in layer.children().items()
        }
        relu = {"relu": "True"} if kind is L.Residual and vars(layer)["relu"] else {}
        return Call("Gate" if kind is L.SqueezeExcite else kind.__name__, (), {**inner, **relu})
    if kind not in FORMS:
        raise UsageError(f"layer {name or 'of the net'} ({layer.kind}) has no form in PyTorch: export it as .h5")
    return FORMS[kind](layer, shape)


def sequence(layer: Layer, shape: Shape, name: str) -> Call:
    """Layers one after the other: by position where they are numbered through, else by name."""
    inner: dict[str, str | Call] = {}
    for key, child in layer.children().items():
        if key_of(key) in inner:
            raise UsageError(f"layer {name}: two of its layers are {key_of(key)!r} in PyTorch: name one otherwise")
        inner[key_of(key)] = expression(child, shape, f"{name}.{key}" if name else key)
        shape = child.output_shape(shape)
    if list(inner) == [str(i) for i in range(len(inner))]:
        return Call("nn.Sequential", list(inner.values()))
    if all(key.isidentifier() and not keyword.iskeyword(key) for key in inner):
        return Call("Steps", (), inner)
    return Call("Steps", [Call("", [json.dumps(key), value]) for key, value in inner.items()])


def calls(call: Call) -> set[str]:
    """The names of all functions in an expression."""
    found = {call.name}
    for arg in (*call.args, *call.named.values()):
        found |= calls(arg) if isinstance(arg, Call) else set()
    return found


def assigned(name: str, values: Sequence[Any]) -> str:
    """``name = (...)`` of numbers or texts, one a line where it is long."""
    words = [json.dumps(value, ensure_ascii=False) for value in values]
    return f"{name} = {Call('', words).text(used=len(name) + 3) if len(words) != 1 else f'({words[0]},)'}\n"


def modules(layer: Layer, path: str = "", module: str = "") -> Iterator[tuple[str, str, Layer]]:
    """(our name, name in the module, layer) of a layer and of all in it."""
    yield path, module, layer
    for key, child in layer.children().items():
        yield from modules(child, dotted(path, key), dotted(module, key_of(key)))


def module_text(
    model: Layer,
    input_shape: Shape,
    name: str,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    classes: Sequence[str] = (),
    scale: int = 255,
) -> str:
    """The file's text for a net that takes images (H,W,C).

    Args:
        name: what the net is called in the file's first line.
        mean, std: of images divided by ``scale``, a number a channel.
        classes: their names, or none.

    Raises:
        UsageError: a layer has no form in PyTorch.
    """
    turned(model, input_shape)
    names, net = torch_names(model), expression(model, tuple(input_shape))
    used, here = calls(net), {path: (module, layer) for path, module, layer in modules(model)}
    renamed = {here[path][0]: theirs for path, theirs in names.items() if here[path][0] != theirs}
    frozen = [
        dotted(here[path][0], NORM_NAMES[key] if type(here[path][1]) in NORMS else key)
        for path in names
        for key, parameter in here[path][1].parameters().items()
        if parameter.frozen
    ]
    functional = "from torch.nn import functional\n" if used & {"PaddedConv2d", "CroppedConvTranspose2d"} else ""
    constants = assigned("INPUT_SHAPE", input_shape) + assigned("MEAN", mean) + assigned("STD", std)
    constants += assigned("CLASSES", classes) if classes else ""
    blocks = [text for kind, text in CLASSES.items() if kind in used]
    if renamed:
        table = "".join(f"    {json.dumps(ours)}: {json.dumps(theirs)},\n" for ours, theirs in renamed.items())
        constants += f'NAMES = {{\n{table}}}\n"""Module of the net -> its name in files."""\n'
    if frozen:
        constants += assigned("FROZEN", frozen)
    blocks += [
        NET + f"    model = {net.text(4, 8)}\n" + (FREEZE if frozen else "") + "    return model\n",
        PREPARE.replace("SCALE", "" if scale == 1 else f" / {scale}"),
        *((RENAMING, LOAD_RENAMED, SAVE_RENAMED) if renamed else (LOAD, SAVE)),
    ]
    ordered = "from collections import OrderedDict\n\n" if "Steps" in used else ""
    head = f'"""{name} as a PyTorch module; ``load`` takes the safetensors file that belongs to it."""\n\n'
    return "\n\n".join([f"{head}{ordered}import torch\nfrom torch import nn\n{functional}\n{constants}", *blocks])


NET = '''def net():
    """The net with new weights: normalised images (N,C,H,W) -> (N,classes)."""
'''
FREEZE = """    for name in FROZEN:
        model.get_parameter(name).requires_grad_(False)
"""
PREPARE = '''def prepare(images):
    """Images (N,H,W,C) as they are in files -> normalised (N,C,H,W)."""
    x = torch.as_tensor(images).movedim(-1, 1).floatSCALE
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (MEAN, STD))
    return (x - mean) / std
'''.replace("floatSCALE", "float()SCALE")
LOAD = '''def load(path):
    """The net with the weights of a safetensors file, in evaluation mode."""
    from safetensors.torch import load_file

    model = net()
    model.load_state_dict(load_file(path))
    return model.eval()
'''
SAVE = '''def save(model, path):
    """Write a safetensors file that ``load`` and ``gpucnn import`` take."""
    from safetensors.torch import save_file

    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, path, metadata={"format": "pt"})
'''
RENAMING = '''def renamed(state, names):
    """The same tensors with their modules renamed."""
    parts = {name: name.rpartition(".") for name in state}
    return {f"{names.get(at, at)}.{key}": state[name] for name, (at, _, key) in parts.items()}
'''
LOAD_RENAMED = LOAD.replace(
    "    model.load_state_dict(load_file(path))\n",
    "    ours = {theirs: name for name, theirs in NAMES.items()}\n"
    "    model.load_state_dict(renamed(load_file(path), ours))\n",
)
SAVE_RENAMED = SAVE.replace("save_file(state, path,", "save_file(renamed(state, NAMES), path,")
