"""Whole nets on the kernels: as near to float64 as float32 is, and the same bits on any number of threads."""

import numpy as np
import pytest

pytest.importorskip("numba")

from gpucnn import models, optim
from gpucnn.backend import REFERENCE
from gpucnn.devices import cpu
from gpucnn.layers import Layer
from gpucnn.losses import softmax_cross_entropy
from gpucnn.training.trainer import Trainer

NETS = [("lenet5", (28, 28, 1)), ("mnist_cnn", (12, 12, 1)), ("vgg_small", (8, 8, 3)), ("resnet20", (16, 16, 3))]

# Winograd rounds ten times as much as a plain product, and where a value near 0 changes its sign, a ReLU's whole
# gradient comes or goes; the deeper the net, the more often
FLIPS = {"lenet5": 1e-4, "mnist_cnn": 1e-3, "vgg_small": 1e-3, "resnet20": 1e-2}


def batch(shape, count=16, seed=3):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, *shape)).astype(np.float32), rng.integers(0, 10, count)


def gradients(name, shape, backend, dtype, seed) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    model: Layer = models.build(name, shape).initialize(1, backend, dtype)
    x, labels = batch(shape, seed=seed)
    logits = model.forward(x.astype(dtype))
    _, dlogits = backend.run(softmax_cross_entropy, logits, labels, 0.0)
    model.backward(dlogits)
    return logits, {name: parameter.grad.copy() for name, parameter in model.parameters().items()}


def distance(a, b) -> float:
    return float(np.linalg.norm((a - b).ravel()) / max(np.linalg.norm(np.ravel(b)), 1e-12))


@pytest.mark.parametrize(("name", "shape"), NETS)
def test_no_further_from_float64_than_float32_is(name, shape) -> None:
    # one sign that flips in one batch says nothing; the middle one of three batches counts
    excess: dict[str, list[float]] = {}
    for seed in (3, 4, 5):
        wanted = gradients(name, shape, REFERENCE, "float64", seed)
        plain = gradients(name, shape, REFERENCE, "float32", seed)
        fast = gradients(name, shape, cpu.cpu_backend(), "float32", seed)
        assert distance(fast[0], wanted[0]) < 1e-4
        for parameter, exact in wanted[1].items():
            if np.linalg.norm(exact) > 1e-6:
                bound = max(20 * distance(plain[1][parameter], exact), FLIPS[name])
                excess.setdefault(parameter, []).append(distance(fast[1][parameter], exact) / bound)
    for parameter, ratios in excess.items():
        assert np.median(ratios) < 1, parameter


@pytest.mark.parametrize(("name", "shape"), NETS)
def test_threads_change_no_bit(name, shape) -> None:
    results = []
    try:
        for threads in (1, 2, 4, 16):
            cpu.set_threads(threads)
            trainer = Trainer(models.build(name, shape), optim.SGD(0.1, momentum=0.9), backend=cpu.cpu_backend())
            for _ in range(2):
                trainer.train_step(*batch(shape, 20))
            results.append({n: a.tobytes() for n, a in trainer.model.state_dict().items()})
    finally:
        cpu.set_threads(2)
    assert results[0] == results[1]
    assert results[0] == results[2]
    assert results[0] == results[3]  # more threads than shards


def test_a_busy_team_is_no_obstacle() -> None:
    # kernels called from several Python threads at once: whoever finds the team busy works alone
    from concurrent.futures import ThreadPoolExecutor

    from gpucnn.layers.activations import relu

    cpu.set_threads(2)
    kernel = cpu.cpu_backend().kernels[relu]
    x = np.random.default_rng(0).standard_normal((64, 1000)).astype(np.float32)
    with ThreadPoolExecutor(4) as pool:
        for y in pool.map(lambda _: kernel(x), range(50)):
            np.testing.assert_array_equal(y, np.maximum(x, 0))


def test_memory_comes_back() -> None:
    from gpucnn.kernels.cpu.engine.allocator import empty

    first = empty((100, 1000))
    place = first.ctypes.data
    view = first[3:]
    del first
    assert empty((100, 1000)).ctypes.data != place  # a view still holds it
    del view
    assert place in {empty((100, 1000)).ctypes.data for _ in range(3)}
