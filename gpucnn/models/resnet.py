"""Residual networks for small images (He et al., arXiv 1512.03385)."""

from collections.abc import Callable, Sequence

from gpucnn.layers import BatchNorm, Conv2D, Flatten, GlobalAvgPool2D, Linear, MaxPool2D, Residual, Scale, Sequential
from gpucnn.layers.base import Layer
from gpucnn.models.plain import conv_bn_relu
from gpucnn.types import Shape


def basic_block(in_channels: int, out_channels: int, stride: int) -> Layer:
    """relu(conv-bn-relu-conv-bn of x, plus x); where the shape changes, x passes a 1x1 convolution."""
    second = Conv2D(out_channels, out_channels, 3, padding=1, bias=False), BatchNorm(out_channels)
    body = Sequential(*conv_bn_relu(in_channels, out_channels, stride), *second)
    shortcut: Layer | None = None
    if stride != 1 or in_channels != out_channels:
        shortcut = Sequential(Conv2D(in_channels, out_channels, 1, stride=stride, bias=False), BatchNorm(out_channels))
    return Residual(body, shortcut, relu=True)


def stages(
    block: Callable[[int, int, int], Layer], channels: int, widths: Sequence[int], blocks: int
) -> dict[str, Layer]:
    """A stage of blocks (in_channels, out_channels, stride) per width; each after the first halves the image."""
    made: dict[str, Layer] = {}
    for number, width in enumerate(widths, 1):
        first = block(channels, width, 1 if number == 1 else 2)
        made[f"stage{number}"] = Sequential(first, *(block(width, width, 1) for _ in range(blocks - 1)))
        channels = width
    return made


def resnet(input_shape: Shape, num_classes: int, widths: Sequence[int], blocks: int) -> Layer:
    """A 3x3 stem, a stage of ``blocks`` blocks per width, global average."""
    return Sequential(
        stem=Sequential(*conv_bn_relu(input_shape[2], widths[0])),
        **stages(basic_block, widths[0], widths, blocks),
        pool=GlobalAvgPool2D(),
        classifier=Linear(widths[-1], num_classes),
    )


def resnet20(input_shape: Shape, num_classes: int) -> Layer:
    """The paper's 20-layer net for CIFAR-10: widths 16, 32, 64, three blocks each."""
    return resnet(input_shape, num_classes, (16, 32, 64), 3)


def resnet18(input_shape: Shape, num_classes: int) -> Layer:
    """ResNet-18 as usual for 32x32 images: a 3x3 stem and no pooling after it."""
    return resnet(input_shape, num_classes, (64, 128, 256, 512), 2)


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
