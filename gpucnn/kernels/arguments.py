"""What kernels of both devices ask of their arguments: shapes that belong together."""

from gpucnn.types import Array


def same_shape(first: Array, *others: Array) -> bool:
    """Arrays of one shape."""
    return all(other.shape == first.shape for other in others)


def per_channel(x: Array, *values: Array) -> bool:
    """One value per channel of x (..., C)."""
    return all(value.shape == x.shape[-1:] for value in values)


def statistics(x: Array, mean: Array, var: Array) -> bool:
    """One mean and variance per channel of x (..., C): a batch's are float64, running ones float32."""
    return per_channel(x, mean, var) and mean.dtype == var.dtype and var.dtype in ("float64", "float32")


def class_indices(scores: Array, labels: Array) -> bool:
    """The classes of the rows of scores (N,K), integers (N,)."""
    return labels.dtype.kind in "iu" and labels.shape == scores.shape[:1]


def group_statistics(x: Array, mean: Array, var: Array, groups: int) -> bool:
    """A float64 mean and variance of each example and group of x (N, ..., C)."""
    wanted = x.shape[0], groups
    fit = mean.shape == var.shape == wanted and mean.dtype == var.dtype == "float64"
    return bool(fit and x.shape[-1] % groups == 0)
