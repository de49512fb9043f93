"""Demo 1 of the lecture (L25): a photograph through convolution, ReLU and pooling."""

from math import sqrt

import numpy as np

from gpucnn.layers import AvgPool2D, Conv2D, MaxPool2D, ReLU
from gpucnn.plots.feature_maps import Stage
from gpucnn.types import Array, Shape

SLIDES_SEED = 24
SHOWN = (7, 6, 5)  # of the eight: one that leaves edges after ReLU, a relief, and brightness with edges


def slides_filters(shape: Shape, seed: int = 0, stream: int = 0) -> Array:
    """The slides' random filters, np.random.seed(24), as weights (F,KH,KW,1).

    He's factor is sqrt(2 / fan_in) with fan_in = KH KW C (arXiv 1502.01852); the slides divide by the height
    of the image instead (erratum 6).
    """
    filters, height, width, channels = shape
    generator = np.random.RandomState(SLIDES_SEED)
    fan_in = height * width * channels
    return generator.randn(filters, height, width)[..., np.newaxis] * sqrt(2.0 / fan_in)


def run(photo: Array) -> tuple[Array, list[Stage]]:
    """A grey photograph (H,W), 0..1 -> its filters (8,3,3) and the four stages.

    The slides' convolution has 8 filters 3x3, padding 2 and stride 1, so height and width grow by 2 (L2);
    both poolings are 2x2 and work on the output of ReLU.
    """
    conv = Conv2D(1, 8, 3, padding=2, weight_init=slides_filters).initialize(dtype="float64").eval()
    x = photo[np.newaxis, :, :, np.newaxis]  # (1,H,W,1)
    z = conv(x)  # (1,H+2,W+2,8)
    a = ReLU()(z)
    stages = [
        Stage("conv", "convolution 3 x 3", z[0]),
        Stage("relu", "ReLU", a[0]),
        Stage("max_pool", "max pooling 2 x 2", MaxPool2D(2)(a)[0]),
        Stage("avg_pool", "average pooling 2 x 2", AvgPool2D(2)(a)[0]),
    ]
    return conv.weight.data[..., 0], stages
