"""What calls of ops and of kernels are compared by, whichever backend's: results, float64, and views of arrays."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from kernel_samples import Op

from gpucnn import optim
from gpucnn.backend import Kernel
from gpucnn.layers import batchnorm, fusion, groupnorm
from gpucnn.optim import averages, loss_scale, muon

IN_PLACE = {
    optim.sgd_update: (0,),
    optim.momentum_update: (0, 2),
    optim.adam_update: (0, 2, 3),
    muon.muon_update: (0, 2),
    batchnorm.move_running: (0, 1),
    averages.lerp: (0,),
    loss_scale.unscale: (0, 1),
    loss_scale.keep: (0,),
    loss_scale.adapt: (0, 1),
}
"""Op -> which arguments it changes."""

WIDE_RESULTS = {
    batchnorm.batchnorm: (1, 2),
    batchnorm.batchnorm_relu: (1, 2),
    fusion.batchnorm_relu6: (1, 2),
    fusion.batchnorm_relu_max_pool2d: (1, 2),
    groupnorm.groupnorm: (1, 2),
}
"""Op -> which results are float64 whatever its arguments are: a batch's mean and variance, and a group's."""


def accepts(table: Mapping[Op, Kernel], op: Op, *args: Any, **named: Any) -> bool:
    """Whether a table's kernel takes these arguments of its op."""
    bound = inspect.signature(op).bind(*args, **named)
    bound.apply_defaults()
    return table[op].accepts(*bound.args)


def takes_the_ops_arguments(op: Op, rule: Op) -> bool:
    """Whether a rule can be called as its op is: with all arguments by place, or without those that have defaults."""
    parameters = inspect.signature(op).parameters.values()
    required = [parameter for parameter in parameters if parameter.default is parameter.empty]
    for count in (len(required), len(parameters)):
        inspect.signature(rule).bind(*range(count))
    return True


def outcome(op: Op, function: Op, args: tuple[Any, ...]) -> list[Any]:
    """What a call returns and what it changes, as a list of arrays; ``args`` stay as they are."""
    mine = [a.copy() if i in IN_PLACE.get(op, ()) else a for i, a in enumerate(args)]
    result = function(*mine)
    return parts(op, mine, result)


def parts(op: Op, args: Sequence[Any], result: Any) -> list[Any]:
    """What a call changed of its arguments, and what it returned."""
    changed = [args[i] for i in IN_PLACE.get(op, ())]
    if result is None:
        assert changed
        return changed
    return [*changed, *(result if isinstance(result, tuple) else [result])]


def doubled(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The same numbers in float64."""
    return tuple(a.astype(np.float64) if is_float(a) else a for a in args)


def is_float(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind == "f"


def turned(array: np.ndarray) -> np.ndarray:
    """The same values with the axes in the other order in memory."""
    return np.asfortranarray(array) if array.ndim else array


def sparse(array: np.ndarray) -> np.ndarray:
    """The same values as every second one of a larger array."""
    if not array.ndim:
        return array
    wide = np.full((*array.shape[:-1], 2 * array.shape[-1]), 7, array.dtype)
    wide[..., ::2] = array
    return wide[..., ::2]
