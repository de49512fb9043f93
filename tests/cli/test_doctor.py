"""``gpucnn doctor``: tells what is there, and never dies."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gpucnn.cli import doctor
from gpucnn.cli.main import main
from gpucnn.layers.activations import relu


def report(capsys, *words: str) -> dict:
    assert main(["doctor", "--json", *words]) == 0
    return json.loads(capsys.readouterr().out)


def test_versions_are_those_of_this_python(capsys) -> None:
    found = report(capsys)
    versions = {package["name"]: package["version"] for package in found["packages"]}
    assert versions["NumPy"] == np.__version__
    assert found["machine"]["python"].split(".")[:2] == [str(v) for v in sys.version_info[:2]]
    assert 0 < found["machine"]["memory_gib"] < 100_000
    assert found["machine"]["usable_cores"] >= 1
    for package in found["packages"]:
        assert (package["version"] is None) == bool(package["remedy"])
        assert package["purpose"]


def test_text_fits_80_columns_and_names_the_choice(capsys) -> None:
    found = report(capsys)
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    assert f"--device auto     is {found['auto']}" in text
    for op in found["kernels"]:
        assert op in text


def test_what_is_missing_gets_its_remedy(monkeypatch, capsys) -> None:
    nothing = doctor.Package("Nothing", ("no-such-distribution",), "this test", "pip install hope")
    monkeypatch.setattr(doctor, "CHECKED", (nothing,))
    (package,) = report(capsys)["packages"]
    assert package["version"] is None
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert "not installed" in text
    assert "Nothing: pip install hope" in text


def test_data_sets_are_looked_for_in_order(capsys, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GPUCNN_DATA_DIR", str(tmp_path / "second"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    folder = tmp_path / "first" / "mnist"
    folder.mkdir(parents=True)
    for part in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (folder / f"{part}-ubyte").touch()
    found = report(capsys, "--data-dir", str(tmp_path / "first"))["data"]
    assert found["searched"] == [
        str(tmp_path / "first"),
        f"{tmp_path / 'second'} (not there)",
        f"{tmp_path / 'home' / '.cache' / 'gpucnn'} (not there)",
    ]
    assert found["sets"]["digits"] == {"found": True, "where": "built in"}
    assert found["sets"]["mnist"]["found"]
    assert found["sets"]["mnist"]["where"].startswith(str(tmp_path / "first"))
    assert found["sets"]["cifar10"] == {
        "found": False,
        "where": "not here: gpucnn data download cifar10",
    }


def test_the_kernels_cache_is_described(capsys, monkeypatch, tmp_path: Path) -> None:
    pytest.importorskip("numba")
    from gpucnn.kernels.cpu.engine import compile as compiling

    folder = tmp_path / "kernels-0123456789abcdef"
    monkeypatch.setattr(compiling, "CACHE", folder)
    empty = {"folder": str(folder), "hash": "0123456789abcdef", "compiled": 0, "mib": 0.0}
    assert report(capsys)["caches"]["CPU kernels"] == empty
    assert main(["doctor"]) == 0
    assert "nothing compiled" in capsys.readouterr().out

    folder.mkdir()
    for name, size in (("conv.nbc", 3 << 20), ("pool.nbc", 1 << 19), ("conv.nbi", 100)):
        (folder / name).write_bytes(b"0" * size)
    assert report(capsys)["caches"]["CPU kernels"] == {**empty, "compiled": 2, "mib": 3.5}
    assert main(["doctor"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "(hash of the sources 0123456789abcdef): 2 functions compiled, 3.5 MiB" in text


def test_the_kernels_cache_is_the_one_that_is_used(capsys) -> None:
    pytest.importorskip("numba")
    from gpucnn.devices import cpu

    if reason := cpu.problem():
        pytest.skip(reason)
    cpu.cpu_backend().run(relu, np.ones(64, np.float32))
    found = report(capsys)["caches"]["CPU kernels"]
    assert found["compiled"] >= 1
    assert found["mib"] > 0
    assert any("elementwise._relu" in path.name for path in Path(found["folder"]).rglob("*.nbc"))


@pytest.mark.parametrize(
    "code",
    [
        "raise ImportError('libcuda.so.1: cannot open')",
        "raise RuntimeError('CuPy is\\nnot correctly installed')",
        "raise OSError('undefined symbol')",
        "",
    ],
)
def test_a_broken_cupy_is_reported_and_survived(tmp_path: Path, code) -> None:
    (tmp_path / "cupy.py").write_text(code + "\n")
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from gpucnn.cli.main import main; "
        "sys.exit(main(['doctor', '--json']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["auto"] == "cpu"
    assert found["why_not_gpu"]
    assert "\n" not in found["why_not_gpu"]


def test_a_problem_of_a_part_does_not_hide_the_rest(monkeypatch, capsys) -> None:
    def broken(*_: object) -> None:
        raise OSError("no such luck")

    for part in ("data_report", "caches", "memory", "cpu_model", "blas"):
        monkeypatch.setattr(doctor, part, broken)
    found = report(capsys)
    assert found["data"] == {"problem": "OSError: no such luck"}
    assert main(["doctor"]) == 0
    assert "no such luck" in capsys.readouterr().out
