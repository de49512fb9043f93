"""CUDA sources: read at import, compiled by NVRTC where a kernel is first launched on a device, cached on disk by CuPy.

A file's templates are compiled for all the types it is used with at once; each module lists them by name, so the
compile gate in the tests builds exactly what a GPU would be given.
"""

import re
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
OPTIONS = ("-std=c++17",)
HEADER = re.compile(r'^#include "(\w+\.cuh)"$', re.MULTILINE)

RawKernel = Callable[[tuple[int, ...], tuple[int, ...], tuple[Any, ...]], None]
"""(grid, block, arguments), as CuPy's RawKernel"""

VECTORS = {"float32": "float, 4", "float16": "__half, 8"}
QUADS = {"float32": "float, 4", "float16": "__half, 4"}
SCALARS = {"float32": "float, 1", "float16": "__half, 1"}
TYPES = {"float32": "float", "float16": "__half"}
"""Storage, and how many values are loaded at once, as template arguments."""


class Module:
    """A ``.cu`` file and the instances of its kernels that are launched, as ``"normalize<float, 4, true>"``."""

    def __init__(self, file: str, names: Iterable[str]) -> None:
        self.file, self.names = file, tuple(names)
        self.source = flattened(file, (FOLDER / file).read_text(encoding="utf-8"))
        self.kernels: dict[str, RawKernel] = {}

    def kernel(self, name: str) -> RawKernel:
        """An instance; CuPy compiles it for the current device when it is first called there."""
        if name not in self.kernels:
            self.kernels[name] = self.compiled.get_function(name)
        return self.kernels[name]

    @cached_property
    def compiled(self) -> Any:
        """The file as CuPy sees it."""
        import cupy

        return cupy.RawModule(code=self.source, options=OPTIONS, name_expressions=self.names)


def flattened(file: str, text: str) -> str:
    """A source with the package's own headers written in where it includes them.

    CuPy's cache of compiled code looks at the source it is given, not at files behind an #include.
    """

    def paste(match: re.Match[str]) -> str:
        header = (FOLDER / match[1]).read_text(encoding="utf-8")
        line = text[: match.start()].count("\n") + 2
        return f'#line 1 "{match[1]}"\n{header}\n#line {line} "{file}"'

    return f'#line 1 "{file}"\n' + HEADER.sub(paste, text)


def instances(kernel: str, *extra: str, wide: dict[str, str] = VECTORS) -> list[str]:
    """A kernel for both storage types, by vectors and one by one; ``extra`` are further template arguments.

    >>> instances("map", "true")
    ['map<float, 4, true>', 'map<__half, 8, true>', 'map<float, 1, true>', 'map<__half, 1, true>']
    """
    storages = (*wide.values(), *SCALARS.values())
    return [f"{kernel}<{', '.join((storage, *extra))}>" for storage in storages]
