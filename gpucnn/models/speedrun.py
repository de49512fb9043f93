"""Networks that reach 94, 95 and 96 % on CIFAR-10 in the least time (Jordan, arXiv 2404.00498).

Frozen filters that whiten 2x2 patches, three groups of convolutions that start as the identity, and a maximum over the
remaining image.  Batch norm's scale is frozen, so the logits get a constant one.
"""

from gpucnn.layers import GELU, BatchNorm, Conv2D, Flatten, Linear, MaxPool2D, Residual, Scale, Sequential, Whitening
from gpucnn.layers.base import Layer
from gpucnn.layers.initializers import dirac, fan_in_uniform, unit_uniform
from gpucnn.types import Shape


def conv(in_channels: int, out_channels: int) -> Layer:
    """A 3x3 convolution that starts as the identity on as many channels as it can."""
    return Conv2D(in_channels, out_channels, 3, padding=1, bias=False, weight_init=dirac)


def norm(channels: int) -> Layer:
    """Batch norm with a frozen scale of 1 and running statistics of the last few batches."""
    return BatchNorm(channels, eps=1e-12, momentum=0.4, scale_group="frozen")


def group(in_channels: int, out_channels: int, convolutions: int) -> Layer:
    """conv-pool-bn-gelu, conv-bn-gelu; a third convolution makes the last two a residual branch."""
    first: list[Layer] = [conv(in_channels, out_channels), MaxPool2D(2), norm(out_channels), GELU()]
    rest: list[Layer] = [conv(out_channels, out_channels), norm(out_channels)]
    if convolutions == 2:
        return Sequential(*first, *rest, GELU())
    body = Sequential(*rest, GELU(), conv(out_channels, out_channels), norm(out_channels))
    return Sequential(*first, Residual(body), GELU())


def speedrun(
    input_shape: Shape, num_classes: int, widths: tuple[int, int, int], convolutions: int, unit_head: bool
) -> Layer:
    """The net for groups of these widths, with two or three convolutions each."""
    whitening = Whitening(input_shape[2], 2)
    channels = whitening.output_shape(input_shape)[2]
    groups = {}
    for number, width in enumerate(widths, 1):
        groups[f"group{number}"] = group(channels, width, convolutions)
        channels = width
    features = Sequential(whitening=whitening, activation=GELU(), **groups)
    rest = features.output_shape(input_shape)[:2]  # 3x3 of 32x32
    return Sequential(
        features=features,
        pool=Sequential(MaxPool2D((rest[0], rest[1])), Flatten()),
        head=Linear(channels, num_classes, bias=False, weight_init=unit_uniform if unit_head else fan_in_uniform),
        scale=Scale(1 / channels if unit_head else 1 / 9),
    )


def speedrun94(input_shape: Shape, num_classes: int, *, unit_head: bool = False) -> Layer:
    """Widths 64, 256, 256: 2 million weights.

    ``unit_head``: the head starts with weights of standard deviation 1 and its logits are divided by its width,
    instead of by 9.
    """
    return speedrun(input_shape, num_classes, (64, 256, 256), 2, unit_head)


def speedrun95(input_shape: Shape, num_classes: int, *, unit_head: bool = False) -> Layer:
    """Widths 128, 384, 384."""
    return speedrun(input_shape, num_classes, (128, 384, 384), 2, unit_head)


def speedrun96(input_shape: Shape, num_classes: int, *, unit_head: bool = False) -> Layer:
    """Widths 128, 384, 512 and three convolutions per group, two of them in a residual branch."""
    return speedrun(input_shape, num_classes, (128, 384, 512), 3, unit_head)
