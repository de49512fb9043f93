"""Plans on a double of cuDNN: which engine is chosen and kept, streams, scratch memory, and captures."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from fake_cudnn import Cudnn, Cupy, Engine, Stream, aligned
from strict_cupy import OutOfMemoryError

from gpucnn.errors import DeviceError
from gpucnn.kernels.gpu.cudnn.autotune import agreeing, fastest
from gpucnn.kernels.gpu.cudnn.geometry import FPROP, Geometry
from gpucnn.kernels.gpu.cudnn.options import Options
from gpucnn.kernels.gpu.cudnn.plan_cache import Choice, Environment, PlanCache
from gpucnn.kernels.gpu.cudnn.plans import Context, Plans, trial_arrays
from gpucnn.kernels.gpu.cudnn.workspace import Workspace

GEOMETRY = Geometry(FPROP, (2, 4, 5, 3), (4, 3, 3, 3), (1, 1), ((1, 1), (1, 1)), np.dtype("float32"))
X, W, Y = (aligned(np.ones(shape, np.float32)) for shape in (GEOMETRY.x_shape, GEOMETRY.w_shape, GEOMETRY.y_shape))
POINTERS = [array.data.ptr for array in (X, W, Y)]
KEY = f"{GEOMETRY} {Options()}"


def opened(tmp_path, options=None, **settings) -> tuple[Plans, Cudnn, Cupy]:
    cudnn = Cudnn(**settings)
    cupy = Cupy(cudnn)
    cache = PlanCache(Environment("Double 1", 91900, "1.23.0"), tmp_path)
    return Context(cudnn, 77, cupy.cuda, 0, cache).under(options or Options()), cudnn, cupy


def used(plans: Plans) -> str:
    """The engine of a further call."""
    plans.run(GEOMETRY, POINTERS, Y)
    return plans.cudnn.launched[-1][0]


@pytest.mark.parametrize(
    ("options", "engine"),
    [
        (Options(), "fast"),
        (Options(autotune=False), "guess"),
        (Options(tf32=True), "tensor cores"),
        (Options(deterministic=False), "atomics"),
        (Options(workspace_mib=0), "guess"),
        (Options(workspace_mib=1 << 21), "hungry"),
    ],
)
def test_which_engine_is_chosen(tmp_path, options, engine) -> None:
    plans, _, _ = opened(tmp_path, options)
    assert used(plans) == engine
    assert plans.find(GEOMETRY).engine == engine


def test_engines_are_compared_on_numbers_of_their_own() -> None:
    """An image of zeros, or a gradient that is not finite yet, says nothing of an engine."""
    x, w, y = trial_arrays(GEOMETRY, Y)
    assert (x.shape, w.shape, y.shape) == (GEOMETRY.x_shape, GEOMETRY.w_shape, GEOMETRY.y_shape)
    assert {array.dtype for array in (x, w, y)} == {GEOMETRY.dtype}
    for array in (x, w):
        assert -1.0 <= array.min() < -0.5 < 0.5 < array.max() <= 1.0
        assert len(np.unique(array)) > 0.9 * array.size
    assert not np.isin(w, x).all()


def test_an_engine_that_computes_something_else_is_not_chosen(tmp_path, capsys) -> None:
    blank = aligned(np.zeros(GEOMETRY.x_shape, np.float32))  # on which all engines but the wrong one give zeros
    engines = [Engine("quick and wrong", 0.1, adds=0.5), Engine("right", 2.0), Engine("right too", 1.0)]
    plans, cudnn, _ = opened(tmp_path, engines=engines)
    plans.run(GEOMETRY, [blank.data.ptr, *POINTERS[1:]], Y)
    assert cudnn.launched[-1][0] == "right too"
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "not used" in line]
    assert f"not used for {GEOMETRY}: quick and wrong; 2 other engines" in line


def test_without_memory_to_compare_engines_they_are_timed_all_the_same(tmp_path, monkeypatch) -> None:
    def no_room(*_):
        raise OutOfMemoryError(1, 1, 1)

    monkeypatch.setattr("gpucnn.kernels.gpu.cudnn.autotune.distance", no_room)
    plans, _, _ = opened(tmp_path)
    assert used(plans) == "fast"


def test_an_engine_is_timed_once_and_then_executed_alone(tmp_path, capsys) -> None:
    plans, cudnn, cupy = opened(tmp_path)
    plans.run(GEOMETRY, POINTERS, Y)
    assert "timing cuDNN's engines" in capsys.readouterr().err
    launches, allocations = len(cudnn.launched), len(cupy.allocated)
    for _ in range(3):
        plans.run(GEOMETRY, POINTERS, Y)
    assert [name for name, _ in cudnn.launched[launches:]] == ["fast"] * 3
    assert len(cupy.allocated) == allocations
    assert len(cudnn.graphs) == 1
    assert capsys.readouterr().err == ""


def test_a_choice_is_found_again_by_the_next_process(tmp_path, capsys) -> None:
    opened(tmp_path)[0].run(GEOMETRY, POINTERS, Y)
    capsys.readouterr()
    plans, cudnn, _ = opened(tmp_path)
    assert used(plans) == "fast"
    assert [name for name, _ in cudnn.launched] == ["fast"]
    assert capsys.readouterr().err == ""
    assert plans.cache.get(KEY) == Choice("fast", 1.0, 3000, 3)


@pytest.mark.parametrize("name", ["an engine of another version", "broken"])
def test_a_choice_that_cannot_be_built_any_more_is_made_anew(tmp_path, name) -> None:
    plans, _, _ = opened(tmp_path)
    plans.cache.put(KEY, Choice(name, 0.1, 0, 9))
    assert used(plans) == "fast"
    content = json.loads(plans.cache.path.read_text())
    assert content["choices"][KEY]["engine"] == "fast"


def test_choices_under_other_options_are_other_choices(tmp_path) -> None:
    plans, _, _ = opened(tmp_path)
    assert used(plans) == "fast"
    assert used(plans.context.under(Options(tf32=True))) == "tensor cores"
    assert plans.context.under(Options()) is plans
    assert used(plans) == "fast"
    assert len(plans.cache.choices) == 2


def test_without_any_engine_that_starts_there_is_one_clear_line(tmp_path) -> None:
    plans, _, _ = opened(tmp_path, engines=[Engine("stubborn", starts=False)])
    with pytest.raises(DeviceError, match=r"none of cuDNN's 1 engines for fprop float32 .* GPUCNN_CUDNN=0"):
        plans.run(GEOMETRY, POINTERS, Y)
    heuristic, _, _ = opened(tmp_path, Options(autotune=False), engines=[Engine("stubborn", starts=False)])
    with pytest.raises(DeviceError, match=r"cuDNN fails at fprop .* with stubborn: CUDNN_STATUS_EXECUTION_FAILED"):
        heuristic.run(GEOMETRY, POINTERS, Y)


def test_scratch_memory_that_does_not_fit_leaves_smaller_engines_or_says_so(tmp_path) -> None:
    def full(size: int):
        raise OutOfMemoryError(size, 70 << 30)

    hungry, modest = Engine("hungry", 0.1, workspace=1 << 20), Engine("modest", 3.0)
    plans, cudnn, _ = opened(tmp_path, engines=[hungry, modest])
    plans.cuda.alloc = lambda size: full(size) if size > 1 else SimpleNamespace(ptr=16)
    plans.run(GEOMETRY, POINTERS, Y)
    assert {name for name, _ in cudnn.launched} == {"modest"}
    plans, _, _ = opened(tmp_path / "other", engines=[hungry])
    plans.cuda.alloc = full
    with pytest.raises(OutOfMemoryError):
        plans.run(GEOMETRY, POINTERS, Y)


def test_a_frontend_without_the_quick_call_is_called_by_its_public_one(tmp_path, monkeypatch) -> None:
    from fake_cudnn import Graph

    def execute(self, addresses, workspace, handle):
        self.execute_plan_at_index(addresses, workspace, self.candidate, handle)

    monkeypatch.delattr(Graph, "_execute_with_ptrs")
    monkeypatch.setattr(Graph, "execute", execute, raising=False)
    plans, _, _ = opened(tmp_path)
    Y[...] = 0
    assert used(plans) == "fast"
    assert (Y[0, 1, 1] == 27).all()


def test_tensors_in_another_order_than_declared_are_an_error(tmp_path, monkeypatch) -> None:
    from fake_cudnn import Graph

    monkeypatch.setattr(Graph, "_get_variant_pack_uids_sorted", lambda self: [1, 3])
    with pytest.raises(DeviceError, match=r"wants the tensors \[1, 3\]"):
        opened(tmp_path)[0].run(GEOMETRY, POINTERS, Y)


def test_work_goes_to_the_current_stream(tmp_path) -> None:
    plans, cudnn, cupy = opened(tmp_path)
    for stream in (0, 5, 5, 0):
        cupy.current = Stream(stream)
        plans.run(GEOMETRY, POINTERS, Y)
        assert cudnn.launched[-1] == ("fast", stream)


def test_nothing_is_chosen_during_a_capture(tmp_path) -> None:
    plans, cudnn, cupy = opened(tmp_path)
    cupy.current = Stream(5, capturing=True)
    with pytest.raises(DeviceError, match=r"no engine for fprop .* run the same step once before capturing"):
        plans.run(GEOMETRY, POINTERS, Y)
    assert cudnn.launched == []
    cupy.current = Stream(5)
    plans.run(GEOMETRY, POINTERS, Y)
    cupy.current = Stream(5, capturing=True)
    assert used(plans) == "fast"


def test_scratch_memory_does_not_grow_during_a_capture(tmp_path) -> None:
    plans, _, cupy = opened(tmp_path)
    plans.run(GEOMETRY, POINTERS, Y)
    cupy.current = Stream(5, capturing=True)  # a stream on which nothing ran yet
    with pytest.raises(DeviceError, match="needs 3000 bytes of workspace and this stream has 0"):
        plans.run(GEOMETRY, POINTERS, Y)


def test_a_workspace_grows_by_powers_of_two_and_keeps_what_it_outgrew() -> None:
    made = []

    def allocate(size: int):
        made.append(size)
        return Stream(1000 * len(made))

    workspace, one, two = Workspace(allocate), Stream(1), Stream(2)
    assert workspace.address(0, one) == 0
    assert made == []
    assert [workspace.address(size, one) for size in (100, 128, 129, 5)] == [1000, 1000, 2000, 2000]
    assert made == [128, 256]
    assert workspace.address(64, two) == 3000  # other streams run at the same time
    assert [buffer.ptr for buffer in workspace.buffers[1]] == [1000, 2000]
    one.capturing = True
    assert workspace.address(256, one) == 2000
    with pytest.raises(DeviceError, match="before capturing"):
        workspace.address(257, one)


RESULTS = {
    0: [1.0, 8.0],  # alone
    1: [4.0, -2.0],
    2: None,  # does not start
    3: [4.01, -2.0],
    4: [np.nan, -2.0],
    5: [3.99, -2.01],
    6: [0.0, 0.0],
}


@pytest.mark.parametrize(
    ("candidates", "same", "others"),
    [
        ([0, 1, 2, 3, 4, 5], [1, 3, 5], [0, 4]),
        ([1, 0], [1], [0]),  # one against one: the heuristics' first
        ([0, 1, 3, 6, 4], [1, 3], [0, 6, 4]),  # no half: the most
        ([6, 1, 3], [1, 3], [6]),
        ([6, 6], [6, 6], []),  # zeros say nothing
        ([2], [], []),
        ([], [], []),
    ],
)
def test_who_agrees(candidates, same, others) -> None:
    def compute(candidate: int) -> np.ndarray | None:
        return None if RESULTS[candidate] is None else np.array(RESULTS[candidate])

    assert agreeing(candidates, compute, 0.01) == (same, others)


def test_below_the_normal_numbers_of_float16_last_digits_are_no_disagreement() -> None:
    def compute(candidate: int) -> np.ndarray:
        return np.array([candidate * 2.0**-24, 0.0], np.float16)

    assert agreeing([20, 21, 23], compute, 0.01) == ([20, 21, 23], [])
    assert agreeing([2000, 2001, 2100], compute, 0.01) == ([2000, 2001], [2100])


@pytest.mark.parametrize(
    ("fails", "same", "others"), [((0, 1), [1, 3], []), ((3, 1), [0], [1]), ((1, 1), [0], [3]), ((3, 2), [0], [1])]
)
def test_an_engine_without_room_beside_a_kept_result_is_said_to_be_neither(fails, same, others) -> None:
    """``fails``: which one, and how often it runs before."""
    runs = {0: 0, 1: 0, 3: 0}

    def compute(candidate: int) -> np.ndarray | None:
        runs[candidate] += 1
        out = candidate == fails[0] and runs[candidate] > fails[1]
        return None if out else np.array(RESULTS[candidate])

    assert agreeing(runs, compute, 0.01) == (same, others)


def test_the_fastest_is_the_least_of_several_rounds() -> None:
    noise = {0: [9, 3.0, 3.5, 3.0, 3.0], 1: [50, 2.5, 9.0, 2.0, 9.0], 2: [2, 2.9, 2.9, 2.9, 2.9]}
    asked = []

    def measure(candidate: int, executions: int) -> float:
        asked.append((candidate, executions))
        return noise[candidate].pop(0)

    assert fastest([0, 1, 2], measure) == (1, 2.0)
    assert all(times == [] for times in noise.values())
    assert fastest([], measure) == (-1, float("inf"))


def test_the_hopeless_are_not_timed_for_long() -> None:
    asked = []

    def measure(candidate: int, executions: int) -> float:
        asked.append((candidate, executions))
        return {0: 0.5, 1: 1.0, 2: float("inf")}[candidate]

    assert fastest([2, 0, 1], measure) == (0, 0.5)
    assert asked == [(2, 1), (2, 1), (0, 1), (0, 1), (0, 4), (0, 4), (0, 4), (1, 1), (1, 1)]
