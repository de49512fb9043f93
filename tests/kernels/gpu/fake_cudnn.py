"""Doubles of cuDNN's frontend and of CuPy that compute on the host: what is asked of a graph is done literally.

The graph reads and writes memory by the addresses, dimensions and strides it was given, in (N,C,H,W) and with loops
over taps: a padding, a stride or a pointer in the wrong place gives wrong numbers.  What has no effect in the real one
has none here (filters before there is anything to filter), and what fails there fails here (a plan that was not built).
"""

import ctypes
import sys
from itertools import product
from types import SimpleNamespace
from typing import Any

import numpy as np

NOTES = ("TENSOR_CORE", "DOWN_CONVERT_INPUTS", "REDUCED_PRECISION_REDUCTION", "FFT", "NONDETERMINISTIC",
         "WINOGRAD", "WINOGRAD_TILE_4x4", "WINOGRAD_TILE_6x6", "WINOGRAD_TILE_13x13", "STRICT_NAN_PROP")  # fmt: skip


class NotSupported(Exception):
    """Stands for ``cudnnGraphNotSupportedError``."""


class Engine(SimpleNamespace):
    """A candidate: name, notes, workspace, milliseconds, and whether it builds and starts, and what it adds."""

    def __init__(self, name: str, ms=1.0, workspace=0, notes=(), builds=True, starts=True, adds=0.0) -> None:
        super().__init__(name=name, ms=ms, workspace=workspace, notes=notes, builds=builds, starts=starts, adds=adds)


ENGINES = [
    Engine("guess", 3.0),
    Engine("tensor cores", 0.5, notes=("TENSOR_CORE",)),
    Engine("atomics", 0.7, notes=("NONDETERMINISTIC",)),
    Engine("broken", 0.1, builds=False),
    Engine("hungry", 0.2, workspace=1 << 40),
    Engine("fast", 1.0, workspace=3000),
    Engine("halves", 0.1, notes=("DOWN_CONVERT_INPUTS",)),
    Engine("stubborn", 0.1, starts=False),
]


class Tensor:
    def __init__(self, kind: Any, dim=None, stride=None, uid: int = -1, made_by=None) -> None:
        self.kind, self.dim, self.stride, self.uid, self.made_by = kind, dim, stride, uid, made_by
        self.output = False

    def set_output(self, value: bool) -> "Tensor":
        self.output = value
        return self

    def set_uid(self, uid: int) -> "Tensor":
        self.uid = uid
        return self

    def set_dim(self, dim: list[int]) -> "Tensor":
        self.dim = dim
        return self

    def set_stride(self, stride: list[int]) -> "Tensor":
        self.stride = stride
        return self

    def at(self, address: int) -> np.ndarray:
        """The array (N,C,H,W) that lies at an address, as a view of that memory."""
        assert address % 16 == 0, "cuDNN expects aligned addresses"
        size = 1 + sum((d - 1) * s for d, s in zip(self.dim, self.stride, strict=True))
        memory = (ctypes.c_char * (size * self.kind.itemsize)).from_address(address)
        flat = np.frombuffer(memory, self.kind)
        return np.lib.stride_tricks.as_strided(flat, self.dim, [s * self.kind.itemsize for s in self.stride])


def taps(x: np.ndarray, w_dim, y_dim, how):
    """For each tap: its place (r, s) and the view of padded x (N,C,H,W) under it, (N,C,H',W')."""
    (down, across), (rows, columns), (tall, wide) = how["stride"], y_dim[2:], how["dilation"]
    for m, k in product(range(w_dim[2]), range(w_dim[3])):
        r, s = m * tall, k * wide
        yield m, k, x[:, :, r : r + down * rows : down, s : s + across * columns : across][:, :, :rows, :columns]


def convolve(op: str, a: np.ndarray, b: np.ndarray, dims: dict[str, list[int]], how) -> np.ndarray:
    """The op in float64 on arrays (N,C,H,W): (x, w) -> y, (dy, w) -> dx, (dy, x) -> dw."""
    n, c, h, w = dims["x"]
    (top, left), (bottom, right) = how["pre_padding"], how["post_padding"]
    padded = np.zeros((n, c, h + top + bottom, w + left + right))
    inside = padded[:, :, top : top + h, left : left + w]
    if op != "conv_dgrad":
        inside[...] = a if op == "conv_fprop" else b
    result = np.zeros(dims["w"] if op == "conv_wgrad" else dims["y"])
    filters, per = dims["w"][:2]
    groups = c // per  # as cuDNN does, from the channels
    for group in range(groups):
        own, seen = (
            slice(group * filters // groups, (group + 1) * filters // groups),
            slice(group * per, (group + 1) * per),
        )
        for r, s, under in taps(padded[:, seen], dims["w"], dims["y"], how):
            if op == "conv_fprop":
                result[:, own] += np.einsum("nchw,fc->nfhw", under, b[own, :, r, s])
            elif op == "conv_dgrad":
                under += np.einsum("nfhw,fc->nchw", a[:, own], b[own, :, r, s])
            else:
                result[own, :, r, s] = np.einsum("nfhw,nchw->fc", a[:, own], under)
    return inside if op == "conv_dgrad" else result


class Graph:
    """Stands for ``cudnn.pygraph``."""

    def __init__(
        self, library: "Cudnn", io_data_type, intermediate_data_type, compute_data_type, name, **target
    ) -> None:
        assert (intermediate_data_type, compute_data_type) == (np.dtype("float32"), np.dtype("float32"))
        self.library, self.kind, self.target = library, io_data_type, target
        self.tensors: dict[int, Tensor] = {}
        self.calls: list[str] = []
        self.how: dict[str, list[int]] = {}
        self.op, self.operands, self.biased = "", [], None
        self.allowed, self.built, self.candidate = [], set(), -1
        library.graphs.append(self)

    def tensor(self, dim, stride, name="", uid=-1) -> Tensor:
        self.tensors[uid] = Tensor(self.kind, dim, stride, uid)
        return self.tensors[uid]

    def _convolution(self, op: str, first: Tensor, second: Tensor, how) -> Tensor:
        assert set(how) == {"pre_padding", "post_padding", "stride", "dilation"}
        self.op, self.operands, self.how = op, [first, second], how
        self.result = Tensor(self.kind)
        return self.result

    def conv_fprop(self, *, image, weight, **how) -> Tensor:
        return self._convolution("conv_fprop", image, weight, how)

    def conv_dgrad(self, *, loss, filter, **how) -> Tensor:
        return self._convolution("conv_dgrad", loss, filter, how)

    def conv_wgrad(self, *, image, loss, **how) -> Tensor:
        return self._convolution("conv_wgrad", loss, image, how)

    def bias(self, *, input, bias) -> Tensor:
        if not self.library.fuses_bias:
            self.library.refuse = "no engine adds a bias"
        assert input is self.result
        self.biased, self.result = bias, Tensor(self.kind)
        return self.result

    def validate(self) -> None:
        self.calls.append("validate")
        assert self.result.output
        assert self.result.dim is not None
        assert self.result.stride is not None

    def build_operation_graph(self) -> None:
        self.calls.append("build_operation_graph")

    def create_execution_plans(self, modes) -> None:
        assert modes == ["A", "FALLBACK"]
        self.calls.append("create_execution_plans")
        self.allowed = [True] * len(self.library.engines)

    def deselect_numeric_notes(self, notes) -> None:
        for i, engine in enumerate(self.library.engines[: len(self.allowed)]):  # those listed by now
            self.allowed[i] = self.allowed[i] and not set(notes) & set(engine.notes)

    def deselect_workspace_greater_than(self, size: int) -> None:
        self.limit = size

    def check_support(self) -> None:
        self.calls.append("check_support")
        refusal, self.library.refuse = self.library.refuse, ""
        if refusal or not any(self._listed(i) for i in range(len(self.allowed))):
            raise NotSupported(f"{refusal or 'No execution plans support the graph.'}\nand more lines")

    def _listed(self, index: int) -> bool:
        return self.allowed[index] and self.library.engines[index].workspace <= self.limit

    def get_execution_plan_count(self) -> int:
        return len(self.allowed)

    def get_plan_name_at_index(self, index: int) -> str:
        return self.library.engines[index].name

    def get_workspace_size_plan_at_index(self, index: int) -> int:
        return self.library.engines[index].workspace if index in self.built else 0

    def build_plan_at_index(self, index: int) -> None:
        if not self._listed(index) or not self.library.engines[index].builds:
            raise NotSupported("Deselecting execution plan")
        self.built.add(index)
        self.candidate = index

    def _prepare_variant_pack_template(self) -> None:
        self.calls.append("prepare")

    def _get_variant_pack_uids_sorted(self) -> list[int]:
        return sorted([*self.tensors, self.result.uid])

    def _execute_with_ptrs(self, pointers: list[int], workspace: int, handle: int) -> None:
        uids = self._get_variant_pack_uids_sorted()
        self.execute_plan_at_index(dict(zip(uids, pointers, strict=True)), workspace, self.candidate, handle=handle)

    def execute_plan_at_index(self, addresses: dict[int, int], workspace: int, index: int, handle: int) -> None:
        assert handle == self.target["handle"]
        assert index in self.built, "a plan that was not built"
        engine = self.library.engines[index]
        assert workspace or not engine.workspace, "no scratch memory"
        if not engine.starts:
            raise RuntimeError("CUDNN_STATUS_EXECUTION_FAILED")
        self.library.launched.append((engine.name, self.library.stream))
        self.library.clock += engine.ms
        first, second = (t.at(addresses[t.uid]) for t in self.operands)
        out = self.result.at(addresses[self.result.uid])
        roles = {"conv_fprop": "xwy", "conv_dgrad": "ywx", "conv_wgrad": "yxw"}[self.op]
        dims = dict(zip(roles, [*(t.dim for t in self.operands), self.result.dim], strict=True))
        value = convolve(self.op, first.astype(float), second.astype(float), dims, self.how)
        if self.biased:
            value = value + self.biased.at(addresses[self.biased.uid])
        out[...] = value + engine.adds


class Cudnn:
    """Stands for the module ``cudnn``."""

    __version__ = "1.23.0"
    cudnnGraphNotSupportedError = NotSupported
    data_type = SimpleNamespace(HALF=np.dtype("float16"), FLOAT=np.dtype("float32"))
    heur_mode = SimpleNamespace(A="A", FALLBACK="FALLBACK")
    numerical_note = SimpleNamespace(**{note: note for note in NOTES})

    def __init__(self, engines=ENGINES, fuses_bias: bool = True) -> None:
        self.engines, self.fuses_bias = list(engines), fuses_bias
        self.graphs: list[Graph] = []
        self.launched: list[tuple[str, int]] = []
        self.refuse, self.clock, self.stream = "", 0.0, -1

    def backend_version(self) -> int:
        return 91900

    def create_handle(self) -> int:
        return 77

    def set_stream(self, *, handle: int, stream: int) -> None:
        assert handle == 77
        self.stream = stream

    def pygraph(self, **settings) -> Graph:
        return Graph(self, **settings)


class DeviceArray(np.ndarray):
    """An array with CuPy's ``data.ptr``; its array module is NumPy, so that reference implementations run on it."""

    __module__ = "numpy"

    @property
    def data(self) -> SimpleNamespace:
        return SimpleNamespace(ptr=self.ctypes.data, device_id=0)

    def copy(self, order: str = "C") -> "DeviceArray":
        return aligned(np.array(self, order=order))


def aligned(values: np.ndarray, offset: int = 0) -> DeviceArray:
    """A copy at an address that 64 divides, or ``offset`` bytes behind one."""
    memory = np.zeros(values.nbytes + 128, np.uint8)
    start = -memory.ctypes.data % 64 + offset
    array = memory[start : start + values.nbytes].view(values.dtype).reshape(values.shape).view(DeviceArray)
    array[...] = values
    return array


class Stream:
    def __init__(self, ptr: int = 0, capturing: bool = False) -> None:
        self.ptr, self.capturing = ptr, capturing

    def is_capturing(self) -> bool:
        return self.capturing


class Cupy:
    """Stands for the module ``cupy``: empty arrays are full of NaN."""

    def __init__(self, cudnn: Cudnn) -> None:
        self.current, self.allocated, self.cudnn = Stream(), [], cudnn
        runtime = SimpleNamespace(getDevice=lambda: 0, getDeviceProperties=lambda device: {"name": b"Double 1"})
        self.cuda = SimpleNamespace(
            runtime=runtime,
            alloc=self._alloc,
            get_current_stream=lambda: self.current,
            Event=lambda: SimpleNamespace(record=self._record, synchronize=lambda: None),
            get_elapsed_time=self._elapsed,
        )
        self.times: list[float] = []

    def empty(self, shape, dtype) -> DeviceArray:
        return aligned(np.full(shape, np.nan, dtype))

    def _alloc(self, size: int) -> Any:
        assert not self.current.capturing, "allocation during capture"
        self.allocated.append(size)
        return SimpleNamespace(ptr=16 * len(self.allocated))

    def _record(self, stream: Stream) -> None:
        assert stream is self.current
        self.times.append(self.cudnn.clock)

    def _elapsed(self, start: Any, stop: Any) -> float:
        return self.times[-1] - self.times[-2]


def install(monkeypatch, tmp_path, **settings) -> tuple[Cudnn, Cupy]:
    """Put the doubles where ``import cudnn`` and ``import cupy`` find them, as on a fresh process."""
    from gpucnn.kernels.gpu.cudnn import library

    cudnn = Cudnn(**settings)
    cupy = Cupy(cudnn)
    pathfinder = SimpleNamespace(load_nvidia_dynamic_lib=lambda name: None)
    monkeypatch.setitem(sys.modules, "cudnn", cudnn)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setitem(sys.modules, "cuda", SimpleNamespace(pathfinder=pathfinder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for variable in ("GPUCNN_CUDNN", "GPUCNN_TF32", "GPUCNN_DETERMINISTIC", "GPUCNN_AUTOTUNE", "GPUCNN_WORKSPACE_MIB"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("GPUCNN_STEM", "0")  # that every convolution is cuDNN's
    monkeypatch.setattr(library, "_opened", {})
    return cudnn, cupy
