"""What the GPU's kernels are given: views, numbers on the device, other dtypes, shapes that do not fit, NaN."""

import numpy as np
import pytest
from gpu_samples import SAMPLES, STORED, TABLE, close, stored_between
from outcomes import accepts, doubled, is_float, outcome, parts, sparse, turned
from test_emulator import Inline

from gpucnn import losses, metrics, optim, random
from gpucnn.backend import guarded
from gpucnn.data.augment import colour, crop_flip, warp
from gpucnn.devices.gpu import UncapturableOps
from gpucnn.kernels.gpu import linear as kernel
from gpucnn.kernels.gpu.launch import Grid
from gpucnn.layers import activations, batchnorm, containers, conv2d, dropout, fusion, linear, pooling
from gpucnn.optim import averages, muon

KERNELS = {op: guarded(op, kernel) for op, kernel in TABLE.items()}
each_op = pytest.mark.parametrize("op", TABLE, ids=lambda op: op.__name__)
RNG = np.random.default_rng(5)


def third(op):
    """The arguments of an op's third sample: neither the smallest nor the largest."""
    return [sample for sample in SAMPLES if sample.op is op][2].arguments()


@pytest.mark.parametrize("spread", [turned, sparse])
@each_op
def test_strided_views_are_as_good_as_arrays(op, spread, emulator) -> None:
    args = third(op)
    wanted = outcome(op, KERNELS[op], args)
    views = [spread(a) if isinstance(a, np.ndarray) else a for a in args]
    got = parts(op, views, KERNELS[op](*views))  # of their own memory, not of a copy that happens to be contiguous
    for part, whole in zip(got, wanted, strict=True):
        close(part, whole, 2e-2 * stored_between(op, args))


@each_op
def test_inputs_may_be_read_only_and_stay_as_they_are(op, emulator) -> None:
    args = third(op)
    before = [a.copy() if isinstance(a, np.ndarray) else a for a in args]
    for array in args:
        if isinstance(array, np.ndarray):
            array.setflags(write=False)
    outcome(op, KERNELS[op], args)  # copies what changes
    for array, old in zip(args, before, strict=True):
        if isinstance(array, np.ndarray):
            np.testing.assert_array_equal(array, old)


@pytest.mark.parametrize("op", [op for op in TABLE if any(map(is_float, third(op)))], ids=lambda op: op.__name__)
def test_float64_runs_on_the_reference_implementation(op, emulator) -> None:
    args = doubled(third(op))
    emulator.launched.clear()
    for part, wanted in zip(outcome(op, KERNELS[op], args), outcome(op, op, args), strict=True):
        np.testing.assert_array_equal(part, wanted)
        assert part.dtype == wanted.dtype
    assert not emulator.launched


@pytest.mark.parametrize("op", [op for op, places in STORED.items() if len(places) > 1], ids=lambda op: op.__name__)
def test_two_storages_in_one_call_run_on_the_reference_implementation(op, emulator) -> None:
    first, second, *rest = third(op)
    assert accepts(TABLE, op, first, second, *rest)
    assert not accepts(TABLE, op, first.astype(np.float16), second, *rest)


ARRAY = np.array(1.0)
ONES = {shape: np.ones(shape, np.float32) for shape in [(3,), (4,), (2, 3), (2, 4), (2, 4, 4, 3), (2, 2, 2, 3)]}
BYTES = np.ones((2, 4, 4, 3), np.uint8)
TILES = ((2, 2), (2, 2), ((0, 0), (0, 0)))


@pytest.mark.parametrize(
    ("op", "args"),
    [
        (containers.add, (ONES[2, 3], ONES[3,])),
        (activations.relu, (np.ones((), np.float32),)),
        (activations.relu, (np.ones((0, 3), np.float32),)),
        (activations.relu, (np.ones(3, ">f4"),)),
        (activations.leaky_relu, (ONES[2, 3], ARRAY)),
        (batchnorm.batchnorm, (ONES[2, 3], ONES[4,], ONES[4,], 1e-5)),
        (batchnorm.batchnorm, (ONES[2, 3], ONES[3,].astype(np.float16), ONES[3,], 1e-5)),
        (batchnorm.batchnorm, (ONES[2, 3], ONES[3,], ONES[3,], ARRAY)),
        (batchnorm.batchnorm_grad, (ONES[2, 4], ONES[2, 3], ONES[3,], ONES[3,], ONES[3,], 1e-5)),
        (dropout.dropout, (ONES[2, 3], 0.5, 1, 2, np.ones((), np.int32))),
        (dropout.dropout, (ONES[2, 3], ARRAY, 1, 2, 3)),
        (pooling.max_pool2d, (ONES[2, 3], *TILES)),
        (pooling.max_pool2d, (ONES[2, 2, 2, 3], (3, 3), (2, 2), ((0, 0), (0, 0)))),
        (pooling.max_pool2d_grad, (ONES[2, 4, 4, 3], ONES[2, 4, 4, 3], *TILES)),
        (pooling.avg_pool2d_grad, (ONES[2, 2, 2, 3], (2, 6, 4, 3), *TILES)),
        (pooling.global_avg_pool2d, (ONES[2, 3],)),
        (pooling.global_avg_pool2d_grad, (ONES[2, 3], (2, 4, 4, 4))),
        (losses.softmax_cross_entropy, (ONES[2, 3], ONES[2, 3])),  # one-hot
        (losses.softmax_cross_entropy, (ONES[2, 3], np.zeros(3, int))),
        (losses.softmax_cross_entropy, (ONES[2, 3], np.zeros(2, int), ARRAY)),
        (metrics.count_correct, (ONES[2, 3], np.zeros(2))),
        (optim.sgd_update, (ONES[3,], ONES[4,], 0.1, 0.0)),
        (optim.sgd_update, (np.ones(6, np.float32)[::2], ONES[3,], 0.1, 0.0)),
        (optim.sgd_update, (ONES[3,], ONES[3,], np.ones((), np.float32), 0.0)),
        (optim.adam_update, (*[ONES[3,]] * 4, 0.1, 0.9, 0.99, 1e-8, 0.0, False, np.ones((), np.int32))),
        (muon.muon_update, (*[ONES[3,]] * 3, 0.1, 0.6, True, 3)),
        (muon.muon_update, (ONES[2, 3], ONES[2, 4], ONES[2, 3], 0.1, 0.6, True, 3)),
        (muon.muon_update, (ONES[2, 3], ONES[2, 3], np.ones((3, 2), np.float32).T, 0.1, 0.6, True, 3)),
        (muon.muon_update, (*[ONES[2, 3]] * 3, np.ones((), np.float32), 0.6, True, 3)),
        (crop_flip.gather_normalize, (np.ones((2, 4, 4, 3), np.int32), np.zeros(2, int), ONES[3,], ONES[3,])),
        (crop_flip.gather_normalize, (np.ones((2, 4, 4, 3), np.uint8), np.zeros(2), ONES[3,], ONES[3,])),
        (
            crop_flip.gather_augment,  # a reflection of a border as wide as the image
            (np.ones((2, 4, 4, 3), np.uint8), np.zeros(1, int), np.ones(1, bool), np.ones((1, 2), int), 4, "reflect")
            + (ONES[3,], ONES[3,]),
        ),
        (
            crop_flip.gather_augment,  # one centre for two images
            (np.ones((2, 4, 4, 3), np.uint8), np.zeros(2, int), np.ones(2, bool), np.ones((2, 2), int), 1, "zero")
            + (ONES[3,], ONES[3,], np.ones((1, 2), int), 2),
        ),
        (warp.noise_planes, (np.zeros(2), (3, 4, 1), 1, 2, 3)),
        (warp.noise_planes, (np.zeros(2, int), (3, 4, 1), 1, 2, np.array(3))),  # a step on the device
        (warp.smooth, (np.ones((2, 2, 64, 65), np.float32), 34.0, 4.0)),  # more than shared memory holds
        (warp.smooth, (np.ones((1, 2, 1, 300), np.float32), 34.0, 64.0)),
        (warp.smooth, (np.ones((2, 4, 3), np.float32), 34.0, 4.0)),
        (warp.smooth, (ONES[2, 2, 2, 3], ARRAY, 4.0)),
        (warp.warp, (BYTES, np.zeros(2), np.ones((2, 2, 2), np.float32), None, "zero")),
        (warp.warp, (BYTES, np.zeros(2, int), np.ones((1, 2, 2), np.float32), None, "zero")),
        (warp.warp, (BYTES, np.zeros(2, int), *[np.ones((2, 2, 2), np.float32)] * 2, "zero")),
        (warp.warp, (ONES[2, 4, 4, 3], np.zeros(2, int), np.ones((2, 2, 2), np.float32), None, "zero")),
        (colour.jitter, (BYTES, ONES[3,], ONES[3,])),
        (colour.jitter, (BYTES, np.ones(2, np.float32), np.ones(2))),
        (colour.jitter, (BYTES[0], ONES[4,], ONES[4,])),
    ],
)
def test_what_a_kernel_does_not_accept_is_said(op, args) -> None:
    assert not accepts(TABLE, op, *args)


def test_arguments_by_name_are_looked_at_too(emulator) -> None:
    x = np.linspace(-1, 1, 40)
    np.testing.assert_array_equal(KERNELS[activations.leaky_relu](slope=0.5, x=x), activations.leaky_relu(x, 0.5))
    got = KERNELS[activations.leaky_relu](slope=0.5, x=x.astype(np.float32))
    np.testing.assert_array_equal(got, activations.leaky_relu(x.astype(np.float32), 0.5))


# op -> the arguments that may be 0-d arrays, and of which type
DEVICE_NUMBERS = {
    optim.sgd_update: {2: np.float64},
    averages.lerp: {2: np.float64},
    optim.momentum_update: {3: np.float64},
    optim.adam_update: {4: np.float64, 10: np.int64},
    dropout.dropout: {4: np.int64},
    muon.muon_update: {3: np.float64},
}


@pytest.mark.parametrize("op", DEVICE_NUMBERS, ids=lambda op: op.__name__)
def test_numbers_may_lie_on_the_device(op, emulator) -> None:
    places = DEVICE_NUMBERS[op]
    for sample in [s for s in SAMPLES if s.op is op][-6:]:
        args = [kind(a).item() if (kind := places.get(i)) else a for i, a in enumerate(sample.arguments())]
        moved = [np.array(a, kind) if (kind := places.get(i)) else a for i, a in enumerate(args)]
        emulator.launched.clear()
        got = outcome(op, KERNELS[op], moved)
        assert emulator.launched
        for part, wanted in zip(got, outcome(op, KERNELS[op], args), strict=True):
            assert part.tobytes() == wanted.tobytes()


@pytest.mark.parametrize("shape", [(5, 3), (4, 16)])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_relu_hides_nothing(shape, value, emulator) -> None:
    x, ones = np.full(shape, value, np.float32), np.ones(shape[1], np.float32)
    assert np.array_equal(KERNELS[activations.relu](x), x, equal_nan=True)
    assert np.array_equal(KERNELS[activations.relu](-x), activations.relu(-x), equal_nan=True)
    assert np.array_equal(KERNELS[containers.add_relu](x, x), x, equal_nan=True)
    args = (x, ones, 0 * ones, 0 * ones, ones, 1e-5)
    assert np.array_equal(KERNELS[batchnorm.batchnorm_relu_eval](*args), x, equal_nan=True)
    one_bad = np.zeros((9, shape[1]), np.float32)
    one_bad[7] = np.nan
    y, mean, var = KERNELS[batchnorm.batchnorm_relu](one_bad, ones, ones, 1e-5)
    assert np.isnan(y).all()
    assert np.isnan(mean).all()
    assert np.isnan(var).all()
    for pixel in range(4):
        image = np.zeros((1, 2, 2, shape[1]), np.float32)
        image.reshape(4, -1)[pixel] = np.nan
        for joint in (fusion.relu_max_pool2d, fusion.batchnorm_relu_max_pool2d_eval):
            lines = args[1:] if joint is fusion.batchnorm_relu_max_pool2d_eval else ()
            assert np.isnan(KERNELS[joint](image, *lines, *TILES)).all()
    dropped = KERNELS[dropout.dropout](np.full(9, value, np.float32), 0.5, 1, 2, 3)
    kept = dropout.dropout(np.ones(9, np.float32), 0.5, 1, 2, 3) != 0
    np.testing.assert_array_equal(dropped, np.where(kept, value, 0))


@pytest.mark.parametrize("kind", ["float32", "float16"])
@pytest.mark.parametrize("c", [1, 6, 16, 17])
@pytest.mark.parametrize(("kernel", "stride"), [((2, 2), (2, 2)), ((3, 2), (1, 1))])
def test_max_pooling_treats_nan_as_the_op_does(kind, c, kernel, stride, emulator) -> None:
    how = (kernel, stride, ((1, 0), (0, 1)) if stride == (1, 1) else ((0, 0), (0, 0)))
    for pixel in range(0, 36, 5):
        x = np.random.default_rng(pixel).standard_normal((1, 6, 6, c)).astype(kind)
        x.reshape(36, c)[pixel] = np.nan
        x.reshape(36, c)[35 - pixel] = -np.inf
        y = pooling.max_pool2d(x, *how)
        np.testing.assert_array_equal(KERNELS[pooling.max_pool2d](x, *how), y)
        np.testing.assert_array_equal(KERNELS[fusion.relu_max_pool2d](x, *how), fusion.relu_max_pool2d(x, *how))
        dy = np.ones_like(y)
        np.testing.assert_array_equal(
            KERNELS[pooling.max_pool2d_grad](dy, x, *how), pooling.max_pool2d_grad(dy, x, *how)
        )


@pytest.mark.parametrize("kernel", [(2, 2), (3, 3)])
def test_where_all_are_alike_the_first_one_gets_the_gradient(kernel, emulator) -> None:
    for value in (0.0, -np.inf):
        x = np.full((2, 6, 6, 4), value, np.float32)
        args = (np.ones((2, 3, 3, 4), np.float32), x, kernel, (2, 2), ((kernel[0] - 2, 0),) * 2)
        np.testing.assert_array_equal(KERNELS[pooling.max_pool2d_grad](*args), pooling.max_pool2d_grad(*args))


@pytest.mark.parametrize("labels", [[0, 5], [-1, 2], [100000, 1]])
def test_a_label_of_no_class_counts_for_nothing(labels, emulator) -> None:
    """On a GPU labels are not read before the launch: one of no class must stay inside the arrays."""
    scores = RNG.standard_normal((2, 5)).astype(np.float32)
    rows = (np.array(labels)[:, None] == np.arange(5)).astype(np.float32)
    for smoothing in (0.0, 0.2):
        got = KERNELS[losses.softmax_cross_entropy](scores, np.array(labels), smoothing)
        for part, wanted in zip(got, losses.softmax_cross_entropy(scores, rows, smoothing), strict=True):
            np.testing.assert_allclose(part, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["int64", "int32", "uint8"])
def test_labels_and_indices_of_every_kind(kind, emulator) -> None:
    scores, labels = RNG.standard_normal((7, 5)).astype(np.float32), np.arange(7) % 5
    emulator.launched.clear()
    got = KERNELS[losses.softmax_cross_entropy](scores, labels.astype(kind))
    for part, wanted in zip(got, losses.softmax_cross_entropy(scores, labels), strict=True):
        np.testing.assert_allclose(part, wanted, rtol=1e-5, atol=1e-7)
    assert KERNELS[metrics.count_correct](scores, labels.astype(kind)) == metrics.count_correct(scores, labels)
    images, line = RNG.integers(0, 256, (7, 3, 4, 2)).astype(np.uint8), np.ones(2, np.float32)
    args = (images, labels.astype(kind), line, line)
    np.testing.assert_array_equal(KERNELS[crop_flip.gather_normalize](*args), crop_flip.gather_normalize(*args))
    assert len(emulator.launched) == 5  # rows, their sum, rows, their sum, gather


def test_a_row_with_nan_is_never_right(emulator) -> None:
    scores = RNG.standard_normal((40, 37)).astype(np.float32)
    scores[np.arange(30), RNG.integers(0, 37, 30)] = np.nan
    scores[3] = np.nan
    scores[33], scores[34, 5] = -np.inf, np.inf
    labels = scores.argmax(axis=1)
    assert KERNELS[metrics.count_correct](scores, labels) == metrics.count_correct(scores, labels) == 10


def test_an_index_from_the_end(emulator) -> None:
    images, line = RNG.integers(0, 256, (7, 3, 4, 2)).astype(np.uint8), np.ones(2, np.float32)
    args = (images, np.array([-1, -7, 3]), line, line)
    np.testing.assert_array_equal(KERNELS[crop_flip.gather_normalize](*args), crop_flip.gather_normalize(*args))


@pytest.mark.parametrize("c", [3, 16])
@pytest.mark.parametrize(("mean", "std"), [(1000.0, 1.0), (-1e4, 1.0), (0.0, 1e-3)])
def test_batch_norm_keeps_its_digits_where_the_mean_is_far_away(c, mean, std, emulator) -> None:
    x = (mean + std * RNG.standard_normal((8, 10, 10, c))).astype(np.float32)
    dy = RNG.standard_normal(x.shape).astype(np.float32)
    scale, shift = np.full(c, 1.5, np.float32), np.full(c, 0.25, np.float32)
    y, got_mean, var = KERNELS[batchnorm.batchnorm](x, scale, shift, 1e-5)
    wanted, exact_mean, exact_var = batchnorm.batchnorm(*doubled((x, scale, shift)), 1e-5)
    np.testing.assert_allclose(got_mean, exact_mean, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(var, exact_var, rtol=1e-5)
    unit = np.spacing(np.float32(abs(mean))) / std  # x itself is known no better
    assert np.abs(y - wanted).max() <= (2e-5 + unit) * np.abs(wanted).max()
    wanted = batchnorm.batchnorm_grad(*doubled((dy, x, scale)), exact_mean, exact_var, 1e-5)
    got = KERNELS[batchnorm.batchnorm_grad](dy, x, scale, got_mean, var, 1e-5)
    for part, exact in zip(got, wanted, strict=True):
        assert np.abs(part - exact).max() <= (2e-5 + unit) * np.abs(exact).max()


def test_one_value_far_out_spoils_no_statistics(emulator, monkeypatch) -> None:
    monkeypatch.setattr("gpucnn.kernels.gpu.launch.BLOCKS", 1)
    ones = np.ones(2, np.float32)
    for place in (0, 1, 4000, 10_000, 19_999):
        x = RNG.standard_normal((20_000, 2)).astype(np.float32)
        x[place] = 1e5
        _, mean, var = KERNELS[batchnorm.batchnorm](x, ones, ones, 1e-5)
        x = x.astype(np.float64)
        np.testing.assert_allclose(mean, x.mean(axis=0), rtol=0, atol=1e-6 * x.std())
        np.testing.assert_allclose(var, x.var(axis=0), rtol=1e-4)


def test_sums_of_float16_do_not_overflow(emulator) -> None:
    dy = np.full((5000, 3), 100, np.float16)
    np.testing.assert_array_equal(KERNELS[conv2d.bias_grad](dy), np.full(3, 5e5, np.float32))
    x = np.full((1, 60, 60, 8), 60_000, np.float16)
    np.testing.assert_array_equal(KERNELS[pooling.global_avg_pool2d](x), np.full((1, 8), 60_000, np.float16))


WORDS = Inline(
    "words.cu",
    """
#include "philox.cuh"

__global__ void words(const unsigned* counter, const unsigned* key, unsigned* out) {
    const unsigned* c = counter + 4 * threadIdx.x;
    const Words drawn = philox(c[0], c[1], c[2], c[3], key[2 * threadIdx.x], key[2 * threadIdx.x + 1]);
    for (int v = 0; v < 4; ++v) out[4 * threadIdx.x + v] = drawn.word[v];
}
""",
    "words",
)
# counter and key, words: the known answers that come with the paper's own code
KNOWN = [
    ([0] * 6, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([0xFFFFFFFF] * 6, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344, 0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]


def test_philox_gives_the_known_answers(emulator) -> None:
    counter = np.array([given[:4] for given, _ in KNOWN], np.uint32)
    key = np.array([given[4:] for given, _ in KNOWN], np.uint32)
    out = emulator.empty((3, 4), "uint32")
    emulator.launch(WORDS, "words", Grid((1, 1), (3, 1)), (counter, key, out))
    np.testing.assert_array_equal(out, np.array([words for _, words in KNOWN], np.uint32))


def test_philox_draws_the_words_of_the_package(emulator) -> None:
    counter = RNG.integers(0, 2**32, (200, 4), dtype=np.uint64)
    key = (0x12345678, 0x9ABCDEF0)
    out = emulator.empty((200, 4), "uint32")
    keys = np.tile(np.array(key, np.uint32), (200, 1))
    emulator.launch(WORDS, "words", Grid((1, 1), (200, 1)), (counter.astype(np.uint32), keys, out))
    np.testing.assert_array_equal(out, np.stack(random.philox(tuple(counter.T), key), axis=1))


@pytest.mark.parametrize("step", [0, 5, 2**33 + 1])
def test_dropout_drops_what_the_op_drops_in_float16_too(step, emulator) -> None:
    x = np.ones(1003, np.float16)
    got = KERNELS[dropout.dropout](x, 0.3, 2**40 + 7, 0xFEDCBA98, step)
    wanted = dropout.dropout(x.astype(np.float32), 0.3, 2**40 + 7, 0xFEDCBA98, step)
    np.testing.assert_array_equal(got == 0, wanted == 0)
    assert 0.25 < (got == 0).mean() < 0.35


def test_large_products_are_left_to_cublas_and_named(recorder) -> None:
    """By shape alone; no other op is named."""
    uncapturable = UncapturableOps()
    ops = (linear.linear, activations.relu)
    table = {op: guarded(op, TABLE[op], uncapturable.watched(op)) for op in ops}
    assert kernel.plan(64, 1024, 1024) == "gemm.cu"
    assert kernel.plan(65, 1024, 1024) == "cublas"
    assert kernel.plan(0, 10, 10) == "cublas"
    x, w = np.ones((300, 300), np.float32), np.ones((800, 300), np.float32)
    table[linear.linear](x[:4, :9], w[:5, :9], None)
    assert (uncapturable.pop(), recorder.launched) == ([], {("gemm.cu", "product<float, false, true, float>")})
    assert table[linear.linear](x, w, None).shape == (300, 800)
    table[activations.relu](np.ones(3))
    assert uncapturable.pop() == ["linear"]


def test_products_that_do_not_fit_are_the_ops_error(emulator) -> None:
    a, b = np.ones((2, 3), np.float32), np.ones((4, 2), np.float32)
    for op, args in [
        (linear.linear, (a, b, None)),
        (linear.linear_input_grad, (a, b)),
        (linear.linear_weight_grad, (a, b)),
    ]:
        with pytest.raises(ValueError, match="matmul"):
            KERNELS[op](*args)
