"""Flags that several commands share."""

import argparse
import sys

from gpucnn.backend import Backend
from gpucnn.backends import get_backend, gpu_problem
from gpucnn.environment import usable_cores
from gpucnn.errors import DeviceError


def add_data_dir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data-dir", metavar="DIR", help="where data sets lie (or GPUCNN_DATA_DIR, or ~/.cache/gpucnn)"
    )


def add_data_options(parser: argparse.ArgumentParser) -> None:
    add_data_dir(parser)
    parser.add_argument("--no-download", action="store_true", help="fail rather than fetch a missing data set")


def add_device_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", metavar="NAME", help="auto (default), cpu, gpu, gpu:N or reference (plain NumPy)")
    parser.add_argument(
        "--strict-device", action="store_true", default=None, help="exit 6 where the GPU asked for is missing"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: all cores it may use)")


def choose_backend(device: str, strict: bool = False, threads: int = 0) -> tuple[Backend, str]:
    """The backend asked for -> (backend, why it is another one, or "").

    A GPU that cannot be used is replaced by the CPU with one loud line, unless ``strict``.
    """
    set_threads(threads)
    if device == "auto":
        reason = gpu_problem() or ""
        return get_backend("cpu" if reason else "gpu"), reason
    try:
        return get_backend(device), ""
    except DeviceError as error:
        if strict:
            raise
        print(
            f"gpucnn: WARNING: --device {device} was asked for, but {error}; RUNNING ON THE CPU INSTEAD",
            file=sys.stderr,
        )
        return get_backend("cpu"), str(error)


def set_threads(threads: int) -> None:
    """Bound the CPU engine's threads; 0 means the cores that this process may use."""
    from gpucnn.backends import cpu

    cpu.set_threads(threads or usable_cores())


def backend_from(args: argparse.Namespace) -> tuple[Backend, str]:
    """``choose_backend`` from the shared flags."""
    return choose_backend(args.device or "auto", bool(args.strict_device), args.threads or 0)


def describe(backend: Backend) -> str:
    """A backend for people: its name and how many ops have kernels, or why none has."""
    from gpucnn.backends import cpu

    kernels = f"{len(backend.kernels)} kernels" if backend.kernels else "no kernels, ops run as written"
    if backend.name == "cpu" and (reason := cpu.problem()):
        kernels = f"NO KERNELS: {reason}"
    return f"{backend.name} ({backend.xp.__name__} {backend.xp.__version__}, {kernels})"
