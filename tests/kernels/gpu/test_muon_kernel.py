"""Muon on the GPU: products by cuDNN, what float16 does to singular values, and a graph of the whole update."""

import numpy as np
import pytest
from fake_cudnn import Engine, aligned, install
from gpu_samples import close
from outcomes import outcome

from gpucnn.backend import guarded
from gpucnn.devices import get_backend, gpu
from gpucnn.errors import DeviceError
from gpucnn.kernels.gpu import muon as kernel
from gpucnn.kernels.gpu.cudnn import graph as cudnn_graph
from gpucnn.kernels.gpu.cudnn import library, matmul
from gpucnn.kernels.gpu.cudnn.library import Library
from gpucnn.kernels.gpu.cudnn.options import Options
from gpucnn.optim import muon

SIDES = [(8, 8, 8), (16, 8, 24), (64, 72, 40)]  # m, n, k
SPEEDRUN = [(64, 216), (64, 576), (256, 576), (256, 2304)]
ROW = gpu.table(Options())[muon.muon_update]
UPDATE = guarded(muon.muon_update, ROW)
HOW = (0.25, 0.6, True, 3)  # rate, momentum, Nesterov, rounds


def halves(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float16)


def matrices(shape) -> tuple[np.ndarray, ...]:
    """w, g and velocity."""
    return tuple(np.random.default_rng(sum(shape)).standard_normal((3, *shape)).astype(np.float32))


def test_the_kernel_has_the_numbers_of_the_op() -> None:
    assert kernel.COEFFICIENTS is muon.COEFFICIENTS
    assert kernel.SMALLEST is muon.SMALLEST


@pytest.mark.parametrize("sides", SIDES, ids=str)
def test_products_are_convolutions(sides, monkeypatch, tmp_path) -> None:
    """What is asked of cuDNN, done literally, is the product."""
    cudnn, _ = install(monkeypatch, tmp_path)
    m, n, k = sides
    products = matmul.Products(Library(Options()))
    a, b = aligned(halves(m, k)), aligned(halves(n, k))
    assert products.refusal(matmul.nt_geometry(m, n, k), matmul.nn_geometry(m, n, k)) == ""
    for got, second in ((products.nt(a, b), b.T), (products.nn(a, aligned(halves(k, n))), halves(k, n))):
        assert got.shape == (m, n)
        np.testing.assert_allclose(got, a.astype(float) @ second.astype(float), rtol=1e-3, atol=1e-3)
    assert len(cudnn.launched) > 2


def test_whatever_cudnn_refuses_is_left_to_the_op_and_named(monkeypatch, tmp_path) -> None:
    install(monkeypatch, tmp_path)
    args = (*matrices((6, 10)), *HOW)
    assert gpu.table(Options())[muon.muon_update].accepts(*args)
    install(monkeypatch, tmp_path, engines=[Engine("hungry", workspace=1 << 40)])
    assert "No execution plans" in kernel.Muon(Library(Options())).refusal((6, 10))
    assert not gpu.table(Options())[muon.muon_update].accepts(*args)
    off = Options(cudnn=False)
    assert kernel.Muon(Library(off)).refusal((6, 10)) == library.OFF
    uncapturable = gpu.UncapturableOps()
    update = gpu.kernels(off, uncapturable)[muon.muon_update]
    for got, wanted in zip(
        outcome(muon.muon_update, update, args), outcome(muon.muon_update, muon.muon_update, args), strict=True
    ):
        np.testing.assert_array_equal(got, wanted)
    assert uncapturable.pop() == ["muon_update"]


@pytest.mark.parametrize(
    ("shape", "inside"), [((64, 216), (64, 216)), ((5, 13), (8, 16)), ((27, 9), (16, 32)), ((1, 1), (8, 8))]
)
def test_what_is_multiplied_has_sides_of_multiples_of_eight(shape, inside) -> None:
    assert kernel.padded(shape) == inside
    found = [(geometry.input_shapes, geometry.output_shape) for geometry in kernel.geometries(shape)]
    height, width = inside
    x, square = (1, 1, height, width), (1, 1, height, height)
    assert found == [
        ([x, (height, 1, 1, width)], square),
        ([square, (height, 1, 1, height)], square),
        ([square, (height, 1, 1, width)], x),
    ]


@pytest.mark.parametrize("shape", [(64, 216), (70, 36)])
@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_steps_are_the_ops_to_a_few_thousandths(shape, scale, emulator) -> None:
    w, g, velocity = matrices(shape)
    args = (w, g * np.float32(scale), velocity * np.float32(scale), *HOW)
    emulator.launched.clear()
    got, speed = outcome(muon.muon_update, UPDATE, args)
    assert emulator.launched
    exact = tuple(a.astype(np.float64) if isinstance(a, np.ndarray) else a for a in args)
    wanted, wanted_speed = outcome(muon.muon_update, muon.muon_update, exact)
    np.testing.assert_allclose(speed, wanted_speed, rtol=1e-5, atol=1e-6 * scale)
    step = wanted - w * (shape[0] ** 0.5 / np.linalg.norm(w))
    assert np.linalg.norm(got - wanted) < 5e-3 * np.linalg.norm(step)


@pytest.mark.parametrize("smallest", [0.3, 0.05])
def test_float16_takes_singular_values_where_they_belong(smallest, emulator) -> None:
    """Between 0.68 and 1.21, for all that lie between 0.02 and 1 of the norm; and directions stay."""
    rng = np.random.default_rng(0)
    u, _ = np.linalg.qr(rng.standard_normal((24, 24)))
    v, _ = np.linalg.qr(rng.standard_normal((96, 24)))
    s = np.geomspace(1, smallest, 24)
    g = ((u * s) @ v.T).astype(np.float32)
    w = np.zeros_like(g)  # of nothing comes nothing: what is left is the step
    UPDATE(w, g, np.zeros_like(g), 1.0, 0.0, False, 3)
    inside = u.T @ -w @ v
    found = np.diag(inside)
    np.testing.assert_allclose(inside, np.diag(found), atol=0.01)
    visible = s / np.linalg.norm(s) > 0.02
    assert visible.sum() >= 20
    assert found[visible].min() > 0.67
    assert found.max() < 1.22


def test_zeros_stay_zeros(emulator) -> None:
    w, zero = np.ones((3, 5), np.float32), np.zeros((3, 5), np.float32)
    UPDATE(w, zero, zero.copy(), *HOW)
    np.testing.assert_allclose(w, 3**0.5 / 15**0.5, rtol=1e-6)
    UPDATE(zero, zero.copy(), zero.copy(), *HOW)
    assert not zero.any()


@pytest.mark.parametrize("steps", [1, 3, 5])
def test_how_often_something_is_started(steps, emulator, monkeypatch) -> None:
    """Three products and a kernel in each round, three kernels around them."""
    started = []
    launcher = emulator.launch
    monkeypatch.setattr(emulator, "launch", lambda *args: (started.append(args[1]), launcher(*args))[1])
    for name in ("nt", "nn"):
        original = getattr(matmul.Products, name)

        def count(self, a, b, name=name, original=original):
            started.append(name)
            return original(self, a, b)

        monkeypatch.setattr(matmul.Products, name, count)
    UPDATE(*matrices((9, 4)), 0.25, 0.6, False, steps)
    rounds = ["nt", "nt", "polynomial", "nn"] * steps
    assert started == ["direction<4, false>", "start<false, true>", *rounds, "finish<true>"]


# -- on a GPU -----------------------------------------------------------------------------------------


@pytest.fixture
def device():
    """The GPU, where cuDNN computes the products."""
    found = get_backend("gpu")
    if refusal := kernel.Muon(Library(Options())).refusal(SPEEDRUN[0]):
        pytest.skip(refusal)
    return found


@pytest.mark.gpu
@pytest.mark.parametrize("shape", [*SPEEDRUN, (9, 4), (576, 64), (5, 13)], ids=str)
def test_on_a_gpu_steps_are_those_of_the_op_in_float64(shape, device) -> None:
    arrays = matrices(shape)
    w, _, velocity = exact = [array.astype(np.float64) for array in arrays]
    assert ROW.accepts(*map(device.to_device, arrays), *HOW)
    muon.muon_update(*exact, *HOW)
    results = []
    for _ in range(2):
        moved = [device.to_device(array.copy()) for array in arrays]
        device.run(muon.muon_update, *moved, *HOW)
        results.append([device.to_host(array) for array in moved])
    assert device.uncapturable_ops() == []
    for got, again in zip(*results, strict=True):
        assert got.tobytes() == again.tobytes()
    got, same, speed = results[0]
    np.testing.assert_array_equal(same, arrays[1])
    np.testing.assert_allclose(speed, velocity, rtol=1e-5, atol=1e-6)
    step = w - arrays[0] * (shape[0] ** 0.5 / np.linalg.norm(arrays[0].astype(np.float64)))
    assert np.linalg.norm(got - w) < 1e-2 * np.linalg.norm(step)


@pytest.mark.gpu
@pytest.mark.parametrize("sides", [*SIDES, (256, 256, 2304), (256, 2304, 256)], ids=str)
def test_on_a_gpu_products_are_right_by_every_engine(sides, device) -> None:
    m, n, k = sides
    library = Library(Options())
    products, plans = matmul.Products(library), library.plans()
    for name, b in (("nt", halves(n, k)), ("nn", halves(k, n))):
        a = halves(m, k)
        wanted = a.astype(np.float64) @ (b.T if name == "nt" else b).astype(np.float64)
        multiply, geometry = getattr(products, name), getattr(matmul, f"{name}_geometry")(m, n, k)
        moved = device.to_device(a), device.to_device(b)
        close(device.to_host(multiply(*moved)), wanted, 5e-3)  # the plan has an engine from now on
        plan = plans.find(geometry)
        chosen = plan.engine
        listed = cudnn_graph.names(plan.graph)
        buildable = [i for i in range(len(listed)) if cudnn_graph.buildable(plans.cudnn, plan.graph, i)]
        right = 0
        for index in buildable:
            plan.take(index, listed[index])
            try:
                got = multiply(*moved)
            except DeviceError:  # listed, but it does not start: timing passes over it too
                continue
            close(device.to_host(got), wanted, 5e-3)
            right += 1
        plan.take(listed.index(chosen), chosen)
        assert right


@pytest.mark.gpu
@pytest.mark.parametrize("shape", [(64, 216), (9, 4)], ids=str)
def test_on_a_gpu_a_captured_step_reads_the_rate_anew(shape, device) -> None:
    cupy = device.xp
    stream, pool = cupy.cuda.Stream(non_blocking=True), cupy.cuda.MemoryPool()
    with stream:
        w, g, velocity = map(cupy.asarray, matrices(shape))
        ours, theirs = ((w.copy(), velocity.copy()) for _ in range(2))
        rate = cupy.zeros((), cupy.float64)

        def step(w, velocity) -> None:
            device.run(muon.muon_update, w, g, velocity, rate, 0.6, True, 3)

        with cupy.cuda.using_allocator(pool.malloc):
            step(w, velocity)  # compiled, engines chosen, memory there
            stream.begin_capture()
            step(*ours)
            graph = stream.end_capture()
        for now in (0.3, 0.1, 0.0):
            rate.fill(now)
            graph.launch(stream)
            step(*theirs)
            for got, wanted in zip(ours, theirs, strict=True):
                np.testing.assert_array_equal(cupy.asnumpy(got), cupy.asnumpy(wanted))
