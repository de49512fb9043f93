"""``gpucnn doctor``: what this machine has, what is used, and why not the rest.  It never fails."""

import argparse
import json
import os
import platform
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from textwrap import wrap
from typing import Any

from gpucnn.backend import Backend
from gpucnn.devices.cores import usable_cores
from gpucnn.version import __version__

GPU_EXTRA = "pip install 'gpucnn[cuda13]' or 'gpucnn[cuda12]'"


@dataclass(frozen=True)
class Package:
    """Something to install: distributions that provide it, what it is for, how to get it."""

    name: str
    distributions: tuple[str, ...]
    purpose: str
    remedy: str


PACKAGES = (
    Package("NumPy", ("numpy",), "arrays, and the reference engine", "pip install numpy"),
    Package("Numba", ("numba",), "kernels of the CPU engine", "pip install numba"),
    Package("h5py", ("h5py",), "checkpoints", "pip install h5py"),
    Package("scikit-learn", ("scikit-learn",), "digits, confusion matrix", "pip install scikit-learn"),
    Package("matplotlib", ("matplotlib",), "gpucnn features", "pip install 'gpucnn[viz]'"),
    Package("Pillow", ("pillow",), "image files", "pip install 'gpucnn[viz]'"),
    Package("CuPy", ("cupy-cuda13x", "cupy-cuda12x", "cupy"), "arrays on the GPU", GPU_EXTRA),
    Package("cuDNN", ("nvidia-cudnn-cu13", "nvidia-cudnn-cu12"), "GPU convolutions", GPU_EXTRA),
    Package("cuDNN frontend", ("nvidia-cudnn-frontend",), "GPU convolutions", GPU_EXTRA),
    Package("PyTorch", ("torch",), "comparison in tests and benchmarks", "pip install 'gpucnn[bench]'"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``gpucnn doctor``."""
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--data-dir", metavar="DIR", help="where to look for data sets first")


def run(args: argparse.Namespace) -> int:
    """Look around and print; always 0."""
    report = {
        "gpucnn": __version__,
        "machine": machine(),
        "packages": [describe(package) for package in PACKAGES],
        "gpu": gpu(),
        **backend_report(),
        "data": attempt(lambda: data_report(args.data_dir)),
        "caches": attempt(caches),
    }
    print(json.dumps(report) if args.json else as_text(report))
    return 0


def attempt(look: Callable[[], Any]) -> Any:
    """What ``look`` finds, or {"problem": why it could not look}: a doctor must not die of the disease."""
    try:
        return look()
    except Exception as error:
        return {"problem": one_line(error)}


def one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


# -- the machine --------------------------------------------------------------------------------------


def machine() -> dict[str, Any]:
    """Python, system, processor, memory, and the libraries behind NumPy's matrix product."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": attempt(cpu_model),
        "cores": os.cpu_count(),
        "usable_cores": usable_cores(),
        "memory_gib": attempt(memory),
        "blas": attempt(blas),
    }


def cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def memory() -> float:
    """GiB of main memory, or what a container may use of it."""
    size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.exists() and (text := limit.read_text().strip()).isdecimal():
        size = min(size, int(text))
    return round(size / 2**30, 1)


def blas() -> list[str]:
    """The BLAS and OpenMP libraries that are loaded, with their threads."""
    import numpy  # noqa: F401  (loads them)
    from threadpoolctl import threadpool_info

    return [
        f"{pool['internal_api']} {pool.get('version') or '(version unknown)'}, {pool['num_threads']} threads"
        for pool in threadpool_info()
    ]


# -- packages and devices -----------------------------------------------------------------------------


def describe(package: Package) -> dict[str, Any]:
    """A package with its version, None where it is not installed; nothing is imported."""
    found = None
    for distribution in package.distributions:
        try:
            found = version(distribution)
            break
        except PackageNotFoundError:
            continue
    remedy = package.remedy if found is None else ""
    return {"name": package.name, "version": found, "purpose": package.purpose, "remedy": remedy}


def gpu() -> dict[str, Any]:
    """GPUs and driver as ``nvidia-smi`` sees them: it works where CuPy does not."""
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
    except FileNotFoundError:
        return {"driver": None, "devices": [], "problem": "no nvidia-smi: no NVIDIA driver is installed"}
    except (OSError, subprocess.SubprocessError) as error:
        return {"driver": None, "devices": [], "problem": f"nvidia-smi fails: {one_line(error)}"}
    rows = [[field.strip() for field in line.split(",")] for line in answer.splitlines() if line.strip()]
    return {
        "driver": rows[0][-1] if rows else None,
        "devices": [", ".join(row[:-1]) for row in rows],
        "problem": "" if rows else "nvidia-smi lists no GPU",
    }


def backend_report() -> dict[str, Any]:
    """What ``--device auto`` is, why it is not a GPU, and what its kernels replace."""
    from gpucnn import devices

    try:
        reason = devices.gpu_problem() or ""
    except Exception as error:  # CuPy may be broken in ways that nobody has seen yet
        reason = f"CuPy is broken ({one_line(error)}): reinstall it, {GPU_EXTRA}"
    chosen = attempt(lambda: devices.get_backend("cpu" if reason else "gpu"))
    unusable = "" if isinstance(chosen, Backend) else chosen["problem"]
    backend = devices.get_backend("reference") if unusable else chosen
    return {
        "auto": backend.name,
        "why_not_gpu": reason,
        "why_no_kernels": unusable or (backend.name == "cpu" and attempt(cpu_problem)) or "",
        "device": {} if reason or unusable else attempt(about_device),
        "convolutions": "" if reason or unusable else attempt(convolution_engine),
        "kernels": {qualified(op): qualified(kernel) for op, kernel in backend.kernels.items()},
    }


def cpu_problem() -> str | None:
    from gpucnn.devices import cpu

    return cpu.problem()


def about_device() -> dict[str, Any]:
    """The GPU that ``auto`` takes, as CuPy sees it."""
    from gpucnn.devices import gpu

    return gpu.about(0)


def convolution_engine() -> str:
    from gpucnn.devices import gpu

    return gpu.convolution_engine()


def qualified(function: Any) -> str:
    """conv2d.conv2d_weight_grad for a function of gpucnn.layers.conv2d."""
    function = getattr(function, "func", function)  # a partial
    module = str(getattr(function, "__module__", "")).removeprefix("gpucnn.").removeprefix("layers.")
    return f"{module}.{getattr(function, '__name__', type(function).__name__)}".lstrip(".")


# -- data and caches ----------------------------------------------------------------------------------


def data_report(data_dir: str | None) -> dict[str, Any]:
    """Where data sets are looked for, and which are there; ``gpucnn data verify`` reads them."""
    from gpucnn.data.files.sources import search_places
    from gpucnn.data.registry import DATASETS

    folders = [f"{place}{'' if place.is_dir() else ' (not there)'}" for place in search_places(data_dir)]
    return {"searched": folders, "sets": {name: look_for(name, data_dir) for name in DATASETS}}


def look_for(name: str, data_dir: str | None) -> dict[str, Any]:
    """Whether a data set is here, and where."""
    from gpucnn.data.files.sources import locate
    from gpucnn.data.registry import DATASETS

    source = DATASETS[name]
    if not source.remote:
        return {"found": True, "where": "built in"}
    place = locate(source, data_dir)
    return {"found": place is not None, "where": str(place or f"not here: gpucnn data download {name}")}


def caches() -> dict[str, Any]:
    """Folders that gpucnn fills by itself."""
    from gpucnn.data.files.sources import download_place
    from gpucnn.kernels.gpu.cudnn.plan_cache import default_folder

    return {
        "data sets": str(download_place()),
        "CPU kernels": attempt(kernel_cache),
        "cuDNN engines": str(default_folder()),
    }


def kernel_cache() -> dict[str, Any]:
    """Where compiled kernels lie, the hash of the sources they are of, how many functions there are, and MiB."""
    from gpucnn.kernels.cpu.engine import compile as compiling

    files = compiling.compiled()
    return {
        "folder": str(compiling.CACHE),
        "hash": compiling.CACHE.name.rpartition("-")[2],
        "compiled": len(files),
        "mib": round(sum(file.stat().st_size for file in files) / 2**20, 1),
    }


# -- for people ---------------------------------------------------------------------------------------


def as_text(report: dict[str, Any]) -> str:
    """The report on 80 columns."""
    m, g = report["machine"], report["gpu"]
    lines = [
        f"gpucnn {report['gpucnn']}",
        "",
        *row("Python", f"{m['python']} on {m['platform']}"),
        *row("CPU", f"{m['cpu']}, {m['usable_cores']} of {m['cores']} cores usable"),
        *row("memory", f"{m['memory_gib']} GiB"),
        *row("BLAS", "; ".join(m["blas"]) if isinstance(m["blas"], list) else m["blas"]["problem"]),
        *row("GPU", "; ".join(g["devices"]) or g["problem"]),
        *row("driver", g["driver"] or "none"),
        "",
    ]
    lines += [f"{p['name']:<16}  {p['version'] or 'not installed':<16}  {p['purpose']}" for p in report["packages"]]
    for remedy, group in groupby(filter(missing, report["packages"]), itemgetter("remedy")):
        lines += row("to install", f"{', '.join(p['name'] for p in group)}: {remedy}")
    lines += ["", *row("--device auto", f"is {report['auto']}")]
    if report["why_not_gpu"]:
        lines += row("not the GPU", report["why_not_gpu"])
    if report["why_no_kernels"]:
        lines += row("no kernels", report["why_no_kernels"])
    lines += device_lines(report["device"])
    if len(g["devices"]) > 1:
        lines += row("others", f"--device gpu:N, N = 0 to {len(g['devices']) - 1}, or fewer by CUDA_VISIBLE_DEVICES")
    if report["convolutions"]:
        lines += row("convolutions", report["convolutions"])
    count = len(report["kernels"])
    lines += ["", f"{count} ops have a kernel on {report['auto']}, the others run as they are written"]
    width = max(map(len, report["kernels"]), default=0)
    # a kernel is named as its op: where it lies is what is news
    lines += [f"  {op:<{width}}  {kernel.rpartition('.')[0]}" for op, kernel in report["kernels"].items()]
    lines += ["", "data sets, searched for in this order", *data_lines(report["data"])]
    lines += ["", "caches", *(line for key, value in report["caches"].items() for line in row(key, cache_text(value)))]
    return "\n".join(lines)


def device_lines(device: dict[str, Any]) -> list[str]:
    """The GPU in use with its libraries; nothing where none is."""
    if not device or "problem" in device:
        return row("the GPU", device["problem"]) if device else []
    cudnn = f"{device['cudnn']}, frontend {device['cudnn_frontend']}" if device["cudnn"] else "not used"
    return [
        *row(
            "the GPU",
            f"{device['name']}, compute capability {device['compute_capability']}, "
            f"{device['multiprocessors']} multiprocessors, {device['memory_gib']} GiB",
        ),
        *row("CUDA", f"runtime {device['cuda_runtime']}; the driver can run {device['cuda_of_driver']}"),
        *row("cuDNN", cudnn),
    ]


def cache_text(cache: Any) -> str:
    """A folder, and of compiled kernels what is in it."""
    if not isinstance(cache, dict):
        return str(cache)
    if "problem" in cache:
        return str(cache["problem"])
    content = f"{cache['compiled']} functions compiled, {cache['mib']} MiB" if cache["compiled"] else "nothing compiled"
    return f"{cache['folder']} (hash of the sources {cache['hash']}): {content}"


def data_lines(data: dict[str, Any]) -> list[str]:
    if "problem" in data:
        return row("problem", data["problem"])
    lines = [f"  {i}. {folder}" for i, folder in enumerate(data["searched"], start=1)]
    return lines + [line for name, found in data["sets"].items() for line in row(name, found["where"])]


def missing(package: dict[str, Any]) -> bool:
    return package["version"] is None


def row(name: str, value: Any) -> list[str]:
    """``name   value``, folded at 80 columns."""
    text = str(value)
    folded = wrap(text, 62, break_long_words=False, break_on_hyphens=False) or [""]
    return [f"{name if i == 0 else '':<16}  {line}" for i, line in enumerate(folded)]
