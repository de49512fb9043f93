"""Compiling kernels: lazily, once, with a notice, and cached on disk under a hash of their sources (``cache.py``).

Numba's own cache looks at the file of the function alone; a kernel that inlines one from another file would keep
running the old code.  So the cache folder's name is a hash of all kernel sources and of Numba's version.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba.core import event

from gpucnn import terminal
from gpucnn.kernels.cpu.engine.cache import SealedCache, cache_folder

FAST_MATH = {"contract"}
"""a * b + c may become one instruction.  Sums are never reordered: a kernel that is inlined somewhere must give the
same bits as one that is not, or a run would depend on its number of threads and on the state of the cache."""


def compiled() -> list[Path]:
    """The files of the functions that have been compiled so far."""
    return sorted(CACHE.glob("**/*.nbc")) if CACHE else []


class Notice(event.Listener):
    """Says that kernels are being compiled: on a terminal for as long as it lasts, elsewhere by a line a process."""

    def __init__(self) -> None:
        self.depth = self.count = 0
        self.told = False
        self.before = ""

    def on_start(self, event: Any) -> None:
        place = place_of(event)
        if place and self.depth == 0:  # else it is a function that a kernel calls
            self.count += 1
            self.before = terminal.show(f"compiling CPU kernels, once ({self.count} so far); up to half a minute")
            if not (self.told or "engine" in place or terminal.is_terminal(sys.stderr)):  # the engine takes a second
                self.told = True
                terminal.tell("compiling CPU kernels, once; up to half a minute")
        self.depth += bool(place)

    def on_end(self, event: Any) -> None:
        self.depth -= bool(place_of(event))
        if self.depth == 0:
            terminal.show(self.before)


def place_of(event: Any) -> str:
    """Where in this package the function lies that is compiled; "" for one of somebody else."""
    module = str(event.data["dispatcher"].py_func.__module__)
    return module if module.startswith("gpucnn.") else ""


event.register("numba:compile", Notice())


def compile_ahead() -> None:
    """Start the process that compiles the same kernels from the other end (``precompile.py``), once a cache folder."""
    if CACHE is None:
        return
    try:
        (CACHE / "ahead").touch(exist_ok=False)
    except OSError:  # another process was first, or nothing can be kept here
        return
    package = str(Path(__file__).resolve().parents[4])
    path = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
    silent = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in (0, 1, 2)]
    command = [sys.executable, "-m", "gpucnn.kernels.cpu.precompile"]
    os.posix_spawn(sys.executable, command, {**os.environ, "PYTHONPATH": path}, file_actions=silent)


CACHE = cache_folder()


def jit(function: Callable[..., Any], *, fast_math: set[str] | bool = FAST_MATH) -> Callable[..., Any]:
    """Compile for the types of the first call, without the GIL; what is compiled lies in ``CACHE``."""
    made: Callable[..., Any] = numba.njit(
        nogil=True, no_cfunc_wrapper=True, fastmath=fast_math, error_model="numpy", boundscheck=False
    )(function)
    if CACHE is None:
        return made
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(CACHE)
    try:
        made._cache = SealedCache(function)  # type: ignore[attr-defined]
    except (OSError, RuntimeError):  # its folder has gone since
        pass
    finally:
        numba.config.CACHE_DIR = before
    return made


def jit_exact(function: Callable[..., Any]) -> Callable[..., Any]:
    """``jit`` for what must round as NumPy does, after each operation."""
    return jit(function, fast_math=False)
