"""Trees of layers: names, state, modes, gradients through branches, and misuse."""

import numpy as np
import pytest

from gpucnn.backend import REFERENCE
from gpucnn.errors import CheckpointError, ShapeError, UsageError
from gpucnn.layers import (
    BatchNorm,
    Concat,
    Conv2D,
    Dropout,
    Flatten,
    Gate,
    GlobalAvgPool2D,
    Linear,
    ReLU,
    Residual,
    Sequential,
    SqueezeExcite,
)

RNG = np.random.default_rng(4)


def net() -> Sequential:
    return Sequential(
        features=Sequential(Conv2D(1, 2, 3, padding=1), BatchNorm(2), ReLU(), Flatten()), head=Linear(32, 3)
    )


def test_names_are_dotted_paths() -> None:
    assert list(net().parameters()) == [
        "features.0.weight", "features.0.bias", "features.1.scale", "features.1.shift", "head.weight", "head.bias",
    ]  # fmt: skip
    assert list(net().buffers()) == ["features.1.running_mean", "features.1.running_var"]


def test_a_tuple_takes_one_position_and_names_what_follows_its_first_layer_by_class() -> None:
    model = Sequential(Linear(3, 3), (BatchNorm(3), ReLU()), Linear(3, 3), norm=(BatchNorm(3), ReLU()), alone=(ReLU(),))
    assert list(model.children()) == ["0", "1", "1.relu", "2", "norm", "norm.relu", "alone"]
    model.initialize(0)
    assert [layer.name for layer in model.layers.values()] == list(model.children())
    assert [name for name in model.parameters() if "scale" in name] == ["1.scale", "norm.scale"]
    plain = Sequential(Linear(3, 3), BatchNorm(3), Linear(3, 3)).initialize(0)  # no name behind it moves
    np.testing.assert_array_equal(model.layers["2"].weight.data, plain.layers["2"].weight.data)


def test_a_tuple_with_one_class_twice_behind_its_first_layer_is_an_error() -> None:
    with pytest.raises(UsageError, match=r"two layers named '1\.relu'"):
        Sequential(Flatten(), (Linear(2, 2), ReLU(), Linear(2, 2), ReLU()))


def test_state_survives_and_is_float32_on_the_host(backend) -> None:
    first, second = net().initialize(1, backend), net().initialize(2, backend)
    x = backend.to_device(RNG.standard_normal((2, 4, 4, 1)).astype(np.float32))
    first(x)
    state = first.state_dict()
    assert {type(a) for a in state.values()} == {np.ndarray}
    assert {str(a.dtype) for a in state.values()} == {"float32"}
    second.load_state_dict(state)
    np.testing.assert_array_equal(*(backend.to_host(n.eval()(x)) for n in (first, second)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("head.bias"), "'head.bias' is missing"),
        (lambda s: s.update(tail=np.zeros(1)), "'tail' is not part"),
        (
            lambda s: s.update({"head.weight": s["head.weight"].T.copy()}),
            r"'head.weight' is float32 \(32, 3\)",
        ),
        (lambda s: s.update({"head.bias": np.zeros(3)}), r"'head.bias' is float64"),
    ],
)
def test_state_that_does_not_fit_is_named_and_changes_nothing(change, message) -> None:
    model = net().initialize(1)
    before = model.state_dict()
    state = {name: a + 1 for name, a in model.state_dict().items()}
    change(state)
    with pytest.raises(CheckpointError, match=message):
        model.load_state_dict(state)
    for name, a in model.state_dict().items():
        np.testing.assert_array_equal(a, before[name])


def test_first_weights_depend_on_seed_and_name_alone(backend) -> None:
    np.testing.assert_array_equal(
        net().initialize(5, backend).state_dict()["head.weight"],
        Sequential(head=Linear(32, 3)).initialize(5).state_dict()["head.weight"],
    )
    other = net().initialize(6).state_dict()["head.weight"]
    assert (other != net().initialize(5).state_dict()["head.weight"]).any()


def test_a_sum_hands_its_gradient_to_both_branches_and_a_fork_adds_them() -> None:
    layer = Residual(Linear(3, 3), Linear(3, 3)).initialize(dtype="float64")
    x, dy = RNG.standard_normal((2, 4, 3))
    y = layer(x)
    a, b = layer.body.weight.data, layer.shortcut.weight.data
    np.testing.assert_allclose(y, x @ a.T + x @ b.T)
    np.testing.assert_allclose(layer.backward(dy), dy @ a + dy @ b)
    with pytest.raises(ShapeError, match=r"Residual adds \(2,\)"):
        Residual(Linear(3, 2)).output_shape((3,))


def test_backward_without_forward_twice_or_in_evaluation_is_an_error_that_says_where() -> None:
    model = net().initialize()
    y = model(np.ones((2, 4, 4, 1), np.float32))
    model.backward(y)
    with pytest.raises(UsageError, match=r"head \(Linear\) without a forward"):
        model.backward(y)
    model.eval()(np.ones((2, 4, 4, 1), np.float32))
    with pytest.raises(UsageError, match="without a forward"):
        model.backward(y)


def test_shape_errors_say_the_way_to_the_layer() -> None:
    with pytest.raises(ShapeError, match=r"layer head: Linear\(in_features=32\) got x of shape \(50,\)"):
        net().output_shape((5, 5, 1))


def test_the_gradient_stops_at_the_first_layer_that_learns() -> None:
    model = Sequential(Flatten(), Dropout(0.1), Linear(4, 3), ReLU(), Linear(3, 2)).initialize()
    model.skip_input_grad()
    y = model(np.ones((2, 2, 2, 1), np.float32))
    assert model.backward(np.ones_like(y)) is None
    assert all(p.grad.any() for p in model.parameters().values() if p.group == "weight")
    residual = Residual(Linear(3, 3)).initialize()
    residual.skip_input_grad()
    assert residual.backward(residual(np.ones((2, 3), np.float32))) is None


def test_inputs_are_never_modified(backend) -> None:
    if backend is not REFERENCE and backend.name != "cpu":
        pytest.skip("read-only arrays are NumPy's")
    model = net().initialize(0, backend)
    x = RNG.standard_normal((2, 4, 4, 1)).astype(np.float32)
    x.setflags(write=False)
    y = model(x)
    dy = np.ones_like(y)
    dy.setflags(write=False)
    model.backward(dy)


def test_branches_side_by_side(backend) -> None:
    model = Concat(Conv2D(2, 3, 1), Sequential(), Sequential(ReLU(), Conv2D(2, 1, 1))).initialize(0, backend)
    assert list(model.parameters()) == [
        "branch0.weight", "branch0.bias", "branch2.1.weight", "branch2.1.bias",
    ]  # fmt: skip
    x = RNG.standard_normal((2, 3, 3, 2)).astype(np.float32)
    on, off = backend.to_device, backend.to_host
    y = off(model(on(x)))
    np.testing.assert_array_equal(y[..., 3:5], x)
    np.testing.assert_allclose(y[..., :3], off(model.branch0(on(x))), rtol=1e-6)
    np.testing.assert_allclose(y[..., 5:], off(model.branch2(on(x))), rtol=1e-6)
    model(on(x))
    dy = RNG.standard_normal(y.shape).astype(np.float32)
    w0, w2 = (off(model.parameters()[f"branch{i}.weight"].data).reshape(-1, 2) for i in ("0", "2.1"))
    wanted = dy[..., :3] @ w0 + dy[..., 3:5] + (dy[..., 5:] @ w2) * (x > 0)
    np.testing.assert_allclose(off(model.backward(on(dy))), wanted, rtol=1e-4, atol=1e-5)


def test_branches_of_different_sizes_are_named() -> None:
    with pytest.raises(ShapeError, match=r"\(4, 4, 3\) and \(2, 2, 3\)"):
        Concat(Conv2D(1, 3, 1), Conv2D(1, 3, 3)).output_shape((4, 4, 1))
    with pytest.raises(UsageError, match="no branches"):
        Concat()
    with pytest.raises(ShapeError, match=r"Gate multiplies \(4, 4, 3\) by \(2,\)"):
        Gate(Sequential(GlobalAvgPool2D(), Linear(3, 2))).output_shape((4, 4, 3))


def test_nothing_in_front_of_branches_learns() -> None:
    for model in (Concat(Conv2D(1, 2, 1), Conv2D(1, 1, 1)), SqueezeExcite(1)):
        model.initialize(0).skip_input_grad()
        y = model(np.ones((1, 2, 2, 1), np.float32))
        assert model.backward(np.ones_like(y)) is None
        assert all(p.grad.any() for name, p in model.parameters().items() if name.endswith("3.bias") or "0.b" in name)


def test_frozen_branches_are_left_out_of_backward() -> None:
    for made, frozen in ((Concat(Linear(3, 2), Linear(3, 1)), "branch0.*"), (Residual(Linear(3, 3)), "body.bias")):
        model = Sequential(made, Linear(3, 2))
        model.freeze_matching(f"0.{frozen}")
        model.initialize(0).skip_input_grad()
        y = model(RNG.standard_normal((4, 3)).astype(np.float32))
        assert model.backward(np.ones_like(y)) is None
        assert all(p.grad.any() != p.frozen for p in model.parameters().values())
    gate = SqueezeExcite(2)
    model = Sequential(gate, GlobalAvgPool2D(), Linear(2, 2))
    model.freeze_matching("0.*")
    model.initialize(0).skip_input_grad()
    y = model(RNG.standard_normal((4, 2, 2, 2)).astype(np.float32))
    assert model.backward(np.ones_like(y)) is None
    assert not gate.needs_backward


def test_squeeze_and_excitation_by_hand(backend) -> None:
    model = SqueezeExcite(4, 2).initialize(3, backend)
    x = RNG.standard_normal((2, 3, 3, 4)).astype(np.float32)
    w = {name: backend.to_host(p.data) for name, p in model.parameters().items()}
    assert [a.shape for a in w.values()] == [(2, 4), (2,), (4, 2), (4,)]
    hidden = np.maximum(x.mean(axis=(1, 2)) @ w["body.1.weight"].T + w["body.1.bias"], 0)
    gate = 1 / (1 + np.exp(-hidden @ w["body.3.weight"].T - w["body.3.bias"]))
    y = backend.to_host(model(backend.to_device(x)))
    np.testing.assert_allclose(y, x * gate[:, None, None], rtol=1e-5, atol=1e-6)
