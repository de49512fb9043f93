"""What is saved is what is loaded, equal contents are equal bytes, and h5py reads the same file."""

import os
import subprocess
import sys
import time
import tomllib
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from checkpoint_samples import assert_equal, image_of, sample, seal
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gpucnn.checkpoint import Checkpoint, CheckpointFile, load_checkpoint, open_checkpoint, save_checkpoint
from gpucnn.checkpoint.file import ADDED
from gpucnn.errors import CheckpointError, NotANumberError, UsageError

NAMES = st.text(alphabet="abcxyz._019", min_size=1, max_size=20).filter(lambda name: name.strip("."))
TENSORS = hnp.arrays(
    st.sampled_from(["float32", "float64", "int32", "int64", "uint8"]),
    hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
    elements={"allow_nan": False, "allow_infinity": False},
)
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=60)
WHOLE = st.integers(-(2**63), 2**63 - 1)


@st.composite
def checkpoints(draw: st.DrawFn) -> Checkpoint:
    parameters = draw(st.dictionaries(NAMES, TENSORS, max_size=12))
    states = draw(st.lists(st.sampled_from(["m", "v", "velocity"]), unique=True))
    epochs = draw(st.integers(0, 3))
    number = st.one_of(WHOLE, st.floats(allow_nan=False))
    row = st.one_of(
        st.lists(WHOLE, min_size=epochs, max_size=epochs),
        st.lists(st.floats(allow_nan=False), min_size=epochs, max_size=epochs),
    )
    progress = draw(st.dictionaries(NAMES.filter(lambda n: n not in ("epoch", "step")), number, max_size=4))
    return Checkpoint(
        parameters=parameters,
        buffers=draw(st.dictionaries(NAMES, TENSORS, max_size=3)),
        optimizer=dict.fromkeys(states, parameters),
        progress={**ADDED, **progress, "epoch": epochs, "step": draw(st.integers(0, 2**62))},
        history=draw(st.dictionaries(NAMES, row, max_size=3)),
        config=draw(TEXTS),
        environment=draw(TEXTS),
        dataset_digest=draw(st.text("0123456789abcdef", max_size=64)),
        test_digest=draw(st.text("0123456789abcdef", max_size=64)),
        seed=draw(WHOLE),
    )


def test_a_sample_comes_back(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "x.h5", sample())
    assert_equal(load_checkpoint(tmp_path / "x.h5"), sample())


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(checkpoint=checkpoints())
def test_anything_comes_back_and_h5py_agrees(checkpoint: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    save_checkpoint(path, checkpoint)
    assert_equal(load_checkpoint(path), checkpoint)
    with h5py.File(path, "r") as file:  # an independent reader of the same bytes
        for name, array in checkpoint.tensors().items():
            assert file[name].dtype == array.dtype
            assert file[name].shape == array.shape
            assert file[name][()].tobytes() == array.tobytes()
        assert file["config"][()].rstrip(b"\0").decode() == checkpoint.config
        assert file.attrs["seed"] == checkpoint.seed
        assert {key: file[f"progress/{key}"][()] for key in checkpoint.progress} == checkpoint.progress


def test_many_tensors_come_back(tmp_path: Path) -> None:
    """More names than one node of a group's B-tree holds, so that the tree gets levels."""
    parameters = {f"layer{i}.weight": np.full(2, i, "float32") for i in range(1500)}
    checkpoint = Checkpoint(parameters, {})
    save_checkpoint(tmp_path / "x.h5", checkpoint)
    assert_equal(load_checkpoint(tmp_path / "x.h5"), checkpoint)


def test_strided_and_foreign_endian_arrays_come_back_by_value(tmp_path: Path) -> None:
    whole = np.arange(24, dtype="float32").reshape(4, 6)
    save_checkpoint(tmp_path / "x.h5", Checkpoint({"a": whole.T[::2], "b": whole[1:, ::-1]}, {}))
    loaded = load_checkpoint(tmp_path / "x.h5").parameters
    assert np.array_equal(loaded["a"], whole.T[::2])
    assert np.array_equal(loaded["b"], whole[1:, ::-1])
    loaded["a"][0] = 0  # an array of its own, that may be written to


def test_equal_contents_are_equal_bytes_whatever_the_order_and_the_time(tmp_path: Path) -> None:
    one = sample()
    other = replace(
        one,
        parameters=dict(reversed(one.parameters.items())),
        progress=dict(reversed(one.progress.items())),
        history=dict(reversed(one.history.items())),
    )
    save_checkpoint(tmp_path / "a.h5", one)
    time.sleep(1.1)  # HDF5's times count seconds
    save_checkpoint(tmp_path / "b.h5", other)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_another_process_writes_the_same_bytes(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.h5", sample())
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from checkpoint_samples import sample\n"
        "from gpucnn.checkpoint import save_checkpoint\n"
        f"save_checkpoint({str(tmp_path / 'b.h5')!r}, sample())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7", "MALLOC_PERTURB_": "165"}  # stale memory would show
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_any_viewer_opens_it(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "x.h5", sample())
    with h5py.File(tmp_path / "x.h5", "r") as file:
        assert file.userblock_size == 512
        assert set(file) == {"model", "buffers", "optimizer", "history", "progress", "config", "environment"}
        assert file["model/features.0.weight"].chunks is None
        assert h5py.check_string_dtype(file["config"].dtype).encoding == "utf-8"
        assert file["config"].asstr()[()] == sample().config
        names = {"format", "format_version", "gpucnn_version", "dataset_digest", "test_digest", "epoch", "step", "seed"}
        assert set(file.attrs) == names
    assert (tmp_path / "x.h5").read_text(errors="replace").startswith("GPUCNN-HDF5 1\nlength ")


def test_an_opened_file_tells_before_tensors_are_read(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "x.h5", sample(seed=5))
    file = open_checkpoint(tmp_path / "x.h5")
    assert (file.attributes["epoch"], file.attributes["step"], file.attributes["seed"]) == (2, 20, 5)
    assert file.config == sample().config
    assert file.states() == ["velocity"]
    assert file.tensors("model")["features.0.weight"] == ((4, 3, 3, 2), "float32")
    assert file.tensors("optimizer/velocity") == file.tensors("model")


# -- does it fit the model? ---------------------------------------------------------------------------------

WANTED = {
    "parameters": {
        "features.0.weight": ((4, 3, 3, 2), "float32"),
        "features.1.scale": ((4,), "float32"),
        "classifier.10.weight": ((3, 4), "float32"),
    },
    "buffers": {"features.1.running_mean": ((4,), "float32")},
}


@pytest.mark.parametrize(
    ("group", "name", "tensor", "message"),
    [
        ("parameters", "classifier.11.bias", ((3,), "float32"), "'model/classifier.11.bias' is missing"),
        ("parameters", "features.1.scale", None, "'model/features.1.scale' belongs to no part"),
        ("parameters", "classifier.10.weight", ((4, 3), "float32"), "float32 (3, 4), the model wants"),
        ("parameters", "features.1.scale", ((4,), "float64"), "'model/features.1.scale' is float32 (4,)"),
        ("buffers", "features.1.running_mean", ((1, 4), "float32"), "'buffers/features.1.running_mean' is"),
        ("buffers", "features.1.running_var", ((4,), "float32"), "running_var' is missing"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named_before_any_is_read(
    group: str, name: str, tensor: object, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tmp_path / "x.h5", sample())
    assert_equal(load_checkpoint(tmp_path / "x.h5", lambda config: WANTED), sample())
    wanted = {key: dict(tensors) for key, tensors in WANTED.items()}
    if tensor is None:
        del wanted[group][name]
    else:
        wanted[group][name] = tensor
    monkeypatch.setattr(CheckpointFile, "read", lambda self: pytest.fail("tensors were read"))
    with pytest.raises(CheckpointError) as info:
        load_checkpoint(tmp_path / "x.h5", lambda config: wanted)
    assert message in str(info.value)
    assert str(info.value).startswith(str(tmp_path / "x.h5"))


def test_a_config_that_makes_no_model_is_a_bad_checkpoint(tmp_path: Path) -> None:
    def expected(config: str) -> dict[str, object]:
        raise UsageError(f"cannot make {config[:7]!r}")

    save_checkpoint(tmp_path / "x.h5", sample())
    with pytest.raises(CheckpointError, match=r"x.h5: cannot make '\[model\]'"):
        load_checkpoint(tmp_path / "x.h5", expected)


def test_a_config_that_nests_without_end(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "x.h5", replace(sample(), config="a = " + "[" * 100_000))
    with pytest.raises(CheckpointError, match=r"x.h5: its config nests too deeply"):
        load_checkpoint(tmp_path / "x.h5", tomllib.loads)


# -- what cannot be saved -----------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["parameters", "buffers", "optimizer"])
def test_nan_and_infinity_are_not_saved(value: float, where: str, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "x.h5", sample())
    before = (tmp_path / "x.h5").read_bytes()
    bad = sample()
    arrays = bad.optimizer["velocity"] if where == "optimizer" else getattr(bad, where)
    next(iter(arrays.values())).flat[1] = value
    with pytest.raises(NotANumberError, match=r"was not saved: tensor .* in 1 of \d+ places"):
        save_checkpoint(tmp_path / "x.h5", bad)
    assert (tmp_path / "x.h5").read_bytes() == before
    assert os.listdir(tmp_path) == ["x.h5"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 2**63}, "'seed' is 9223372036854775808: it must fit into 64 bits"),
        ({"config": "a\0b"}, "'config' is a text with a NUL character"),
        ({"parameters": {"a": np.zeros(3, "complex64")}, "optimizer": {}}, "type that gpucnn does not write"),
        ({"parameters": {"a b": np.zeros(3, "float32")}, "optimizer": {}}, "an unusable name: b'a b'"),
        ({"parameters": {"a": np.zeros((1,) * 9, "float32")}, "optimizer": {}}, "rank 9"),
        ({"optimizer": {"m": {}}}, "'optimizer/m/classifier.10.weight' is missing"),
        ({"history": {"a": [1], "b": [1, 2]}}, "different lengths"),
    ],
)
def test_what_could_not_be_loaded_is_not_saved(change: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises((CheckpointError, UsageError)) as info:
        save_checkpoint(tmp_path / "x.h5", replace(sample(), **change))
    assert message in str(info.value)
    assert os.listdir(tmp_path) == []


# -- versions -----------------------------------------------------------------------------------------------


def with_version(path: Path, version: int) -> Path:
    """A sample that says it is of another version of the format."""
    save_checkpoint(path, sample())
    with h5py.File(path, "r+") as file:
        file.attrs.modify("format_version", version)
    return seal(path, image_of(path))


@pytest.mark.parametrize("version", [2, 0, -7])
def test_other_versions_are_refused(version: int, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=f"format_version is {version}, this gpucnn reads 1: upgrade"):
        open_checkpoint(with_version(tmp_path / "x.h5", version))


@pytest.mark.parametrize("missing", [("loss_scale", "good_steps"), ("good_steps",), ()])
def test_what_the_first_checkpoints_did_not_have_is_filled_in(missing: tuple[str, ...], tmp_path: Path) -> None:
    found = {**sample().progress, "loss_scale": 4096.0, "good_steps": 17}
    wanted = found | {"loss_scale": 65536.0, "good_steps": 0}
    progress = {name: value for name, value in found.items() if name not in missing}
    save_checkpoint(tmp_path / "x.h5", replace(sample(), progress=progress))
    assert open_checkpoint(tmp_path / "x.h5").progress() == progress  # as it stands in the file
    loaded = load_checkpoint(tmp_path / "x.h5").progress
    assert loaded == {name: wanted[name] if name in missing else found[name] for name in found}
    assert (type(loaded["loss_scale"]), type(loaded["good_steps"])) == (float, int)
