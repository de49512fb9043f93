"""Two trainers in one process, each with its own options of cuDNN, on doubles of cuDNN and CuPy."""

from dataclasses import replace

import numpy as np
import pytest
from fake_cudnn import Engine, aligned, install

from gpucnn import optim
from gpucnn.backend import REFERENCE, Backend
from gpucnn.devices import gpu
from gpucnn.kernels.gpu.cudnn.options import Options
from gpucnn.layers import Conv2D, GlobalAvgPool2D, Sequential
from gpucnn.layers.conv2d import conv2d, conv2d_input_grad, conv2d_weight_grad
from gpucnn.training.precision import FLOAT32, TF32, Policy
from gpucnn.training.trainer import Trainer

OPTIONS = Options(stem=False)
ENGINES = [Engine("plain", 1.0), Engine("tensor cores", 0.5, notes=("TENSOR_CORE",))]


def convolutions(options: Options):
    """Op -> cuDNN's kernel under these options, on arrays that lie where cuDNN wants them."""
    kernels = gpu.kernels(options, gpu.UncapturableOps())

    def moved(op):
        return lambda *args: kernels[op](*(aligned(a) if isinstance(a, np.ndarray) else a for a in args))

    return {op: moved(op) for op in (conv2d, conv2d_input_grad, conv2d_weight_grad)}


def backend() -> Backend:
    """The reference with the GPU's convolutions."""
    return replace(
        REFERENCE,
        name="double",
        kernels=convolutions(OPTIONS),
        tf32_kernels=lambda allowed: convolutions(OPTIONS.with_tf32(allowed)),
    )


def trainer(shared: Backend, policy: Policy) -> Trainer:
    model = Sequential(Conv2D(3, 4, 3), Conv2D(4, 10, 1), GlobalAvgPool2D())
    return Trainer(model, optim.SGD(0.1), backend=shared, batch_size=2, policy=policy)


@pytest.mark.parametrize("order", [(FLOAT32, TF32), (TF32, FLOAT32)], ids=["TF32 last", "TF32 first"])
def test_interleaved_steps_use_each_trainers_own_engines(order, monkeypatch, tmp_path) -> None:
    cudnn, _ = install(monkeypatch, tmp_path, engines=ENGINES)
    shared = backend()
    trainers = {policy: trainer(shared, policy) for policy in order}
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((2, 6, 6, 3)).astype(np.float32), np.array([1, 7])
    for _ in range(3):
        for policy in order:
            trainers[policy].train_step(x, labels)  # the first one times engines: all that may be used
            start = len(cudnn.launched)
            trainers[policy].train_step(x, labels)
            used = {name for name, _ in cudnn.launched[start:]}
            assert used == {"tensor cores" if policy is TF32 else "plain"}


def test_a_trainer_leaves_the_backend_it_is_given_as_it_was(monkeypatch, tmp_path) -> None:
    cudnn, _ = install(monkeypatch, tmp_path, engines=ENGINES)
    shared = backend()
    one = trainer(shared, TF32)
    assert one.backend is not shared
    x, w = (np.ones(shape, np.float32) for shape in ((2, 6, 6, 3), (4, 3, 3, 3)))
    for device, engine in ((shared, "plain"), (one.backend, "tensor cores")) * 2:
        device.run(conv2d, x, w, None, (1, 1), ((1, 1), (1, 1)))
        assert cudnn.launched[-1][0] == engine
