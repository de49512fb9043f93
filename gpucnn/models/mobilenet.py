"""MobileNetV2 (Sandler et al., arXiv 1801.04381): wide layers are depthwise, and what is passed on is narrow."""

from gpucnn.errors import UsageError, shown
from gpucnn.layers import BatchNorm, Conv2D, Dropout, GlobalAvgPool2D, Layer, Linear, ReLU6, Residual, Sequential
from gpucnn.layers.containers import Entry
from gpucnn.types import Shape

STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""The paper's table 2: how much wider a block is inside, its channels, how many there are, stride of the first."""

SMALL = 96  # pixels; images that are smaller keep their size in the stem and in the second stage
WIDEST = 8.0  # a checkpoint's config must not build a huge model


def conv_bn_relu6(
    in_channels: int, out_channels: int, kernel: int = 1, stride: int = 1, groups: int = 1
) -> list[Entry]:
    """A convolution without bias, batch norm and ReLU6."""
    convolution = Conv2D(
        in_channels, out_channels, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False
    )
    return [convolution, (BatchNorm(out_channels), ReLU6())]


def inverted_residual(in_channels: int, out_channels: int, stride: int, expand: int) -> Layer:
    """1x1 to ``expand`` times the channels, 3x3 depthwise, 1x1 back without ReLU; plus x where the shape stays."""
    wide = expand * in_channels
    body = Sequential(
        *(conv_bn_relu6(in_channels, wide) if expand > 1 else []),
        *conv_bn_relu6(wide, wide, 3, stride, groups=wide),
        Conv2D(wide, out_channels, 1, bias=False),
        BatchNorm(out_channels),
    )
    return Residual(body) if stride == 1 and in_channels == out_channels else body


def scaled(channels: int, width: float) -> int:
    """``width`` times the channels as the multiple of 8 next to it, at least 8 and at least nine tenths of it."""
    eights = max(8, int(channels * width + 4) // 8 * 8)
    return eights + 8 if eights < 0.9 * channels * width else eights


def mobilenet_v2(input_shape: Shape, num_classes: int, *, width: float = 1.0, dropout: float = 0.2) -> Layer:
    """The paper's net for images of 96 pixels and more; as usual for CIFAR, smaller ones are halved three times only.

    Args:
        width: what the paper calls the width multiplier, of all channels but those of the last convolution.
        dropout: in front of the classifier.

    Raises:
        UsageError: a width out of range.
    """
    if not 0 < width <= WIDEST:
        raise UsageError(f"mobilenet_v2 with width = {shown(width)}: give more than 0 and at most {WIDEST:g}")
    small = min(input_shape[:2]) < SMALL
    channels = scaled(32, width)
    stem = Sequential(*conv_bn_relu6(input_shape[2], channels, 3, 1 if small else 2))
    stages: dict[str, Layer] = {}
    for number, (expand, base, blocks, stride) in enumerate(STAGES, 1):
        out = scaled(base, width)
        first = inverted_residual(channels, out, 1 if small and number == 2 else stride, expand)
        stages[f"stage{number}"] = Sequential(
            first, *(inverted_residual(out, out, 1, expand) for _ in range(blocks - 1))
        )
        channels = out
    last = scaled(1280, max(1.0, width))
    return Sequential(
        stem=stem,
        **stages,
        head=Sequential(*conv_bn_relu6(channels, last)),
        pool=GlobalAvgPool2D(),
        dropout=Dropout(dropout),
        classifier=Linear(last, num_classes),
    )
