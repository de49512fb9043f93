"""NVRTC without a GPU: CUDA source -> machine code for a given architecture, and what ptxas says about it.

The library comes from the wheel nvidia-cuda-nvrtc, headers from nvidia-cuda-runtime: the extra ``nvrtc``.
"""

import ctypes
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

FUNCTION = re.compile(
    r"Compiling entry function '(?P<name>\w+)' for.*?"
    r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?"
    r"Used (?P<registers>\d+) registers",
    re.DOTALL,
)


class Use(NamedTuple):
    """What a kernel takes of the GPU, bytes and registers of a thread."""

    stack: int
    stores: int
    loads: int
    registers: int


class Compiled(NamedTuple):
    """What came of a source; ``lowered`` is template instance -> name in the code."""

    failed: bool
    log: str
    lowered: dict[str, str]
    ptx: str

    @property
    def uses(self) -> dict[str, Use]:
        """Name in the code -> what it takes."""
        return {
            found["name"]: Use(*(int(found[part]) for part in Use._fields)) for found in FUNCTION.finditer(self.log)
        }

    def body(self, name: str) -> str:
        """The instructions of a function of the code."""
        return self.ptx.partition(f".entry {name}(")[2].partition(".entry ")[0]


def wheels() -> list[Path]:
    """Folders of NVIDIA's wheels."""
    spec = find_spec("nvidia")
    roots = [Path(root) for root in (spec.submodule_search_locations or ())] if spec else []
    return [folder for root in roots for folder in sorted(root.iterdir(), reverse=True) if folder.is_dir()]


def first(pattern: str) -> Path | None:
    """A file of one of the wheels."""
    return next((path for folder in wheels() for path in sorted(folder.glob(pattern))), None)


def missing() -> str | None:
    """Why nothing can be compiled."""
    if first("lib/libnvrtc.so.*") is None:
        return "NVRTC is not installed: pip install 'gpucnn[nvrtc]'"
    if first("include/cuda_fp16.h") is None:
        return "CUDA's headers are not installed: pip install 'gpucnn[nvrtc]'"
    return None


@cache
def library() -> ctypes.CDLL:
    """NVRTC, with its built-in headers, which it looks for by name only."""
    ctypes.CDLL(str(first("lib/libnvrtc-builtins.so.*")))
    return ctypes.CDLL(str(first("lib/libnvrtc.so.*")))


def compile_source(source: str, names: tuple[str, ...], options: tuple[str, ...]) -> Compiled:
    """Compile as CuPy does; ptxas reports what each function uses."""
    nvrtc, program = library(), ctypes.c_void_p()
    headers = first("include/cuda_fp16.h")
    assert headers
    words = [word.encode() for word in (*options, f"-I{headers.parent}", "--ptxas-options=-v")]
    assert nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernels.cu", 0, None, None) == 0
    try:
        for name in names:
            assert nvrtc.nvrtcAddNameExpression(program, name.encode()) == 0
        failed = nvrtc.nvrtcCompileProgram(program, len(words), (ctypes.c_char_p * len(words))(*words)) != 0
        lowered, ptx = {}, ""
        for name in () if failed else names:
            found = ctypes.c_char_p()
            assert nvrtc.nvrtcGetLoweredName(program, name.encode(), ctypes.byref(found)) == 0
            assert found.value
            lowered[name] = found.value.decode()
        if not failed:
            ptx = text(program, "PTX")
        return Compiled(failed, text(program, "ProgramLog"), lowered, ptx)
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def text(program: ctypes.c_void_p, what: str) -> str:
    """One of the results that NVRTC hands out as text."""
    nvrtc, size = library(), ctypes.c_size_t()
    assert getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size)) == 0
    buffer = ctypes.create_string_buffer(size.value)
    assert getattr(nvrtc, f"nvrtcGet{what}")(program, buffer) == 0
    return buffer.value.decode()
