"""CONTRIBUTING.md says where a change goes: the places exist, and a layer added by its row needs no other change."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
ROWS = dict(re.findall(r"^\| ((?:add|make|fuse) [^|]+) \| (.+) \|$", TEXT, flags=re.MULTILINE))
PLACE = re.compile(r"`((?:gpucnn|tests)/[\w/]*(?:\.\w+)?)`")

SOFTPLUS = '''"""Softplus, a smooth ReLU.

    y = log(1 + e^x) = max(x, 0) + log(1 + e^-|x|)        dx = dy / (1 + e^-x)

The second form of y cannot overflow; with t = tanh(x / 2), the factor of dy is (1 + t) / 2.
"""

from gpucnn.backend import array_module
from gpucnn.layers.base import Layer
from gpucnn.types import Array


def softplus(x: Array) -> Array:
    """y of the shape of x."""
    xp = array_module(x)
    return xp.maximum(x, 0) + xp.log1p(xp.exp(-abs(x)))


def softplus_grad(dy: Array, x: Array) -> Array:
    """dx of the shape of x."""
    return dy * (0.5 + 0.5 * array_module(x).tanh(0.5 * x))


class Softplus(Layer):
    """log(1 + e^x), element by element."""

    def forward(self, x: Array) -> Array:
        self.keep(x)
        return self.run(softplus, x)

    def backward(self, dy: Array) -> Array | None:
        (x,) = self.kept()
        return self.run(softplus_grad, dy, x)
'''

TEST = '''"""Softplus by hand, on every backend."""

import numpy as np

from gpucnn.layers.softplus import softplus


def test_values_and_no_overflow(backend) -> None:
    x = np.array([-1000, 0, 1000], np.float32)
    found = backend.to_host(backend.run(softplus, backend.to_device(x)))
    np.testing.assert_allclose(found, [0, np.log(2), 1000], rtol=1e-6)
'''

NEW_FILES = {"gpucnn/layers/": ("softplus.py", SOFTPLUS), "tests/layers/": ("test_softplus.py", TEST)}
"""Folder that the row names -> the file that is added to it."""

EDITS = {
    "gpucnn/layers/__init__.py": [
        (r"^from gpucnn.layers.whitening ", r"from gpucnn.layers.softplus import Softplus\n\g<0>"),
        (r'^    "Tanh",\n', r'    "Softplus",\n\g<0>'),
    ],
    "gpucnn/checks/gradcheck.py": [
        (r"^LAYERS: .*\{\n", r'\g<0>    "Softplus": (layers.Softplus, (2, 3, 3, 2)),\n'),
    ],
    "gpucnn/exchange/onnx_out.py": [(r"^    layers.Softmax: ", r'    layers.Softplus: simple("Softplus"),\n\g<0>')],
}
"""File that the row names -> (where, what) to insert."""

TRAIN = """
from gpucnn import Trainer, get_backend, layers, load_dataset, optim

train, test = load_dataset("digits")
model = layers.Sequential(
    layers.Conv2D(1, 4, 3, bias=False), layers.BatchNorm(4), layers.Softplus(), layers.Flatten(), layers.Linear(144, 10)
)
trainer = Trainer(model, optim.SGD(lr=0.05, momentum=0.9), backend=get_backend("reference"), batch_size=64)
*_, report = trainer.fit(train, test, epochs=3)
print(report.test_accuracy)
"""


@pytest.mark.parametrize("change", ROWS)
def test_the_places_of_a_row_exist(change: str) -> None:
    places = PLACE.findall(ROWS[change])
    assert places
    assert [place for place in places if not (ROOT / place).exists()] == []
    tables = re.findall(r"`([A-Z]+)`", ROWS[change])
    code = "".join(source.read_text(encoding="utf-8") for place in places for source in sources(ROOT / place))
    assert [name for name in tables if not re.search(rf"^{name}\b", code, flags=re.MULTILINE)] == []


def sources(place: Path) -> list[Path]:
    """The file itself, or the Python files of a folder."""
    return sorted(place.glob("*.py")) if place.is_dir() else [place]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the package and its tests."""
    for folder in ("gpucnn", "tests"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def python(copy: Path, *words: str) -> str:
    """What a Python that imports the copy prints."""
    env = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, *words], cwd=copy, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def contents(root: Path) -> dict[str, bytes]:
    """Path -> bytes of all code of the package and its tests."""
    files = [path for folder in ("gpucnn", "tests") for path in (root / folder).rglob("*.*")]
    return {str(path.relative_to(root)): path.read_bytes() for path in files if path.suffix in (".py", ".cu", ".cuh")}


def test_a_layer_is_added_by_its_row_alone(copy: Path) -> None:
    for place in PLACE.findall(ROWS["add a layer"]):  # a place that this test does not know is a KeyError
        if place.endswith("/"):
            name, text = NEW_FILES[place]
            (copy / place / name).write_text(text, encoding="utf-8")
        else:
            for pattern, inserted in EDITS[place]:
                text = (copy / place).read_text(encoding="utf-8")
                text, count = re.subn(pattern, inserted, text, flags=re.MULTILINE)
                assert count == 1, f"{place}: no single {pattern}"
                (copy / place).write_text(text, encoding="utf-8")

    assert "gpucnn.layers.softplus" in python(copy, "-c", "from gpucnn.layers import Softplus; print(Softplus)")
    table = python(copy, "-m", "gpucnn.cli.main", "gradcheck", "--layer", "softplus")
    assert re.search(r"^Softplus +x +\d", table, flags=re.MULTILINE)
    assert "1 gradient " in table
    assert "WRONG" not in table
    assert float(python(copy, "-c", TRAIN)) > 0.9
    before, after = contents(ROOT), contents(copy)
    changed = [path for path in after if after[path] != before.get(path)]
    assert len(changed) == len(PLACE.findall(ROWS["add a layer"]))
    files = ["layers/test_softplus.py", "checks/test_gradcheck.py", "exchange/test_onnx_out.py", "test_architecture.py"]
    passed = python(
        copy,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-k",
        "softplus or every_layer",
        *(f"tests/{file}" for file in files),
    )
    assert int(re.findall(r"(\d+) passed", passed)[0]) >= 6  # its own, gradcheck's, and the rules for its imports
