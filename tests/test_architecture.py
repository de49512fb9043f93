"""The house rules that a machine can check: who imports whom, how large a room may be, what importing costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import gpucnn

PACKAGE = Path(gpucnn.__file__).parent
ROOT = PACKAGE.parent
FILES = sorted(PACKAGE.rglob("*.py"))
LEAVES = {"typing", "errors", "backend", "parameter", "random", "initializers"}


def imports(path: Path) -> set[str]:
    """Modules that a file imports, anywhere in it; inside the package as gpucnn.x.y."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return found


def room(path: Path) -> str:
    """The first part of a file's place in the package: layers, kernels, trainer ..."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def rooms_used(path: Path) -> set[str]:
    return {name.split(".")[1] for name in imports(path) if name.startswith("gpucnn.")}


@pytest.mark.parametrize(
    ("who", "allowed"),
    [
        ("typing", set()),
        ("errors", set()),
        ("backend", {"typing", "errors"}),
        ("random", {"typing", "errors"}),
        ("parameter", {"typing", "errors", "backend", "random"}),
        ("layers", LEAVES | {"layers"}),
        ("losses", LEAVES | {"layers"}),
        ("optim", LEAVES),
        ("schedules", set()),
        ("metrics", LEAVES),
        ("kernels", LEAVES | {"kernels"}),
        ("data", LEAVES | {"data"}),
        ("models", LEAVES | {"layers", "models"}),
        ("checkpoint", LEAVES | {"checkpoint", "__version__"}),
    ],
)
def test_imports_run_one_way(who: str, allowed: set[str]) -> None:
    mine = [path for path in FILES if room(path) == who]
    assert mine
    wrong = {str(path.relative_to(ROOT)): rooms_used(path) - allowed for path in mine}
    assert {path: names for path, names in wrong.items() if names} == {}


@pytest.mark.parametrize(
    ("library", "places"),
    [
        ("cupy", ("backends/gpu.py", "kernels/gpu/")),
        ("cudnn", ("backends/gpu.py", "kernels/gpu/")),
        ("numba", ("kernels/cpu/",)),
        ("llvmlite", ("kernels/cpu/",)),
        ("torch", ("benchmarking/pytorch.py",)),
        ("h5py", ("checkpoint/",)),
    ],
)
def test_heavy_libraries_stay_in_their_rooms(library: str, places: tuple[str, ...]) -> None:
    for path in FILES:
        if any(name.split(".")[0] == library for name in imports(path)):
            assert path.relative_to(PACKAGE).as_posix().startswith(places), f"{path} imports {library}"


def test_layers_do_not_ask_which_backend_it_is() -> None:
    for path in (path for path in FILES if room(path) in ("layers", "losses", "optim", "metrics", "data")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Compare):
                for side in (node.left, *node.comparators):
                    named = isinstance(side, ast.Attribute) and side.attr == "name" and "backend" in ast.unparse(side)
                    module = isinstance(side, ast.Name) and side.id in ("xp", "cupy")
                    found = named or module
                    assert not found, f"{path}:{node.lineno} compares {ast.unparse(node)}"


@pytest.mark.parametrize(
    "path", [*FILES, *sorted((ROOT / "tests").rglob("*.py"))], ids=lambda p: str(p.relative_to(ROOT))
)
def test_rooms_are_small_and_named_by_a_noun(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400
    assert path.stem not in ("utils", "util", "helpers", "common", "misc")


def test_importing_brings_in_nothing_heavy() -> None:
    heavy = ["cupy", "numba", "matplotlib", "sklearn", "torch", "PIL", "h5py", "tqdm"]
    code = f"import gpucnn, sys; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
