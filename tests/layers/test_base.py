"""What every layer has: its cost, its defaults, its mode, and where backward stops."""

import inspect
from math import prod

import numpy as np
import pytest

from gpucnn import layers, models
from gpucnn.backend import REFERENCE
from gpucnn.errors import ShapeError, UsageError
from gpucnn.layers import (
    ELU,
    GELU,
    AdaptiveAvgPool2D,
    AvgPool2D,
    BatchNorm,
    BatchNormReLU,
    Concat,
    Conv2D,
    ConvTranspose2D,
    Dropout,
    Dropout2D,
    Flatten,
    Gate,
    GlobalAvgPool2D,
    GroupNorm,
    Hardsigmoid,
    Hardswish,
    LayerNorm,
    LeakyReLU,
    Linear,
    MaxPool2D,
    ReLU,
    ReLU6,
    Residual,
    Scale,
    Sequential,
    Sigmoid,
    SiLU,
    Softmax,
    SqueezeExcite,
    StochasticDepth,
    Tanh,
    Upsample,
    Whitening,
)
from gpucnn.layers.base import Layer

IMAGE = (6, 8, 3)
COSTS = [  # layer, shape of x, shape of y, operations: a product and a sum are two
    (Conv2D(3, 5, (3, 2)), IMAGE, (4, 7, 5), 2 * 4 * 7 * 5 * 3 * 2 * 3),
    (Conv2D(3, 5, 3, stride=2, padding=1), IMAGE, (3, 4, 5), 2 * 3 * 4 * 5 * 27),
    (Conv2D(3, 6, 3, dilation=2, groups=3), IMAGE, (2, 4, 6), 2 * 2 * 4 * 6 * 9),
    (ConvTranspose2D(3, 6, 3, stride=2, groups=3), IMAGE, (13, 17, 6), 2 * 6 * 8 * 3 * 9 * 2),
    (Whitening(3), IMAGE, (5, 7, 24), 2 * 5 * 7 * 24 * 12),
    (Linear(7, 4), (7,), (4,), 2 * 7 * 4),
    (BatchNorm(3), IMAGE, IMAGE, 4 * 144),
    (BatchNormReLU(3), IMAGE, IMAGE, 5 * 144),
    (MaxPool2D(2), IMAGE, (3, 4, 3), 36 * 4),
    (AvgPool2D((3, 2), stride=1), IMAGE, (4, 7, 3), 84 * 6),
    (GlobalAvgPool2D(), IMAGE, (3,), 144),
    (ReLU(), IMAGE, IMAGE, 144),
    (ReLU6(), IMAGE, IMAGE, 2 * 144),
    (Tanh(), IMAGE, IMAGE, 144),
    (LeakyReLU(), IMAGE, IMAGE, 2 * 144),
    (Sigmoid(), IMAGE, IMAGE, 4 * 144),
    (SiLU(), IMAGE, IMAGE, 5 * 144),
    (Softmax(), (9,), (9,), 5 * 9),
    (GELU(), IMAGE, IMAGE, 10 * 144),
    (Dropout(), IMAGE, IMAGE, 2 * 144),
    (Scale(3.0), IMAGE, IMAGE, 144),
    (Flatten(), IMAGE, (144,), 0),
    (GroupNorm(3, 3), IMAGE, IMAGE, 7 * 144),
    (LayerNorm(3), IMAGE, IMAGE, 7 * 144),
    (ELU(), IMAGE, IMAGE, 3 * 144),
    (Hardsigmoid(), IMAGE, IMAGE, 4 * 144),
    (Hardswish(), IMAGE, IMAGE, 5 * 144),
    (Dropout2D(), IMAGE, IMAGE, 2 * 144),
    (StochasticDepth(), IMAGE, IMAGE, 2 * 144),
    (MaxPool2D(3, stride=2, ceil_mode=True), IMAGE, (3, 4, 3), 36 * 9),
    (AdaptiveAvgPool2D((4, 3)), IMAGE, (4, 3, 3), 144),
    (Upsample(2), IMAGE, (12, 16, 3), 0),
    (Upsample((1, 3), mode="bilinear"), IMAGE, (6, 24, 3), 6 * 432),
    (Concat(ReLU(), Conv2D(3, 2, 1)), IMAGE, (6, 8, 5), 144 + 2 * 48 * 2 * 3),
    (Gate(GlobalAvgPool2D()), IMAGE, IMAGE, 144 + 144),
    (SqueezeExcite(3, 2), IMAGE, IMAGE, 144 + 2 * 3 + 1 + 2 * 3 + 4 * 3 + 144),
    (Sequential(Conv2D(3, 2, 1), ReLU()), IMAGE, (6, 8, 2), 2 * 48 * 2 * 3 + 96),
    (Residual(Conv2D(3, 2, 1), Conv2D(3, 2, 1)), IMAGE, (6, 8, 2), 2 * 2 * 48 * 2 * 3 + 96),
    (Residual(ReLU()), IMAGE, IMAGE, 144 + 144),
]


@pytest.mark.parametrize(("layer", "x", "y", "cost"), COSTS, ids=lambda value: getattr(value, "kind", None))
def test_shapes_and_costs(layer, x, y, cost) -> None:
    assert layer.output_shape(x) == y
    assert layer.flops(x) == cost
    layer.initialize(0)
    image = np.random.default_rng(0).standard_normal((2, *x)).astype(np.float32)
    assert layer(image).shape == (2, *y)
    assert layer.backward(np.ones((2, *y), np.float32)).shape == (2, *x)


def test_every_layer_has_a_cost_here() -> None:
    classes = {c for c in vars(layers).values() if inspect.isclass(c) and issubclass(c, Layer)}
    assert {type(layer) for layer, *_ in COSTS} == classes - {Layer}


@pytest.mark.torch
def test_defaults_are_pytorchs() -> None:
    import torch

    ours, theirs = BatchNorm(2), torch.nn.BatchNorm2d(2)
    assert (ours.eps, ours.momentum) == (theirs.eps, theirs.momentum)
    assert LeakyReLU().slope == torch.nn.LeakyReLU().negative_slope
    assert Dropout().rate == torch.nn.Dropout().p
    assert GELU().approximate == torch.nn.GELU().approximate
    conv, other = Conv2D(1, 2, 3), torch.nn.Conv2d(1, 2, 3)
    assert (conv.stride, conv.padding) == (other.stride, ((0, 0), (0, 0)))
    assert (conv.bias is None, Linear(1, 2).bias is None) == (other.bias is None, torch.nn.Linear(1, 2).bias is None)
    assert MaxPool2D(3).stride == (torch.nn.MaxPool2d(3).stride,) * 2
    assert MaxPool2D(3).padding == ((0, 0), (0, 0))


def test_defaults_of_whitening_are_its_papers() -> None:
    layer = Whitening(3)
    assert (layer.kernel_size, layer.eps) == ((2, 2), 5e-4)  # arXiv 2404.00498
    assert layer.weight.group == "frozen"


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_a_rate_that_is_no_probability_is_refused(rate) -> None:
    with pytest.raises(UsageError, match="finite number" if rate != rate else "probability in"):
        Dropout(rate)
    assert Dropout(0.0).rate == 0.0


def test_first_weights_are_he_et_als_and_biases_are_zero() -> None:
    for layer, fan_in in ((Conv2D(20, 50, 3), 180), (Linear(180, 500), 180)):
        state = layer.initialize(3).state_dict()
        assert state["weight"].std() == pytest.approx((2 / fan_in) ** 0.5, rel=0.02)
        assert not state["bias"].any()
    state = BatchNorm(3).initialize().state_dict()
    assert {name: set(a.tolist()) for name, a in state.items()} == {
        "scale": {1.0}, "shift": {0.0}, "running_mean": {0.0}, "running_var": {1.0},
    }  # fmt: skip
    w = Whitening(3, 4).initialize(3).state_dict()["weight"]
    assert w.std() == pytest.approx((1 / 48) ** 0.5, rel=0.03)  # random until it is fitted


@pytest.mark.parametrize("make", [lambda: Linear(4, 3), lambda: Conv2D(1, 3, 2)], ids=["linear", "conv"])
def test_gradients_that_nobody_needs_are_not_computed(make) -> None:
    x = np.ones((2, 4), np.float32) if isinstance(make(), Linear) else np.ones((2, 3, 3, 1), np.float32)
    for frozen in ("weight", "bias", "filter"):
        layer = make().initialize(1)
        layer.freeze([frozen])
        dy = np.ones_like(layer(x))
        assert layer.backward(dy).shape == x.shape
        for parameter in layer.parameters().values():
            assert parameter.grad.any() != (parameter.group == frozen)
            assert parameter.trainable != (parameter.group == frozen)
    layer = make().initialize(1)
    layer.skip_input_grad()
    assert layer.backward(np.ones_like(layer(x))) is None
    layer.initialize(1)  # asks for it again
    assert layer.backward(np.ones_like(layer(x))).shape == x.shape


def test_freezing_says_whether_there_was_anything_left() -> None:
    net = Sequential(Conv2D(1, 2, 2), ReLU(), Flatten(), Linear(8, 2)).initialize(1)
    net.skip_input_grad()
    assert net.layers["3"].needs_input_grad  # the filters before it learn
    assert net.freeze(["filter"])
    assert not net.freeze(["filter"])
    assert not net.freeze(["whiten"])
    assert net.layers["3"].needs_input_grad  # and so does their bias
    assert net.freeze(["bias"])
    assert not net.layers["3"].needs_input_grad
    assert net.learns()
    assert net.freeze(["weight"])
    assert not net.learns()


def test_a_mode_goes_to_all_layers_and_drops_what_was_saved() -> None:
    net = Sequential(Sequential(Linear(3, 3), Dropout(0.5)), Residual(Linear(3, 3))).initialize(1)
    assert net.training
    net(np.ones((2, 3), np.float32))
    assert net.eval() is net
    assert {layer.training for _, layer in net.named_layers()} == {False}
    assert net.train() is net
    assert {layer.training for _, layer in net.named_layers()} == {True}
    with pytest.raises(UsageError, match="without a forward"):
        net.backward(np.ones((2, 3), np.float32))


def test_names_backend_and_clock_are_those_of_the_model() -> None:
    net = Sequential(body=Sequential(Linear(3, 3)), end=Dropout(0.5)).initialize(7)
    assert [name for name, _ in net.named_layers()] == ["", "body", "body.0", "end"]
    assert {layer.name for _, layer in net.named_layers()} == {"", "body", "body.0", "end"}
    assert {id(layer.backend) for _, layer in net.named_layers()} == {id(REFERENCE)}
    assert {id(layer.clock) for _, layer in net.named_layers()} == {id(net.clock)}
    assert net.clock.seed == 7


def test_a_residual_adds_before_it_cuts() -> None:
    layer = Residual(Linear(3, 3), relu=True).initialize(1, dtype="float64")
    assert not Residual(Linear(3, 3)).relu
    x, dy = np.random.default_rng(0).standard_normal((2, 5, 3))
    w = layer.body.weight.data
    total = x @ w.T + x
    np.testing.assert_allclose(layer(x), np.maximum(total, 0))
    masked = dy * (total > 0)
    np.testing.assert_allclose(layer.backward(dy), masked @ w + masked)
    with pytest.raises(ShapeError):
        layer.output_shape((4,))


def test_calling_checks_the_shape_and_forward_does_not() -> None:
    layer = ReLU()
    assert layer.output_shape((2, 3)) == (2, 3)
    assert prod(layer(np.ones((1, 2, 3))).shape) == 6
    with pytest.raises(ShapeError, match="Linear"):
        Linear(3, 2).initialize()(np.ones((1, 4), np.float32))


def test_a_notebook_shows_a_table_of_the_layers() -> None:
    model = models.build("lenet5", (28, 28, 1))
    table = model._repr_html_()
    assert table.count("<tr>") == 2 + 12
    assert "<td>features.3</td><td>Conv2D</td><td>2,416</td><td>weight 16 × 5 × 5 × 6, bias 16</td>" in table
    assert "<th>61,706</th>" in table


def test_a_model_prints_as_a_table_and_a_layer_as_a_line() -> None:
    lines = str(models.build("lenet5", (28, 28, 1))).splitlines()
    assert len(lines) == 2 + 12
    assert " ".join(lines[4].split()) == "features.3 Conv2D 2,416 weight 16 × 5 × 5 × 6, bias 16"
    assert lines[-1].split() == ["total", "61,706"]
    assert lines[4].index("2,416") + 5 == lines[-1].index("61,706") + 6  # numbers end at the same column
    assert repr(Linear(3, 2)) == "Linear  8  weight 2 × 3, bias 2"
    with pytest.raises(UsageError, match=r"Linear\(in_features=a ReLU\)"):
        Linear(ReLU(), 2)
