"""The same network in PyTorch: any tree of our layers as a torch module with the same weights."""

import os
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn

from gpucnn import layers as ours
from gpucnn import models
from gpucnn.bench.task import Task
from gpucnn.bench.timers import Clock, DeviceClock, Work
from gpucnn.errors import UsageError
from gpucnn.types import Array, Padding


class Sum(nn.Module):  # type: ignore[misc]
    """body(x) + shortcut(x), then ReLU where ``relu``."""

    def __init__(self, body: nn.Module, shortcut: nn.Module | None, relu: bool) -> None:
        super().__init__()
        self.body, self.shortcut = body, shortcut
        self.activation = nn.ReLU(inplace=True) if relu else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.activation(self.body(x) + (self.shortcut(x) if self.shortcut is not None else x))


class Joined(nn.Module):  # type: ignore[misc]
    """The channels of branches one after the other."""

    def __init__(self, branches: Iterable[nn.Module]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([branch(x) for branch in self.branches], dim=1)


class Function(nn.Module):  # type: ignore[misc]
    """A function of one tensor."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


def flatten_nhwc(x: torch.Tensor) -> torch.Tensor:
    """Flatten in our order: channels vary fastest."""
    return x.permute(0, 2, 3, 1).flatten(1) if x.ndim == 4 else x.flatten(1)


def symmetric(padding: Padding) -> tuple[int, int]:
    """Our padding as PyTorch takes it."""
    (top, bottom), (left, right) = padding
    if top != bottom or left != right:
        raise UsageError(f"PyTorch has no padding {padding}: benchmark a model without 'same' of even kernels")
    return top, left


def to_torch(layer: ours.Layer) -> nn.Module:
    """A torch module that computes the same as an initialised layer, on (N,C,H,W); frozen parameters get no gradient.

    Raises:
        UsageError: PyTorch has no counterpart.
    """
    module = _module(layer)
    with torch.no_grad():
        state, parameters = ({}, {}) if layer.children() else (layer.state_dict(), layer.parameters())
        for name, array in state.items():
            value = torch.from_numpy(array)
            holder = module[0] if isinstance(module, nn.Sequential) else module
            target = getattr(holder, {"scale": "weight", "shift": "bias"}.get(name, name))
            target.copy_(value.permute(0, 3, 1, 2) if value.ndim == 4 else value)
            target.requires_grad_(name in parameters and parameters[name].trainable)
    return module


def _module(layer: ours.Layer) -> nn.Module:
    match layer:
        case ours.Sequential():
            return nn.Sequential(*(to_torch(child) for child in layer.children().values()))
        case ours.Residual():
            return Sum(to_torch(layer.body), to_torch(layer.shortcut) if layer.shortcut else None, layer.relu)
        case ours.Conv2D():
            c, f, bias = layer.in_channels, layer.out_channels, layer.bias is not None
            how = {"stride": layer.stride, "dilation": layer.dilation, "groups": layer.groups, "bias": bias}
            return nn.Conv2d(c, f, layer.kernel_size, padding=symmetric(layer.padding), **how)
        case ours.ConvTranspose2D():
            c, f, bias = layer.in_channels, layer.out_channels, layer.bias is not None
            how = {"stride": layer.stride, "output_padding": layer.output_padding, "groups": layer.groups}
            return nn.ConvTranspose2d(c, f, layer.kernel_size, padding=symmetric(layer.padding), bias=bias, **how)
        case ours.Linear():
            return nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)
        case ours.BatchNorm():
            norm = nn.BatchNorm2d(layer.channels, eps=layer.eps, momentum=layer.momentum)
            return nn.Sequential(norm, nn.ReLU(inplace=True)) if isinstance(layer, ours.BatchNormReLU) else norm
        case ours.ReLU():
            return nn.ReLU(inplace=True)
        case ours.Concat():
            return Joined(map(to_torch, layer.children().values()))
        case ours.GroupNorm():
            return nn.GroupNorm(layer.groups, layer.channels, eps=layer.eps)
        case ours.Hardswish():
            return nn.Hardswish(inplace=True)
        case ours.ReLU6():
            return nn.ReLU6(inplace=True)
        case ours.GELU():
            return nn.GELU(approximate=layer.approximate)
        case ours.Scale():
            return Function(partial(torch.mul, other=layer.factor))
        case ours.MaxPool2D():
            return nn.MaxPool2d(layer.kernel, layer.stride, symmetric(layer.padding), ceil_mode=layer.ceil_mode)
        case ours.AvgPool2D():
            return nn.AvgPool2d(layer.kernel, layer.stride, symmetric(layer.padding), layer.ceil_mode)
        case ours.GlobalAvgPool2D():
            return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        case ours.Flatten():
            return Function(flatten_nhwc)
        case ours.Dropout() if type(layer) is ours.Dropout:  # not of whole channels or examples
            return nn.Dropout(layer.rate)
    raise UsageError(f"there is no PyTorch counterpart of {layer.kind}: benchmark a model without it")


AUTOCAST = {"float32": None, "float16": torch.float16, "bfloat16": torch.bfloat16}


def torch_work(task: Task, x: Array, labels: Array) -> Work:
    """Steps of PyTorch with their clock, as ``torch_step`` makes them."""
    if task.device == "cpu":
        return Work(torch_step(task, x, labels), Clock())
    torch.cuda.empty_cache()  # of the task before
    if task.compiled:
        torch.compiler.reset()
    torch.backends.cudnn.benchmark = True
    tf32 = os.environ.get("GPUCNN_TF32") == "1"  # one rule for both
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    clock = DeviceClock(lambda: torch.cuda.Event(enable_timing=True), lambda first, second: first.elapsed_time(second))
    versions = f"PyTorch {torch.__version__}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
    return Work(torch_step(task, x, labels), clock, lambda: torch.cuda.memory_reserved() / 2**20, versions)


def torch_step(task: Task, x: Array, labels: Array) -> Callable[[], Any]:
    """One step of PyTorch on (B,H,W,C): forward, loss, backward, SGD with momentum; or inference.

    Eager or compiled, in float32 or under autocast, as the task says.  float16 has a scaled loss; bfloat16 needs none.
    """
    torch.set_num_threads(task.threads)
    order = torch.channels_last if task.layout == "channels_last" else torch.contiguous_format
    model = to_torch(models.build(task.model, task.input_shape, **task.options).initialize(0))
    model = model.to(task.device, memory_format=order)
    data = torch.from_numpy(x).to(task.device).permute(0, 3, 1, 2).contiguous(memory_format=order)
    targets = torch.from_numpy(labels).to(task.device)
    if task.mode == "eval":
        infer: Callable[[], Any] = torch.inference_mode()(partial(model.eval(), data))
        return infer
    fused = True if task.device != "cpu" else None
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, fused=fused)
    loss = nn.CrossEntropyLoss()
    if task.compiled:
        model = torch.compile(model, mode=task.compiled)
    mixed = AUTOCAST[task.precision]
    scaler = torch.amp.GradScaler(task.device, enabled=task.precision == "float16") if mixed else None

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(task.device, dtype=mixed) if mixed else nullcontext():
            value = loss(model(data), targets)
        if scaler is None:  # nothing in float32 that PyTorch's users would not run
            value.backward()
            optimizer.step()
            return
        scaler.scale(value).backward()
        scaler.step(optimizer)
        scaler.update()

    return step
