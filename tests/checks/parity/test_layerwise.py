"""Layers one by one: a wrong kernel is found and named, whatever it is and wherever it stands; a right one is not."""

from functools import partial
from math import inf

import numpy as np
import pytest
from strict_cupy import STRICT

from gpucnn import losses, models, optim
from gpucnn.backend import Backend
from gpucnn.checks.parity import batch, compare, livened
from gpucnn.layers import (
    GELU,
    AvgPool2D,
    BatchNorm,
    BatchNormReLU,
    Concat,
    Conv2D,
    Dropout,
    Gate,
    GlobalAvgPool2D,
    GroupNorm,
    Hardswish,
    LayerNorm,
    LeakyReLU,
    Linear,
    MaxPool2D,
    ReLU,
    ReLU6,
    Residual,
    Sequential,
    Sigmoid,
    Softmax,
    activations,
    batchnorm,
    containers,
    conv2d,
    dropout,
    fusion,
    gelu,
    groupnorm,
    linear,
    pooling,
)
from gpucnn.models.summary import rows

PLAIN = Backend("plain", np)


def zoo() -> Sequential:
    """Every kind of layer that has kernels, for images (8,8,3)."""
    return Sequential(
        stem=Sequential(Conv2D(3, 6, 3, padding=1, bias=False), BatchNormReLU(6), MaxPool2D(2)),
        block=Residual(Sequential(Conv2D(6, 6, 3, padding=1, bias=False), BatchNorm(6)), relu=True),
        fork=Residual(Conv2D(6, 8, 1), Conv2D(6, 8, 1, bias=False)),
        leaky=LeakyReLU(0.1),
        gelu=GELU(),
        depth=Conv2D(8, 8, 3, padding=1, groups=8),
        six=ReLU6(),
        group=GroupNorm(4, 8),
        pixels=LayerNorm(8),
        side=Concat(Sequential(), Hardswish()),
        gate=Gate(GlobalAvgPool2D()),
        average=AvgPool2D(2),
        mean=GlobalAvgPool2D(),
        hidden=Linear(16, 12),
        relu=ReLU(),
        drop=Dropout(0.25),
        head=Linear(12, 10),
    )


NETS = {
    "zoo": (zoo, (8, 8, 3)),
    "lenet5": (partial(models.build, "lenet5", (28, 28, 1)), (28, 28, 1)),
    "mnist_cnn": (partial(models.build, "mnist_cnn", (8, 8, 1)), (8, 8, 1)),
    "resnet20": (partial(models.build, "resnet20", (8, 8, 3)), (8, 8, 3)),
    "no parameters": (lambda: Sequential(AvgPool2D(2), GlobalAvgPool2D(), Sigmoid(), Softmax()), (4, 4, 3)),
    "one layer": (lambda: Linear(5, 3), (5,)),
    "one layer without parameters": (lambda: ReLU(), (5,)),
    "a branch around everything": (lambda: Residual(Linear(5, 5), relu=True), (5,)),
}


def layers_of(net: str, backend: Backend, **settings):
    build, shape = NETS[net]
    return compare(build, shape, backend, batch_size=4, **settings).layers


@pytest.mark.parametrize("backend", [PLAIN, STRICT], ids=lambda backend: backend.name)
@pytest.mark.parametrize("net", NETS)
def test_the_same_functions_differ_by_nothing_and_every_array_is_looked_at(net, backend) -> None:
    build, shape = NETS[net]
    found = layers_of(net, backend)
    assert {(row.layer, row.array): row.relative for row in found if row.relative or row.ulps} == {}
    computing = [row for row in found if not row.layer.startswith("(")]
    assert sorted({row.layer for row in computing}) == sorted(row.name for row in rows(build(), shape))
    for name in {row.layer for row in computing}:
        assert {"y", "dx"} <= {row.array for row in computing if row.layer == name}
    named = {f"{row.layer}.{row.array}".lstrip(".") for row in computing if row.array not in ("y", "dx")}
    evaluated = {name for name in named if name.endswith("y in evaluation")}
    assert named - evaluated == set(build().initialize().state_dict())
    assert len(evaluated) == sum(isinstance(layer, BatchNorm) for _, layer in build().named_layers())
    optimizers = {"SGD", "momentum", "AdamW"} if build().parameters() else set()
    assert {row.kind for row in found if row.layer.startswith("(")} == {"cross-entropy", "smoothed"} | optimizers


def test_layers_come_in_the_order_of_computation() -> None:
    names = list(dict.fromkeys(row.layer for row in layers_of("zoo", PLAIN)))
    assert names[:5] == ["stem.0", "stem.1", "stem.2", "block.body.0", "block.body.1"]
    assert names[5:11] == ["block", "fork.shortcut", "fork.body", "fork", "leaky", "gelu"]


def broken(op, by=1.001):
    """A backend whose kernel for op is a little wrong in all that it returns."""

    def kernel(*args):
        result = op(*args)
        if isinstance(result, tuple):
            return tuple((part * by).astype(part.dtype) for part in result)
        return (result * by).astype(result.dtype)

    return Backend("broken", np, {op: kernel})


# op, the layers of the zoo that it is for, the arrays in which it shows
BREAKS = [
    (conv2d.conv2d, {"stem.0", "block.body.0", "fork.body", "fork.shortcut"}, {"y"}),
    (conv2d.conv2d_input_grad, {"stem.0", "block.body.0", "fork.body", "fork.shortcut"}, {"dx"}),
    (conv2d.conv2d_weight_grad, {"stem.0", "block.body.0", "fork.body", "fork.shortcut"}, {"weight"}),
    (conv2d.bias_grad, {"fork.body", "depth", "hidden", "head"}, {"bias"}),
    (conv2d.grouped_conv2d, {"depth"}, {"y"}),
    (conv2d.grouped_conv2d_input_grad, {"depth"}, {"dx"}),
    (conv2d.grouped_conv2d_weight_grad, {"depth"}, {"weight"}),
    (activations.relu6, {"six"}, {"y"}),
    (activations.relu6_grad, {"six"}, {"dx"}),
    (linear.linear, {"hidden", "head"}, {"y"}),
    (linear.linear_input_grad, {"hidden", "head"}, {"dx"}),
    (linear.linear_weight_grad, {"hidden", "head"}, {"weight"}),
    (batchnorm.batchnorm, {"block.body.1"}, {"y", "running_mean", "running_var"}),
    (batchnorm.batchnorm_eval, {"block.body.1"}, {"y in evaluation"}),
    (batchnorm.batchnorm_grad, {"block.body.1"}, {"dx", "scale", "shift"}),
    (batchnorm.batchnorm_relu, {"stem.1"}, {"y", "running_mean", "running_var"}),
    (batchnorm.batchnorm_relu_eval, {"stem.1"}, {"y in evaluation"}),
    (batchnorm.batchnorm_relu_grad, {"stem.1"}, {"dx", "scale", "shift"}),
    (activations.relu, {"relu"}, {"y"}),
    (activations.relu_grad, {"relu", "block"}, {"dx"}),
    (activations.leaky_relu, {"leaky"}, {"y"}),
    (activations.leaky_relu_grad, {"leaky"}, {"dx"}),
    (gelu.gelu, {"gelu"}, {"y"}),
    (gelu.gelu_grad, {"gelu"}, {"dx"}),
    (containers.add_relu, {"block"}, {"y"}),
    (containers.add, {"block", "fork", "side", "gate"}, {"dx"}),
    (groupnorm.groupnorm, {"group", "pixels"}, {"y"}),
    (groupnorm.groupnorm_grad, {"group", "pixels"}, {"dx", "scale", "shift"}),
    (activations.hardswish, {"side.branch1"}, {"y"}),
    (activations.hardswish_grad, {"side.branch1"}, {"dx"}),
    (dropout.dropout, {"drop"}, {"y", "dx"}),
    (pooling.max_pool2d, {"stem.2"}, {"y"}),
    (pooling.max_pool2d_grad, {"stem.2"}, {"dx"}),
    (pooling.avg_pool2d, {"average"}, {"y"}),
    (pooling.avg_pool2d_grad, {"average"}, {"dx"}),
    (pooling.global_avg_pool2d, {"mean", "gate.body"}, {"y"}),
    (pooling.global_avg_pool2d_grad, {"mean", "gate.body"}, {"dx"}),
    (losses.softmax_cross_entropy, {"(loss)"}, {"loss", "dlogits"}),
]


@pytest.mark.parametrize(("op", "places", "arrays"), BREAKS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_wrong_kernel_is_found_where_it_is_used_and_nowhere_else(op, places, arrays) -> None:
    wrong = [row for row in layers_of("zoo", broken(op)) if not row.passed]
    assert {row.layer for row in wrong} == places
    for place in places:
        assert {row.array for row in wrong if row.layer == place} >= arrays - ({"y"} if place == "fork" else set())


def fusible() -> Sequential:
    """Neighbours that may run as one, for images (8,8,3)."""
    return Sequential(
        Conv2D(3, 6, 3, padding=1), (BatchNorm(6), ReLU()), Conv2D(6, 6, 3, padding=1), ReLU(), MaxPool2D(2),
        Conv2D(6, 8, 3, padding=1), (BatchNorm(8), ReLU()), MaxPool2D(2),
        Conv2D(8, 8, 1), (BatchNorm(8), ReLU6()), GlobalAvgPool2D(), Linear(8, 10),
    )  # fmt: skip


# layer, its kind, the three ops or two
FUSED = [
    ("1", "BatchNorm + ReLU",
     (batchnorm.batchnorm_relu, batchnorm.batchnorm_relu_eval, batchnorm.batchnorm_relu_grad)),
    ("3", "ReLU + MaxPool2D", (fusion.relu_max_pool2d, fusion.relu_max_pool2d_grad)),
    ("6", "BatchNorm + ReLU + MaxPool2D", (fusion.batchnorm_relu_max_pool2d, fusion.batchnorm_relu_max_pool2d_eval,
                                           fusion.batchnorm_relu_max_pool2d_grad)),
    ("9", "BatchNorm + ReLU6", (fusion.batchnorm_relu6, fusion.batchnorm_relu6_eval, fusion.batchnorm_relu6_grad)),
]  # fmt: skip


@pytest.mark.parametrize("wrong", [None, *(op for _, _, ops in FUSED for op in ops)],
                         ids=lambda op: getattr(op, "__name__", "none"))  # fmt: skip
def test_neighbours_that_run_as_one_are_looked_at_as_one(wrong) -> None:
    kernels = {op: op for _, _, ops in FUSED for op in ops} | (broken(wrong).kernels if wrong else {})
    found = compare(fusible, (8, 8, 3), Backend("fusing", np, kernels), batch_size=4)
    kinds = dict.fromkeys((row.layer, row.kind) for row in found.layers if not row.layer.startswith("("))
    assert list(kinds) == [
        ("0", "Conv2D"), ("1", "BatchNorm + ReLU"), ("2", "Conv2D"), ("3", "ReLU + MaxPool2D"), ("5", "Conv2D"),
        ("6", "BatchNorm + ReLU + MaxPool2D"), ("8", "Conv2D"), ("9", "BatchNorm + ReLU6"), ("10", "GlobalAvgPool2D"),
        ("11", "Linear"),
    ]  # fmt: skip
    named = {f"{row.layer}.{row.array}" for row in found.layers if row.array not in ("y", "dx", "y in evaluation")}
    assert set(fusible().initialize().state_dict()) <= named
    assert {row.layer for row in found.layers if not row.passed} == {name for name, _, ops in FUSED if wrong in ops}
    outputs = [row.name for row in found.whole if row.part == "output"]
    assert outputs == ["0", "1.relu", "2", "4", "5", "7", "8", "9.relu6", "10", "11"]
    if not wrong:
        assert {row.relative for row in found.layers} == {0}
        assert {row.candidate_to_reference for row in found.whole} == {0}


def test_every_kernel_of_the_cpu_can_be_found_wrong() -> None:
    from gpucnn.data.augment import crop_flip, warp
    from gpucnn.devices import cpu
    from gpucnn.metrics import count_correct
    from gpucnn.optim.averages import lerp

    pytest.importorskip("numba")
    tried = {op for op, _, _ in BREAKS} | {optim.sgd_update, optim.momentum_update, optim.adam_update}
    tried |= {op for _, _, ops in FUSED for op in ops}
    left = set(cpu.table()) - tried
    left = {op for op in left if op.__module__ not in (crop_flip.__name__, warp.__name__)}  # batches, before nets
    assert left == {count_correct, lerp}  # a metric and an average, which no layer and no gradient depends on


@pytest.mark.parametrize(("op", "kind"), [(optim.sgd_update, "SGD"), (optim.momentum_update, "momentum"),
                                          (optim.adam_update, "AdamW")])  # fmt: skip
def test_a_wrong_optimizer_is_found(op, kind) -> None:
    def kernel(w, g, *rest):
        op(w, g * np.float32(1.001), *rest)

    wrong = [row for row in layers_of("zoo", Backend("broken", np, {op: kernel})) if not row.passed]
    assert {(row.layer, row.kind) for row in wrong} == {("(optimizer)", kind)}


@pytest.mark.parametrize("seed", range(3))
def test_the_kernels_of_the_cpu_are_within_their_tolerance(seed) -> None:
    from gpucnn.devices import cpu

    for net in ("zoo", "lenet5", "mnist_cnn", "resnet20"):
        found = layers_of(net, cpu.cpu_backend(), seed=seed)
        assert [row for row in found if not row.passed] == []


def shifted_mask(by):
    """Batch norm with ReLU whose mask asks for z > ``by`` times the largest z."""

    def kernel(dy, x, scale, shift, mean, var, eps):
        z = batchnorm.batchnorm_eval(x, scale, shift, mean, var, eps)
        return batchnorm.batchnorm_grad(dy * (z > by * abs(z).max()), x, scale, mean, var, eps)

    return Backend("shifted", np, {batchnorm.batchnorm_relu_grad: kernel})


@pytest.mark.parametrize(("by", "passes"), [(1e-5, True), (-1e-5, True), (1e-3, False), (-1e-3, False)])
def test_a_sign_that_rounding_decides_is_no_mistake_and_any_other_is(by, passes) -> None:
    def build():
        return Sequential(BatchNormReLU(10), GlobalAvgPool2D())

    found = compare(build, (32, 32, 10), shifted_mask(by), batch_size=16).layers
    assert all(row.passed for row in found) is passes
    x, _ = batch(0, 16, (32, 32, 10), 10, seed=0)
    state = livened(build().initialize(0), 0)
    z, _, _ = batchnorm.batchnorm(x, state["0.scale"], state["0.shift"], 1e-5)
    assert ((z > 0) != (z > by * abs(z).max())).any()  # there are such values


def rough_maximum(by):
    """Batch norm, ReLU and max pooling, whose backward sees z with errors of up to ``by`` times the largest z."""

    def kernel(dy, x, scale, shift, mean, var, eps, *window):
        exact = batchnorm.batchnorm_eval(x, scale, shift, mean, var, eps)
        noise = np.random.default_rng(0).uniform(-0.5, 0.5, x.shape)
        rough = exact + (by * abs(exact).max() * noise).astype(x.dtype)
        dexact, drough = (fusion.relu_max_pool2d_grad(dy, z, *window) for z in (exact, rough))
        changed.append(bool((dexact != drough).any()))
        return batchnorm.batchnorm_grad(drough, x, scale, mean, var, eps)

    changed: list[bool] = []
    op, grad_op = fusion.batchnorm_relu_max_pool2d, fusion.batchnorm_relu_max_pool2d_grad
    return Backend("rough", np, {op: op, grad_op: kernel}), changed


@pytest.mark.parametrize(("by", "passes"), [(1e-5, True), (1e-3, False)])
def test_a_maximum_that_rounding_decides_is_no_mistake_and_any_other_is(by, passes) -> None:
    def build():
        return Sequential(BatchNorm(10), ReLU(), MaxPool2D(3, stride=2, padding=1), GlobalAvgPool2D())

    backend, changed = rough_maximum(by)
    found = compare(build, (32, 32, 10), backend, batch_size=16)
    assert all(row.passed for row in found.layers) is passes
    assert changed == [True, not passes]  # in the whole net there are such maxima; alone, dy is 0 at them


def biased() -> Sequential:
    """Its first bias has gradient 0, but for rounding."""
    return Sequential(Conv2D(3, 6, 3), BatchNorm(6), GlobalAvgPool2D(), Linear(6, 10))


def rounded_otherwise(dy):
    """The sum of dy in float32, in one long line."""
    return np.cumsum(dy.reshape(-1, dy.shape[-1]), axis=0, dtype=np.float32)[-1]


def test_a_gradient_that_is_nothing_but_rounding_is_no_mistake_and_a_wrong_one_is() -> None:
    def wrong(dy):
        return dy.reshape(-1, dy.shape[-1])[1:].sum(axis=0)  # one pixel is left out

    rows_of = {}
    for name, kernel in {"rounded": rounded_otherwise, "wrong": wrong}.items():
        backend = Backend(name, np, {conv2d.bias_grad: kernel})
        found = compare(biased, (8, 8, 3), backend, batch_size=4).layers
        rows_of[name] = {row.layer: row for row in found if row.array == "bias"}
    assert rows_of["rounded"]["0"].relative > 0.01  # noise beside noise
    assert rows_of["rounded"]["0"].passed
    assert rows_of["rounded"]["3"].passed
    assert rows_of["rounded"]["3"].tolerance == 2e-5  # nothing cancels there
    assert not rows_of["wrong"]["0"].passed
    assert not rows_of["wrong"]["3"].passed


def test_another_dtype_is_a_difference() -> None:
    op = linear.linear_input_grad
    backend = Backend("wide", np, {op: lambda *args: op(*args).astype(np.float64)})
    wrong = {(row.layer, row.array): row.relative for row in layers_of("zoo", backend) if not row.passed}
    assert wrong == {("hidden", "dx"): inf, ("head", "dx"): inf}


def test_a_kernel_that_spoils_its_input_spoils_no_other_layer() -> None:
    def kernel(x):
        y = activations.relu(x)
        x *= 0
        return y

    wrong = [row for row in layers_of("zoo", Backend("spoiling", np, {activations.relu: kernel})) if not row.passed]
    assert {(row.layer, row.array) for row in wrong} == {("relu", "dx")}  # its own mask is gone


def test_the_state_compared_has_no_zeros_and_ones() -> None:
    # a kernel that forgets the bias, or batch norm's scale, would be right about a new model
    def forgetful(x, w, b, stride, padding):
        return conv2d.conv2d(x, w, None, stride, padding)

    wrong = [row for row in layers_of("zoo", Backend("forgetful", np, {conv2d.conv2d: forgetful})) if not row.passed]
    assert {(row.layer, row.array) for row in wrong} == {("fork.body", "y")}

    def unscaled(x, scale, shift, mean, var, eps):
        return batchnorm.batchnorm_eval(x, np.ones_like(scale), shift, mean, var, eps)

    backend = Backend("unscaled", np, {batchnorm.batchnorm_eval: unscaled})
    assert {row.layer for row in layers_of("zoo", backend) if not row.passed} == {"block.body.1"}
