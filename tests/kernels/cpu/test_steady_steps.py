"""A training step in its steady state maps no new memory."""

import resource

import numpy as np
import pytest

pytest.importorskip("numba")

from gpucnn import models, optim
from gpucnn.data import Augmentation, Dataset
from gpucnn.devices import cpu
from gpucnn.kernels.cpu.engine import allocator
from gpucnn.training.trainer import Trainer

if reason := cpu.problem():
    pytest.skip(reason, allow_module_level=True)

WARMUP, STEPS = 3, 5
FEW = 16  # page faults a step, 64 KiB: the arrays of these nets are megabytes
NETS = [("lenet5", (28, 28, 1)), ("resnet20", (32, 32, 3))]
BATCH = 32


def trainer_of(name, shape, **options) -> Trainer:
    optimizer = optim.SGD(0.01, momentum=0.9, weight_decay=5e-4)
    return Trainer(models.build(name, shape), optimizer, backend=cpu.cpu_backend(), batch_size=BATCH, **options)


def new_memory(steps) -> tuple[float, int]:
    """Page faults a step and blocks taken from the system, over the last ``STEPS`` of these steps."""
    for number, _ in enumerate(steps, 1):
        if number == WARMUP:
            blocks, faults = allocator.blocks_taken(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
    assert number == WARMUP + STEPS
    return faults / STEPS, allocator.blocks_taken() - blocks


def train(name, shape):
    """Step after step on one batch."""
    rng = np.random.default_rng(0)
    trainer = trainer_of(name, shape)
    x, labels = rng.standard_normal((BATCH, *shape), dtype=np.float32), rng.integers(0, 10, BATCH)
    for _ in range(WARMUP + STEPS):
        yield trainer.train_step(x, labels)


@pytest.mark.parametrize(("name", "shape"), NETS)
def test_a_steady_step_takes_no_memory(name, shape) -> None:
    faults, blocks = new_memory(train(name, shape))
    assert blocks == 0
    assert faults < FEW


@pytest.mark.parametrize(("name", "shape"), NETS)
def test_nor_does_a_step_on_augmented_batches(name, shape) -> None:
    rng, count = np.random.default_rng(0), BATCH * (WARMUP + STEPS)
    images, labels = rng.integers(0, 256, (count, *shape), dtype=np.uint8), rng.integers(0, 10, count)
    data = Dataset("noise", images, labels.astype(np.uint8), tuple("0123456789"))
    trainer = trainer_of(name, shape, augmentation=Augmentation(flip=True, crop=2))
    trainer.mean, trainer.std = data.mean, data.std
    batches = trainer.loader(data, training=True).epoch(0)
    faults, blocks = new_memory(trainer.train_step(*batch) for batch in batches)
    assert blocks == 0
    assert faults < FEW


def test_memory_that_does_not_come_back_is_noticed(monkeypatch) -> None:
    monkeypatch.setattr(allocator, "LIMIT", 0)  # every block goes back to the system
    allocator.clear()
    _, blocks = new_memory(train(*NETS[1]))
    assert blocks > 50 * STEPS  # whether they are page faults too is up to malloc, which may have kept some
