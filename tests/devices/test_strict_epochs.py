"""Whole epochs of real image sizes on the double of CuPy: nothing waits inside them, and launches are bounded."""

from dataclasses import replace
from pathlib import Path

import fake_cuda
import numpy as np
import pytest
import strict_cupy
from strict_cupy import STRICT
from strict_gpu import CountingLauncher, counted_gpu, product

from gpucnn import models, optim
from gpucnn.backend import Backend
from gpucnn.data import Augmentation, Dataset, load_dataset
from gpucnn.data.files.sources import locate
from gpucnn.data.loader import Loader
from gpucnn.data.registry import DATASETS
from gpucnn.devices.gpu import UncapturableOps
from gpucnn.kernels.gpu import launch
from gpucnn.kernels.gpu.cudnn.library import Library
from gpucnn.kernels.gpu.cudnn.matmul import Products
from gpucnn.optim.schedules import one_cycle
from gpucnn.runs.build import build_trainer, resolve
from gpucnn.runs.config import Config
from gpucnn.training.cuda_graph import WARMUP
from gpucnn.training.precision import FLOAT16, FLOAT32, Policy
from gpucnn.training.trainer import Trainer, TrainerOptions

SHAPES = {"lenet5": (28, 28, 1), "resnet20": (32, 32, 3)}
REAL = {"lenet5": "mnist", "resnet20": "cifar10"}

BOUNDS = {
    ("reference", "lenet5"): 228,
    ("reference", "resnet20"): 1380,
    ("kernels", "lenet5"): 50,
    ("kernels", "resnet20"): 320,
    ("float16", "lenet5"): 63,
    ("float16", "resnet20"): 333,
    ("graph", "lenet5"): 7,  # and the graph's own
    ("graph", "resnet20"): 9,
}
"""Launches of a step with its batch, at most; docs/gpu.md states them."""

DRAWS = {False: 109, True: 328}
"""Launches that draw an epoch's shuffle, flips and crops: before its first batch, or with the last batch before."""

DISTORTED = {"reference": 311, "kernels": 13}
"""Launches of a batch that is rotated, scaled, distorted and jittered in colour, at most; docs/gpu.md states them."""

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "gpu.md"


def noise(shape: tuple[int, ...], count: int) -> Dataset:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, *shape)).astype(np.uint8)
    return Dataset("noise", images, rng.integers(0, 10, count).astype(np.uint8), tuple("0123456789"))


def epoch(
    model: str, data: Dataset, backend: Backend, batch_size: int, policy: Policy = FLOAT32
) -> tuple[list[int], float]:
    """An epoch that must not wait -> (launches of each step with its batch, mean loss)."""
    trainer = Trainer(
        models.build(model, data.image_shape),
        optim.SGD(0.01, momentum=0.9, nesterov=True, weight_decay=5e-4),
        backend=backend,
        batch_size=batch_size,
        schedule=one_cycle(0.01, 100),
        augmentation=Augmentation(flip=True, crop=2, crop_mode="reflect") if data.image_shape[2] == 3 else None,
        policy=policy,
        options=TrainerOptions(drop_last=True, log_interval=10**9),
    )
    batches = trainer.loader(data, training=True).epoch(0)
    trainer.model.train()
    strict_cupy.reset()
    counts: list[int] = []
    before = 0
    for x, labels in batches:
        trainer.train_step(x, labels)
        counts.append(strict_cupy.launches - before)
        before = strict_cupy.launches
    assert strict_cupy.syncs == 0
    for batch in (0, -1):  # of this epoch, and of the next one with the last batch
        counts[batch] -= DRAWS[trainer.augmentation is not None]
    return counts, trainer.metrics.read()[0]


@pytest.mark.parametrize("model", SHAPES)
def test_an_epoch_of_reference_implementations(model: str) -> None:
    counts, loss = epoch(model, noise(SHAPES[model], 12), STRICT, 4)
    assert len(counts) == 3
    assert np.isfinite(loss)
    assert max(counts) <= BOUNDS["reference", model]


@pytest.mark.parametrize(("way", "policy"), [("kernels", FLOAT32), ("float16", FLOAT16)])
@pytest.mark.parametrize("model", SHAPES)
def test_an_epoch_of_kernels(model: str, way: str, policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    launcher = CountingLauncher()
    monkeypatch.setattr(launch, "launcher", launcher)
    counts, _ = epoch(model, noise(SHAPES[model], 40), counted_gpu(launcher), 8, policy)
    assert len(counts) == 5
    assert max(counts) <= BOUNDS[way, model]
    convolutions = sum(number for (file, _), number in launcher.kernels.items() if file == "cudnn")
    assert convolutions == 5 * {"lenet5": 4, "resnet20": 61}[model]  # of the first one the weights' gradient alone
    assert launcher.kernels["stem.cu", "stem"] == 5
    assert {file for file, _ in launcher.kernels} >= {"augment.cu", "loss.cu", "optim.cu", "sums.cu"}


@pytest.mark.parametrize("policy", [FLOAT32, FLOAT16], ids=["float32", "float16"])
@pytest.mark.parametrize("model", SHAPES)
def test_an_epoch_of_graphs(model: str, policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    launcher = CountingLauncher()
    monkeypatch.setattr(launch, "launcher", launcher)
    monkeypatch.setattr(strict_cupy, "cuda", fake_cuda.cuda, raising=False)
    monkeypatch.setattr(strict_cupy, "get_default_memory_pool", fake_cuda.MemoryPool, raising=False)
    backend = replace(counted_gpu(launcher), uncapturable_ops=list)
    counts, _ = epoch(model, noise(SHAPES[model], 72), backend, 8, policy)
    replayed = counts[WARMUP + 1 :]
    assert len(replayed) == 5
    assert max(replayed) <= BOUNDS["graph", model] < min(counts[: WARMUP + 1])


@pytest.mark.parametrize("amp", ["off", "fp16"])
def test_a_recipe_with_muon_is_a_graph(amp: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing in a step is left to cuBLAS: six matrices, of three rounds each."""
    launcher, uncapturable = CountingLauncher(), UncapturableOps()
    monkeypatch.setattr(launch, "launcher", launcher)
    monkeypatch.setattr(Library, "compute", product(launcher))
    monkeypatch.setattr(Products, "refusal", lambda self, *geometries: "")
    monkeypatch.setattr(strict_cupy, "cuda", fake_cuda.cuda, raising=False)
    monkeypatch.setattr(strict_cupy, "get_default_memory_pool", fake_cuda.MemoryPool, raising=False)
    data = noise((32, 32, 3), 10)
    changes = {"train": {"batch_size": 2, "epochs": 1, "amp": amp}, "run": {"cuda_graph": "on"}}
    config = Config.from_file(ROOT / "gpucnn" / "recipes" / "cifar10_speedrun94_muon.toml").updated(changes)
    backend = replace(counted_gpu(launcher, uncapturable), uncapturable_ops=uncapturable.pop)
    trainer = build_trainer(resolve(config, data), data, backend)
    trainer.model.train()
    for x, labels in trainer.loader(data, training=True).epoch(0):
        strict_cupy.reset()
        trainer.train_step(x, labels)
        assert strict_cupy.syncs == 0
    (captured,) = trainer.compute.steps.values()
    assert captured.graph
    steps = WARMUP + 1  # and the last one is a replay
    assert launcher.kernels["muon.cu", "direction"] == launcher.kernels["muon.cu", "finish"] == 6 * steps
    assert launcher.kernels["product", "fprop"] == 2 * launcher.kernels["product", "dgrad"] == 2 * 6 * 3 * steps


def distorted(backend: Backend) -> list[int]:
    """Launches of each batch but the first and the last, with which an epoch is drawn; none may wait."""
    data = noise((28, 28, 1), 16)
    light = {"brightness": 0.2, "contrast": 0.2}
    how = Augmentation(rotation=10.0, scale=0.1, elastic=34.0, crop=1, cutout=4, **light)
    loader = Loader(data, 4, backend=backend, mean=data.mean, std=data.std, shuffle=True, augmentation=how)
    counts = []
    for _ in loader.epoch(0):
        counts.append(strict_cupy.launches)
        assert strict_cupy.syncs == 0
        strict_cupy.reset()
    return counts[1:-1]


def test_batches_that_are_distorted(monkeypatch: pytest.MonkeyPatch) -> None:
    strict_cupy.reset()
    assert max(distorted(STRICT)) <= DISTORTED["reference"]
    launcher = CountingLauncher()
    monkeypatch.setattr(launch, "launcher", launcher)
    assert max(distorted(counted_gpu(launcher))) <= DISTORTED["kernels"]
    for name in ("noise", "smooth", "warp"):
        assert launcher.kernels["warp.cu", name] == 4
    assert launcher.kernels["colour.cu", "jitter"] == 4
    numbers = "{kernels} launches in place of {reference}".format(**DISTORTED)
    assert numbers in " ".join(PAGE.read_text(encoding="utf-8").split())


@pytest.mark.data
@pytest.mark.parametrize("model", SHAPES)
def test_real_images_go_the_same_way(model: str) -> None:
    if locate(DATASETS[REAL[model]]) is None:
        pytest.skip(f"GPUCNN_DATA_DIR has no {REAL[model]}")
    whole, _ = load_dataset(REAL[model], download=False)
    some = Dataset(whole.name, whole.images[:96], whole.labels[:96], whole.classes)
    counts, loss = epoch(model, some, STRICT, 32)
    assert max(counts) <= BOUNDS["reference", model]
    assert 0.5 < loss < 5.0


def test_the_page_states_the_bounds() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for model in SHAPES:
        numbers = (str(BOUNDS[way, model]) for way in ("kernels", "float16", "reference", "graph"))
        assert f"| `{model}` | {' | '.join(numbers)} |" in text


def test_a_count_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    launcher = CountingLauncher()
    monkeypatch.setattr(launch, "launcher", launcher)
    backend = counted_gpu(launcher)
    from gpucnn.layers.activations import relu

    strict_cupy.reset()
    x = backend.to_device(np.ones((2, 4, 4, 3), np.float32))
    backend.run(relu, x)
    assert (strict_cupy.launches, dict(launcher.kernels)) == (1, {("elementwise.cu", "map"): 1})
    backend.run(relu, x.transpose(0, 3, 1, 2))  # has to be copied first
    assert strict_cupy.launches == 3
    backend.run(relu, x.astype("float64"))  # no kernel for it
    assert launcher.kernels.total() == 2
