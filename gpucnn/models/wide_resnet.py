"""Wide residual networks (Zagoruyko and Komodakis, arXiv 1605.07146): few blocks, many channels."""

from functools import partial

from gpucnn.errors import UsageError, shown
from gpucnn.layers import BatchNorm, Conv2D, Dropout, GlobalAvgPool2D, Layer, Linear, ReLU, Residual, Sequential
from gpucnn.layers.containers import Entry
from gpucnn.models.resnet import stages
from gpucnn.types import Shape

DEEPEST, WIDEST = 202, 64  # a checkpoint's config must not build a huge model


def wide_block(in_channels: int, out_channels: int, stride: int, dropout: float) -> Layer:
    """bn-relu-conv-bn-relu-conv of x, plus x; where the shape changes, both branches start from relu(bn(x))."""
    entrance = BatchNorm(in_channels), ReLU()
    branch: list[Entry] = [
        Conv2D(in_channels, out_channels, 3, stride=stride, padding=1, bias=False),
        (BatchNorm(out_channels), ReLU()),
        *([Dropout(dropout)] if dropout else []),
        Conv2D(out_channels, out_channels, 3, padding=1, bias=False),
    ]
    if stride == 1 and in_channels == out_channels:
        return Residual(Sequential(entrance, *branch))
    shortcut = Conv2D(in_channels, out_channels, 1, stride=stride, bias=False)
    return Sequential(entrance, Residual(Sequential(*branch), shortcut))


def wide_resnet(
    input_shape: Shape, num_classes: int, *, depth: int = 16, widen: int = 4, dropout: float = 0.0
) -> Layer:
    """A 3x3 stem of 16 filters, three stages of widths 16, 32 and 64 times ``widen``, a mean over the image.

    ``depth`` is 6 n + 4 with n blocks per stage: the paper counts the convolutions and the classifier.

    Raises:
        UsageError: another depth, or a depth or width out of range.
    """
    if not (10 <= depth <= DEEPEST and depth % 6 == 4 and 1 <= widen <= WIDEST):
        raise UsageError(
            f"wide_resnet with depth = {shown(depth)} and widen = {shown(widen)}: "
            f"give a depth of 10, 16, 22 ... up to {DEEPEST} and a widen from 1 to {WIDEST}"
        )
    widths = (16 * widen, 32 * widen, 64 * widen)
    return Sequential(
        stem=Conv2D(input_shape[2], 16, 3, padding=1, bias=False),
        **stages(partial(wide_block, dropout=dropout), 16, widths, (depth - 4) // 6),
        norm=(BatchNorm(widths[-1]), ReLU()),
        pool=GlobalAvgPool2D(),
        classifier=Linear(widths[-1], num_classes),
    )
