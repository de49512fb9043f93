"""The cache of compiled kernels: damaged files are noticed before they are unpickled, unsafe folders are not used."""

import os
import pickle
import random
import shutil
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

pytest.importorskip("numba")

from gpucnn.kernels.cpu.engine import cache, compile

SOURCE = """
def double(x):
    return 2 * x


def triple(x):
    return 3 * x
"""
RUN = "from gpucnn.devices import get_backend; import numpy as np; from gpucnn.layers import activations; "
RUN += "print(get_backend('cpu').run(activations.relu, np.full(3, 2, np.float32)).sum())"


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Two functions in a file, and an empty cache folder for them."""
    path = tmp_path / "numbers_of_mine.py"
    path.write_text(SOURCE)
    spec = spec_from_file_location("numbers_of_mine", path)
    found = module_from_spec(spec)
    spec.loader.exec_module(found)
    monkeypatch.setitem(sys.modules, "numbers_of_mine", found)
    (tmp_path / "cache").mkdir()
    monkeypatch.setattr(compile, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(cache, "_told", set())
    return found


def results(module: ModuleType) -> tuple[int, float, int]:
    """What the functions give, each compiled or loaded anew."""
    double, triple = compile.jit(module.double), compile.jit(module.triple)
    return double(7), double(0.5), triple(7)


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.nb?"))


def test_what_is_compiled_is_loaded_again(module: ModuleType, tmp_path: Path) -> None:
    assert results(module) == (14, 1.0, 21)
    assert len(files(tmp_path / "cache")) == 5  # two lists, three functions
    double = compile.jit(module.double)
    assert double(7) == 14
    assert sum(double.stats.cache_hits.values()) == 1


def test_five_hundred_damages_change_no_result(
    module: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = random.Random(0)
    for trial in range(125):
        results(module)
        for _ in range(4):
            one, other = rng.choice(files(tmp_path / "cache")), rng.choice(files(tmp_path / "cache"))
            data = one.read_bytes()
            match rng.choice(["cut", "empty", "overwrite", "swap"]):
                case "cut":
                    one.write_bytes(data[: rng.randrange(len(data) + 1)])
                case "empty":
                    one.write_bytes(b"")
                case "overwrite":
                    at = rng.randrange(len(data) or 1)
                    one.write_bytes(data[:at] + rng.randbytes(8) + data[at + 8 :])
                case "swap":
                    one.write_bytes(other.read_bytes())
                    other.write_bytes(data)
        assert results(module) == (14, 1.0, 21), trial
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert "damaged" in said[0]


def test_a_foreign_pickle_does_not_run(module: ModuleType, tmp_path: Path) -> None:
    class Mark:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path / 'ran'}",)

    results(module)
    for path in files(tmp_path / "cache"):
        path.write_bytes(pickle.dumps(Mark()))
    assert results(module) == (14, 1.0, 21)
    assert not (tmp_path / "ran").exists()


def test_a_file_that_cannot_be_written_ends_the_cache_not_the_run(
    module: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*words: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache.SealedFiles, "save", full)
    assert results(module) == (14, 1.0, 21)
    said = capsys.readouterr().err
    assert "not kept" in said
    assert "No space left" in said


def test_a_folder_that_others_may_write_is_not_used(tmp_path: Path) -> None:
    root = tmp_path / "gpucnn"
    root.mkdir()
    root.chmod(0o777)
    assert "others may write" in (cache.unusable(root, root / "kernels") or "")
    root.chmod(0o700)
    assert cache.unusable(root, root / "kernels") is None
    assert (root / "kernels").stat().st_mode & 0o777 == 0o700


def test_a_link_and_a_file_are_no_folder(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    assert "not a folder" in (cache.unusable(tmp_path / "link", tmp_path / "link" / "kernels") or "")
    (tmp_path / "file").write_text("")
    assert "not a folder" in (cache.unusable(tmp_path / "file", tmp_path / "file" / "kernels") or "")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_another_user_is_not_used(tmp_path: Path) -> None:
    root = tmp_path / "gpucnn"
    root.mkdir()
    os.chown(root, 12345, 12345)
    assert "another user" in (cache.unusable(root, root / "kernels") or "")


def test_everything_runs_where_nothing_can_be_kept(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "file"), "TMPDIR": str(tmp_path)}
    (tmp_path / f"gpucnn-{os.getuid()}").write_text("")
    done = subprocess.run([sys.executable, "-c", RUN], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout == "6.0\n"
    assert "compiled kernels are not kept" in done.stderr
    assert str(tmp_path / "file") in done.stderr


def test_the_folder_is_named_after_every_source_and_the_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = tmp_path / "cpu"
    shutil.copytree(Path(cache.__file__).parents[1], copied, ignore=shutil.ignore_patterns("__pycache__"))
    before = cache.sources_digest()
    monkeypatch.setattr(cache, "__file__", str(copied / "engine" / "cache.py"))
    assert cache.sources_digest() == before  # wherever it lies
    found = [before]
    for source in sorted(copied.rglob("*.py")):
        source.write_bytes(source.read_bytes() + b"\n")
        found.append(cache.sources_digest())
    monkeypatch.setattr(cache.numba, "__version__", "0.0")
    found.append(cache.sources_digest())
    monkeypatch.setattr(cache, "sys", SimpleNamespace(version="4.0"))
    found.append(cache.sources_digest())
    assert len(set(found)) == len(found)
    assert {len(digest) for digest in found} == {16}
