"""Every kernel of the CPU against its op in float64."""

import inspect

import numpy as np
import pytest

pytest.importorskip("numba")

from kernel_samples import BIG, SMALL, one_of_each
from outcomes import WIDE_RESULTS, doubled, outcome, parts, sparse, takes_the_ops_arguments, turned

from gpucnn import metrics, optim
from gpucnn.data.augment import crop_flip, warp
from gpucnn.devices import cpu
from gpucnn.layers import activations, batchnorm, containers, dropout, fusion, pooling

if reason := cpu.problem():
    pytest.skip(reason, allow_module_level=True)

TABLE = cpu.table()
KERNELS = cpu.cpu_backend().kernels
TOLERANCE = 2e-5  # of the largest value
A_LEVEL = 5e-3  # of 255: a byte that is rounded in float32 may be the next one

EXACT = {
    pooling.max_pool2d,
    fusion.relu_max_pool2d,
    activations.relu,
    activations.relu_grad,
    activations.relu6,
    activations.relu6_grad,
    containers.add,
    containers.add_relu,
    dropout.dropout,
    metrics.count_correct,
    crop_flip.gather_normalize,
    crop_flip.gather_augment,
    warp.noise_planes,
    warp.warp,
}
each_sample = pytest.mark.parametrize("sample", SMALL + BIG, ids=str)
one_sample_per_op = pytest.mark.parametrize("sample", one_of_each(), ids=str)


def close(got, wanted, tolerance=TOLERANCE):
    assert got.shape == wanted.shape
    assert np.abs(got.astype(np.float64) - wanted).max() <= tolerance * np.abs(wanted).max()


@pytest.mark.parametrize("op", TABLE, ids=lambda op: op.__name__)
def test_a_kernel_takes_what_its_op_takes(op) -> None:
    for kernel in (TABLE[op].run, KERNELS[op]):
        mine, theirs = inspect.signature(kernel).parameters, inspect.signature(op).parameters
        assert [(p.name, p.default, p.kind) for p in mine.values()] == [
            (p.name, p.default, p.kind) for p in theirs.values()
        ]
    assert takes_the_ops_arguments(op, TABLE[op].accepts)


def test_every_kernel_has_samples() -> None:
    for samples in (SMALL, BIG):
        assert {sample.op for sample in samples} == set(TABLE)


@each_sample
def test_parity_with_the_op_in_float64(sample) -> None:
    args = sample.arguments()
    got = outcome(sample.op, KERNELS[sample.op], args)
    for place, (part, wanted) in enumerate(zip(got, outcome(sample.op, sample.op, doubled(args)), strict=True)):
        close(part, wanted, A_LEVEL if sample.op is warp.warp else TOLERANCE)
        exact = place in WIDE_RESULTS.get(sample.op, ())
        assert part.dtype == (np.float64 if exact else np.float32) or sample.op in (metrics.count_correct, warp.warp)


@pytest.mark.parametrize("sample", [s for s in SMALL + BIG if s.op in EXACT], ids=str)
def test_what_rounds_nothing_is_exact(sample) -> None:
    args = sample.arguments()
    for part, wanted in zip(
        outcome(sample.op, KERNELS[sample.op], args), outcome(sample.op, sample.op, args), strict=True
    ):
        np.testing.assert_array_equal(part, wanted)


@one_sample_per_op
def test_inputs_may_be_read_only_and_stay_as_they_are(sample) -> None:
    args = sample.arguments()
    wanted = outcome(sample.op, KERNELS[sample.op], args)
    before = [a.copy() if isinstance(a, np.ndarray) else a for a in args]
    for array in args:
        if isinstance(array, np.ndarray):
            array.setflags(write=False)
    for part, as_before in zip(outcome(sample.op, KERNELS[sample.op], args), wanted, strict=True):
        np.testing.assert_array_equal(part, as_before)
    for array, old in zip(args, before, strict=True):
        if isinstance(array, np.ndarray):
            np.testing.assert_array_equal(array, old)


@pytest.mark.parametrize("spread", [turned, sparse])
@one_sample_per_op
def test_strided_views_are_as_good_as_arrays(sample, spread) -> None:
    args = sample.arguments()
    wanted = outcome(sample.op, KERNELS[sample.op], args)
    views = [spread(a) if isinstance(a, np.ndarray) else a for a in args]
    got = parts(sample.op, views, KERNELS[sample.op](*views))  # of their own memory, not of a contiguous copy
    for part, whole in zip(got, wanted, strict=True):
        close(part, whole, 1e-6)


@one_sample_per_op
def test_float64_runs_on_the_reference_implementation(sample) -> None:
    args = doubled(sample.arguments())
    for part, wanted in zip(
        outcome(sample.op, KERNELS[sample.op], args), outcome(sample.op, sample.op, args), strict=True
    ):
        np.testing.assert_array_equal(part, wanted)
        assert part.dtype == wanted.dtype


@pytest.mark.parametrize("c", [3, 16])
@pytest.mark.parametrize(("mean", "std"), [(1000.0, 1.0), (-1e4, 1.0), (0.0, 1e-3)])
def test_batch_norm_keeps_its_digits_where_the_mean_is_far_away(c, mean, std) -> None:
    rng = np.random.default_rng(1)
    x = (mean + std * rng.standard_normal((8, 10, 10, c))).astype(np.float32)
    dy = rng.standard_normal(x.shape).astype(np.float32)
    scale, shift = np.full(c, 1.5, np.float32), np.full(c, 0.25, np.float32)
    y, got_mean, var = KERNELS[batchnorm.batchnorm](x, scale, shift, 1e-5)
    x64 = x.astype(np.float64)
    wanted, exact_mean, exact_var = batchnorm.batchnorm(x64, *doubled((scale, shift)), 1e-5)
    np.testing.assert_allclose(got_mean, exact_mean, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(var, exact_var, rtol=1e-5)
    unit = np.spacing(np.float32(abs(mean))) / std  # x itself is known no better
    close(y, wanted, TOLERANCE + unit)
    wanted = batchnorm.batchnorm_grad(*doubled((dy, x, scale)), exact_mean, exact_var, 1e-5)
    got = KERNELS[batchnorm.batchnorm_grad](dy, x, scale, got_mean, var, 1e-5)
    for part, exact in zip(got, wanted, strict=True):
        close(part, exact, TOLERANCE + unit)


def test_adam_loses_no_digits_of_1_minus_beta() -> None:
    g = np.linspace(0.5, 2.0, 16, dtype=np.float32)
    w, m, v = np.ones_like(g), np.zeros_like(g), np.zeros_like(g)
    KERNELS[optim.adam_update](w, g, m, v, 0.1, 0.9, 0.999, 1e-8, 0.0, False, 1)
    np.testing.assert_allclose(v, 0.001 * g.astype(np.float64) ** 2, rtol=3e-7)
    np.testing.assert_allclose(m, 0.1 * g.astype(np.float64), rtol=3e-7)
