"""Nets as lists of tables: every model and every layer comes back equal, and what makes no net is named."""

import json
import time
from typing import Any

import numpy as np
import pytest

from gpucnn import layers, models
from gpucnn.checks.gradcheck import LAYERS as CASES
from gpucnn.errors import GpucnnError, ShapeError, UsageError
from gpucnn.layers import Layer, Linear, ReLU, Sequential
from gpucnn.layers.initializers import dirac
from gpucnn.models.spec import LAYERS, RESERVED, declared_by, general
from gpucnn.runs.build import build_model, described
from gpucnn.runs.config import Config

SHAPE, LARGE = (16, 16, 3), 2_000_000
HEAD = [{"layer": "Flatten"}, {"layer": "Linear", "out_features": "classes"}]
CONV = {"layer": "Conv2D", "out_channels": 4, "kernel_size": 3, "padding": 1}


def equal(found: Layer, wanted: Layer, shape: tuple[int, ...]) -> None:
    """The same names, classes, groups, first values and outputs, bit for bit.

    First values are functions of seed, name, shape and initializer: of large nets these are compared.
    """
    names = [[(name, layer.kind) for name, layer in net.named_layers()] for net in (found, wanted)]
    assert names[0] == names[1]
    rules = [
        {n: (p.group, p.init.__qualname__, p.shape) for n, p in net.parameters().items()} for net in (found, wanted)
    ]
    assert rules[0] == rules[1]
    if sum(p.size for p in wanted.parameters().values()) > LARGE:
        return
    states = [net.initialize(7).state_dict() for net in (found, wanted)]
    assert list(states[0]) == list(states[1])
    for name, array in states[1].items():
        np.testing.assert_array_equal(states[0][name], array, strict=True)
    x = np.random.default_rng(1).standard_normal((2, *shape), dtype=np.float32)
    np.testing.assert_array_equal(*(net.train()(x) for net in (found, wanted)), strict=True)


@pytest.mark.parametrize("name", models.MODELS)
def test_every_model_comes_back_from_its_layers(name: str) -> None:
    model = models.build(name, SHAPE, 7)
    spec = models.to_spec(model)
    assert json.loads(json.dumps(spec)) == spec  # numbers, texts, lists and tables alone
    equal(models.from_spec(spec), model, SHAPE)


@pytest.mark.parametrize("name", models.MODELS)
def test_every_model_comes_back_from_a_config_without_the_numbers_that_follow(name: str) -> None:
    model = models.build(name, SHAPE, 7)
    loose = general(models.to_spec(model), SHAPE, 7)
    assert '"in_features"' not in json.dumps(loose)
    assert '"classes"' in json.dumps(loose)
    config = Config().updated({"model": {"layers": loose, "input_shape": SHAPE, "num_classes": 7}})
    again = Config.from_toml(config.to_toml())
    assert again == config
    made = build_model(again)
    assert [*made.parameters()] == [*model.parameters()]
    assert [p.shape for p in made.parameters().values()] == [p.shape for p in model.parameters().values()]


@pytest.mark.parametrize("case", CASES)
def test_every_layer_comes_back_with_its_arguments(case: str) -> None:
    make, shape = CASES[case]
    spec = models.to_spec(make())
    equal(models.from_spec(json.loads(json.dumps(spec)), shape[1:]), make(), shape[1:])


def test_every_layer_can_be_named_and_has_no_argument_named_like_a_word_of_tables() -> None:
    assert set(LAYERS) == set(layers.__all__) - {"Layer"}
    assert [name for name, kind in LAYERS.items() if RESERVED & declared_by(kind)[0].parameters.keys()] == []


def test_defaults_are_left_out_and_numbers_that_follow_are_worked_out() -> None:
    net = Sequential(layers.Conv2D(3, 4, 3, padding=1), (layers.BatchNorm(4), ReLU()), stem=Sequential(ReLU()))
    assert models.to_spec(net) == [
        {"layer": "Conv2D", "in_channels": 3, "out_channels": 4, "kernel_size": 3, "padding": 1},
        {"layer": "BatchNorm", "channels": 4},
        {"layer": "ReLU", "joined": True},
        {"layer": "Sequential", "name": "stem", "layers": [{"layer": "ReLU"}]},
    ]
    body = [CONV, {"layer": "BatchNorm"}]
    shortcut = {"layer": "Conv2D", "out_channels": 4, "kernel_size": [1, 1], "weight_init": "dirac"}
    spec = [{"layer": "Residual", "name": "first", "body": body, "shortcut": shortcut}, *HEAD]
    made = models.from_spec(spec, (8, 6, 3), 5)
    assert {name: p.shape for name, p in made.parameters().items()} == {
        "first.body.0.weight": (4, 3, 3, 3),
        "first.body.0.bias": (4,),
        "first.body.1.scale": (4,),
        "first.body.1.shift": (4,),
        "first.shortcut.weight": (4, 1, 1, 3),
        "first.shortcut.bias": (4,),
        "2.weight": (5, 192),
        "2.bias": (5,),
    }
    assert made.parameters()["first.shortcut.weight"].init is dirac


REFUSED: dict[str, tuple[Any, str]] = {
    "no layers": ([], "give a list of tables"),
    "a text": ("ReLU", "from_spec(spec='ReLU')"),
    "a name alone": (["ReLU"], "from_spec(spec=['ReLU'])"),
    "no layer": ([{}, *HEAD], "layer 0: layer = None: give a name"),
    "an unknown layer": ([{"layer": "Conv2d"}], "layer 0: layer = 'Conv2d': did you mean 'Conv2D'?"),
    "a dotted name": ([{"layer": "os.system"}], "layer = 'os.system': known are"),
    "the base": ([{"layer": "Layer"}], "layer = 'Layer'"),
    "an unknown argument": ([{**CONV, "dropout": 1}], "layer 0 (Conv2D): there is no argument 'dropout'"),
    "self": ([{**CONV, "self": 1}], "there is no argument 'self'"),
    "a missing argument": ([{"layer": "Conv2D", "kernel_size": 3}], "layer 0 (Conv2D): out_channels is missing"),
    "a text for a number": ([{**CONV, "out_channels": "4"}], "layer 0 (Conv2D): Conv2D(out_channels='4')"),
    "other channels": ([{**CONV, "in_channels": 2}], "layer 0 (Conv2D): Conv2D(in_channels=2) got x"),
    "an unknown initializer": ([{**CONV, "weight_init": "eval"}], "layer 0 (Conv2D).weight_init: 'eval'"),
    "one that does not fit": ([{**CONV}, HEAD[0], {**HEAD[1], "weight_init": "dirac"}], "dirac cannot fill (7, 1024)"),
    "a branch that is none": ([{"layer": "Residual", "body": 3}], "layer 0 (Residual).body: 3: give a list of tables"),
    "a wrong layer in a branch": ([{"layer": "Residual", "body": [{"layer": "x"}]}], "layer 0 (Residual).body.0: "),
    "two names": ([{"layer": "ReLU", "name": "a"}] * 2, "two layers have the name 'a'"),
    "a name of a tensor": ([{**CONV, "name": "a.b"}], "name = 'a.b': give letters"),
    "joined to none": ([{"layer": "ReLU", "joined": True}], "behind another one"),
    "joined and named": ([*HEAD, {"layer": "ReLU", "joined": True, "name": "a"}], "behind another one"),
    "a name twice by nesting": (
        [
            {"layer": "Sequential", "layers": [{"layer": "BatchNorm", "name": "batchnorm"}]},
            {"layer": "BatchNorm", "joined": True},
        ],
        "two layers of the net have one name",
    ),
    "NaN": ([{"layer": "Dropout", "rate": float("nan")}], "layers with nan: give finite numbers"),
    "an object": ([{"layer": "Dropout", "rate": print}], "give finite numbers"),
    "an initializer of a layer that has its own": (
        [{**CONV, "layer": "ConvTranspose2D", "weight_init": "eval"}],
        "weight_init: 'eval'",
    ),
    "no head": ([CONV], "the net gives (16, 16, 4) for 7 classes: end it with"),
    "10^9 channels": ([{**CONV, "out_channels": 10**9}], "give layers with 134,217,728 at most"),
    "a kernel of 10^9": ([{**CONV, "kernel_size": 10**9, "padding": 5 * 10**8}], "give 512 at most"),
    "a border of 10^6": ([{"layer": "AvgPool2D", "kernel_size": 2, "padding": [0, 10**6]}], "give 512 at most"),
    "10^14 parameters": ([{**CONV, "out_channels": 10**5}, {**CONV, "out_channels": 10**5}, *HEAD], "parameters"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_makes_no_net_is_one_line_that_says_where(name: str) -> None:
    spec, message = REFUSED[name]
    start = time.process_time()
    with pytest.raises(GpucnnError) as error:
        models.from_spec(spec, SHAPE, 7)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert time.process_time() - start < 2


def test_huge_nets_are_refused_soon() -> None:
    deep: Any = {"layer": "ReLU"}
    for _ in range(13):
        deep = {"layer": "Residual", "body": [deep]}
    wide = [{"layer": "Sequential", "layers": [CONV] * 250}] * 250
    start = time.process_time()
    for spec in ([deep], wide):
        with pytest.raises(UsageError, match="more than 2000 layers, or 12 deep"):
            models.from_spec(spec, SHAPE)
    assert time.process_time() - start < 4


def test_shapes_and_classes_are_asked_for_where_they_are_needed() -> None:
    with pytest.raises(UsageError, match="in_features is missing"):
        models.from_spec(HEAD, None, 7)
    with pytest.raises(UsageError, match="give num_classes"):
        models.from_spec(HEAD, SHAPE)
    with pytest.raises(ShapeError, match="layer 0 \\(Linear\\)"):
        models.from_spec([HEAD[1]], SHAPE, 7)


class Mine(ReLU):
    """Not registered."""


def changed() -> Layer:
    net = Sequential(Linear(3, 2))
    net.layers["0"].bias = None
    return net


SHARED = ReLU()
UNWRITABLE = {
    "not registered": (lambda: Sequential(Sequential(Mine())), "layer 0.0: Mine is no layer that a file can name"),
    "one layer twice": (lambda: Sequential(SHARED, SHARED), "layer 1 (ReLU) stands twice"),
    "changed": (changed, "was changed after it was made"),
    "a function": (lambda: Linear(2, 2, weight_init=lambda *x: x), "layer weight_init: no table can hold"),
}


@pytest.mark.parametrize("name", UNWRITABLE)
def test_what_no_table_can_hold_is_refused(name: str) -> None:
    make, message = UNWRITABLE[name]
    with pytest.raises(UsageError) as error:
        models.to_spec(make())
    assert message in str(error.value)


def test_a_net_of_python_is_in_a_config() -> None:
    branch = layers.Residual(layers.Linear(6, 6), relu=True)
    net = Sequential(layers.Flatten(), first=(Linear(12, np.int64(6)), layers.Tanh()), second=branch, head=Linear(6, 3))
    config = Config(model=described(net, (2, 2, 3), 3))
    assert config.model.name == "custom"
    equal(build_model(Config.from_toml(config.to_toml())), net, (2, 2, 3))


def test_texts_in_lists_survive_a_config() -> None:
    tables = [{"layer": "Mine", "kinds": ["a", "b"], "sizes": [[1, 2], [3, 4]]}]
    config = Config().updated({"model": {"layers": tables}})
    assert Config.from_toml(config.to_toml()) == config
    assert config.model.layers[0]["kinds"] == ("a", "b")
    for kinds in (["a" * 101], ["\n"], [10**10], [[None]], [float("inf")]):
        with pytest.raises(UsageError, match="layers"):
            Config().updated({"model": {"layers": [{"layer": "Mine", "kinds": kinds}]}})


def test_names_that_are_taken_and_what_is_no_layer_are_not_registered() -> None:
    def lenet5(shape: object, classes: int) -> None: ...

    class Conv2D(Layer): ...

    class Wraps(Layer):
        def __init__(self, layer: Layer) -> None: ...

    before = dict(LAYERS), dict(models.MODELS)
    for made, message in (
        (lenet5, "has the name of another"),
        (Conv2D, "has the name of another"),
        (Wraps, "has an argument 'layer'"),
        (int, "give a class derived from Layer"),
    ):
        with pytest.raises(UsageError, match=message):
            models.register(made)
    assert before == (LAYERS, models.MODELS)
