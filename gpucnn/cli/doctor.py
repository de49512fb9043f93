"""``gpucnn doctor``: what this machine has, what is used, and why not the rest.  It never fails."""

import argparse
import os
import platform
import subprocess
from collections.abc import Callable
from importlib import import_module
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

from gpucnn import devices
from gpucnn.backend import Backend
from gpucnn.cli.columns import columns, counted, paragraph
from gpucnn.cli.options import add_data_options
from gpucnn.data.files.sources import NO_PLACE, download_place, gap, locate, search_places
from gpucnn.data.registry import DATASETS
from gpucnn.devices.cores import usable_cores
from gpucnn.models.memory import GIB, main_memory
from gpucnn.runs.environment import PACKAGES, cpu_model, installed
from gpucnn.terminal import say, say_json
from gpucnn.version import __version__

GPU_EXTRA = "pip install 'gpucnn[cuda13]' or 'gpucnn[cuda12]'"


class Package(NamedTuple):
    """Something to install: distributions that provide it, what it is for, how to get it."""

    name: str
    distributions: tuple[str, ...]
    purpose: str
    remedy: str


CHECKED = (
    Package("NumPy", PACKAGES["numpy"], "arrays, and the reference engine", "pip install numpy"),
    Package("Numba", PACKAGES["numba"], "kernels of the CPU engine", "pip install numba"),
    Package("h5py", PACKAGES["h5py"], "checkpoints", "pip install h5py"),
    Package("scikit-learn", ("scikit-learn",), "digits, confusion matrix", "pip install scikit-learn"),
    Package("Pillow", ("pillow",), "image files", "pip install pillow"),
    Package("matplotlib", ("matplotlib",), "gpucnn features", "pip install 'gpucnn[viz]'"),
    Package("CuPy", PACKAGES["cupy"], "arrays on the GPU", GPU_EXTRA),
    Package("cuDNN", ("nvidia-cudnn-cu13", "nvidia-cudnn-cu12"), "GPU convolutions", GPU_EXTRA),
    Package("cuDNN frontend", ("nvidia-cudnn-frontend",), "GPU convolutions", GPU_EXTRA),
    Package("PyTorch", ("torch",), "comparison in tests and benchmarks", "pip install 'gpucnn[bench]'"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    add_data_options(parser, download=False)


def run(args: argparse.Namespace) -> int:
    """Look around and print; always 0."""
    machine = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": attempt(cpu_model),
        "cores": os.cpu_count(),
        "usable_cores": usable_cores(),
        "memory_gib": attempt(memory),
        "blas": attempt(blas),
    }
    report = {
        "gpucnn": __version__,
        "machine": machine,
        "packages": [describe(package) for package in CHECKED],
        "gpu": gpu(),
        **backend_report(),
        "data": attempt(lambda: data_report(args.data_dir)),
        "caches": attempt(caches),
    }
    if args.json:
        say_json(report)
    else:
        say(*as_lines(report))
    return 0


def attempt(look: Callable[[], Any]) -> Any:
    """What ``look`` finds, or {"problem": why it could not look}, so that the rest is still shown."""
    try:
        return look()
    except Exception as error:
        return {"problem": one_line(error)}


def one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def memory() -> float:
    """GiB of main memory, or what a container may use of it."""
    return round(main_memory() / GIB, 1)


def blas() -> list[str]:
    """The BLAS and OpenMP libraries that are loaded, with their threads."""
    import numpy  # noqa: F401  (loads them)
    from threadpoolctl import threadpool_info

    return [
        f"{pool['internal_api']} {pool.get('version') or '(version unknown)'}, {counted(pool['num_threads'], 'thread')}"
        for pool in threadpool_info()
    ]


def describe(package: Package) -> dict[str, Any]:
    """A package with its version, None where it is not installed; nothing is imported."""
    found = installed(*package.distributions)
    remedy = package.remedy if found is None else ""
    return {"name": package.name, "version": found, "purpose": package.purpose, "remedy": remedy}


def gpu() -> dict[str, Any]:
    """GPUs and driver as ``nvidia-smi`` sees them: it works where CuPy does not."""
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    answer = ""
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
        problem = "" if answer else "nvidia-smi lists no GPU"
    except FileNotFoundError:
        problem = "no nvidia-smi: no NVIDIA driver is installed"
    except (OSError, subprocess.SubprocessError) as error:
        problem = f"nvidia-smi fails: {one_line(error)}"
    rows = [line.rpartition(", ") for line in answer.splitlines()]
    return {"driver": rows[0][2] if rows else None, "devices": [row[0] for row in rows], "problem": problem}


def backend_report() -> dict[str, Any]:
    """What ``--device auto`` is, why it is not a GPU, and what its kernels replace."""
    try:
        reason = devices.gpu_problem() or ""
    except Exception as error:  # a broken CuPy may raise anything
        reason = f"CuPy is broken ({one_line(error)}): reinstall it, {GPU_EXTRA}"
    chosen = attempt(lambda: devices.get_backend("cpu" if reason else "gpu"))
    unusable = "" if isinstance(chosen, Backend) else chosen["problem"]
    backend = devices.get_backend("reference") if unusable else chosen
    module = attempt(lambda: import_module(f"gpucnn.devices.{'cpu' if reason else 'gpu'}"))
    return {
        "auto": backend.name,
        "why_not_gpu": reason,
        "why_no_kernels": unusable or (backend.name == "cpu" and attempt(lambda: module.problem())) or "",
        "device": {} if reason or unusable else attempt(lambda: module.about(0)),
        "convolutions": "" if reason or unusable else attempt(lambda: module.convolution_engine()),
        "kernels": {qualified(op): qualified(kernel) for op, kernel in backend.kernels.items()},
    }


def qualified(function: Any) -> str:
    """conv2d.conv2d_weight_grad for a function of gpucnn.layers.conv2d."""
    function = getattr(function, "func", function)  # a partial
    module = str(getattr(function, "__module__", "")).removeprefix("gpucnn.").removeprefix("layers.")
    return f"{module}.{getattr(function, '__name__', type(function).__name__)}".lstrip(".")


def data_report(data_dir: str | None) -> dict[str, Any]:
    """Where data sets are looked for, and which are there; ``gpucnn data verify`` reads them."""
    folders = [f"{place}{'' if place.is_dir() else ' (not there)'}" for place in search_places(data_dir)] or [NO_PLACE]
    sets = {}
    for name, source in DATASETS.items():
        place = locate(source, data_dir) if source.remote else "built in"
        lack = gap(source, data_dir) or "not here"
        sets[name] = {"found": place is not None, "where": str(place or f"{lack}: gpucnn data download {name}")}
    return {"searched": folders, "sets": sets}


def caches() -> dict[str, Any]:
    """Folders that gpucnn fills by itself."""
    from gpucnn.kernels.gpu.cudnn.plan_cache import default_folder

    return {
        "data sets": str(download_place()) if search_places() else "none: this user has no home folder",
        "CPU kernels": attempt(kernel_cache),
        "cuDNN engines": str(default_folder() or "not kept: this user has no home folder"),
    }


def kernel_cache() -> dict[str, Any]:
    """Where compiled kernels lie, the hash of the sources they are of, how many functions there are, and MiB."""
    from gpucnn.kernels.cpu.engine import compile as compiling

    files = compiling.compiled()
    return {
        "folder": str(compiling.CACHE or "not kept: no folder can be used"),
        "hash": compiling.CACHE.name.rpartition("-")[2] if compiling.CACHE else "",
        "compiled": len(files),
        "mib": round(sum(file.stat().st_size for file in files) / 2**20, 1),
    }


def as_lines(report: dict[str, Any]) -> list[str]:
    """The report, line by line."""
    m, g, packages, kernels, data = (report[part] for part in ("machine", "gpu", "packages", "kernels", "data"))
    remedies = groupby((p for p in packages if p["version"] is None), itemgetter("remedy"))
    others = f"--device gpu:N, N = 0 to {len(g['devices']) - 1}, or fewer by CUDA_VISIBLE_DEVICES"
    count = f"{len(kernels)} ops have a kernel on {report['auto']}, the others run on the reference implementation"
    return [
        f"gpucnn {report['gpucnn']}",
        "",
        *facts(
            ("Python", f"{m['python']} on {m['platform']}"),
            ("CPU", f"{m['cpu']}, {m['usable_cores']} of {m['cores']} cores usable"),
            ("memory", f"{m['memory_gib']} GiB"),
            ("BLAS", "; ".join(m["blas"]) if isinstance(m["blas"], list) else m["blas"]["problem"]),
            ("GPU", "; ".join(g["devices"]) or g["problem"]),
            ("driver", g["driver"] or "none"),
        ),
        "",
        *columns([(f"{p['name']:<16}", p["version"] or "not installed", p["purpose"]) for p in packages], "<"),
        *facts(*(("to install", f"{', '.join(p['name'] for p in group)}: {remedy}") for remedy, group in remedies)),
        "",
        *facts(
            ("--device auto", f"is {report['auto']}"),
            ("not the GPU", report["why_not_gpu"]),
            ("no kernels", report["why_no_kernels"]),
            *about_device(report["device"]),
            ("others", others if len(g["devices"]) > 1 else ""),
            ("convolutions", report["convolutions"]),
        ),
        "",
        *paragraph("", count, 0),
        # a kernel has its op's name: only its module is new
        *columns([(op, kernel.rpartition(".")[0]) for op, kernel in kernels.items()] or [("",)], "<", "  "),
        "",
        "data sets, searched for in this order",
        *(f"  {i}. {folder}" for i, folder in enumerate(data.get("searched", ()), start=1)),
        *facts(("problem", data.get("problem"))),
        *facts(*((name, found["where"]) for name, found in data.get("sets", {}).items())),
        "",
        "caches",
        *facts(*((name, cache_text(cache)) for name, cache in report["caches"].items())),
    ]


def about_device(device: dict[str, Any]) -> list[tuple[str, str]]:
    """The GPU in use with its libraries; nothing where none is."""
    if not device or "problem" in device:
        return [("the GPU", device.get("problem", ""))]
    chip = "{name}, compute capability {compute_capability}, {multiprocessors} multiprocessors, {memory_gib} GiB"
    cuda = "runtime {cuda_runtime}; the driver can run {cuda_of_driver}"
    cudnn = "{cudnn}, frontend {cudnn_frontend}" if device["cudnn"] else "not used"
    texts = {"the GPU": chip, "CUDA": cuda, "cuDNN": cudnn}
    return [(name, text.format_map(device)) for name, text in texts.items()]


def cache_text(cache: Any) -> str:
    """A folder, and of compiled kernels what is in it."""
    if not isinstance(cache, dict):
        return str(cache)
    if "problem" in cache:
        return str(cache["problem"])
    functions = counted(cache["compiled"], "function")
    content = f"{functions} compiled, {cache['mib']} MiB" if cache["compiled"] else "nothing compiled"
    return f"{cache['folder']} (hash of the sources {cache['hash']}): {content}"


def facts(*rows: tuple[str, Any]) -> list[str]:
    """``name   value``; none where there is no value."""
    return [line for name, value in rows if value for line in paragraph(name, value, 18)]
