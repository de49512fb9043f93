"""Plugins: Python files that a user names, with layers and models of his own (``models.register``).

A checkpoint says which ones its net needs, by name and digest.  Nothing is ever loaded because a file says so.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from traceback import extract_tb
from types import ModuleType
from typing import Any

from gpucnn.errors import GpucnnError, UsageError, near
from gpucnn.files import read_text
from gpucnn.layers import Layer
from gpucnn.models import MODELS, ORIGINS, file_of
from gpucnn.models.spec import LAYERS

LONGEST, LONGEST_NAME = 2**20, 60  # characters
PREFIX = "gpucnn_plugin_"  # of the name as a module


@contextmanager
def plugged(paths: Sequence[Path]) -> Iterator[None]:
    """With these files loaded; afterwards their layers and models are gone again.

    Raises:
        UsageError: a file cannot be read, is named like another one, or raises, now or later; the line says where.
    """
    tables: tuple[dict[str, Any], ...] = (LAYERS, MODELS, ORIGINS)
    before, modules = [dict(table) for table in tables], set(sys.modules)
    try:
        for path in paths:
            load(path)
        yield
    except (GpucnnError, MemoryError):
        raise
    except Exception as error:
        if where := place(error):
            raise UsageError(f"--plugin {where}") from error
        raise
    finally:
        for table, kept in zip(tables, before, strict=True):
            table.clear()
            table.update(kept)
        for name in set(sys.modules) - modules:
            if name.startswith(PREFIX):
                del sys.modules[name]


def load(path: Path) -> None:
    """Run a file, which registers what it has."""
    name, module = path.name, ModuleType(f"{PREFIX}{path.stem}")
    try:
        source = read_text(path, LONGEST)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--plugin {path}: {getattr(error, 'strerror', None) or error}{near(path)}") from None
    if len(name) > LONGEST_NAME or module.__name__ in sys.modules:
        raise UsageError(f"--plugin {path}: give each a name of its own, of {LONGEST_NAME} characters at most")
    module.__file__, sys.modules[module.__name__] = str(path.resolve()), module
    try:
        exec(compile(source, module.__file__, "exec", dont_inherit=True), vars(module))
    except UsageError as error:
        raise UsageError(f"--plugin {path}: {error}") from None
    except (Exception, SystemExit) as error:
        raise UsageError(f"--plugin {path}: {place(error).removeprefix(f'{name}, ') or describe(error)}") from error
    if not any(file_of(origin) == name for origin in ORIGINS.values()):
        raise UsageError(f"--plugin {path}: it registers nothing: put @models.register above its layers and models")


def describe(error: BaseException) -> str:
    """An error's type and text; of a syntax error the line as well."""
    where = f"line {error.lineno}: " if isinstance(error, SyntaxError) and error.lineno else ""
    return f"{where}{type(error).__name__}: {error.msg if isinstance(error, SyntaxError) else error}"


def place(error: BaseException) -> str:
    """Which line of a plugin an error comes through, and what it is; "" where it comes through none."""
    files = {getattr(m, "__file__", None): m.__name__ for name, m in sys.modules.items() if name.startswith(PREFIX)}
    for frame in reversed(extract_tb(error.__traceback__)):
        if frame.filename in files:
            return f"{Path(frame.filename).name}, line {frame.lineno}: {describe(error)}"
    return ""


def needed(model: Layer, name: str = "") -> tuple[str, ...]:
    """The files, with their digests, that have registered a model's layers, or the model of this name."""
    used = [name, *(type(layer).__name__ for _, layer in model.named_layers())]
    return tuple(sorted({ORIGINS[one] for one in used if one in ORIGINS}))


def loaded() -> dict[str, str]:
    """File -> file and digest, of all that is registered."""
    return {file_of(origin): origin for origin in ORIGINS.values()}


def require(plugins: Sequence[str]) -> None:
    """Raises UsageError where a net needs files that are not loaded."""
    missing = [name for plugin in plugins if (name := file_of(plugin)) not in loaded()]
    if missing:
        words = " ".join(f"--plugin {name}" for name in missing)
        raise UsageError(f"plugins: the net needs {', '.join(missing)}: add {words} (in Python, import it)")


def changed(plugins: Sequence[str]) -> list[str]:
    """A line for each file that is not as it was when the net was trained."""
    now = loaded()
    return [f"{file_of(was)} has changed since the net was trained" for was in plugins if now[file_of(was)] != was]
