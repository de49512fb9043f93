"""Optimizers against PyTorch, step by step; weight decay spares biases and batch norm; clipping."""

import re
from dataclasses import replace

import numpy as np
import pytest

from gpucnn.backend import REFERENCE
from gpucnn.errors import UsageError
from gpucnn.layers import BatchNorm, Conv2D, Linear, Sequential
from gpucnn.layers.parameter import GROUPS
from gpucnn.optim.optimizer import SGD, Adam, AdamW, GroupRule, clip_by_norm, momentum_update

RNG = np.random.default_rng(7)
CASES = {
    "plain": (lambda: SGD(0.1), "SGD", {"lr": 0.1}),
    "decay": (lambda: SGD(0.1, weight_decay=0.05), "SGD", {"lr": 0.1, "weight_decay": 0.05}),
    "momentum": (
        lambda: SGD(0.1, momentum=0.9, weight_decay=0.01),
        "SGD",
        {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01},
    ),
    "nesterov": (
        lambda: SGD(0.1, momentum=0.8, nesterov=True),
        "SGD",
        {"lr": 0.1, "momentum": 0.8, "nesterov": True},
    ),
    "adam": (lambda: Adam(0.01, weight_decay=0.1), "Adam", {"lr": 0.01, "weight_decay": 0.1}),
    "adamw": (lambda: AdamW(0.01, weight_decay=0.1), "AdamW", {"lr": 0.01, "weight_decay": 0.1}),
}


def bound(optimizer, backend, dtype="float64"):
    model = Sequential(Linear(5, 4), BatchNorm(4), Linear(4, 3)).initialize(1, backend, dtype)
    optimizer.bind(model.flat, backend)
    return model


@pytest.mark.torch
@pytest.mark.parametrize("case", CASES)
def test_against_pytorch_step_by_step(case, backend) -> None:
    import torch

    make, name, options = CASES[case]
    optimizer = make()
    model = bound(optimizer, backend)
    theirs = {
        n: torch.from_numpy(a.copy()).requires_grad_() for n, a in model.state_dict().items() if n in model.parameters()
    }
    groups = [
        {"params": [theirs[n] for n, p in model.parameters().items() if p.group == "weight"]},
        {
            "params": [theirs[n] for n, p in model.parameters().items() if p.group != "weight"],
            "weight_decay": 0.0,
        },
    ]
    reference = getattr(torch.optim, name)(groups, **options)
    for step in range(6):
        for n, parameter in model.parameters().items():
            gradient = RNG.standard_normal(parameter.shape)
            parameter.grad[...] = backend.to_device(gradient)
            theirs[n].grad = torch.from_numpy(gradient)
        optimizer.step(options["lr"], step)
        reference.step()
        for n, parameter in model.parameters().items():
            np.testing.assert_allclose(backend.to_host(parameter.data), theirs[n].detach(), atol=1e-10)


@pytest.mark.parametrize("case", CASES)
def test_float32_kernels_follow_the_float64_reference(case, backend) -> None:
    results = []
    for where, dtype in ((REFERENCE, "float64"), (backend, "float32")):
        optimizer = CASES[case][0]()
        model = bound(optimizer, where, dtype)
        rng = np.random.default_rng(1)
        for step in range(4):
            model.flat.grad[...] = where.to_device(rng.standard_normal(model.flat.grad.shape).astype(dtype))
            optimizer.step(0.1, step)
        results.append(model.state_dict())
    for name, wanted in results[0].items():
        assert results[1][name].dtype == np.float32
        np.testing.assert_allclose(results[1][name], wanted, rtol=1e-4, atol=1e-5)


def test_weight_decay_spares_biases_and_batch_norm(backend) -> None:
    optimizer = SGD(1.0, weight_decay=0.5)
    model = bound(optimizer, backend)
    for parameter in model.parameters().values():
        parameter.data[...] = 1.0
    optimizer.step(1.0, 0)  # all gradients are zero
    shrunk = {n: float(backend.to_host(p.data).max()) for n, p in model.parameters().items()}
    assert shrunk == {n: 0.5 if n in ("0.weight", "2.weight") else 1.0 for n in shrunk}


RULES = {
    "filter": GroupRule(weight_decay=0.02, momentum=0.6),
    "weight": GroupRule(lr=0.5),
    "bias": GroupRule(steps=2),
    "norm": GroupRule(lr=4.0, weight_decay=0.03),
    "whiten": GroupRule(lr=2.0, steps=4, fade=True),
    "head": GroupRule(lr=3.0),
}


def grouped_net() -> Sequential:
    return Sequential(
        Conv2D(2, 3, 2, weight_group="frozen", bias_group="whiten"),
        Conv2D(3, 4, 3),
        BatchNorm(4, scale_group="frozen"),
        Linear(4, 3),
        Linear(3, 2, weight_group="head", bias_group="head_bias"),
    )


@pytest.mark.torch
@pytest.mark.parametrize("decoupled", [False, True])
def test_groups_follow_their_rules_as_in_pytorch(decoupled, backend) -> None:
    import torch

    lr, decay, schedule = 0.1, 0.01, [0.05, 0.1, 0.1, 0.07, 0.02, 0.01]
    optimizer = SGD(lr, momentum=0.85, nesterov=True, weight_decay=decay, decoupled=decoupled, groups=RULES)
    model = grouped_net().initialize(1, backend, "float64")
    optimizer.bind(model.flat, backend)
    before = model.state_dict()
    names = {group: [n for n, p in model.parameters().items() if p.group == group] for group in GROUPS}
    assert all(names.values())
    theirs = {n: torch.from_numpy(before[n].copy()).requires_grad_() for n in model.parameters()}
    wanted = {"filter": (1, 0.02, 0.6), "weight": (0.5, decay, 0.85), "bias": (1, 0, 0.85), "norm": (4, 0.03, 0.85),
              "whiten": (2, 0, 0.85), "head": (3, decay, 0.85), "head_bias": (1, 0, 0.85)}  # fmt: skip
    kinds = [
        {"params": [theirs[n] for n in names[group]], "lr": lr, "momentum": momentum, "nesterov": True,
         "weight_decay": wd / (lr * factor) if decoupled else wd}
        for group, (factor, wd, momentum) in wanted.items()
    ]  # fmt: skip
    reference = torch.optim.SGD(kinds)
    for step, rate in enumerate(schedule):
        for n, parameter in model.parameters().items():
            gradient = RNG.standard_normal(parameter.shape)
            parameter.grad[...] = backend.to_device(gradient)
            theirs[n].grad = torch.from_numpy(gradient)
        for kind, (group, (factor, _, _)) in zip(reference.param_groups, wanted.items(), strict=True):
            kind["lr"] = rate * factor
            if group == "whiten":
                kind["lr"] = [0.2, 0.15, 0.1, 0.05, 0, 0][step]
            if group == "bias" and step >= 2:
                kind["lr"] = 0
        optimizer.step(rate, step)
        reference.step()
        for n, parameter in model.parameters().items():
            if not parameter.frozen:
                np.testing.assert_allclose(backend.to_host(parameter.data), theirs[n].detach(), atol=1e-10)
    for n in names["frozen"]:
        assert np.array_equal(model.state_dict()[n], before[n])


def test_rates_leave_out_frozen_groups() -> None:
    optimizer = SGD(0.1, groups=RULES)
    head = {"head": 0.15, "head_bias": 0.05}
    assert optimizer.rates(0.05, 1) == pytest.approx(
        {"filter": 0.05, "weight": 0.025, "bias": 0.05, "norm": 0.2, "whiten": 0.15, **head}
    )
    assert optimizer.rates(0.05, 2).keys() == {"filter", "weight", "norm", "whiten", *head}
    assert optimizer.rates(0.05, 4).keys() == {"filter", "weight", "norm", *head}
    assert Adam(1e-3).rates(1e-3, 10**6) == dict.fromkeys(("filter", "weight", "bias", "norm", "whiten", *head), 1e-3)


def test_neighbouring_groups_with_equal_rules_are_one_pass() -> None:
    optimizer = SGD(0.1, momentum=0.9, weight_decay=0.1)
    model = grouped_net().initialize(1)
    calls = []
    backend = replace(REFERENCE, kernels={momentum_update: lambda w, *rest: calls.append(w.size)})
    optimizer.bind(model.flat, backend)
    optimizer.step(0.1, 0)
    # filters and weights; biases, shift and the whitening's bias; the head, which decays, and its bias
    assert calls == [2 * 256, 4 * 256, 256, 256]
    assert sum(calls) == model.flat.trained.stop == len(model.flat.grad)
    optimizer = SGD(0.1, momentum=0.9, weight_decay=0.1, groups=RULES)
    optimizer.bind(model.flat, backend)
    optimizer.step(0.1, 2)
    assert calls[4:] == [256] * 6  # the biases are frozen


def test_decoupled_decay_takes_its_fraction_off_w_whatever_the_rate(backend) -> None:
    for lr in (0.1, 1e-4):
        optimizer = SGD(lr, weight_decay=0.25, decoupled=True, groups={"weight": GroupRule(lr=7.0)})
        model = bound(optimizer, backend)
        before = model.state_dict()["0.weight"]
        optimizer.step(lr, 0)  # all gradients are zero
        np.testing.assert_allclose(model.state_dict()["0.weight"], 0.75 * before, rtol=1e-6)
        optimizer.step(lr / 2, 1)
        np.testing.assert_allclose(model.state_dict()["0.weight"], 0.875 * 0.75 * before, rtol=1e-6)
    at_rest = SGD(0.0, weight_decay=0.25, decoupled=True)
    model = bound(at_rest, backend)
    before = model.state_dict()
    at_rest.step(0.0, 0)
    assert np.array_equal(model.state_dict()["0.weight"], before["0.weight"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SGD(0.1, groups={"nrom": GroupRule()}), "'nrom' to train: did you mean 'norm'"),
        (lambda: SGD(0.1, groups={"frozen": GroupRule()}), "'frozen' to train"),
        (lambda: GroupRule(lr=-1.0), "lr = -1.0: give a number >= 0"),
        (lambda: GroupRule(weight_decay=-1.0), "weight_decay = -1.0: give a number >= 0"),
        (lambda: GroupRule(steps=-1), "steps = -1: give a number >= 0"),
        (lambda: GroupRule(momentum=1.0), "momentum = 1.0: give a number >= 0 and < 1"),
        (lambda: SGD(0.1, groups={"bias": GroupRule(fade=True)}), "optimizer.groups.bias.fade needs steps"),
        (lambda: SGD(0.1, groups={"bias": GroupRule(epochs=2.0)}), "epochs = 2.0: an optimizer takes steps"),
        (lambda: Adam(groups={"norm": GroupRule(momentum=0.5)}), "Adam has none"),
        (lambda: Adam(beta1=1.0), "beta1=1.0"),
        (lambda: Adam(beta2=-0.1), "beta2=-0.1"),
        (lambda: Adam(eps=0.0), "eps=0.0"),
    ],
)
def test_invalid_rules_are_named(make, message) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        make()


def test_state_is_restored(backend) -> None:
    first, second = Adam(0.1), Adam(0.1)
    bound(first, backend)
    bound(second, backend)
    first.flat.grad[...] = 1.0
    first.step(0.1, 0)
    state = first.state_dict()
    assert state["m"]["0.weight"].shape == (4, 5)
    second.load_state_dict(state)
    for name, arrays in second.state_dict().items():
        for parameter, array in arrays.items():
            np.testing.assert_array_equal(array, state[name][parameter])


@pytest.mark.parametrize(("largest", "length"), [(1.0, 1.0), (100.0, 5.0)])
def test_clipping_scales_a_long_gradient(largest, length, backend) -> None:
    g = backend.to_device(np.array([3.0, 0.0, 4.0], np.float32))
    backend.run(clip_by_norm, g, largest)
    clipped = backend.to_host(g)
    assert clipped.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(clipped), length, rtol=1e-6)
    np.testing.assert_allclose(clipped / np.linalg.norm(clipped), [0.6, 0, 0.8], rtol=1e-6)


def test_a_gradient_of_zeros_stays_one(backend) -> None:
    g = backend.to_device(np.zeros(3, np.float32))
    backend.run(clip_by_norm, g, 1.0)
    assert not backend.to_host(g).any()


@pytest.mark.torch
def test_defaults_are_pytorchs() -> None:
    import torch

    parameter = [torch.zeros(1, requires_grad=True)]
    for ours, theirs in ((Adam(), torch.optim.Adam(parameter)), (AdamW(), torch.optim.AdamW(parameter))):
        known = theirs.defaults
        assert (ours.lr, (ours.beta1, ours.beta2), ours.eps) == (known["lr"], known["betas"], known["eps"])
        assert ours.weight_decay == 0.0  # PyTorch's AdamW has 0.01
    plain, known = SGD(0.1), torch.optim.SGD(parameter, 0.1).defaults
    assert (plain.momentum, plain.nesterov, plain.weight_decay) == (0, known["nesterov"], known["weight_decay"])
    assert not plain.decoupled
    assert plain.state_names == ()
    assert GroupRule() == GroupRule(lr=1.0, weight_decay=None, momentum=None, steps=0, fade=False, epochs=0.0)


def test_the_ends_of_the_ranges_are_in_them() -> None:
    assert SGD(0.0, momentum=0.0, weight_decay=0.0).lr == 0.0
    assert SGD(0.1, groups={"norm": GroupRule(momentum=0.0)}).momenta["norm"] == 0.0
    assert Adam(0.0, beta1=0.0, beta2=0.0, weight_decay=0.0).beta1 == 0.0
    for wrong in (float("nan"), -1e-30):
        with pytest.raises(UsageError, match="lr="):
            SGD(wrong)
        with pytest.raises(UsageError, match="weight_decay="):
            SGD(0.1, weight_decay=wrong)
        with pytest.raises(UsageError, match="momentum="):
            SGD(0.1, momentum=wrong)


def test_epochs_become_steps_rounded_up_unless_there_are_steps() -> None:
    assert GroupRule(epochs=1.5).in_steps(3) == GroupRule(steps=5)
    assert GroupRule(epochs=2.0).in_steps(3) == GroupRule(steps=6)
    assert GroupRule(lr=2.0, steps=4, epochs=2.0).in_steps(3) == GroupRule(lr=2.0, steps=4)


def test_invalid_numbers_are_named() -> None:
    with pytest.raises(UsageError, match="lr=-1"):
        SGD(-1)
    with pytest.raises(UsageError, match=r"momentum=1\.0"):
        SGD(0.1, momentum=1.0)
    with pytest.raises(UsageError, match="weight_decay"):
        Adam(weight_decay=-0.1)
