"""Residual networks (He et al., arXiv 1512.03385).

ResNet-18, -34 and -50 come in two forms, by the size of the image: from 96 pixels on as for ImageNet, with a 7x7 stem
of stride 2 and max pooling behind it, below as usual for CIFAR, with a 3x3 stem and neither.  With 1000 classes the
first have 11,689,512, 21,797,672 and 25,557,032 parameters, as PyTorch's have.
"""

from collections.abc import Callable, Sequence

from gpucnn.layers import (
    BatchNorm,
    Conv2D,
    Flatten,
    GlobalAvgPool2D,
    Linear,
    MaxPool2D,
    ReLU,
    Residual,
    Scale,
    Sequential,
)
from gpucnn.layers.base import Layer
from gpucnn.layers.containers import Entry
from gpucnn.models.plain import conv_bn_relu
from gpucnn.types import Shape

WIDTHS = (64, 128, 256, 512)
LARGE = 96  # pixels: ImageNet's form halves an image five times, to 3x3 of these


def shortcut(in_channels: int, out_channels: int, stride: int) -> Layer | None:
    """A 1x1 convolution with batch norm where the shape changes, else nothing: x itself."""
    if stride == 1 and in_channels == out_channels:
        return None
    return Sequential(Conv2D(in_channels, out_channels, 1, stride=stride, bias=False), BatchNorm(out_channels))


def basic_block(in_channels: int, out_channels: int, stride: int) -> Layer:
    """relu(conv-bn-relu-conv-bn of x, plus x); where the shape changes, x passes a 1x1 convolution."""
    second = Conv2D(out_channels, out_channels, 3, padding=1, bias=False), BatchNorm(out_channels)
    body = Sequential(*conv_bn_relu(in_channels, out_channels, stride), *second)
    return Residual(body, shortcut(in_channels, out_channels, stride), relu=True)


def bottleneck(in_channels: int, out_channels: int, stride: int) -> Layer:
    """relu(1x1, 3x3, 1x1 of x, plus x), each with batch norm; the 3x3 has the stride, and a fourth of the channels."""
    few = out_channels // 4
    first: list[Entry] = [Conv2D(in_channels, few, 1, bias=False), (BatchNorm(few), ReLU())]
    last = Conv2D(few, out_channels, 1, bias=False), BatchNorm(out_channels)
    body = Sequential(*first, *conv_bn_relu(few, few, stride), *last)
    return Residual(body, shortcut(in_channels, out_channels, stride), relu=True)


def stages(
    block: Callable[[int, int, int], Layer], channels: int, widths: Sequence[int], blocks: int | Sequence[int]
) -> dict[str, Layer]:
    """A stage of blocks (in_channels, out_channels, stride) per width; each after the first halves the image."""
    made: dict[str, Layer] = {}
    counts = [blocks] * len(widths) if isinstance(blocks, int) else blocks
    for number, (width, count) in enumerate(zip(widths, counts, strict=True), 1):
        first = block(channels, width, 1 if number == 1 else 2)
        made[f"stage{number}"] = Sequential(first, *(block(width, width, 1) for _ in range(count - 1)))
        channels = width
    return made


def stem(input_shape: Shape, channels: int) -> Layer:
    """A 3x3 convolution, or for large images 7x7 with stride 2 and 3x3 max pooling with stride 2."""
    if min(input_shape[:2]) < LARGE:
        return Sequential(*conv_bn_relu(input_shape[2], channels))
    first = Conv2D(input_shape[2], channels, 7, stride=2, padding=3, bias=False)
    return Sequential(first, (BatchNorm(channels), ReLU()), MaxPool2D(3, stride=2, padding=1))


def resnet(
    input_shape: Shape,
    num_classes: int,
    widths: Sequence[int],
    blocks: int | Sequence[int],
    block: Callable[[int, int, int], Layer] = basic_block,
    expansion: int = 1,
) -> Layer:
    """A stem of the first width, a stage of ``blocks`` blocks per width, times ``expansion``, global average."""
    wide = [expansion * width for width in widths]
    return Sequential(
        stem=stem(input_shape, widths[0]),
        **stages(block, widths[0], wide, blocks),
        pool=GlobalAvgPool2D(),
        classifier=Linear(wide[-1], num_classes),
    )


def resnet20(input_shape: Shape, num_classes: int) -> Layer:
    """The paper's 20-layer net for CIFAR-10: widths 16, 32, 64, three blocks each, and a 3x3 stem."""
    return Sequential(
        stem=Sequential(*conv_bn_relu(input_shape[2], 16)),
        **stages(basic_block, 16, (16, 32, 64), 3),
        pool=GlobalAvgPool2D(),
        classifier=Linear(64, num_classes),
    )


def resnet18(input_shape: Shape, num_classes: int) -> Layer:
    """ResNet-18: two basic blocks a stage."""
    return resnet(input_shape, num_classes, WIDTHS, 2)


def resnet34(input_shape: Shape, num_classes: int) -> Layer:
    """ResNet-34: three, four, six and three basic blocks."""
    return resnet(input_shape, num_classes, WIDTHS, (3, 4, 6, 3))


def resnet50(input_shape: Shape, num_classes: int) -> Layer:
    """ResNet-50: three, four, six and three bottlenecks, four times as wide; strides are in their 3x3 (version 1.5)."""
    return resnet(input_shape, num_classes, WIDTHS, (3, 4, 6, 3), bottleneck, 4)


def resnet9(input_shape: Shape, num_classes: int) -> Layer:
    """The residual net of eight convolutions that led DAWNBench on CIFAR-10 (David Page, "How to train your ResNet").

    Widths 64, 128, 256, 512, where each after the first halves the image; two residual branches; global max pooling;
    logits divided by 8.
    """

    def residual(channels: int) -> Layer:
        return Residual(Sequential(*conv_bn_relu(channels, channels), *conv_bn_relu(channels, channels)))

    features = Sequential(
        stem=Sequential(*conv_bn_relu(input_shape[2], 64)),
        stage1=Sequential(*conv_bn_relu(64, 128), MaxPool2D(2), residual(128)),
        stage2=Sequential(*conv_bn_relu(128, 256), MaxPool2D(2)),
        stage3=Sequential(*conv_bn_relu(256, 512), MaxPool2D(2), residual(512)),
    )
    height, width, channels = features.output_shape(input_shape)  # 4x4 of 32x32
    return Sequential(
        features=features,
        pool=Sequential(MaxPool2D((height, width)), Flatten()),
        classifier=Linear(channels, num_classes, bias=False),
        scale=Scale(1 / 8),
    )
