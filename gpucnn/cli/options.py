"""Flags that several commands share."""

import argparse
from pathlib import Path

from gpucnn.backend import Backend
from gpucnn.devices.select import choose_backend
from gpucnn.errors import UsageError
from gpucnn.types import Shape

FORMATS = (".png", ".svg", ".pdf")
"""What curves can be drawn as."""


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
    parser.add_argument(
        "--memory-limit",
        metavar="SIZE",
        help="of the GPU, for arrays: GiB as in 12, or a share as in 80%% (default: all)",
    )
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: all cores it may use)")


def check_picture(out: Path) -> None:
    """Raises UsageError where no picture can be put there under this name."""
    if out.suffix.lower() not in FORMATS:
        raise UsageError(f"--out {out}: the name must end in {', '.join(FORMATS)}")
    if out.is_dir() or not out.parent.is_dir():
        raise UsageError(f"--out {out}: {'this is a folder' if out.is_dir() else f'there is no folder {out.parent}'}")


def shape_from(text: str) -> Shape:
    """--input-shape 28x28x1 -> (28, 28, 1)."""
    sizes = text.split("x")
    if len(sizes) != 3 or not all(size.isdecimal() and int(size) for size in sizes):
        raise UsageError(f"--input-shape {text!r}: give height, width and channels, as in 28x28x1")
    return tuple(int(size) for size in sizes)


def backend_from(args: argparse.Namespace) -> tuple[Backend, str]:
    """``choose_backend`` from the shared flags."""
    return choose_backend(args.device or "auto", bool(args.strict_device), args.threads or 0, args.memory_limit or "")


def describe(backend: Backend) -> str:
    """A backend for people: its name and how many ops have kernels, or why none has."""
    from gpucnn.devices import cpu

    kernels = f"{len(backend.kernels)} kernels" if backend.kernels else "no kernels, ops run as written"
    if backend.name == "cpu" and (reason := cpu.problem()):
        kernels = f"NO KERNELS: {reason}"
    return f"{backend.name} ({backend.xp.__name__} {backend.xp.__version__}, {kernels})"
