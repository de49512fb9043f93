"""Networks without branches: a perceptron, a small net for digits and a small VGG (arXiv 1409.1556) for CIFAR."""

from math import prod

from gpucnn.errors import UsageError, shown
from gpucnn.layers import BatchNorm, Conv2D, Dropout, Flatten, Layer, Linear, MaxPool2D, ReLU, Sequential
from gpucnn.layers.containers import Entry
from gpucnn.types import Shape

WIDEST, DEEPEST = 65536, 100  # of a perceptron: a checkpoint's config must not build a huge model


def conv_bn_relu(in_channels: int, out_channels: int, stride: int = 1) -> list[Entry]:
    """A 3x3 convolution without bias (batch norm would subtract it again), batch norm and ReLU."""
    convolution = Conv2D(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
    return [convolution, (BatchNorm(out_channels), ReLU())]


def mlp(input_shape: Shape, num_classes: int, *, width: int = 256, depth: int = 2) -> Layer:
    """``depth`` hidden layers of ``width`` units with ReLU."""
    if not (1 <= width <= WIDEST and 0 <= depth <= DEEPEST):
        raise UsageError(
            f"mlp with width = {shown(width)} and depth = {shown(depth)}: give 1 to {WIDEST} and 0 to {DEEPEST}"
        )
    layers: list[Layer] = [Flatten()]
    fan_in = prod(input_shape)
    for _ in range(depth):
        layers += [Linear(fan_in, width), ReLU()]
        fan_in = width
    return Sequential(*layers, Linear(fan_in, num_classes))


def mnist_cnn(input_shape: Shape, num_classes: int, *, dropout: float = 0.5) -> Layer:
    """[32, 32, pool] [64, pool] with batch norm, then 128 units and dropout: a small net for digits."""
    first = [*conv_bn_relu(input_shape[2], 32), *conv_bn_relu(32, 32), MaxPool2D(2)]
    features = Sequential(*first, *conv_bn_relu(32, 64), MaxPool2D(2), Flatten())
    (width,) = features.output_shape(input_shape)
    classifier = Sequential(Linear(width, 128), ReLU(), Dropout(dropout), Linear(128, num_classes))
    return Sequential(features=features, classifier=classifier)


def vgg_small(input_shape: Shape, num_classes: int, *, dropout: float = 0.0) -> Layer:
    """[64, 64, pool] [128, 128, pool] [256, 256, pool], all 3x3 with batch norm, then one linear layer."""
    layers: list[Entry] = []
    channels = input_shape[2]
    for width in (64, 128, 256):
        layers += [*conv_bn_relu(channels, width), *conv_bn_relu(width, width), MaxPool2D(2)]
        channels = width
    features = Sequential(*layers, Flatten())
    (width,) = features.output_shape(input_shape)
    head: list[Layer] = [Dropout(dropout)] if dropout else []
    return Sequential(features=features, classifier=Sequential(*head, Linear(width, num_classes)))
