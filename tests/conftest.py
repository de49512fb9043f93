"""Backends to test on, and reasons to skip."""

import os
import signal
from collections.abc import Iterator
from importlib.util import find_spec

import inherited  # noqa: F401
import pytest
from strict_cupy import STRICT

from gpucnn.backend import REFERENCE, Backend
from gpucnn.devices import get_backend, gpu_problem

if find_spec("hypothesis"):
    from hypothesis import settings

    settings.register_profile("suite", deadline=None)  # an example may take as long as a busy machine needs
    settings.load_profile("suite")


@pytest.fixture(params=["reference", "cpu", "strict", pytest.param("gpu", marks=pytest.mark.gpu)])
def backend(request: pytest.FixtureRequest) -> Backend:
    """Each backend in turn."""
    if request.param == "strict":
        return STRICT
    return REFERENCE if request.param == "reference" else get_backend(request.param)


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Python's own handler of Ctrl-C, in this process."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.signal(signal.SIGINT, before) is signal.default_int_handler


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, with the reason, what needs something that is not here."""
    missing = {
        "gpu": gpu_problem(),
        "torch": None if find_spec("torch") else "PyTorch is not installed",
        "data": None if os.environ.get("GPUCNN_DATA_DIR") else "GPUCNN_DATA_DIR is not set",
    }
    for item in items:
        for marker, reason in missing.items():
            if reason and item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))
