"""Optimisers against PyTorch, step by step; weight decay spares biases and batch norm; clipping."""

import numpy as np
import pytest

from gpucnn.errors import UsageError
from gpucnn.layers import BatchNorm, Linear, Sequential
from gpucnn.optim import SGD, Adam, AdamW, clip_by_norm

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
    from gpucnn.backend import REFERENCE

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


def test_state_comes_back(backend) -> None:
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
def test_clipping_shortens_what_is_too_long(largest, length, backend) -> None:
    g = backend.to_device(np.array([3.0, 0.0, 4.0], np.float32))
    backend.run(clip_by_norm, g, largest)
    clipped = backend.to_host(g)
    assert clipped.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(clipped), length, rtol=1e-6)
    np.testing.assert_allclose(clipped / np.linalg.norm(clipped), [0.6, 0, 0.8], rtol=1e-6)


def test_numbers_that_make_no_sense_are_named() -> None:
    with pytest.raises(UsageError, match="lr=-1"):
        SGD(-1)
    with pytest.raises(UsageError, match=r"momentum=1\.0"):
        SGD(0.1, momentum=1.0)
    with pytest.raises(UsageError, match="weight_decay"):
        Adam(weight_decay=-0.1)
