"""Neighbours in a ``Sequential`` run as one where the backend has a kernel for them, and change nothing."""

import numpy as np
import pytest

from gpucnn.backend import REFERENCE, Backend
from gpucnn.errors import UsageError
from gpucnn.layers import BatchNorm, BatchNormReLU, Conv2D, Flatten, MaxPool2D, ReLU, Sequential
from gpucnn.layers.batchnorm import batchnorm_relu
from gpucnn.layers.fusion import FUSIONS, batchnorm_relu_max_pool2d, fuse, relu_max_pool2d


def net() -> Sequential:
    return Sequential(
        Conv2D(3, 4, 3, padding=1),
        ReLU(),
        MaxPool2D(2),
        Conv2D(4, 6, 3),
        (BatchNorm(6), ReLU()),
        MaxPool2D(2),
        (BatchNorm(6), ReLU()),
        Flatten(),
    )


def counting(*ops) -> tuple[Backend, list[str]]:
    """The reference with these ops as their own kernels, and the names of all ops that ran."""
    ran: list[str] = []

    class Counting(Backend):
        def run(self, op, *args, **kwargs):
            ran.append(op.__name__)
            return super().run(op, *args, **kwargs)

    return Counting("counting", np, {op: op for op in ops}), ran


PAIRS = (relu_max_pool2d, batchnorm_relu_max_pool2d, batchnorm_relu)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("ops", [(), PAIRS[:1], PAIRS[1:2], PAIRS[2:], PAIRS[1:], PAIRS])
def test_fused_or_not_the_numbers_are_the_same(ops, training) -> None:
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
    for op in PAIRS:
        suffix = "" if training or op is relu_max_pool2d else "_eval"
        assert (f"{op.__name__}{suffix}" in ran) == (op in ops)


@pytest.mark.parametrize(
    ("ops", "kinds"),
    [
        ((), "Conv2D, ReLU, MaxPool2D, Conv2D, BatchNorm, ReLU, MaxPool2D, BatchNorm, ReLU, Flatten"),
        (PAIRS, "Conv2D, ReLU + MaxPool2D, Conv2D, BatchNorm + ReLU + MaxPool2D, BatchNorm + ReLU, Flatten"),
        (PAIRS[1:2], "Conv2D, ReLU, MaxPool2D, Conv2D, BatchNorm + ReLU + MaxPool2D, BatchNorm, ReLU, Flatten"),
        (PAIRS[2:], "Conv2D, ReLU, MaxPool2D, Conv2D, BatchNorm + ReLU, MaxPool2D, BatchNorm + ReLU, Flatten"),
    ],
)
def test_the_longest_row_that_the_backend_has_a_kernel_for_is_fused(ops, kinds) -> None:
    model = net().initialize(0)
    plain = list(model.children())
    assert len(model.steps()) == len(plain) == 10
    model.initialize(0, counting(*ops)[0])
    assert ", ".join(step.kind for step in model.steps()) == kinds
    assert list(model.children()) == plain  # names and checkpoints do not depend on fusion


def test_rows_come_longest_first_and_fuse_exact_types_only() -> None:
    sizes = [len(row) for row in FUSIONS]
    assert sizes == sorted(sizes, reverse=True)

    class Rectified(ReLU):
        pass

    layers = [BatchNorm(2), Rectified(), MaxPool2D(2)]
    Sequential(*layers).initialize(0, counting(*PAIRS)[0])
    assert fuse(layers) == layers


@pytest.mark.parametrize("ops", [(), PAIRS])
def test_backward_of_a_fused_step_names_its_layers_and_a_mode_drops_what_it_saved(ops) -> None:
    model = Sequential(features=net()).initialize(0, counting(*ops)[0])
    x = np.ones((2, 12, 12, 3), np.float32)
    dy = np.ones_like(model.forward(x))
    model.backward(dy)
    last = model.layers["features"].steps()[-2]
    named = r"features.6 \(BatchNorm \+ ReLU\)" if ops else r"features.6.relu \(ReLU\)"
    with pytest.raises(UsageError, match=rf"backward of {named} without a forward in training mode"):
        last.backward(dy)
    for switch in (model.train, model.eval):
        model.train().forward(x)
        assert model.layers["features"].steps()[-2] is last  # a mode makes no new steps
        switch()
        with pytest.raises(UsageError, match="without a forward"):
            last.backward(dy)
    model.forward(x)  # in evaluation
    with pytest.raises(UsageError, match="without a forward"):
        last.backward(dy)


@pytest.mark.parametrize("ops", [(), PAIRS])
def test_a_layer_keeps_no_state_for_another_one(ops) -> None:
    model = net().initialize(0, counting(*ops)[0])
    model.forward(np.ones((2, 12, 12, 3), np.float32))
    saved = {id(layer): layer._kept is not None for layer in [*model.children().values(), *model.steps()]}
    assert {key for key, value in saved.items() if value} == {id(step) for step in model.steps()}


def test_a_batch_norm_in_evaluation_keeps_its_statistics_in_a_model_that_trains() -> None:
    for ops in ((), PAIRS):
        model = net().initialize(0, counting(*ops)[0])
        norms = [layer for layer in model.children().values() if isinstance(layer, BatchNorm)]
        norms[1].eval()
        model.forward(np.random.default_rng(0).standard_normal((2, 12, 12, 3)).astype(np.float32))
        assert [bool(norm.running_mean.data.any()) for norm in norms] == [True, False]


def test_a_batch_norm_relu_of_its_own_is_fused_with_max_pooling_and_keeps_its_names() -> None:
    backend, ran = counting(*PAIRS)
    x = np.random.default_rng(1).standard_normal((3, 6, 6, 2))
    results = []
    for layers in ([BatchNormReLU(2), MaxPool2D(2)], [(BatchNorm(2), ReLU()), MaxPool2D(2)]):
        model = Sequential(*layers).initialize(0, backend, "float64")
        y = model.forward(x)
        results.append([y, model.backward(y), model.flat.grad, *model.state_dict().values()])
        assert list(model.state_dict()) == ["0.scale", "0.shift", "0.running_mean", "0.running_var"]
    assert ran.count("batchnorm_relu_max_pool2d") == 2
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)
