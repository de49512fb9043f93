"""The independent oracle: the lecture's sums as loops over single numbers, in float64."""

from itertools import product

import numpy as np

from gpucnn.types import Array, Padding, Pair


def pixel(x: Array, n: int, row: int, column: int, c: int) -> float:
    """x[n, row, column, c], 0 beyond the border."""
    inside = 0 <= row < x.shape[1] and 0 <= column < x.shape[2]
    return float(x[n, row, column, c]) if inside else 0.0


def sizes(x_shape: tuple[int, ...], kernel: Pair, stride: Pair, padding: Padding) -> Pair:
    """By counting: the places at which a whole window fits."""
    counts = []
    for size, k, s, (before, after) in zip(x_shape[1:3], kernel, stride, padding, strict=True):
        counts.append(len([at for at in range(0, size + before + after, s) if at + k <= size + before + after]))
    return counts[0], counts[1]


def windows(x_shape, kernel: Pair, stride: Pair, padding: Padding):
    """(n, i, j, m, k, row, column): output place, tap, and the pixel under it."""
    down, across = sizes(x_shape, kernel, stride, padding)
    for n, i, j in product(range(x_shape[0]), range(down), range(across)):
        for m, k in product(range(kernel[0]), range(kernel[1])):
            yield n, i, j, m, k, i * stride[0] + m - padding[0][0], j * stride[1] + k - padding[1][0]


def conv2d(x: Array, w: Array, b: Array | None, stride: Pair, padding: Padding) -> Array:
    f, kh, kw, channels = w.shape
    y = np.zeros((x.shape[0], *sizes(x.shape, (kh, kw), stride, padding), f))
    if b is not None:
        y += b
    for n, i, j, m, k, row, column in windows(x.shape, (kh, kw), stride, padding):
        for c, one in product(range(channels), range(f)):
            y[n, i, j, one] += pixel(x, n, row, column, c) * w[one, m, k, c]
    return y


def conv2d_grads(dy: Array, x: Array, w: Array, stride: Pair, padding: Padding) -> tuple[Array, Array, Array]:
    """dx, dw, db."""
    f, kh, kw, channels = w.shape
    dx, dw = np.zeros(x.shape), np.zeros(w.shape)
    for n, i, j, m, k, row, column in windows(x.shape, (kh, kw), stride, padding):
        if 0 <= row < x.shape[1] and 0 <= column < x.shape[2]:
            for c, one in product(range(channels), range(f)):
                dx[n, row, column, c] += dy[n, i, j, one] * w[one, m, k, c]
                dw[one, m, k, c] += dy[n, i, j, one] * x[n, row, column, c]
    db = np.array([sum(dy[..., one].reshape(-1).tolist()) for one in range(f)])
    return dx, dw, db


def max_pool2d(x: Array, kernel: Pair, stride: Pair, padding: Padding, dy: Array | None = None):
    """y, and dx where dy is given; the first maximum in row-major order takes the gradient."""
    down, across = sizes(x.shape, kernel, stride, padding)
    y = np.full((x.shape[0], down, across, x.shape[3]), -np.inf)
    place = {}
    for n, i, j, _, _, row, column in windows(x.shape, kernel, stride, padding):
        if 0 <= row < x.shape[1] and 0 <= column < x.shape[2]:
            for c in range(x.shape[3]):
                if x[n, row, column, c] > y[n, i, j, c]:
                    y[n, i, j, c] = x[n, row, column, c]
                    place[n, i, j, c] = row, column
    dx = np.zeros(x.shape)
    if dy is not None:
        for (n, i, j, c), (row, column) in place.items():
            dx[n, row, column, c] += dy[n, i, j, c]
    return y, dx


def avg_pool2d(x: Array, kernel: Pair, stride: Pair, padding: Padding, dy: Array | None = None):
    """y, and dx where dy is given; zeros of the border count."""
    down, across = sizes(x.shape, kernel, stride, padding)
    y, dx = np.zeros((x.shape[0], down, across, x.shape[3])), np.zeros(x.shape)
    area = kernel[0] * kernel[1]
    for n, i, j, _, _, row, column in windows(x.shape, kernel, stride, padding):
        for c in range(x.shape[3]):
            y[n, i, j, c] += pixel(x, n, row, column, c) / area
            if dy is not None and 0 <= row < x.shape[1] and 0 <= column < x.shape[2]:
                dx[n, row, column, c] += dy[n, i, j, c] / area
    return y, dx


def batchnorm(x: Array, scale: Array, shift: Array, eps: float) -> tuple[Array, list[float], list[float]]:
    """y, means, biased variances, channel by channel."""
    columns = x.reshape(-1, x.shape[-1]).T.tolist()
    means = [sum(column) / len(column) for column in columns]
    variances = [
        sum((v - mean) ** 2 for v in column) / len(column) for column, mean in zip(columns, means, strict=True)
    ]
    y = np.empty(x.shape)
    for c, (mean, variance) in enumerate(zip(means, variances, strict=True)):
        y[..., c] = (x[..., c] - mean) / (variance + eps) ** 0.5 * scale[c] + shift[c]
    return y, means, variances


def grouped_windows(x_shape, w_shape, stride: Pair, padding: Padding, dilation: Pair, groups: int):
    """(n, i, j, f, m, k, c, row, column, channel): a product of a convolution with groups and dilation."""
    f, kh, kw, per = w_shape
    reach = [d * (k - 1) + 1 for k, d in zip((kh, kw), dilation, strict=True)]
    down, across = sizes(x_shape, (reach[0], reach[1]), stride, padding)
    filters = [one for group in range(groups) for one in [group] * (f // groups)]  # the group of each
    for n, i, j, one in product(range(x_shape[0]), range(down), range(across), range(f)):
        for m, k, c in product(range(kh), range(kw), range(per)):
            row = i * stride[0] + m * dilation[0] - padding[0][0]
            column = j * stride[1] + k * dilation[1] - padding[1][0]
            yield n, i, j, one, m, k, c, row, column, filters[one] * per + c


def grouped_conv2d(x: Array, w: Array, dy: Array | None, *how) -> tuple[Array, Array, Array]:
    """y, and where dy is given dx and dw, of a convolution with stride, padding, dilation and groups."""
    stride, padding, dilation, _ = how
    reach = [d * (k - 1) + 1 for k, d in zip(w.shape[1:3], dilation, strict=True)]
    y = np.zeros((x.shape[0], *sizes(x.shape, (reach[0], reach[1]), stride, padding), w.shape[0]))
    dx, dw = np.zeros(x.shape), np.zeros(w.shape)
    for n, i, j, one, m, k, c, row, column, channel in grouped_windows(x.shape, w.shape, *how):
        y[n, i, j, one] += pixel(x, n, row, column, channel) * w[one, m, k, c]
        if dy is not None and 0 <= row < x.shape[1] and 0 <= column < x.shape[2]:
            dx[n, row, column, channel] += dy[n, i, j, one] * w[one, m, k, c]
            dw[one, m, k, c] += dy[n, i, j, one] * x[n, row, column, channel]
    return y, dx, dw
