"""The plan gate: cuDNN has a plan for every convolution of every model on an H100, asked without any GPU.

cuDNN answers for a GPU that is only described (h100.json).  It needs the wheels of the extra ``cuda-dev``, which are
large, and no driver:

    pip install -e '.[test,cuda-dev]' && python -m pytest tests/kernels/gpu/test_plan_gate.py
"""

import inspect
import json
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from math import prod
from pathlib import Path

import numpy as np
import pytest
from kernel_samples import ASYMMETRIC, CONVOLUTIONS, GROUPED, grouped

from gpucnn import models
from gpucnn.kernels.gpu import muon
from gpucnn.kernels.gpu.cudnn import graph as cudnn_graph
from gpucnn.kernels.gpu.cudnn.geometry import DGRAD, FPROP, WGRAD, Geometry
from gpucnn.kernels.gpu.cudnn.options import Options
from gpucnn.kernels.gpu.cudnn.plans import Plan
from gpucnn.layers import Conv2D
from gpucnn.layers.windows import as_padding, as_pair

HALF, SINGLE = np.dtype("float16"), np.dtype("float32")
MODES = {"float16": (HALF, Options()), "float32": (SINGLE, Options()), "TF32": (SINGLE, Options(tf32=True))}
NONE, ONE = ((0, 0), (0, 0)), ((1, 1), (1, 1))


def wheels_problem() -> str:
    """Why cuDNN cannot be asked here; "" where it can."""
    if find_spec("cudnn") is None:
        return "nvidia-cudnn-frontend is not installed: pip install 'gpucnn[cuda-dev]'"
    # without cublasLt cuDNN ends the whole process at the first graph
    for names in (("nvidia-cudnn-cu13", "nvidia-cudnn-cu12"), ("nvidia-cublas", "nvidia-cublas-cu12")):
        if not any(installed(name) for name in names):
            return f"{names[0]} is not installed: pip install 'gpucnn[cuda-dev]'"
    return ""


def installed(distribution: str) -> bool:
    try:
        return bool(version(distribution))
    except PackageNotFoundError:
        return False


needs_wheels = pytest.mark.skipif(bool(wheels_problem()), reason=wheels_problem() or "the wheels are here")


@pytest.fixture(scope="module")
def h100() -> dict[str, object]:
    """What describes the GPU to a graph.

    Without ``sm_count``, which means another thing: on how many multiprocessors of the GPU to run.  Given that, cuDNN
    strikes out the engines made for this GPU, and the rest would be a poor answer.
    """
    import cudnn

    text = Path(__file__).with_name("h100.json").read_text(encoding="utf-8")
    properties = cudnn.create_device_properties(text)
    return {"device_property": properties, "sm_version": json.loads(text)["deviceVer"] // 10}


# -- the shapes ---------------------------------------------------------------------------------------


def convolutions_of(name: str, image: tuple[int, ...]) -> list[tuple[Conv2D, tuple[int, ...]]]:
    """The convolutions of a model and the images (H,W,C) that each of them sees, by watching the model be built."""
    found: list[tuple[Conv2D, tuple[int, ...]]] = []
    original = Conv2D.output_shape

    def watch(layer: Conv2D, shape: tuple[int, ...]) -> tuple[int, ...]:
        found.append((layer, shape))
        return original(layer, shape)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Conv2D, "output_shape", watch)
        models.build(name, image)
    return found


def cases() -> dict[str, tuple]:
    """Name -> (x shape, w shape, stride, padding), no two alike."""
    found: dict[tuple, str] = {}
    for name in models.MODELS:
        for image in ((28, 28, 1), (32, 32, 3)):
            for layer, shape in convolutions_of(name, image):
                for batch in (128, 512, 1024) if name == "resnet18" else (128,):
                    case = ((batch, *shape), layer.weight.shape, layer.stride, layer.padding)
                    if (layer.dilation, layer.groups) == ((1, 1), 1):
                        found.setdefault(case, name)
    for batch in (128, 1024, 2000):  # a CIFAR net made for speed (arXiv 2404.00498)
        found.setdefault(((batch, 32, 32, 3), (24, 2, 2, 3), (1, 1), NONE), "speedrun")
        for size, c, f in ((31, 24, 64), (31, 64, 64), (15, 64, 64), (15, 64, 256), (15, 256, 256), (7, 256, 256)):
            found.setdefault(((batch, size, size, c), (f, 3, 3, c), (1, 1), ONE), "speedrun")
    for x_shape, f, kernel, step, border in CONVOLUTIONS:  # odd ones
        pair, stride = as_pair(kernel, "kernel", 1), as_pair(step, "stride", 1)
        padding = border if border == ASYMMETRIC else as_padding(border, pair, stride)
        found.setdefault((x_shape, (f, *pair, x_shape[3]), stride, padding), "sample")
    return {
        f"{name} {Geometry(FPROP, *case, SINGLE)}".replace(" fprop float32", ""): case for case, name in found.items()
    }


CASES = cases()


def general_cases() -> dict[str, tuple]:
    """Name -> (x shape, w shape, stride, padding, dilation, groups): depthwise ones of a model, and odd ones."""
    found = {}
    for layer, shape in convolutions_of("mobilenet_v2", (32, 32, 3)):
        how = layer.stride, layer.padding, layer.dilation, layer.groups
        if layer.groups > 1:
            found[((128, *shape), layer.weight.shape, *how)] = "mobilenet_v2"
    for case in GROUPED:
        x_shape, w_shape, _, how = grouped(case)
        found.setdefault((x_shape, w_shape, *how), "sample")
    return {f"{name} {case}": case for case, name in found.items()}


GENERAL = general_cases()


def products() -> set[Geometry]:
    """Muon's, for the matrices of the nets that are trained with it, and some small ones."""
    matrices = {(9, 4), (5, 13), (1, 1)}
    for name in ("speedrun94", "speedrun95", "speedrun96"):
        weights = [layer.weight for layer, _ in convolutions_of(name, (32, 32, 3))]
        matrices |= {(w.shape[0], prod(w.shape[1:])) for w in weights if w.group == "filter"}
    assert {(64, 216), (64, 576), (256, 576), (256, 2304), (512, 4608)} <= matrices
    return {geometry for shape in matrices for geometry in muon.geometries(shape)}


def test_the_models_have_the_convolutions_that_they_have() -> None:
    count = {
        name: sum(case.startswith(f"{name} ") for case in CASES) for name in [*models.MODELS, "speedrun", "sample"]
    }
    assert [name for name, number in count.items() if number == 0] == ["resnet34", "mlp"]  # resnet34 has resnet18's
    stem = {"vgg_small": (64, 3, 3, 3), "lenet5": (6, 5, 5, 3)}
    for name, w_shape in stem.items():
        assert ((128, 32, 32, 3), w_shape) in {case[:2] for key, case in CASES.items() if key.startswith(name)}
    block = ((1024, 8, 8, 256), (512, 3, 3, 256), (2, 2), ONE)
    assert block in CASES.values()
    assert ((512, 8, 8, 256), (512, 1, 1, 256), (2, 2), NONE) in CASES.values()


# -- the question -------------------------------------------------------------------------------------


def engines(plan: Plan) -> list[int]:
    """The plans that can be built, best guess first."""
    import cudnn

    count = len(cudnn_graph.names(plan.graph))
    return [index for index in range(count) if cudnn_graph.buildable(cudnn, plan.graph, index)]


@needs_wheels
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", CASES)
def test_cudnn_has_plans(h100, case, mode) -> None:
    import cudnn

    dtype, options = MODES[mode]
    for op, bias in ((FPROP, False), (FPROP, True), (DGRAD, False), (WGRAD, False)):
        plan = Plan(cudnn, Geometry(op, *CASES[case], dtype, bias), options, **h100)
        assert plan.refusal == "", f"{plan.geometry}: {plan.refusal}"
        names = cudnn_graph.names(plan.graph)
        first = next((i for i in range(len(names)) if cudnn_graph.buildable(cudnn, plan.graph, i)), -1)
        assert first >= 0, f"{plan.geometry}: none of {len(names)} engines can be built"
        plan.take(first, names[first])  # the tensors are in the order in which we give pointers
        assert 0 <= plan.workspace <= options.workspace_mib << 20
        if dtype == HALF:
            all_engines = engines(plan)
            plan.graph.deselect_numeric_notes([cudnn.numerical_note.TENSOR_CORE])
            assert len(engines(plan)) < len(all_engines), f"{plan.geometry}: no engine uses tensor cores"


@needs_wheels
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", GENERAL)
def test_cudnn_has_plans_for_groups_and_dilation(h100, case, mode) -> None:
    import cudnn

    dtype, options = MODES[mode]
    *shapes, stride, padding, dilation, groups = GENERAL[case]
    for op in (FPROP, DGRAD, WGRAD):
        geometry = Geometry(op, *shapes, stride, padding, dtype, False, dilation, groups)
        plan = Plan(cudnn, geometry, options, **h100)
        assert plan.refusal == "", f"{geometry}: {plan.refusal}"
        assert engines(plan), f"{geometry}: no engine can be built"


@needs_wheels
@pytest.mark.parametrize("geometry", sorted(products(), key=str), ids=str)
def test_cudnn_multiplies_matrices(h100, geometry) -> None:
    import cudnn

    plan = Plan(cudnn, geometry, Options(), **h100)
    assert plan.refusal == ""
    found = engines(plan)
    assert found
    plan.take(found[0], cudnn_graph.names(plan.graph)[found[0]])
    plan.graph.deselect_numeric_notes([cudnn.numerical_note.TENSOR_CORE])
    assert len(engines(plan)) < len(found), "no engine uses tensor cores"


@needs_wheels
@pytest.mark.parametrize("op", [FPROP, DGRAD, WGRAD])
def test_the_options_rule_engines_out(h100, op) -> None:
    import cudnn

    def names(dtype: np.dtype, **options: object) -> set[str]:
        geometry = Geometry(op, (128, 32, 32, 64), (64, 3, 3, 64), (1, 1), ONE, dtype)
        plan = Plan(cudnn, geometry, Options(**options), **h100)
        listed = cudnn_graph.names(plan.graph)
        return {listed[index] for index in engines(plan)}

    assert names(SINGLE) < names(SINGLE, tf32=True)
    assert names(HALF) == names(HALF, deterministic=False)  # tensor cores sum in a fixed order
    if op != FPROP:  # some old engines add up gradients by atomic operations
        assert names(SINGLE) < names(SINGLE, deterministic=False)
    small = names(SINGLE, workspace_mib=0)
    assert small
    assert small < names(SINGLE)


@needs_wheels
def test_what_cudnn_does_not_compute_is_a_refusal_with_a_reason(h100) -> None:
    import cudnn

    one = Geometry(FPROP, (2, 8, 8, 3), (4, 3, 3, 3), (1, 1), ONE, SINGLE)
    for wrong in (one._replace(w_shape=(4, 11, 11, 3)), one._replace(x_shape=(0, 8, 8, 3))):
        assert wrong.problem()
        assert Plan(cudnn, wrong, Options(), **h100).refusal == wrong.problem()
        # and cuDNN says so too, by an exception of its own
        assert cudnn_graph.ask(cudnn, cudnn_graph.build(cudnn, wrong, **h100), Options(), "float32")
    cut = one._replace(x_shape=(2, 8, 8, 6))
    assert cudnn_graph.ask(cudnn, cudnn_graph.build(cudnn, cut, **h100), Options(), "float32") == ""
    assert Plan(cudnn, cut, Options(), **h100).refusal  # which is why we do not leave it to cuDNN


@needs_wheels
def test_calls_that_need_a_gpu_take_what_they_are_given() -> None:
    import cudnn

    graph = cudnn.pygraph
    assert "user_ptrs: list[int], workspace: int, handle: int" in graph._execute_with_ptrs.__doc__
    assert list(inspect.signature(graph.execute_plan_at_index).parameters)[1:5] == [
        "tensor_to_device_buffer", "workspace", "index", "handle",
    ]  # fmt: skip
    assert list(inspect.signature(graph.execute).parameters)[1:4] == ["tensor_to_device_buffer", "workspace", "handle"]
    assert "handle: int, stream: int" in cudnn.set_stream.__doc__
    assert "-> int" in cudnn.create_handle.__doc__
    assert isinstance(cudnn.backend_version(), int)
    assert isinstance(cudnn.__version__, str)


def test_cupy_has_what_is_called() -> None:
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    assert callable(cupy.cuda.Stream.is_capturing)
    assert cupy.cuda.Event().record if cupy.cuda.is_available() else cupy.cuda.Event.record
    for name in ("alloc", "get_current_stream", "get_elapsed_time"):
        assert callable(getattr(cupy.cuda, name))
    assert {"ptr", "device_id"} <= set(dir(cupy.cuda.MemoryPointer))
    for name in ("getDevice", "getDeviceProperties"):
        assert callable(getattr(cupy.cuda.runtime, name))
    assert issubclass(cupy.cuda.memory.OutOfMemoryError, MemoryError)
    assert issubclass(cupy.cuda.runtime.CUDARuntimeError, RuntimeError)
