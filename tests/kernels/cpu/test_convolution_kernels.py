"""Every algorithm for a convolution against the op in float64, on ordinary and odd shapes."""

import inspect
from itertools import product

import numpy as np
import pytest

pytest.importorskip("numba")

from kernel_samples import convolution_calls

from gpucnn.devices import cpu
from gpucnn.kernels.cpu.conv import direct, winograd
from gpucnn.kernels.cpu.conv.conv2d import DIRECT, WINOGRAD, plan
from gpucnn.kernels.cpu.engine.microkernel import FULL, HALVES, NARROW
from gpucnn.kernels.cpu.engine.simd import LANES
from gpucnn.layers.conv2d import conv2d, conv2d_input_grad, conv2d_weight_grad
from gpucnn.layers.windows import output_size

NONE, ONE, TWO = ((0, 0), (0, 0)), ((1, 1), (1, 1)), ((2, 2), (2, 2))

# (N, H, W, C), F, kernel, stride, padding, algorithm
CASES = [
    ((2, 8, 8, 16), 16, (3, 3), (1, 1), ONE, WINOGRAD),
    ((3, 7, 9, 32), 16, (3, 3), (1, 1), ONE, WINOGRAD),  # tiles over the border on all sides
    ((1, 13, 5, 16), 48, (3, 3), (1, 1), NONE, WINOGRAD),
    ((2, 6, 6, 16), 80, (3, 3), (1, 1), TWO, WINOGRAD),
    ((1, 3, 3, 16), 16, (3, 3), (1, 1), NONE, WINOGRAD),  # the kernel as large as the image
    ((40, 8, 8, 32), 32, (3, 3), (1, 1), ONE, WINOGRAD),  # several chunks of tiles
    ((1, 9, 6, 16), 16, (3, 3), (1, 1), ((1, 0), (2, 1)), WINOGRAD),
    ((3, 28, 28, 1), 6, (5, 5), (1, 1), TWO, DIRECT),  # LeNet's
    ((2, 14, 14, 6), 16, (5, 5), (1, 1), NONE, DIRECT),
    ((2, 9, 9, 3), 64, (3, 3), (1, 1), ONE, DIRECT),  # a first layer
    ((1, 5, 5, 3), 2, (3, 3), (2, 2), ONE, DIRECT),
    ((1, 10, 3, 2), 17, (2, 2), (3, 3), TWO, DIRECT),
    ((1, 7, 5, 3), 20, (2, 4), (3, 1), ((1, 2), (0, 3)), DIRECT),
    ((2, 6, 6, 4), 3, (6, 6), (1, 1), NONE, DIRECT),
    ((2, 9, 8, 16), 32, (3, 3), (2, 2), ONE, DIRECT),  # a strided block
    ((2, 9, 8, 48), 32, (1, 1), (2, 2), NONE, DIRECT),
    ((130, 4, 4, 40), 33, (1, 1), (1, 1), NONE, DIRECT),
    ((2, 11, 7, 20), 33, (3, 3), (1, 1), ONE, DIRECT),
    ((1, 12, 9, 5), 30, (4, 3), (3, 2), TWO, DIRECT),
    ((17, 5, 5, 16), 16, (2, 2), (1, 1), NONE, DIRECT),  # several images in a group, and one group that is not full
    ((33, 3, 3, 5), 7, (3, 3), (1, 1), ONE, DIRECT),
    ((40, 1, 1, 16), 9, (1, 1), (1, 1), NONE, DIRECT),  # an image is a pixel
    ((64, 4, 4, 24), 10, (3, 3), (2, 2), NONE, DIRECT),
]


def arrays(case):
    x_shape, f, kernel, stride, padding, _ = case
    rng = np.random.default_rng(0)
    x = rng.standard_normal(x_shape).astype(np.float32)
    w = (rng.standard_normal((f, *kernel, x_shape[3])) / np.sqrt(np.prod(kernel) * x_shape[3])).astype(np.float32)
    b = rng.standard_normal(f).astype(np.float32)
    dy = rng.standard_normal(conv2d(x, w, b, stride, padding).shape).astype(np.float32)
    return x, w, b, dy, stride, padding


WAYS = {  # the functions behind an op, for any number of tiles
    WINOGRAD: {
        conv2d: lambda x, w, b, stride, padding: winograd.forward(x, w, padding) + (0 if b is None else b),
        conv2d_input_grad: lambda dy, w, x_shape, stride, padding: winograd.input_grad(dy, w, padding),
        conv2d_weight_grad: lambda dy, x, w_shape, stride, padding: winograd.weight_grad(dy, x, padding),
    },
    DIRECT: {
        conv2d: lambda x, w, b, *how: direct.forward(x, w, b, *how, output_size(x.shape, w.shape[1:3], *how)),
        conv2d_input_grad: direct.input_grad,
        conv2d_weight_grad: direct.weight_grad,
    },
}


def exact(op, args):
    return op(*(a.astype(np.float64) if isinstance(a, np.ndarray) else a for a in args))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_parity_with_the_op_in_float64(case) -> None:
    for op, args in convolution_calls(*arrays(case)):
        for array in args:
            if isinstance(array, np.ndarray):
                array.setflags(write=False)
        for way in {case[5], DIRECT}:
            got, wanted = WAYS[way][op](*args), exact(op, args)
            assert got.dtype == np.float32
            assert np.abs(got - wanted).max() <= 2e-5 * np.abs(wanted).max(), (op.__name__, way)


@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_blocks_for_wide_and_for_narrow_registers(case, wide, monkeypatch) -> None:
    """Whichever this machine has."""
    monkeypatch.setattr(direct, "kind_of", lambda f: HALVES if f <= LANES // 2 else FULL if wide else NARROW)
    monkeypatch.setattr(winograd, "WIDE", wide)
    for op, args in convolution_calls(*arrays(case)):
        wanted = exact(op, args)
        for way in {case[5], DIRECT}:
            assert np.abs(WAYS[way][op](*args) - wanted).max() <= 2e-5 * np.abs(wanted).max(), (op.__name__, way)


@pytest.mark.torch
@pytest.mark.parametrize("padding", [((a, b), (c, d)) for a, b, c, d in product((0, 1, 2), repeat=4) if a + b != c + d])
def test_every_side_has_its_own_padding(padding) -> None:
    """The two algorithms against PyTorch on an image that PyTorch pads."""
    import torch

    x, w, _, dy, stride, _ = arrays(((2, 6, 7, 16), 16, (3, 3), (1, 1), padding, WINOGRAD))
    (top, bottom), (left, right) = padding
    t, k, g = (torch.from_numpy(a.transpose(0, 3, 1, 2).astype(np.float64)) for a in (x, w, dy))
    t.requires_grad_(), k.requires_grad_()
    y = torch.nn.functional.conv2d(torch.nn.functional.pad(t, (left, right, top, bottom)), k)
    y.backward(g)
    for way in WAYS.values():
        for op, args, wanted in (
            (conv2d, (x, w, None), y.detach()),
            (conv2d_input_grad, (dy, w, x.shape), t.grad),
            (conv2d_weight_grad, (dy, x, w.shape), k.grad),
        ):
            exact = wanted.numpy().transpose(0, 2, 3, 1)
            np.testing.assert_allclose(way[op](*args, stride, padding), exact, atol=2e-5 * abs(exact).max())


@pytest.mark.parametrize(
    ("x_shape", "w_shape", "stride", "padding", "way"),
    [
        ((128, 8, 8, 256), (256, 3, 3, 256), (1, 1), ONE, WINOGRAD),
        ((1, 16, 16, 64), (64, 3, 3, 64), (1, 1), ONE, WINOGRAD),
        ((1, 8, 8, 256), (256, 3, 3, 256), (1, 1), ONE, DIRECT),  # four tiles: the kernel costs more than the image
        ((1, 16, 16, 16), (64, 3, 3, 16), (1, 1), ONE, DIRECT),
        ((128, 8, 8, 256), (256, 3, 3, 256), (2, 2), ONE, DIRECT),
        ((128, 8, 8, 256), (256, 5, 5, 256), (1, 1), TWO, DIRECT),
        ((128, 8, 8, 24), (256, 3, 3, 24), (1, 1), ONE, WINOGRAD),  # filled up to 32 channels
        ((128, 8, 8, 23), (256, 3, 3, 23), (1, 1), ONE, DIRECT),  # too many would be zeros
        ((128, 8, 8, 16), (24, 3, 3, 16), (1, 1), ONE, DIRECT),
        ((128, 8, 8, 16), (16, 3, 3, 16), (1, 1), ((1, 1), (3, 1)), DIRECT),
    ],
)
def test_plan(x_shape, w_shape, stride, padding, way) -> None:
    assert plan(x_shape, w_shape, stride, padding) == way


@pytest.mark.parametrize("case", [CASES[5], CASES[7], CASES[14], CASES[20]], ids=str)
def test_one_two_and_four_threads_give_the_same_bits(case) -> None:
    kernels, results = cpu.cpu_backend().kernels, []
    try:
        for threads in (1, 2, 4):
            cpu.set_threads(threads)
            results.append([kernels[op](*args).tobytes() for op, args in convolution_calls(*arrays(case))])
    finally:
        cpu.set_threads(2)
    assert results[0] == results[1] == results[2]


def test_strided_views_are_as_good_as_arrays() -> None:
    x, w, b, _, stride, padding = arrays(((2, 8, 8, 16), 16, (3, 3), (1, 1), ONE, WINOGRAD))
    kernel = cpu.cpu_backend().kernels[conv2d]
    wanted = kernel(x, w, b, stride, padding)
    wide = np.zeros((2, 8, 16, 16), np.float32)
    wide[:, :, ::2] = x
    np.testing.assert_array_equal(kernel(wide[:, :, ::2], w, b, stride, padding), wanted)
    turned = np.asfortranarray(w)
    np.testing.assert_array_equal(kernel(x, turned, b, stride, padding), wanted)


def test_float64_runs_on_the_reference_implementation() -> None:
    case = CASES[0]
    for op, args in convolution_calls(*arrays(case)):
        args = [a.astype(np.float64) if isinstance(a, np.ndarray) else a for a in args]
        np.testing.assert_array_equal(cpu.cpu_backend().kernels[op](*args), op(*args))


@pytest.mark.parametrize("op", cpu.table(), ids=lambda op: op.__name__)
def test_a_kernel_has_its_ops_signature(op) -> None:
    kernel = inspect.signature(cpu.table()[op].run)
    assert list(kernel.parameters) == list(inspect.signature(op).parameters)
    defaults = [[p.default for p in inspect.signature(f).parameters.values()] for f in (op, cpu.table()[op].run)]
    assert defaults[0] == defaults[1]
