"""Each op at the edges of float32, on every backend: ``tests/kernels/edges.py`` tries many more cases."""

import pytest
from edges import BYTES, DIRECTIONS, EDGES, Backends, backends, check
from gpu_samples import TABLE

from gpucnn.devices import cpu

CASES = 8  # of each op
each_op = pytest.mark.parametrize("op", EDGES, ids=lambda op: op.__name__)


@pytest.fixture
def everywhere(emulator) -> Backends:
    return backends()


def test_every_op_with_a_kernel_is_tried() -> None:
    kernels = set(TABLE) | (set() if cpu.problem() else set(cpu.table()))
    assert kernels == (set(EDGES) | BYTES) & kernels


@each_op
def test_nan_and_infinity_go_the_same_way_on_every_backend(op, everywhere) -> None:
    samples = EDGES[op]
    wrong = [check(samples[seed % len(samples)], seed, everywhere, None) for seed in range(CASES)]
    assert not any(wrong), wrong


@pytest.mark.torch
@pytest.mark.parametrize("op", [op for op in EDGES if op not in DIRECTIONS], ids=lambda op: op.__name__)
def test_no_backend_is_further_from_float64_than_pytorch(op, everywhere) -> None:
    from torch_ops import by_torch

    samples = EDGES[op]
    wrong = [check(samples[seed % len(samples)], seed, everywhere, by_torch) for seed in range(CASES)]
    assert not any(wrong), wrong
