"""Opening cuDNN: whether it is there, why not, and what a backend computes with it."""

from typing import Any

from gpucnn.errors import DeviceError
from gpucnn.kernels.gpu.cudnn.geometry import Geometry
from gpucnn.kernels.gpu.cudnn.options import Options
from gpucnn.kernels.gpu.cudnn.plan_cache import Environment, PlanCache
from gpucnn.kernels.gpu.cudnn.plans import Context, Plans
from gpucnn.terminal import tell
from gpucnn.types import Array

REMEDY = "pip install 'gpucnn[cuda13]' or 'gpucnn[cuda12]'"
LIBRARIES = ("cudart", "cublasLt")
"""What cuDNN and its frontend load by name alone, where the loader may not find it.  It is loaded before them: without
cublasLt, cuDNN ends the process."""

OFF = "it is switched off (GPUCNN_CUDNN=0)"

ALIGNMENT = 16  # bytes: what cuDNN expects of every address

_opened: dict[int, Context | str] = {}  # GPU number -> cuDNN on it, or why it cannot be used


class Library:
    """cuDNN under given options, on whichever GPU is current.

    Backends with other options have another one; what it opens on a GPU, and plans under equal options, they share.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self.found: dict[int, Plans | str] = {}  # GPU number -> its plans, or why there are none

    def current(self) -> Plans | str:
        """The plans of the current GPU, opened at the first request; or why cuDNN cannot be used, in one line."""
        if not self.options.cudnn:
            return OFF
        import cupy

        device = int(cupy.cuda.runtime.getDevice())
        found = self.found.get(device)
        if found is None:
            context = opened(cupy, device)
            found = self.found[device] = context if isinstance(context, str) else context.under(self.options)
        return found

    def plans(self) -> Plans:
        """The plans of the current GPU.

        Raises:
            DeviceError: cuDNN cannot be used; ``current`` would have said so.
        """
        found = self.current()
        if isinstance(found, str):
            raise DeviceError(found)
        return found

    def compute(self, geometry: Geometry, arrays: tuple[Array, ...]) -> Array:
        """A convolution that cuDNN does not refuse -> a new array."""
        import cupy

        result = cupy.empty(geometry.output_shape, geometry.dtype)
        packed = [pack(array) for array in arrays]  # kept alive until the launch
        self.plans().run(geometry, [array.data.ptr for array in (*packed, result)], result)
        return result


def pack(array: Array) -> Array:
    """The array as cuDNN reads it: in C order, at an aligned address; a copy where it is not."""
    if array.flags.c_contiguous and array.data.ptr % ALIGNMENT == 0:
        return array
    return array.copy(order="C")


def opened(cupy: Any, device: int) -> Context | str:
    """cuDNN on a GPU, the current one, or why it cannot be used: tried once per process, with one line where not."""
    found = _opened.get(device)
    if found is None:
        found = _opened[device] = open_cudnn(cupy, device)
        if isinstance(found, str):
            tell(f"convolutions run on the reference implementation, without cuDNN: {found}")
    return found


def executions() -> int:
    """How many of cuDNN's engines this process has started so far, on all GPUs."""
    return sum(context.executions for context in _opened.values() if isinstance(context, Context))


def open_cudnn(cupy: Any, device: int) -> Context | str:
    """cuDNN on the current GPU, or why it cannot be used."""
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
    return Context(cudnn, handle, cupy.cuda, device, PlanCache(environment))


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
