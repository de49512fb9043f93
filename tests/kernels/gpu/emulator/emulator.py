"""Kernels of the GPU on the CPU: the same sources, compiled by g++, on the same grid with the same arguments.

``Emulator`` takes the place of ``launch.launcher``.  It is strict where a GPU is not: arguments have exactly the
parameters' types; arrays are contiguous; touching memory beside an array is an error, and so is a change of an array
that a kernel takes as const, a barrier that not all threads reach, a misaligned vector.  New memory is NaN.
"""

import ctypes
import mmap
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from gpucnn.kernels.gpu.compile import Module
from gpucnn.kernels.gpu.launch import NULL, VECTOR_BYTES, Grid

HERE = Path(__file__).parent
COMPILER = shutil.which("g++") if sys.platform == "linux" else None
CHECKS = "-fsanitize=alignment,bounds,signed-integer-overflow,shift,integer-divide-by-zero"
OPTIONS = ("-std=c++17", "-O0", "-fPIC", "-ffp-contract=off", "-Wall", "-Wno-unknown-pragmas", "-Wno-unused", "-Werror")
LIBC = ctypes.CDLL(None)
PAGE = mmap.PAGESIZE
BORDER = 512  # bytes: new memory begins on a multiple of them, as CuPy's does
POISON = 0xFF  # in every byte: NaN as float32, float64 and float16


class Library:
    """A ``.cu`` source compiled for the CPU."""

    def __init__(self, module: Module, folder: Path) -> None:
        entries = ",\n".join(
            f'{{"{name}", &emulator::Instance<&{name}>::call, &emulator::Instance<&{name}>::parameters}}'
            for name in module.names
        )
        source = f'#include "cuda_emulator.h"\n{module.source}\nEMULATED_ENTRIES({entries})\n'
        name = f"{Path(module.file).stem}-{sha256(source.encode()).hexdigest()[:16]}"
        path = folder / f"{name}.so"
        if not path.exists():  # another process may compile the same: the last one to be ready replaces an equal file
            with TemporaryDirectory(dir=folder) as own:
                self.compile(module.file, source, Path(own) / name).rename(path)
        self.library = ctypes.CDLL(str(path))
        self.library.parameters.restype = self.library.run.restype = ctypes.c_char_p
        self.numbers = {name: i for i, name in enumerate(module.names)}

    @staticmethod
    def compile(file: str, source: str, stem: Path) -> Path:
        """The shared library that g++ makes of a source, beside it."""
        stem.with_suffix(".cpp").write_text(source, encoding="utf-8")
        assert COMPILER
        files = [str(stem.with_suffix(suffix)) for suffix in (".cpp", ".o", ".so")]
        compile_it = [COMPILER, *OPTIONS, CHECKS, f"-I{HERE}", "-c", files[0], "-o", files[1]]
        for command in (compile_it, [COMPILER, "-shared", files[1], "-o", files[2]]):
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == 0, f"{file}: {done.stderr}"
        return Path(files[2])

    def parameters(self, name: str) -> list[str]:
        """A word for each parameter: ``"+f"`` for ``const float*``, ``"*f"`` for ``float*``, ``"q"`` for an index."""
        return self.library.parameters(self.numbers[name]).decode().split()

    def run(self, name: str, grid: Grid, addresses: list[int], descending: bool) -> str:
        """Every block, one after the other; what went wrong, or nothing."""
        blocks, threads = ((ctypes.c_uint * 2)(*pair) for pair in grid)
        values = (ctypes.c_void_p * len(addresses))(*addresses)
        return self.library.run(self.numbers[name], blocks, threads, values, descending).decode()


class Guarded:
    """A copy of an array between two pages that nobody may touch, poison in what is left of its own pages.

    It ends where the last page ends, or ``begins`` where the first one begins, to the 16 bytes of a vector: as far off
    a border as the array itself.
    """

    def __init__(self, array: np.ndarray, begins: bool) -> None:
        assert array.flags.c_contiguous, "a kernel was given an array that is not contiguous"
        self.array, self.before = array, array.tobytes()
        size = -(-(array.nbytes + VECTOR_BYTES) // PAGE) * PAGE
        whole = np.frombuffer(mmap.mmap(-1, size + 2 * PAGE), np.uint8)
        for forbidden in (whole.ctypes.data, whole.ctypes.data + PAGE + size):
            assert LIBC.mprotect(ctypes.c_void_p(forbidden), PAGE, 0) == 0
        self.memory = whole[PAGE:-PAGE]
        self.memory[:] = POISON
        off = array.ctypes.data % VECTOR_BYTES
        start = off if begins else (size - array.nbytes - off) // VECTOR_BYTES * VECTOR_BYTES + off
        self.inside = slice(start, start + array.nbytes)
        self.memory[self.inside] = np.frombuffer(self.before, np.uint8)
        self.pointer = ctypes.c_void_p(self.memory.ctypes.data + start)

    def give_back(self, constant: bool) -> None:
        """Check the border, and take over what was written."""
        outside = np.delete(self.memory, np.r_[self.inside])
        assert (outside == POISON).all(), "a kernel wrote beside an array"
        after = self.memory[self.inside]
        if constant:
            assert after.tobytes() == self.before, "a kernel changed an array that it takes as const"
        else:
            self.array.reshape(-1).view(np.uint8)[:] = after


class Recorder:
    """A launcher that only notes what would run.

    Attributes:
        launched: (file, instance) of all launches so far.
    """

    def __init__(self) -> None:
        self.launched: set[tuple[str, str]] = set()

    def empty(self, shape: tuple[int, ...], dtype: object) -> np.ndarray:
        """Poison, aligned as CuPy's memory is."""
        kind = np.dtype(dtype)
        size = int(np.prod(shape)) * kind.itemsize
        memory = np.full(size + BORDER, POISON, np.uint8)
        start = -memory.ctypes.data % BORDER
        return memory[start : start + size].view(kind).reshape(shape)

    def address(self, array: np.ndarray) -> int:
        return array.ctypes.data

    def launch(self, module: Module, name: str, grid: Grid, args: tuple[object, ...]) -> None:
        self.launched.add((module.file, name))


class Emulator(Recorder):
    """A launcher that runs kernels on the CPU, on NumPy's arrays.

    Attributes:
        descending: run blocks and threads from the last to the first; no result may depend on it.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.libraries: dict[str, Library] = {}
        self.descending = False

    def library(self, module: Module) -> Library:
        """The module's kernels, compiled when first asked for."""
        if module.file not in self.libraries:
            self.libraries[module.file] = Library(module, self.folder)
        return self.libraries[module.file]

    def launch(self, module: Module, name: str, grid: Grid, args: tuple[object, ...]) -> None:
        library = self.library(module)
        parameters = library.parameters(name)
        assert len(args) == len(parameters), f"{name} takes {len(parameters)} arguments, not {len(args)}"
        assert 0 < grid.threads[0] * grid.threads[1] <= 1024
        assert 0 < grid.blocks[0] < 2**31
        assert 0 < grid.blocks[1] < 65536
        guards: dict[int, tuple[Guarded, bool]] = {}
        keep, addresses = [], []
        for place, (value, parameter) in enumerate(zip(args, parameters, strict=True)):
            pointer, letter = parameter[0] in "+*", parameter[-1]
            if isinstance(value, np.ndarray):
                assert pointer, f"argument {place} of {name} is an array, not {parameter}"
                assert value.dtype == np.dtype(letter), f"argument {place} of {name} holds {value.dtype}, not {letter}"
                guard, constant = guards.get(value.ctypes.data) or (Guarded(value, self.descending), True)
                guards[value.ctypes.data] = guard, constant and parameter[0] == "+"
                box: object = guard.pointer
            elif pointer:
                assert value is NULL, f"argument {place} of {name} is {value!r}, not {parameter}"
                box = ctypes.c_void_p(0)
            else:
                assert isinstance(value, np.generic), f"argument {place} of {name} is {value!r}: give a NumPy scalar"
                assert value.dtype == np.dtype(letter), f"argument {place} of {name} is {value.dtype}, not {letter}"
                box = ctypes.create_string_buffer(value.tobytes())
            keep.append(box)
            addresses.append(ctypes.addressof(box))
        problem = library.run(name, grid, addresses, self.descending)
        assert not problem, f"{name}: {problem}"
        for guard, constant in guards.values():
            guard.give_back(constant)
        super().launch(module, name, grid, args)
