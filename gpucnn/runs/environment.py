"""Versions and hardware of a run.

Versions come from package metadata, so nothing is imported; a GPU and its libraries are queried only when used.
"""

import os
import platform
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from gpucnn.devices.cores import usable_cores
from gpucnn.version import __version__

PACKAGES = {
    "numpy": ("numpy",),
    "numba": ("numba",),
    "h5py": ("h5py",),
    "cupy": ("cupy-cuda13x", "cupy-cuda12x", "cupy"),
}
"""Name -> the distributions that provide it."""

VARYING = ("command", "started", "usable_cores")
"""Keys that differ between two equal runs, or between a run and its continuation."""


def environment(requested: str, used: str, reason: str = "", tf32: bool = False) -> dict[str, Any]:
    """Versions, processor, device and command of a run, for env.json.

    Args:
        requested: the device asked for.
        used: the backend's name.
        reason: why it is another one.
        tf32: whether convolutions of float32 may use TF32 on a GPU.
    """
    about: dict[str, Any] = {
        "gpucnn": __version__,
        "python": platform.python_version(),
        **{name: installed(*names) for name, names in PACKAGES.items()},
        "platform": platform.platform(),
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "usable_cores": usable_cores(),
        "device_requested": requested,
        "device_used": used,
        "device_reason": reason,
        "command": list(sys.argv),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    kind, _, number = used.partition(":")
    if kind == "gpu":
        from gpucnn.devices import gpu

        about["gpu"] = gpu.about(int(number or 0), tf32)
    return about


def stable_part(about: Mapping[str, Any]) -> dict[str, Any]:
    """The part for checkpoints: the same for a run and for the run interrupted and resumed."""
    return {key: value for key, value in about.items() if key not in VARYING}


def installed(*distributions: str) -> str | None:
    """The version of the first of these distributions that is installed."""
    for name in distributions:
        with suppress(PackageNotFoundError):
            return version(name)
    return None


def cpu_model() -> str:
    """The processor's name."""
    with suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        if line := re.search("^model name.*?:(.*)", text, re.MULTILINE):
            return line[1].strip()
    return platform.processor() or platform.machine()
