"""The file of engines found fastest: there and back, damaged, foreign, unwritable, shared; and the options."""

import json

import pytest

from gpucnn.errors import UsageError
from gpucnn.kernels.gpu.cudnn.options import Options
from gpucnn.kernels.gpu.cudnn.plan_cache import FORMAT, Choice, Environment, PlanCache, default_folder

H100 = Environment("NVIDIA H100 80GB HBM3", 91900, "1.23.0")
ONE, TWO = Choice("eng45_k2=4", 0.25, 0, 11), Choice("eng1", 1, 33_630_480, 4)


def test_there_and_back(tmp_path) -> None:
    cache = PlanCache(H100, tmp_path / "new" / "folder")
    assert cache.get("a") is None
    cache.put("a", ONE)
    cache.put("b", TWO)
    again = PlanCache(H100, tmp_path / "new" / "folder")
    assert (again.get("a"), again.get("b")) == (ONE, TWO)
    assert [path.name for path in cache.path.parent.iterdir()] == ["NVIDIA-H100-80GB-HBM3_91900_1.23.0.json"]


@pytest.mark.parametrize(
    "other",
    [
        Environment("NVIDIA H200", 91900, "1.23.0"),
        Environment(H100.gpu, 92000, "1.23.0"),
        Environment(H100.gpu, 91900, "1.24.0"),
    ],
)
def test_another_gpu_or_version_has_another_file(tmp_path, other) -> None:
    PlanCache(H100, tmp_path).put("a", ONE)
    cache = PlanCache(other, tmp_path)
    assert cache.get("a") is None
    cache.put("a", TWO)
    assert PlanCache(H100, tmp_path).get("a") == ONE


def damaged() -> dict[str, str]:
    """What -> the text of a file."""
    good = {"format": FORMAT, "environment": vars(H100), "choices": {"a": vars(ONE)}}
    entry = vars(ONE)
    changes = {
        "format": {**good, "format": FORMAT - 1},
        "another GPU": {**good, "environment": {**vars(H100), "gpu": "GTX 1080"}},
        "no choices": {**good, "choices": None},
        "a list": [good],
        "a field missing": {**good, "choices": {"a": {"engine": "eng1"}}},
        "a field too many": {**good, "choices": {"a": {**entry, "more": 1}}},
        "a wrong type": {**good, "choices": {"a": {**entry, "engine": 45}}},
        "a number as text": {**good, "choices": {"a": {**entry, "workspace": "12"}}},
    }
    text = json.dumps(good)
    whole = {what: json.dumps(content) for what, content in changes.items()}
    return {**whole, "empty": "", "cut off": text[: len(text) // 2], "no JSON": "\x00\x01", "deep": "[" * 100_000}


@pytest.mark.parametrize("what", damaged())
def test_a_damaged_file_is_ignored_aloud_and_written_anew(tmp_path, capsys, what) -> None:
    cache = PlanCache(H100, tmp_path)
    cache.path.write_text(damaged()[what], encoding="utf-8")
    capsys.readouterr()
    cache = PlanCache(H100, tmp_path)
    message = capsys.readouterr().err
    assert message.startswith(f"gpucnn: ignoring {cache.path}, which will be written anew: ")
    assert message.count("\n") == 1
    assert cache.choices == {}
    cache.put("b", TWO)
    capsys.readouterr()
    assert PlanCache(H100, tmp_path).choices == {"b": TWO}
    assert capsys.readouterr().err == ""


def test_bytes_that_are_no_text(tmp_path, capsys) -> None:
    cache = PlanCache(H100, tmp_path)
    cache.path.write_bytes(b"\xff\xfe{")
    assert PlanCache(H100, tmp_path).choices == {}
    assert "ignoring" in capsys.readouterr().err


def test_two_processes_keep_each_others_choices(tmp_path) -> None:
    first, second = PlanCache(H100, tmp_path), PlanCache(H100, tmp_path)
    first.put("a", ONE)
    second.put("b", TWO)
    assert PlanCache(H100, tmp_path).choices == {"a": ONE, "b": TWO}


def test_a_folder_that_cannot_be_written_costs_one_line(tmp_path, capsys) -> None:
    (tmp_path / "file").write_text("")
    cache = PlanCache(H100, tmp_path / "file")
    cache.put("a", ONE)
    cache.put("b", TWO)
    assert cache.choices == {"a": ONE, "b": TWO}
    assert capsys.readouterr().err.count("cannot be kept") == 1


def test_a_crash_while_writing_leaves_the_old_file(tmp_path, monkeypatch) -> None:
    from gpucnn.kernels.gpu.cudnn import plan_cache

    cache = PlanCache(H100, tmp_path)
    cache.put("a", ONE)

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(plan_cache.os, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        cache.put("b", TWO)
    assert PlanCache(H100, tmp_path).choices == {"a": ONE}
    assert list(tmp_path.iterdir()) == [cache.path]


def test_the_folder_follows_the_desktops_rule(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "gpucnn" / "cudnn"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_folder() == tmp_path / ".cache" / "gpucnn" / "cudnn"


def test_options_by_the_environment() -> None:
    assert Options.from_environment({}) == Options(True, False, True, True, 512, True)
    told = {
        "GPUCNN_CUDNN": "0",
        "GPUCNN_TF32": "1",
        "GPUCNN_DETERMINISTIC": "0",
        "GPUCNN_AUTOTUNE": "0",
        "GPUCNN_WORKSPACE_MIB": "64",
        "GPUCNN_STEM": "0",
    }
    assert Options.from_environment(told) == Options(False, True, False, False, 64, False)
    assert Options.from_environment({"GPUCNN_TF32": ""}) == Options()
    assert str(Options(tf32=True)) == "tf32=1 deterministic=1 workspace=512"


@pytest.mark.parametrize(
    ("variable", "value"), [("GPUCNN_TF32", "yes"), ("GPUCNN_AUTOTUNE", "2"), ("GPUCNN_WORKSPACE_MIB", "-1")]
)
def test_an_option_that_makes_no_sense_is_named(variable, value) -> None:
    with pytest.raises(UsageError, match=f"{variable}='{value}': give"):
        Options.from_environment({variable: value})
