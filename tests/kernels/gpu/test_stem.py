"""The first convolution of a net: on the CPU by the emulator and on a GPU, and which convolutions go that way."""

import inspect
import re

import numpy as np
import pytest
from fake_cudnn import aligned, install
from gpu_samples import STEMS, close
from outcomes import doubled, sparse, turned
from test_emulated_kernels import limit_blocks

from gpucnn.backend import guarded
from gpucnn.devices import get_backend, gpu
from gpucnn.kernels.gpu import stem
from gpucnn.kernels.gpu.cudnn.options import Options
from gpucnn.layers.conv2d import conv2d, conv2d_input_grad

each_storage = pytest.mark.parametrize("storage", ["float32", "float16"])
each_stem = pytest.mark.parametrize("sample", STEMS, ids=str)
ONE, NONE = ((1, 1), (1, 1)), ((0, 0), (0, 0))


ROW = gpu.table(Options())[conv2d]


def row(op=conv2d):
    """The op's row on doubles that are installed by now."""
    return gpu.table(Options())[op]


def stored(args, storage):
    return tuple(a.astype(storage) if isinstance(a, np.ndarray) else a for a in args)


def test_it_takes_what_the_op_takes() -> None:
    assert inspect.signature(stem.conv2d) == inspect.signature(conv2d)


def test_limits_are_those_of_the_source() -> None:
    for name in ("PIXELS", "TAPS", "FILTERS"):
        assert re.search(rf"\b{name} = (\d+)\b", stem.MODULE.source)[1] == str(getattr(stem, name))


@each_storage
@each_stem
def test_parity(sample, storage, emulator) -> None:
    """As the backend calls it; the same bits in whatever order threads run."""
    args = stored(sample.arguments(), storage)
    emulator.launched.clear()
    got = guarded(conv2d, ROW)(*args)
    assert {file for file, _ in emulator.launched} == {"stem.cu"}
    assert got.dtype == storage
    close(got, conv2d(*doubled(args)))
    emulator.descending = True
    assert stem.conv2d(*args).tobytes() == got.tobytes()


@each_storage
@pytest.mark.parametrize("sample", STEMS[:3], ids=str)
def test_few_blocks_and_views(sample, storage, emulator, monkeypatch) -> None:
    args = stored(sample.arguments(), storage)
    wanted = stem.conv2d(*args)
    limit_blocks(monkeypatch, emulator)
    for spread in (turned, sparse):
        views = [spread(a) if isinstance(a, np.ndarray) else a for a in args]
        np.testing.assert_array_equal(stem.conv2d(*views), wanted)


def test_a_net_that_has_diverged_shows_it(emulator) -> None:
    x, w, b, *how = STEMS[0].arguments()
    x[0, 4, 5, 1] = np.nan
    np.testing.assert_array_equal(np.isnan(stem.conv2d(x, w, b, *how)), np.isnan(conv2d(x, w, b, *how)))


@pytest.mark.gpu
@each_storage
@each_stem
def test_parity_on_a_gpu(sample, storage) -> None:
    device = get_backend("gpu")
    args = stored(sample.arguments(), storage)
    moved = [device.to_device(a) if isinstance(a, np.ndarray) else a for a in args]
    assert ROW.plan(*moved) == "stem.cu"
    got = device.to_host(device.run(conv2d, *moved))
    assert got.dtype == storage
    close(got, conv2d(*doubled(args)))
    assert device.to_host(device.run(conv2d, *moved)).tobytes() == got.tobytes()


# -- the choice ---------------------------------------------------------------------------------------


def arrays(x_shape, filters, kernel, dtype="float32"):
    w_shape = (filters, *kernel, x_shape[3])
    return tuple(aligned(np.ones(shape, dtype)) for shape in (x_shape, w_shape, (filters,)))


@pytest.mark.parametrize(
    ("x_shape", "filters", "kernel", "padding"),
    [
        ((4, 32, 32, 3), 24, (2, 2), NONE),  # speedrun94
        ((4, 28, 28, 1), 6, (5, 5), ((2, 2), (2, 2))),  # lenet5
        ((4, 32, 32, 3), 64, (3, 3), ONE),  # vgg_small, resnet18
        ((4, 32, 32, 3), 16, (3, 3), ONE),  # resnet20
        ((4, 28, 28, 1), 32, (3, 3), ONE),  # mnist_cnn
    ],
)
def test_first_convolutions_of_the_nets_go_this_way(x_shape, filters, kernel, padding) -> None:
    for dtype in ("float32", "float16"):
        x, w, b = arrays(x_shape, filters, kernel, dtype)
        for bias in (b, None):
            assert ROW.plan(x, w, bias, (1, 1), padding) == "stem.cu"
            assert ROW.accepts(x, w, bias, (1, 1), padding)


@pytest.mark.parametrize(
    ("x_shape", "filters", "kernel", "stride"),
    [
        ((2, 8, 8, 4), 8, (3, 3), (1, 1)),  # channels
        ((2, 8, 8, 3), 72, (3, 3), (1, 1)),  # filters
        ((2, 8, 8, 3), 8, (4, 3), (1, 1)),  # taps
        ((2, 8, 8, 3), 8, (3, 4), (1, 1)),  # width
        ((2, 8, 8, 3), 8, (3, 3), (2, 1)),  # stride
    ],
)
def test_other_convolutions_stay_on_cudnn(x_shape, filters, kernel, stride, monkeypatch, tmp_path) -> None:
    install(monkeypatch, tmp_path)
    args = (*arrays(x_shape, filters, kernel), stride, ONE)
    assert row().plan(*args) == "cudnn fprop + bias"


def test_gradients_stay_on_cudnn_and_what_does_not_fit_is_left_to_the_op(monkeypatch, tmp_path) -> None:
    install(monkeypatch, tmp_path)
    x, w, b = arrays((2, 8, 8, 3), 8, (3, 3))
    dy = aligned(np.ones((2, 8, 8, 8), "float32"))
    assert row(conv2d_input_grad).plan(dy, w, x.shape, (1, 1), ONE) == "cudnn dgrad"
    for wrong in [
        (x, w, b[:1]),
        (x, w, b.astype("float16")),
        (x, w.astype("float16"), b),
        (x[:0], w, b),
        (x[:, :2, :2], w, b),
        tuple(a.astype("float64") for a in (x, w, b)),
    ]:
        assert row().plan(*wrong, (1, 1), NONE) == "im2col + cublas"


def test_it_can_be_switched_off_and_doctor_says_so(monkeypatch, tmp_path) -> None:
    install(monkeypatch, tmp_path)
    args = (*arrays((2, 8, 8, 3), 8, (3, 3)), (1, 1), ONE)
    for switch, way in (("0", "cudnn fprop + bias"), ("1", "stem.cu")):
        monkeypatch.setenv("GPUCNN_STEM", switch)
        assert gpu.table(Options.from_environment())[conv2d].plan(*args) == way
        assert ("few channels forward by stem.cu" in gpu.convolution_engine()) == (switch == "1")
