"""The cores of this machine that may be used."""

import os
from contextlib import suppress
from math import ceil
from pathlib import Path

from gpucnn.errors import UsageError, shown

MOST_THREADS = 1024
QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""Microseconds of processor time that a container has in each period, or "max", and the period."""


def usable_cores() -> int:
    """The cores that this process may run on, by its affinity and by its container's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):
        quota, period = QUOTA.read_text().split()
        cores = min(cores, max(1, ceil(int(quota) / int(period))))
    return cores


def thread_count(threads: int, name: str = "--threads") -> int:
    """A number of threads as it is asked for, where 0 stands for all usable cores.

    Raises UsageError for what is no such number.
    """
    if not isinstance(threads, int) or not 0 <= threads <= MOST_THREADS:
        asked = f"{name} {shown(threads)}: give at least 1, or 0 for all cores it may use"
        raise UsageError(f"{asked}, and at most {MOST_THREADS}")
    return threads or usable_cores()
