"""Frozen layers: what is not computed, what batch norm does there, and what of another model's state fits."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from gpucnn.backend import REFERENCE, Backend
from gpucnn.errors import UsageError
from gpucnn.layers import (
    BatchNorm,
    Concat,
    Conv2D,
    Flatten,
    Linear,
    MaxPool2D,
    ReLU,
    Residual,
    Sequential,
    SqueezeExcite,
)  # fmt: skip
from gpucnn.layers.base import MISSING, TAKEN, Layer
from gpucnn.layers.batchnorm import batchnorm_relu
from gpucnn.layers.fusion import BatchNormReLU, batchnorm_relu_max_pool2d


class Counting(Backend):
    """The reference, which counts the ops that it runs."""

    def run(self, op, *args, **kwargs):
        COUNTS[op.__name__] += 1
        return super().run(op, *args, **kwargs)


COUNTS: Counter[str] = Counter()
COUNTING = Counting("reference", np)


def net() -> Sequential:
    block = Residual(
        Sequential(Conv2D(4, 4, 3, padding=1), BatchNorm(4), ReLU()), Sequential(Conv2D(4, 4, 1), BatchNorm(4))
    )
    stem = Sequential(Conv2D(1, 4, 3), BatchNorm(4), ReLU(), MaxPool2D(2))
    return Sequential(features=Sequential(stem=stem, block=block), head=Sequential(Flatten(), Linear(36, 3)))


def ops_of_backward(model: Layer) -> dict[str, int]:
    model.initialize(1, COUNTING).skip_input_grad()
    y = model(np.random.default_rng(0).standard_normal((5, 8, 8, 1)).astype(np.float32))
    COUNTS.clear()
    model.backward(np.ones_like(y))
    return dict(COUNTS)


def test_backward_stops_above_what_is_frozen() -> None:
    whole = ops_of_backward(net())
    assert (whole["conv2d_weight_grad"], whole["batchnorm_grad"]) == (3, 3)
    for patterns in ("features.*", ["features.stem.*", "features.block.*"]):
        model = net()
        model.freeze_matching(patterns)
        assert ops_of_backward(model) == {"linear_weight_grad": 1, "bias_grad": 1}
        assert not any(layer._kept for _, layer in model.layers["features"].named_layers())
    model = net()
    model.freeze_matching(["features.stem.*", "features.block.body.*"])  # the shortcut learns
    learning = {"linear_weight_grad": 1, "linear_input_grad": 1, "conv2d_weight_grad": 1, "batchnorm_grad": 1,
                "bias_grad": 2}  # fmt: skip
    assert ops_of_backward(model) == learning


def test_frozen_layers_between_others_pass_the_gradient_without_their_own() -> None:
    model = net()
    model.freeze_matching("features.block.*")
    ops = ops_of_backward(model)
    assert (ops["conv2d_weight_grad"], ops["batchnorm_grad"], ops["conv2d_input_grad"]) == (1, 1, 2)
    grads = {name for name, parameter in model.parameters().items() if np.abs(parameter.grad).max() > 1e-4}
    assert grads == {name for name in model.parameters() if "block" not in name} - {"features.stem.0.bias"}


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("pool", [False, True])
@pytest.mark.parametrize("norms", [(BatchNorm, ReLU), (BatchNormReLU,)])
def test_fixed_batch_norm_is_a_linear_function_of_its_running_statistics(norms, pool, fused) -> None:
    rng, norm = np.random.default_rng(3), norms[0](2)
    model = Sequential(norm, *(kind() for kind in norms[1:]), *[MaxPool2D(2)] * pool)
    kernels = {op: op for op in (batchnorm_relu, batchnorm_relu_max_pool2d)} if fused else {}
    model.initialize(0, replace(REFERENCE, kernels=kernels), "float64")
    assert len(model.steps()) == (1 if fused else len(norms) + pool)
    norm.fixed = True
    for array in (norm.scale.data, norm.shift.data, norm.running_mean.data, norm.running_var.data):
        array[...] = rng.uniform(0.3, 1.0, 2)
    running = {name: buffer.data.copy() for name, buffer in norm.buffers().items()}
    x = rng.standard_normal((3, 4, 4, 2))
    y = model.forward(x)
    model.eval()
    np.testing.assert_array_equal(model.forward(x), y)
    model.train()
    dy, step = rng.standard_normal(y.shape), 1e-6
    model.forward(x)
    dx = model.backward(dy)
    for place in ((0, 0, 0, 0), (1, 2, 3, 1), (2, 3, 3, 0)):
        there, back = x.copy(), x.copy()
        there[place], back[place] = x[place] + step, x[place] - step
        slope = ((model.forward(there) - model.forward(back)) * dy).sum() / (2 * step)
        assert dx[place] == pytest.approx(slope, abs=1e-6)
    for name, buffer in norm.buffers().items():
        np.testing.assert_array_equal(buffer.data, running[name])


def test_branches_that_learn_nothing_are_left_out() -> None:
    branches = Concat(Conv2D(1, 3, 1), Conv2D(1, 1, 1), Sequential())
    model = Sequential(
        branches, Residual(Conv2D(5, 5, 1), Conv2D(5, 5, 1)), SqueezeExcite(5), Flatten(), Linear(320, 2)
    )
    model.freeze_matching(["0.branch0.*", "1.shortcut.*"])
    ops = ops_of_backward(model)
    assert (ops["conv2d_weight_grad"], ops["conv2d_input_grad"]) == (2, 2)
    model = Sequential(*model.layers.values())
    model.freeze_matching(["0.*", "1.body.*"])
    ops = ops_of_backward(model)  # one shortcut was frozen before
    assert ops.keys().isdisjoint({"conv2d_weight_grad", "conv2d_input_grad"})
    gate = Sequential(SqueezeExcite(1), Conv2D(1, 2, 1), Flatten(), Linear(128, 2))
    gate.freeze_matching("0.*")
    assert ops_of_backward(gate) == {"linear_weight_grad": 1, "linear_input_grad": 1, "bias_grad": 2,
                                     "conv2d_weight_grad": 1}  # fmt: skip


def test_only_a_batch_norm_that_is_named_whole_is_fixed() -> None:
    model = Sequential(a=BatchNorm(2), b=BatchNorm(2), c=BatchNorm(2, scale_group="frozen", shift_group="frozen"))
    assert model.freeze_matching(["a.*", "b.scale"]) == ["a.scale", "a.shift", "b.scale"]
    assert [layer.fixed for layer in model.layers.values()] == [True, False, False]


def test_what_cannot_be_frozen_is_said() -> None:
    with pytest.raises(UsageError, match=r"'feature\.\*' matches no parameter: did you mean 'features\.\*'\?"):
        net().freeze_matching(["head.*", "feature.*"])
    with pytest.raises(UsageError, match="nothing is left to train"):
        net().freeze_matching("*")
    with pytest.raises(UsageError, match="before initialize"):
        net().initialize().freeze_matching("features.*")


def test_what_fits_is_taken_and_the_rest_says_why_not() -> None:
    source = net().initialize(1)
    model = Sequential(features=net().layers["features"], head=Sequential(Flatten(), Linear(36, 2))).initialize(2)
    state = source.state_dict()
    state["features.stem.0.bias"] += 1
    state["features.stem.0.weight"] = state["features.stem.0.weight"].astype(np.float16)
    del state["features.stem.1.running_mean"]
    before = model.state_dict()
    report = model.load_matching(state | {"other": np.ones(3)})
    assert report.keys() == before.keys()
    odd = {name: reason for name, reason in report.items() if reason != TAKEN}
    assert odd == {
        "head.1.weight": "2 x 36 here, 3 x 36 there",
        "head.1.bias": "2 here, 3 there",
        "features.stem.1.running_mean": MISSING,
    }
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[name] if name in odd else state[name])
        assert value.dtype == np.float32
