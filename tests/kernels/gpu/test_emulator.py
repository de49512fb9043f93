"""The emulator itself: it has to find what it is there for, and its float16 has to be NumPy's."""

import numpy as np
import pytest

from gpucnn.kernels.gpu.compile import Module, flattened
from gpucnn.kernels.gpu.launch import NULL, Grid

SOURCE = """
#include "vector.cuh"

__global__ void shift_by(const float* x, float* y, int n, int by) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i + by] = x[i];
}
__global__ void read_at(const float* x, float* y, int at) { y[threadIdx.x] = x[int(threadIdx.x) + at]; }
__global__ void write_const(const float* x) { const_cast<float*>(x)[threadIdx.x] = 1.0f; }
__global__ void reverse(float* y, bool wait) {
    __shared__ float shared[64];
    shared[threadIdx.x] = y[threadIdx.x];
    if (wait) __syncthreads();
    y[threadIdx.x] = shared[blockDim.x - 1 - threadIdx.x];
}
__global__ void half_a_barrier() {
    if (threadIdx.x % 2) __syncthreads();
}
__global__ void half_a_shuffle(int* y) {
    if (threadIdx.x < 16) y[threadIdx.x] = __shfl_xor_sync(0xffffffffu, int(threadIdx.x), 1);
}
__global__ void butterfly(int* y) {
    int value = threadIdx.x;
    for (int apart = 16; apart > 0; apart /= 2) value += __shfl_xor_sync(0xffffffffu, value, apart);
    y[threadIdx.x] = value;
}
__global__ void vector_at(const float* x, float* y, int at) {
    float value[4];
    load<4>(x + at, value);
    store<4>(y, value);
}
__global__ void product(int a, int b, int* y) { y[0] = a * b; }
__global__ void places(int* y) {
    const int column = blockIdx.x * blockDim.x + threadIdx.x, row = blockIdx.y * blockDim.y + threadIdx.y;
    y[row * gridDim.x * blockDim.x + column] += 1;
}
__global__ void round_all(const float* x, __half* y, index_t n) {
    for (index_t i = threadIdx.x; i < n; i += blockDim.x) narrow(x[i], y[i]);
}
__global__ void widen_all(const __half* x, float* y, index_t n) {
    for (index_t i = threadIdx.x; i < n; i += blockDim.x) y[i] = widen(x[i]);
}
"""


class Inline(Module):
    """A source that belongs to a test."""

    def __init__(self, file: str, text: str, *names: str) -> None:
        self.file, self.names, self.source = file, names, flattened(file, text)


KERNELS = Inline(
    "for_tests.cu",
    SOURCE,
    *("shift_by", "read_at", "write_const", "reverse", "half_a_barrier", "half_a_shuffle", "butterfly", "vector_at"),
    *("product", "places", "round_all", "widen_all"),
)
ONE_WARP = Grid((1, 1), (32, 1))


def floats(n):
    return np.arange(n, dtype=np.float32)


def test_a_grid_runs_every_thread_once(emulator) -> None:
    y = np.zeros((3 * 4, 5 * 2), np.int32)
    emulator.launch(KERNELS, "places", Grid((5, 3), (2, 4)), (y,))
    assert (y == 1).all()


@pytest.mark.parametrize(("by", "descending"), [(1, False), (4, False), (-1, True), (-4, True)])
def test_touching_what_is_beside_an_array_is_an_error(by, descending, emulator) -> None:
    emulator.descending = descending  # arrays end at a forbidden page, or begin there
    x, y = floats(32), floats(32)
    for kernel, args in (("shift_by", (x, y, np.int32(32))), ("read_at", (x, y))):
        emulator.launch(KERNELS, kernel, ONE_WARP, (*args, np.int32(0)))
        with pytest.raises(AssertionError, match="beside an array"):
            emulator.launch(KERNELS, kernel, ONE_WARP, (*args, np.int32(by)))


def test_what_is_left_between_an_array_and_the_page_is_nan(emulator) -> None:
    x, y = emulator.empty((3,), "float32"), emulator.empty((3,), "float32")
    x[:] = floats(3)
    emulator.launch(KERNELS, "read_at", Grid((1, 1), (3, 1)), (x, y, np.int32(1)))
    assert y.tolist()[:2] == [1, 2]
    assert np.isnan(y[2])
    with pytest.raises(AssertionError, match="beside an array"):
        emulator.launch(KERNELS, "shift_by", Grid((1, 1), (3, 1)), (x, y, np.int32(3), np.int32(1)))


def test_new_memory_holds_nan(emulator) -> None:
    for kind in ("float16", "float32", "float64"):
        assert np.isnan(emulator.empty((3, 5), kind)).all()


def test_changing_what_is_const_is_an_error(emulator) -> None:
    with pytest.raises(AssertionError, match="const"):
        emulator.launch(KERNELS, "write_const", ONE_WARP, (floats(32),))


def test_a_missing_barrier_shows_in_the_order_of_threads(emulator) -> None:
    results = {}
    for wait in (True, False):
        for emulator.descending in (False, True):
            base = 100 * len(results)  # so that what the last block left behind in shared memory is wrong
            y = base + floats(32)
            emulator.launch(KERNELS, "reverse", ONE_WARP, (y, np.bool_(wait)))
            results[wait, emulator.descending] = (y - base).tolist()
    assert results[True, False] == results[True, True] == floats(32)[::-1].tolist()
    assert results[False, False] != results[False, True]


@pytest.mark.parametrize(("kernel", "args"), [("half_a_barrier", 0), ("half_a_shuffle", 1)])
def test_a_meeting_that_some_threads_miss_is_an_error(kernel, args, emulator) -> None:
    with pytest.raises(AssertionError, match="not all threads reach"):
        emulator.launch(KERNELS, kernel, ONE_WARP, (np.zeros(32, np.int32),) * args)
    test_shuffles_exchange_values_within_a_warp(emulator)  # and the next launch is not disturbed


def test_shuffles_exchange_values_within_a_warp(emulator) -> None:
    y = np.zeros(64, np.int32)
    emulator.launch(KERNELS, "butterfly", Grid((1, 1), (64, 1)), (y,))
    assert y.tolist() == [sum(range(32))] * 32 + [sum(range(32, 64))] * 32


def test_a_misaligned_vector_is_an_error_with_its_place(emulator) -> None:
    x, y = emulator.empty((16,), "float32"), emulator.empty((4,), "float32")
    x[:] = floats(16)
    emulator.launch(KERNELS, "vector_at", Grid((1, 1), (1, 1)), (x, y, np.int32(4)))
    assert y.tolist() == [4, 5, 6, 7]
    with pytest.raises(AssertionError, match=r"misaligned.*vector\.cuh"):
        emulator.launch(KERNELS, "vector_at", Grid((1, 1), (1, 1)), (x, y, np.int32(1)))


def test_an_integer_that_overflows_is_an_error(emulator) -> None:
    y = np.zeros(1, np.int32)
    with pytest.raises(AssertionError, match=r"overflow at for_tests\.cu:\d+"):
        emulator.launch(KERNELS, "product", Grid((1, 1), (1, 1)), (np.int32(2**20), np.int32(2**20), y))


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        ((floats(4), floats(4), 4, np.int32(0)), "NumPy scalar"),
        ((floats(4), floats(4), np.int64(4), np.int32(0)), "int64"),
        ((floats(4), floats(4).astype(np.float64), np.int32(4), np.int32(0)), "float64"),
        ((floats(4), np.int32(0), np.int32(4), np.int32(0)), r"\*f"),
        ((floats(4), floats(4), floats(4), np.int32(0)), "is an array"),
        ((floats(8)[::2], floats(4), np.int32(4), np.int32(0)), "not contiguous"),
        ((floats(4), floats(4), np.int32(4)), "takes 4 arguments"),
    ],
)
def test_arguments_have_the_types_of_the_parameters(args, complaint, emulator) -> None:
    with pytest.raises(AssertionError, match=complaint):
        emulator.launch(KERNELS, "shift_by", ONE_WARP, args)


def test_a_null_pointer_may_be_passed_and_not_read(emulator) -> None:
    emulator.launch(KERNELS, "shift_by", ONE_WARP, (NULL, NULL, np.int32(0), np.int32(0)))


def test_float16_widens_as_numpy_does(emulator) -> None:
    x = np.arange(2**16, dtype=np.uint16).view(np.float16)
    y = emulator.empty(x.shape, "float32")
    emulator.launch(KERNELS, "widen_all", ONE_WARP, (x, y, np.int64(x.size)))
    np.testing.assert_array_equal(y, x.astype(np.float32))


def test_float16_rounds_as_numpy_does(emulator) -> None:
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    halves = np.sort(halves[~np.isnan(halves)]).astype(np.float32)
    finite = halves[np.isfinite(halves)]
    middles = finite[:-1] + np.diff(finite) / 2  # ties, and their neighbours
    around = [np.nextafter(middles, np.float32(toward)) for toward in (np.inf, -np.inf)]
    edges = np.array([65519.99, 65520, 1e38, np.nan, 1e-8, 2.0**-25, 1e-45], np.float32)
    x = np.concatenate([halves, middles, *around, edges, -edges])
    y = emulator.empty(x.shape, "float16")
    emulator.launch(KERNELS, "round_all", ONE_WARP, (x, y, np.int64(x.size)))
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(y, x.astype(np.float16))
