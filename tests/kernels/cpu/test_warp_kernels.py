"""Warped batches on the CPU: what the kernels cover, and that nothing is read that is not there."""

import numpy as np
import pytest

pytest.importorskip("numba")

from outcomes import accepts

from gpucnn.data.augment.warp import noise_planes, warp
from gpucnn.devices import cpu

if reason := cpu.problem():
    pytest.skip(reason, allow_module_level=True)

TABLE, BACKEND = cpu.table(), cpu.cpu_backend()


def arguments() -> dict[str, object]:
    rng = np.random.default_rng(0)
    return {
        "images": rng.integers(0, 256, (5, 6, 7, 3), dtype=np.uint8),
        "index": np.array([4, 0]),
        "matrix": rng.standard_normal((2, 2, 2)).astype(np.float32),
        "field": rng.standard_normal((2, 2, 6, 7)).astype(np.float32),
        "border": "reflect",
    }


BAD = {
    "from the end": {"index": np.array([-1, 0])},
    "two-dimensional": {"index": np.array([[1, 0]])},
    "float64": {"matrix": np.ones((2, 2, 2))},
    "fields of float64": {"field": np.ones((2, 2, 6, 7))},
    "one matrix": {"matrix": np.ones((1, 2, 2), np.float32)},
    "one field": {"field": np.ones((1, 2, 6, 7), np.float32)},
    "images of floats": {"images": np.ones((5, 6, 7, 3), np.float32)},
}


@pytest.mark.parametrize("case", BAD)
def test_anything_else_runs_on_the_reference_implementation(case: str) -> None:
    assert accepts(TABLE, warp, *arguments().values())
    args = {**arguments(), **BAD[case]}
    assert not accepts(TABLE, warp, *args.values())
    if case != "two-dimensional":
        np.testing.assert_array_equal(BACKEND.run(warp, *args.values()), warp(*args.values()))


def test_an_image_that_is_not_there_is_an_error() -> None:
    args = {**arguments(), "index": np.array([0, 5])}
    with pytest.raises(IndexError):
        BACKEND.run(warp, *args.values())


@pytest.mark.parametrize("border", ["zero", "reflect"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30, -1e30])
def test_nan_and_far_places_stay_inside_the_image(border: str, value: float) -> None:
    args = {**arguments(), "border": border}
    args["field"] = np.full((2, 2, 6, 7), value, np.float32)
    assert BACKEND.run(warp, *args.values()).shape == (2, 6, 7, 3)


@pytest.mark.parametrize("layout", [np.asfortranarray, lambda a: np.repeat(a, 2, axis=0)[::2], lambda a: a[:, ::-1]])
def test_images_may_lie_in_memory_as_they_like(layout) -> None:
    args = arguments()
    args["images"] = layout(args["images"])
    assert accepts(TABLE, warp, *args.values())
    assert np.array_equal(BACKEND.run(warp, *args.values()), warp(*args.values()))


def test_members_and_steps_that_fill_no_counter_run_on_the_reference_implementation() -> None:
    good = (np.array([3, 2**32 - 1]), (6, 7, 3), 2**63, 5, 2**32 - 1)
    assert accepts(TABLE, noise_planes, *good)
    for place, value in ((0, np.array([2**32])), (0, np.array([-1])), (4, 2**32), (4, -1)):
        args = (*good[:place], value, *good[place + 1 :])
        assert not accepts(TABLE, noise_planes, *args)
