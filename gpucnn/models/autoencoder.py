"""A convolutional autoencoder: an image through a narrow code and back, learned from images without labels.

The encoder halves the image twice (``Conv2D`` with stride 2), the decoder doubles it twice (``ConvTranspose2D``), and
the loss is the mean squared error between what comes out and what went in.  Its output is an image, not a number per
class, so it is no row of ``MODELS``: the target of a step is its own input, as in docs/models.md.
"""

from gpucnn.errors import ShapeError, UsageError
from gpucnn.layers import BatchNorm, Conv2D, ConvTranspose2D, Layer, ReLU, Sequential
from gpucnn.layers.containers import Entry
from gpucnn.settings import checked
from gpucnn.types import Shape


@checked
def autoencoder(input_shape: Shape, *, width: int = 32, code: int = 4) -> Layer:
    """Layers "encoder", whose output is the code (H/4, W/4, ``code``), and "decoder", for images (H,W,C).

    Args:
        input_shape: (H, W, C), H and W multiples of 4.
        width: filters next to the image, half of those next to the code.

    Raises:
        ShapeError: images of another size.
        UsageError: a width or a code below 1.
    """
    if len(input_shape) != 3 or input_shape[0] % 4 or input_shape[1] % 4 or min(input_shape) < 1:
        raise ShapeError(f"autoencoder for images {input_shape}: give (H, W, C), H and W multiples of 4")
    if min(width, code) < 1:
        raise UsageError(f"autoencoder with width = {width} and code = {code}: give at least 1")
    channels = input_shape[2]

    def smaller(c: int, f: int) -> list[Entry]:
        return [Conv2D(c, f, 3, stride=2, padding=1, bias=False), (BatchNorm(f), ReLU())]

    def larger(c: int, f: int) -> list[Entry]:
        return [ConvTranspose2D(c, f, 4, stride=2, padding=1, bias=False), (BatchNorm(f), ReLU())]

    return Sequential(
        encoder=Sequential(*smaller(channels, width), *smaller(width, 2 * width), Conv2D(2 * width, code, 1)),
        decoder=Sequential(
            Conv2D(code, 2 * width, 3, padding=1, bias=False),
            (BatchNorm(2 * width), ReLU()),
            *larger(2 * width, width),
            *larger(width, width),
            Conv2D(width, channels, 3, padding=1),
        ),
    )
