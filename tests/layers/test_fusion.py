"""Neighbours in a ``Sequential`` run as one where the backend has a kernel for the pair, and change nothing."""

import numpy as np
import pytest

from gpucnn.backend import REFERENCE, Backend
from gpucnn.layers import BatchNormReLU, Conv2D, Flatten, MaxPool2D, ReLU, Sequential, fusion


def net() -> Sequential:
    return Sequential(
        Conv2D(3, 4, 3, padding=1), ReLU(), MaxPool2D(2), Conv2D(4, 6, 3), BatchNormReLU(6), MaxPool2D(2), Flatten()
    )


def counting(*ops) -> tuple[Backend, list[str]]:
    """The reference with these ops in its table, as they are written, and the names of all ops that ran."""
    ran: list[str] = []

    class Counting(Backend):
        def run(self, op, *args, **kwargs):
            ran.append(op.__name__)
            return super().run(op, *args, **kwargs)

    return Counting("counting", np, {op: op for op in ops}), ran


PAIRS = (fusion.relu_max_pool2d, fusion.batchnorm_relu_max_pool2d)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("ops", [(), PAIRS[:1], PAIRS[1:], PAIRS])
def test_joined_or_not_the_numbers_are_the_same(ops, training) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((5, 13, 12, 3))
    backend, ran = counting(*ops)
    results = []
    for on in (REFERENCE, backend):
        model = net().initialize(3, on, "float64")
        model.train() if training else model.eval()
        parts = [model.forward(x)]
        if training:
            parts += [model.backward(np.cos(np.arange(parts[0].size)).reshape(parts[0].shape)), model.flat.grad]
        results.append([*parts, *model.state_dict().values()])
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)
    names = {"relu_max_pool2d", f"batchnorm_relu_max_pool2d{'' if training else '_eval'}"}
    assert names & set(ran) == {name for name in names if any(name.startswith(op.__name__) for op in ops)}


def test_joining_follows_the_backend() -> None:
    model = net().initialize(0)
    assert len(model.steps()) == 7
    backend, _ = counting(*PAIRS)
    model.initialize(0, backend)
    assert [type(step).__name__ for step in model.steps()] == [
        "Conv2D", "ReLUMaxPool2D", "Conv2D", "BatchNormReLUMaxPool2D", "Flatten",
    ]  # fmt: skip
    assert list(model.children()) == [str(i) for i in range(7)]  # names and checkpoints know nothing of it
