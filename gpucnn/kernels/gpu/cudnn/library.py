"""Opening cuDNN: whether it is there, why not, and the plans of each GPU."""

from typing import Any

from gpucnn.errors import DeviceError
from gpucnn.kernels.gpu.cudnn.options import Options
from gpucnn.kernels.gpu.cudnn.plan_cache import Environment, PlanCache, notice
from gpucnn.kernels.gpu.cudnn.plans import Plans

REMEDY = "pip install 'gpucnn[cuda13]' or 'gpucnn[cuda12]'"
LIBRARIES = ("cudart", "cublasLt")
"""What cuDNN and its frontend load by name alone, where the loader may not find it.  It is loaded before them: without
cublasLt, cuDNN ends the process."""

OFF = "it is switched off (GPUCNN_CUDNN=0)"

_opened: dict[int, Plans | str] = {}  # GPU number -> its plans, or why there are none
_options: list[Options] = []  # the one in force, once it is known


def current() -> Plans | str:
    """The plans of the current GPU, opened at the first request; or why cuDNN cannot be used, in one line."""
    import cupy

    if not options().cudnn:
        return OFF
    device = int(cupy.cuda.runtime.getDevice())
    found = _opened.get(device)
    if found is None:
        found = _opened[device] = open_cudnn(cupy, device)
        if isinstance(found, str):
            notice(f"convolutions run as they are written, without cuDNN: {found}")
    return found


def plans() -> Plans:
    """The plans of the current GPU.

    Raises:
        DeviceError: cuDNN cannot be used; ``conv2d.plan`` would have said so.
    """
    found = current()
    if isinstance(found, str):
        raise DeviceError(found)
    return found


def options() -> Options:
    """The options in force: what ``configure`` was given last, or else what the environment says."""
    if not _options:
        _options.append(Options.from_environment())
    return _options[0]


def configure(chosen: Options) -> None:
    """Compute under these options from now on, on every GPU."""
    _options[:] = [chosen]
    for found in _opened.values():
        if isinstance(found, Plans):
            found.use(chosen)


def open_cudnn(cupy: Any, device: int) -> Plans | str:
    """cuDNN on the current GPU, or why it cannot be used.  Asked once per GPU and process."""
    if missing := preload():
        return missing
    try:
        import cudnn
    except Exception as error:  # a broken install may raise anything
        return f"the cuDNN frontend cannot be imported ({first_line(error)}): {REMEDY}"
    try:
        handle = int(cudnn.create_handle())
    except RuntimeError as error:
        return f"cuDNN gives no handle ({first_line(error)}): {REMEDY}"
    name = cupy.cuda.runtime.getDeviceProperties(device)["name"].decode()
    environment = Environment(name, int(cudnn.backend_version()), str(cudnn.__version__))
    return Plans(cudnn, handle, cupy.cuda, device, PlanCache(environment), options())


def preload() -> str:
    """Load what cuDNN needs from wherever CUDA is installed; "" or what is missing."""
    try:
        from cuda import pathfinder
    except ImportError as error:
        return f"cuda-pathfinder cannot be imported ({first_line(error)}): {REMEDY}"
    for library in LIBRARIES:
        try:
            pathfinder.load_nvidia_dynamic_lib(library)
        except RuntimeError:
            return f"CUDA's lib{library} is not found: {REMEDY}"
    return ""


def first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
