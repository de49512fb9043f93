"""``benchmarks/gpu.py`` from the outside: without a GPU it says so, and in small its whole way can be gone on a CPU."""

import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

from gpucnn.devices import gpu_problem

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "benchmarks" / "gpu.py"


def run(*words: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([sys.executable, SCRIPT, *map(str, words)], capture_output=True, text=True, timeout=240)
    assert done.returncode == code, done.stderr
    return done


@pytest.fixture
def script(monkeypatch) -> ModuleType:
    """The script as a module, on a machine that says nothing of itself."""
    spec = spec_from_file_location("gpu_script", SCRIPT)
    module = module_from_spec(spec)
    monkeypatch.setattr(sys, "path", sys.path[:])
    spec.loader.exec_module(module)
    about = {"device": {}, "packages": [], "machine": {}, "gpu": {}}
    monkeypatch.setattr(module.Session, "doctor", lambda session: about)
    return module


def test_a_section_that_fails_costs_no_other_one(script, tmp_path, monkeypatch, capsys) -> None:
    def halfway(session) -> None:
        session.write("steps", "a table")
        raise KeyError("lost")

    def nothing(session) -> None:
        raise OSError("no such program")

    sections = {"tests": nothing, "parity": lambda session: session.write("parity", "fine"), "steps": halfway}
    monkeypatch.setattr(script, "SECTIONS", sections)
    out = tmp_path / "page.md"
    assert script.main(["--smoke", "--out", str(out), "--sections", "tests", "parity", "steps"]) == 1
    text = out.read_text()
    assert "OSError: no such program" in text.partition("## Layers against NumPy")[0]
    assert "fine" in text
    assert text.endswith("a table\n")
    assert "KeyError: 'lost'" in capsys.readouterr().err


def test_tests_run_in_parts_and_what_is_known_is_written_at_once(script, tmp_path, monkeypatch, capsys) -> None:
    failing = """tests/a.py::test_one[x y] PASSED [ 50%]
tests/a.py::test_two FAILED [100%]
= ERRORS =
no module
= FAILURES =
assert 1 == 2"""
    pages, out = [], tmp_path / "page.md"

    def command(session, words, seconds):
        pages.append(out.read_text() if out.exists() else "")
        assert "--continue-on-collection-errors" in words  # a file that cannot be imported is not all of them
        assert words[words.index("-W") + 1] == "default"
        late = script.LAST_TESTS in words
        return (None, "tests/b.py::test_three PASSED [ 1%]") if late else (1, failing)

    monkeypatch.setattr(script.Session, "command", command)
    monkeypatch.setattr(script, "gpu_problem", lambda: None)
    assert script.main(["--out", str(out), "--sections", "tests"]) == 1
    text = out.read_text()
    assert pages[0] == ""
    assert "1 passed, 1 failed" in pages[1]
    for line in ("exit code 1, 1 passed, 1 failed", "- `tests/a.py::test_two`", "no module", "assert 1 == 2",
                 "exit code None, 1 passed, and then its time was over"):  # fmt: skip
        assert line in text


def test_several_processes_report_in_another_form(script) -> None:
    output = "[gw0] [ 33%] PASSED tests/a.py::test_one[x y] \n[gw11] [ 66%] FAILED tests/a.py::test_two\nnoise\n"
    text = script.outcome(1, output)
    assert text == "exit code 1, 1 passed, 1 failed\n\n- `tests/a.py::test_two`"


def test_a_program_that_is_not_there_is_said_before_anything_runs(script, capsys) -> None:
    with pytest.raises(SystemExit):
        script.main(["--torch-python", "/no/such/python"])
    assert "--torch-python /no/such/python: there is no such program" in capsys.readouterr().err


def test_compiled_pytorch_is_beside_what_it_is_compared_with_alone(script, tmp_path) -> None:
    args = script.parse(["--out", str(tmp_path / "page.md")])
    session = script.Session(args)
    assert [racer.name for racer in script.contenders(session, True).ours] == ["gpucnn"]
    assert len(script.contenders(session, False).ours) == 3


def test_without_a_gpu_it_is_one_line_and_exit_code_6() -> None:
    if gpu_problem() is None:
        pytest.skip("this machine has a GPU")
    done = run(code=6)
    (line,) = done.stderr.splitlines()
    assert line.startswith("gpu.py: error: ")
    assert "CuPy" in line or "GPU" in line
    assert not (ROOT / "benchmarks" / "RESULTS_GPU.md.tmp").exists()


def test_a_smoke_run_never_goes_where_results_are(tmp_path: Path) -> None:
    for words in (["--smoke"], ["--smoke", "--out", ROOT / "benchmarks" / "RESULTS_GPU.md"]):
        assert "give another --out" in run(*words, code=2).stderr


def test_a_smoke_run_writes_every_section(tmp_path: Path) -> None:
    out = tmp_path / "page.md"
    done = run("--smoke", "--out", out, "--threads", 1, "--minutes", 3)
    text = out.read_text(encoding="utf-8")
    assert "A smoke run on a CPU" in text.split("\n## ")[0]
    sections = dict(part.split("\n", 1) for part in text.split("\n## ")[1:])
    assert list(sections) == [
        "Tests on the GPU",
        "Layers against NumPy",
        "Training steps against PyTorch, eager",
        "Training steps against PyTorch, compiled",
        "Where a step's time goes",
    ]
    assert "exit code 0" in sections["Tests on the GPU"]
    assert "skipped" in sections["Tests on the GPU"]
    assert "all within their tolerance" in sections["Layers against NumPy"]
    steps = sections["Training steps against PyTorch, eager"]
    assert "| lenet5, 28x28x1, batch 2 | gpucnn, float32 |" in steps
    assert "no_such_model, 32x32x3, batch 2: no such model in this version" in steps
    assert "conv2d_weight_grad" in sections["Where a step's time goes"]
    assert str(out) in done.stderr
