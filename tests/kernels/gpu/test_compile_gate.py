"""Every CUDA source through NVRTC, for two GPUs, on a machine without one: no warnings, no spills, wide loads."""

import re
from functools import cache
from importlib.util import find_spec

import nvrtc
import pytest
from gpu_samples import MODULES

from gpucnn.kernels.gpu.compile import FOLDER, OPTIONS, QUADS, SCALARS, VECTORS
from gpucnn.kernels.gpu.launch import BLOCK

BY_FILE = {module.file: module for module in MODULES}
ARCHITECTURES = ("sm_80", "sm_90")
CUPY_ADDS = ("-ftz=true", "--device-as-default-execution-space")
REGISTERS = 128  # at most: two blocks of 256 threads then fit into the 65,536 of a multiprocessor
VALUE_BY_VALUE = ("augment.cu", "stem.cu", "warp.cu")  # read uint8, or pixels of no vector: wide stores alone

needs_nvrtc = pytest.mark.skipif(nvrtc.missing() is not None, reason=str(nvrtc.missing()))


@cache
def compiled(file: str, architecture: str) -> nvrtc.Compiled:
    """Once for all tests of a source."""
    module = BY_FILE[file]
    return nvrtc.compile_source(module.source, module.names, (*OPTIONS, *CUPY_ADDS, f"-arch={architecture}"))


def each_source(test):
    """Every file, for every architecture."""
    sources = pytest.mark.parametrize("file", BY_FILE)
    return needs_nvrtc(sources(pytest.mark.parametrize("architecture", ARCHITECTURES)(test)))


@each_source
def test_it_compiles_without_a_warning(file, architecture) -> None:
    done = compiled(file, architecture)
    assert not done.failed, done.log
    assert "warning" not in done.log, done.log


@each_source
def test_nothing_lives_in_memory_that_belongs_in_registers(file, architecture) -> None:
    done = compiled(file, architecture)
    assert set(done.lowered) == set(BY_FILE[file].names)
    for name, lowered in done.lowered.items():
        use = done.uses[lowered]
        assert (use.stack, use.stores, use.loads) == (0, 0, 0), f"{name} spills: {use}"
        assert use.registers <= REGISTERS, f"{name} takes {use.registers} registers"


@each_source
def test_vectors_are_one_access(file, architecture) -> None:
    done = compiled(file, architecture)
    for name, lowered in done.lowered.items():
        body = done.body(lowered)
        assert body
        lanes = r"v4\.\S*16" if QUADS["float16"] in name else r"v4\.\S*32"
        loads, stores = (re.findall(rf"\b{what}\.global\S*\.{lanes}\b", body) for what in ("ld", "st"))
        vectors = (*VECTORS.values(), *QUADS.values())
        wide = any(vector in name for vector in vectors) or re.search(r"<4\b", name)
        if wide:
            assert loads or file in VALUE_BY_VALUE, f"{name} loads value by value"
            # sums and statistics leave one value a channel, a check one a block
            assert stores or re.search("sums|moments|finite_blocks", name), f"{name} stores value by value"
        elif any(scalar in name for scalar in SCALARS.values()):
            assert not loads


@each_source
def test_no_sum_depends_on_the_order_of_threads(file, architecture) -> None:
    assert not re.search(r"\b(atom|red)\.", compiled(file, architecture).ptx)


SPILLS = """
__global__ void spill(float* y, int at) {
    float all[300];
    for (int i = 0; i < 300; ++i) all[i] = y[i];
    y[0] = all[at];
}
__global__ void atomic(float* y) { atomicAdd(y, 1.0f); }
"""


@needs_nvrtc
def test_the_gate_sees_what_it_is_there_for() -> None:
    options = (*OPTIONS, "-arch=sm_80")
    broken = nvrtc.compile_source("__global__ void broken() { undeclared(); }", ("broken",), options)
    assert broken.failed
    assert "undeclared" in broken.log
    unused = nvrtc.compile_source("__global__ void unused() { int n = 3; }", ("unused",), options)
    assert not unused.failed
    assert "warning" in unused.log
    spilled = nvrtc.compile_source(SPILLS, ("spill", "atomic"), options)
    assert spilled.uses[spilled.lowered["spill"]].stack > 0
    assert re.search(r"\b(atom|red)\.", spilled.body(spilled.lowered["atomic"]))


def test_every_source_belongs_to_a_module() -> None:
    assert sorted(BY_FILE) == sorted(path.name for path in FOLDER.glob("*.cu"))
    used = {name for module in MODULES for name in re.findall(r'#line 1 "(\w+\.cuh)"', module.source)}
    assert used == {path.name for path in FOLDER.glob("*.cuh")}


def test_blocks_are_as_large_as_the_sources_think() -> None:
    for module in MODULES:
        for size in re.findall(r"constexpr int BLOCK = (\d+);", module.source):
            assert int(size) == BLOCK


@pytest.mark.skipif(find_spec("cupy") is None, reason="CuPy is not installed")
@pytest.mark.parametrize("file", BY_FILE)
def test_cupy_takes_the_source_without_a_device(file) -> None:
    raw = BY_FILE[file].compiled
    assert raw.options == OPTIONS
    assert raw.name_expressions == BY_FILE[file].names
