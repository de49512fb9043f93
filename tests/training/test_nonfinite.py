"""What is said where a step gives NaN or infinity, and what is no such step."""

import numpy as np
import pytest

from gpucnn.errors import NotANumberError
from gpucnn.layers import Flatten, Linear, ReLU, Sequential
from gpucnn.optim import SGD
from gpucnn.training.trainer import Trainer

X, LABELS = np.ones((2, 1, 2, 1), np.float32), np.array([0, 1])


def trainer() -> Trainer:
    return Trainer(Sequential(Flatten(), Linear(2, 3), ReLU(), Linear(3, 2)), SGD(0.1))


def test_the_gradient_that_backward_reaches_first_is_named() -> None:
    made = trainer()
    for name in ("3.weight", "1.weight", "1.bias"):
        made.model.parameters()[name].grad[...] = np.inf
    with pytest.raises(NotANumberError, match=r"the gradient of '3\.weight' has NaN or infinity"):
        made.check_finite(np.float32(1), X, LABELS)


def test_a_gradient_whose_square_overflows_is_still_finite() -> None:
    made = trainer()
    made.model.flat.grad[...] = 1e25
    made.check_finite(np.float32(1), X, LABELS)


def test_the_layer_that_overflows_is_named_not_the_one_behind_it() -> None:
    made = trainer()
    made.model.parameters()["1.weight"].data[...] = 3e38
    message = r"layer '1' \(Linear\) is the first whose output"
    with np.errstate(all="ignore"), pytest.raises(NotANumberError, match=message):
        made.check_finite(np.float32(np.nan), 10 * X, LABELS)
