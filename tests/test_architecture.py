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
ROOMS = [
    "cli",
    "plots",
    "bench",
    "sklearn",
    "runs",
    "explain",
    "exchange",
    "training",
    "devices",
    "checks",
    "inference",
    "kernels",
    "models",
    "optim",
    "losses",
    "layers",
    "data",
    "metrics",
    "checkpoint",
    "backend",
    "random",
    "settings",
    "terminal",
    "files",
    "errors",
    "types",
    "version",
]
"""The rooms from the top to the bottom: each imports only what stands behind it in this list."""

BUDGET = 24_700
"""Lines of the package without kernels."""


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


def used(path: Path) -> set[str]:
    """The files and folders of the package that a file imports, those under TYPE_CHECKING too: layers.base, errors."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "gpucnn":
            for alias in node.names:
                parts = [*node.module.split(".")[1:], alias.name]
                found.add(".".join(parts if is_module(parts) else parts[:-1]))
    return found - {""}


def is_module(parts: list[str]) -> bool:
    """Whether there is such a file or folder of code."""
    place = PACKAGE.joinpath(*parts)
    return place.with_suffix(".py").exists() or (place / "__init__.py").exists()


def test_every_room_is_in_the_list_and_there_are_few() -> None:
    found = {path.name.removesuffix(".py") for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert found - {"__init__", "__main__", "__pycache__", "py.typed", "recipes", "pretrained"} == set(ROOMS)
    assert len(ROOMS) <= 28
    assert len(list(PACKAGE.glob("*.py"))) <= 13


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_down_the_list(path: Path) -> None:
    mine = room(path)
    if mine in ("__init__", "__main__"):  # the public names, and the command
        return
    below = {mine, *ROOMS[ROOMS.index(mine) + 1 :]}
    assert {name for name in used(path) if name.split(".")[0] not in below} == set()


def test_no_files_import_in_a_circle() -> None:
    name_of = {path: ".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in FILES}
    arrows = {name.removesuffix(".__init__"): used(path) for path, name in name_of.items() if name != "__init__"}
    arrows = {name: {target for target in targets if target in arrows} for name, targets in arrows.items()}
    for name, path in ((name, [name]) for name in arrows):
        circle = way_back(name, name, arrows, path, set())
        assert circle is None, " -> ".join(circle or [])


def way_back(start: str, here: str, arrows: dict[str, set[str]], path: list[str], seen: set[str]) -> list[str] | None:
    """A chain of imports from a file to itself; a folder's __init__ counts where it is imported for its names."""
    for target in sorted(arrows[here]):
        if target == start and len(path) > 1:
            return [*path, start]
        if target not in seen:
            seen.add(target)
            if found := way_back(start, target, arrows, [*path, target], seen):
                return found
    return None


@pytest.mark.parametrize(
    ("above", "below"),
    [("kernels", "layers"), ("kernels", "data"), ("layers", "data"), ("optim", "data"), ("models", "data")],
)
def test_rooms_that_do_not_know_each_other(above: str, below: str) -> None:
    for path in (path for path in FILES if room(path) == above):
        assert below not in {name.split(".")[0] for name in used(path)}, f"{path} knows {below}"


@pytest.mark.parametrize(
    ("library", "places"),
    [
        ("cupy", ("devices/gpu.py", "kernels/gpu/")),
        ("cudnn", ("devices/gpu.py", "kernels/gpu/")),
        ("numba", ("kernels/cpu/",)),
        ("llvmlite", ("kernels/cpu/",)),
        ("torch", ("bench/pytorch.py",)),
        ("h5py", ("checkpoint/", "data/")),
        ("onnx", ("exchange/",)),
        ("safetensors", ("exchange/",)),
    ],
)
def test_heavy_libraries_stay_in_their_rooms(library: str, places: tuple[str, ...]) -> None:
    for path in FILES:
        if any(name.split(".")[0] == library for name in imports(path)):
            assert path.relative_to(PACKAGE).as_posix().startswith(places), f"{path} imports {library}"


def test_one_file_writes_to_the_terminal() -> None:
    """Elsewhere a text from outside could pass without being made harmless; bars of downloads are tqdm's."""
    streams = ("sys.stdout", "sys.stderr", "sys.__stdout__", "sys.__stderr__")
    doors = {f"{stream}.{method}" for stream in streams for method in ("write", "writelines", "buffer.write")}
    doors |= {"print", "pprint", "traceback.print_exc", "traceback.print_exception", "logging.warning"}
    for path in (path for path in FILES if path.name != "terminal.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                assert ast.unparse(node.func) not in doors, f"{path}:{node.lineno} calls {ast.unparse(node.func)}"


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
def test_files_are_named_by_a_noun(path: Path) -> None:
    assert path.stem not in ("utils", "util", "helpers", "common", "misc")


def test_the_package_stays_within_its_budget() -> None:
    """Raise it for what is added, by as much; it may fall where nothing is."""
    lines = [len(path.read_text(encoding="utf-8").splitlines()) for path in FILES if room(path) != "kernels"]
    assert sum(lines) <= BUDGET


def test_importing_brings_in_nothing_heavy() -> None:
    heavy = ["cupy", "numba", "matplotlib", "sklearn", "torch", "PIL", "h5py", "tqdm", "onnx"]
    code = f"from gpucnn import *; import sys; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_command_imports_nothing_from_outside_before_it_handles_signals() -> None:
    code = "import sys; from gpucnn.cli.main import command; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert loaded & {"numpy", "argparse", "pathlib", "typing", "tomllib", "hashlib"} == set()
