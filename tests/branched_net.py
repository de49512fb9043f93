"""A small net of the layers that have branches, masks, groups and borders, for whole steps on every backend."""

from gpucnn.layers import (
    ELU,
    AdaptiveAvgPool2D,
    AvgPool2D,
    Concat,
    Conv2D,
    Dropout2D,
    Flatten,
    GroupNorm,
    Hardsigmoid,
    Hardswish,
    LayerNorm,
    Linear,
    MaxPool2D,
    Residual,
    Sequential,
    SqueezeExcite,
    StochasticDepth,
    Upsample,
)


def branched(channels: int, classes: int) -> Sequential:
    """For images of at least 4x4."""
    gate = Residual(Sequential(SqueezeExcite(6, 2), StochasticDepth(0.3)))
    return Sequential(
        Conv2D(channels, 4, 3, padding=1), GroupNorm(2, 4), Hardswish(), Concat(Sequential(), Conv2D(4, 2, 1)),
        Dropout2D(0.2), AvgPool2D(3, stride=2, ceil_mode=True), gate, Upsample(2, mode="bilinear"),
        MaxPool2D(3, stride=2, ceil_mode=True), AdaptiveAvgPool2D((2, 3)), Hardsigmoid(), Flatten(), LayerNorm(36),
        ELU(), Linear(36, classes),
    )  # fmt: skip
