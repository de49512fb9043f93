"""Densely connected networks (Huang et al., arXiv 1608.06993), with bottlenecks and compression (DenseNet-BC).

Each layer gets what all layers of its block before it made, and puts its own few channels beside them.  Backward keeps
the input of each layer's batch norm, so memory grows with the square of a block's layers: DenseNet-BC 100 has 16
layers a block.
"""

from collections.abc import Sequence

from gpucnn.errors import UsageError, shown
from gpucnn.layers import AvgPool2D, BatchNorm, Concat, Conv2D, GlobalAvgPool2D, Linear, ReLU, Sequential
from gpucnn.layers.base import Layer
from gpucnn.layers.containers import Entry
from gpucnn.models import resnet
from gpucnn.types import Shape


def bn_relu_conv(in_channels: int, out_channels: int, kernel: int) -> list[Entry]:
    """Batch norm, ReLU and a convolution that keeps the size."""
    convolution = Conv2D(in_channels, out_channels, kernel, padding=kernel // 2, bias=False)
    return [(BatchNorm(in_channels), ReLU()), convolution]


def dense_block(channels: int, growth: int, layers: int) -> Layer:
    """``layers`` times: ``growth`` new channels beside those that there are, by way of 4 ``growth`` of a 1x1."""
    parts = []
    for _ in range(layers):
        body = Sequential(*bn_relu_conv(channels, 4 * growth, 1), *bn_relu_conv(4 * growth, growth, 3))
        parts.append(Concat(Sequential(), body))
        channels += growth
    return Sequential(*parts)


def dense_net(first: Layer, channels: int, growth: int, blocks: Sequence[int], num_classes: int) -> Layer:
    """Blocks of so many layers, between which half of the channels stay and the image is halved."""
    made: dict[str, Layer] = {"stem": first}
    for number, layers in enumerate(blocks, 1):
        made[f"block{number}"] = dense_block(channels, growth, layers)
        channels += layers * growth
        if number < len(blocks):
            made[f"transition{number}"] = Sequential(*bn_relu_conv(channels, channels // 2, 1), AvgPool2D(2))
            channels //= 2
    head = Sequential((BatchNorm(channels), ReLU()), GlobalAvgPool2D())
    return Sequential(**made, pool=head, classifier=Linear(channels, num_classes))


def densenet(input_shape: Shape, num_classes: int, *, depth: int = 40, growth: int = 12) -> Layer:
    """The paper's nets for CIFAR: a 3x3 convolution of 2 growth filters, three blocks of (depth - 4) / 6 layers."""
    if not (10 <= depth <= 400 and (depth - 4) % 6 == 0 and 1 <= growth <= 512):
        raise UsageError(
            f"densenet with depth = {shown(depth)} and growth = {shown(growth)}: "
            "give 6 n + 4 from 10 to 400, as 40 or 100, and 1 to 512"
        )
    first = Conv2D(input_shape[2], 2 * growth, 3, padding=1, bias=False)
    return dense_net(first, 2 * growth, growth, [(depth - 4) // 6] * 3, num_classes)


def densenet121(input_shape: Shape, num_classes: int) -> Layer:
    """DenseNet-121 with ResNet's stem, which depends on the size of the image: growth 32, 7,978,856 parameters."""
    return dense_net(resnet.stem(input_shape, 64), 64, 32, (6, 12, 24, 16), num_classes)
