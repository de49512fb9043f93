"""``benchmarks/gpu.py`` from the outside: without a GPU it says so, and in small its whole way can be gone on a CPU."""

import subprocess
import sys
from pathlib import Path

import pytest

from gpucnn.backends import gpu_problem

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "benchmarks" / "gpu.py"


def run(*words: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([sys.executable, SCRIPT, *map(str, words)], capture_output=True, text=True, timeout=240)
    assert done.returncode == code, done.stderr
    return done


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
        "Layers beside NumPy",
        "Training steps beside PyTorch, eager",
        "Training steps beside PyTorch, compiled",
        "Where a step's time goes",
    ]
    assert "exit code 0" in sections["Tests on the GPU"]
    assert "skipped" in sections["Tests on the GPU"]
    assert "all within their tolerance" in sections["Layers beside NumPy"]
    steps = sections["Training steps beside PyTorch, eager"]
    assert "| lenet5, 28x28x1, batch 2 | gpucnn, float32 |" in steps
    assert "no_such_model, 32x32x3, batch 2: no such model in this version" in steps
    assert "conv2d_weight_grad" in sections["Where a step's time goes"]
    assert str(out) in done.stderr
