"""LeNet-5 (LeCun et al., "Gradient-based learning applied to document recognition", 1998), with ReLU.

Max pooling replaces the original's averages.
"""

from gpucnn.layers import Conv2D, Flatten, Layer, Linear, MaxPool2D, ReLU, Sequential
from gpucnn.types import Shape


def lenet5(input_shape: Shape, num_classes: int) -> Layer:
    """Two 5x5 convolutions of 6 and 16 filters, then 120, 84 and ``num_classes`` units.

    LeCun's images are 32x32; smaller ones get a border of 2, which makes MNIST's 28x28 that size.
    """
    padding = 2 if min(input_shape[:2]) < 32 else 0
    first = Conv2D(input_shape[2], 6, 5, padding=padding), ReLU(), MaxPool2D(2)
    features = Sequential(*first, Conv2D(6, 16, 5), ReLU(), MaxPool2D(2), Flatten())
    (width,) = features.output_shape(input_shape)
    classifier = Sequential(Linear(width, 120), ReLU(), Linear(120, 84), ReLU(), Linear(84, num_classes))
    return Sequential(features=features, classifier=classifier)
