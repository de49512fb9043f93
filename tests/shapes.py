"""Sample shapes, in one place: ordinary ones and all the odd ones."""

from gpucnn.layers.windows import as_padding, as_pair, extent

# (N, H, W, C), filters, kernel, stride, padding
CONVOLUTIONS = [
    ((2, 5, 5, 3), 2, 3, 2, 1),  # the slides' example
    ((2, 6, 7, 2), 3, 3, 1, 1),
    ((1, 8, 8, 1), 4, 3, 3, 2),  # stride 3, padding 2, one channel, one image
    ((2, 6, 5, 3), 2, 2, 2, 0),  # even kernel, a column that the stride leaves over
    ((2, 5, 6, 2), 3, (4, 2), 1, "same"),  # even and rectangular, keeps the size
    ((3, 4, 4, 5), 2, 1, 1, 0),  # 1x1
    ((2, 7, 7, 2), 2, 1, 2, 0),  # 1x1 with a stride, as in a shortcut
    ((2, 4, 6, 3), 4, (4, 6), 1, 0),  # as large as the image
    ((1, 9, 4, 2), 3, (1, 3), (2, 1), (0, 1)),  # rectangular in every way
    ((2, 3, 3, 1), 2, 5, 1, 2),  # larger than the image without its border
    ((2, 7, 5, 2), 2, 3, (3, 2), 1),  # the stride does not divide
]

# (N, H, W, C), filters, kernel, stride, padding, dilation, groups
GROUPED = [
    ((2, 5, 6, 3), 3, 3, 1, 1, 1, 3),  # depthwise
    ((1, 6, 5, 2), 6, 3, 2, 1, 1, 2),  # three filters a channel, a stride
    ((2, 5, 4, 4), 6, (3, 2), 1, ((0, 2), (1, 0)), 1, 2),  # groups, four paddings
    ((1, 7, 8, 2), 3, 3, 1, 2, 2, 1),  # dilation
    ((1, 9, 6, 4), 4, (3, 2), (2, 3), ((2, 1), (0, 3)), (2, 4), 2),  # all at once
    ((1, 3, 3, 2), 2, 3, 1, 4, 4, 2),  # taps that are never inside together
]

# (N, H, W, C), kernel, stride, padding
POOLINGS = [
    ((2, 4, 6, 3), 2, 2, 0),
    ((1, 5, 7, 1), 2, 2, 0),  # a line and a column left over
    ((2, 7, 7, 2), 3, 2, 1),  # overlapping and padded
    ((2, 5, 4, 2), 3, 1, 1),
    ((1, 6, 6, 2), (3, 2), (2, 3), 0),
    ((2, 4, 4, 3), 4, 4, 0),  # the whole image
    ((1, 3, 3, 2), 1, 1, 0),
    ((2, 8, 6, 1), 2, 3, 0),  # gaps between windows
]


def convolution(case):
    """(x shape, w shape, stride, padding) of a case, normalised as the ops take them."""
    x_shape, filters, kernel, stride, padding = case
    kernel, stride = as_pair(kernel, "kernel", 1), as_pair(stride, "stride", 1)
    return x_shape, (filters, *kernel, x_shape[3]), stride, as_padding(padding, kernel, stride)


def grouped(case):
    """(x shape, w shape, (stride, padding, dilation, groups)) of a case, as the ops take them."""
    x_shape, filters, kernel, stride, padding, dilation, groups = case
    kernel, stride = as_pair(kernel, "kernel", 1), as_pair(stride, "stride", 1)
    dilation = as_pair(dilation, "dilation", 1)
    padding = as_padding(padding, extent(kernel, dilation), stride)
    return x_shape, (filters, *kernel, x_shape[3] // groups), (stride, padding, dilation, groups)


def pooling(case):
    """(x shape, kernel, stride, padding) of a case."""
    x_shape, kernel, stride, padding = case
    kernel, stride = as_pair(kernel, "kernel", 1), as_pair(stride, "stride", 1)
    return x_shape, kernel, stride, as_padding(padding, kernel, stride)
