"""The kernels of the GPU on the CPU, where there is a compiler."""

import os
from pathlib import Path

import pytest
from emulator.emulator import COMPILER, Emulator, Recorder
from host_products import multiply_on_the_host

from gpucnn.kernels.gpu import launch


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Emulator:
    """One emulator for the session: a source takes seconds to compile, so that processes share what is compiled."""
    if COMPILER is None:
        pytest.skip("needs g++ on Linux: it compiles the CUDA kernels for the CPU")
    base = tmp_path_factory.getbasetemp()
    shared: Path = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "emulator"
    shared.mkdir(exist_ok=True)
    return Emulator(shared)


@pytest.fixture
def emulator(compiled: Emulator, monkeypatch: pytest.MonkeyPatch) -> Emulator:
    """Kernels run on the CPU as long as a test runs."""
    monkeypatch.setattr(launch, "launcher", compiled)
    multiply_on_the_host(monkeypatch)
    compiled.descending = False
    return compiled


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """Kernels are noted, and nothing runs."""
    monkeypatch.setattr(launch, "launcher", Recorder())
    multiply_on_the_host(monkeypatch)
    return launch.launcher
