"""A strict double of CuPy over NumPy: what would not run on a GPU, or would wait for it, shows here.

It is a module like ``cupy``, with an ``ndarray`` that hides its memory.  Raw NumPy arrays as operands raise TypeError,
as CuPy's do, and so does NumPy when it is handed one of ours.  ``syncs`` counts every reading by the host, ``launches``
every call that would start a kernel; views start none.  What is not listed here is AttributeError: add it only after a
look whether CuPy has it.
"""

import operator
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np

from gpucnn.backend import Backend

syncs = 0
launches = 0
tape: Any = None
"""Where launches are noted while a stream is captured (``fake_cuda.py``)."""

float16, float32, float64 = np.float16, np.float32, np.float64
int32, int64, uint8, uint32, uint64 = np.int32, np.int64, np.uint8, np.uint32, np.uint64
pi, inf, newaxis = np.pi, np.inf, None
__version__ = "double"

PROPERTIES = {"shape", "dtype", "ndim", "size", "strides", "nbytes", "flags"}
VIEWS = {"reshape", "ravel", "transpose"}
METHODS = {"sum", "mean", "max", "min", "argmax", "copy", "all", "any"}
FUNCTIONS = {
    "arange", "argsort", "broadcast_to", "clip", "cos", "exp", "expm1", "floor", "full", "full_like",
    "isfinite", "isnan", "log", "log1p", "maximum", "minimum", "ones", "pad", "sin", "sqrt", "square", "stack",
    "tanh", "tile", "where", "zeros", "zeros_like",
}  # fmt: skip


def reset() -> None:
    """Start counting anew."""
    global syncs, launches
    syncs = launches = 0


def _launched() -> None:
    global launches
    launches += 1


def _synchronised() -> None:
    global syncs
    if tape is not None:
        raise RuntimeError("the current stream is capturing, so synchronous calls are not allowed")
    syncs += 1


def _open(value: Any) -> Any:
    """What is inside of ours; raw NumPy arrays are refused, Python's numbers pass."""
    if isinstance(value, ndarray):
        return value._inside
    if isinstance(value, np.ndarray | np.generic):
        raise TypeError(f"Unsupported type {type(value)}: a NumPy value among arrays of the device")
    if isinstance(value, tuple | list):
        return type(value)(_open(item) for item in value)
    return value


def _wrap(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return ndarray(np.asarray(value))
    if isinstance(value, tuple | list):
        return type(value)(_wrap(item) for item in value)
    return value


def _execute(function: Any, *args: Any, **kwargs: Any) -> Any:
    """What a NumPy function makes of what is inside of ours."""
    args, kwargs = _open(args), {key: _open(value) for key, value in kwargs.items()}
    result = _wrap(function(*args, **kwargs))
    if tape is not None:
        tape.note(function, args, kwargs, result)
    return result


def _change(function: Any, target: "ndarray", *args: Any) -> None:
    """Let a function change what is inside of ours, in place."""
    inside, args = target._inside, _open(args)
    if tape is not None:
        tape.remember(inside)
        tape.note(function, (inside, *args), {}, None)
    function(inside, *args)


def kernel(function: Any) -> Any:
    """A function that changes its float arrays in place, as a kernel: one launch, and it reads numbers when it runs.

    Numbers that lie on the device, arrays (), are read without anybody waiting for them.
    """

    def numbers_read(*args: Any) -> None:
        function(*(a.item() if isinstance(a, np.ndarray) and a.shape == () else a for a in args))

    def launch(*args: Any) -> None:
        _launched()
        arrays = [a._inside for a in args if isinstance(a, ndarray) and a.shape]
        opened = _open(args)
        if tape is not None:
            for array in arrays:
                tape.remember(array)
            tape.note(numbers_read, opened, {}, None)
        numbers_read(*opened)

    return launch


class ndarray:
    """An array of the device."""

    __array_ufunc__ = None
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, inside: np.ndarray) -> None:
        self._inside = inside

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed")

    def __array_function__(self, *args: Any) -> Any:
        raise TypeError("a NumPy function was given an array of the device: use its array module")

    def __getattr__(self, name: str) -> Any:
        if name in PROPERTIES:
            return getattr(self._inside, name)
        if name == "T":
            return _wrap(self._inside.T)
        if name in VIEWS or name in METHODS:
            if name in METHODS:
                _launched()
            method = getattr(np.ndarray, name)
            return lambda *args, **kwargs: _execute(method, self, *args, **kwargs)
        raise AttributeError(f"the double has no {name!r}")

    def astype(self, dtype: Any, order: str = "K", copy: bool = True) -> "ndarray":
        if copy or self.dtype != dtype:
            _launched()
        return _execute(np.ndarray.astype, self, dtype, order=order, copy=copy)

    def __len__(self) -> int:
        return len(self._inside)

    def __iter__(self) -> Any:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: Any) -> Any:
        inside = _open(index)
        for part in inside if isinstance(inside, tuple) else (inside,):
            if isinstance(part, np.ndarray):
                _launched()
                if part.dtype == bool:
                    _synchronised()  # the size of the result is known to the device alone
        return _execute(operator.getitem, self, index)

    def __setitem__(self, index: Any, value: Any) -> None:
        _launched()
        inside = _open(index)
        for part in inside if isinstance(inside, tuple) else (inside,):
            if isinstance(part, np.ndarray):
                raise TypeError("assignment to places that may be double is undefined on the device")
        _change(operator.setitem, self, index, value)

    def _read(self, kind: Any) -> Any:
        _synchronised()
        return kind(self._inside)

    def __float__(self) -> float:
        return self._read(float)

    def __int__(self) -> int:
        return self._read(int)

    def __bool__(self) -> bool:
        return self._read(bool)

    def __index__(self) -> int:
        return self._read(int)

    def get(self) -> np.ndarray:
        return self._read(np.array)

    def item(self) -> Any:
        return self._read(lambda inside: inside.item())


def _binary(name: str) -> None:
    plain = getattr(operator, name)

    def forward(self: ndarray, other: Any) -> Any:
        _launched()
        return _execute(plain, self, other)

    def backward(self: ndarray, other: Any) -> Any:
        _launched()
        return _execute(plain, other, self)

    dunder = name.strip("_")
    setattr(ndarray, f"__{dunder}__", forward)
    setattr(ndarray, f"__r{dunder}__", backward)


for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and_", "or_", "xor", "rshift",
              "lshift", "lt", "le", "gt", "ge", "eq", "ne"):  # fmt: skip
    _binary(_name)


def _in_place(name: str, ufunc: np.ufunc) -> None:
    def change(inside: np.ndarray, other: Any) -> None:
        ufunc(inside, other, out=inside, casting="same_kind")

    def update(self: ndarray, other: Any) -> ndarray:
        _launched()
        _change(change, self, other)
        return self

    setattr(ndarray, f"__i{name}__", update)


for _name, _ufunc in (("add", np.add), ("sub", np.subtract), ("mul", np.multiply), ("truediv", np.divide),
                      ("and", np.bitwise_and), ("or", np.bitwise_or)):  # fmt: skip
    _in_place(_name, _ufunc)


def _unary(name: str) -> None:
    plain = getattr(operator, name)

    def apply(self: ndarray) -> Any:
        _launched()
        return _execute(plain, self)

    setattr(ndarray, f"__{name.strip('_')}__", apply)


for _name in ("neg", "pos", "invert", "abs"):
    _unary(_name)


def asarray(value: Any, dtype: Any = None) -> ndarray:
    """Host to device, or a no-op."""
    if isinstance(value, ndarray):
        return value
    if tape is not None:
        raise RuntimeError("the current stream is capturing, so transfers from the host are not allowed")
    return ndarray(np.array(value, dtype=dtype))


def asnumpy(value: Any) -> np.ndarray:
    """Device to host."""
    return value.get() if isinstance(value, ndarray) else np.asarray(value)


def ascontiguousarray(value: ndarray) -> ndarray:
    """A kernel only where there is something to copy."""
    if not value.flags.c_contiguous:
        _launched()
    return ndarray(np.ascontiguousarray(_open(value)).reshape(value.shape))


class OutOfMemoryError(MemoryError):
    """``cupy.cuda.memory.OutOfMemoryError``, as version 14.2 has it."""

    def __init__(self, size: int, total: int, limit: int = 0) -> None:
        self._size, self._total, self._limit = size, total, limit
        super().__init__(f"Out of memory allocating {size:,} bytes (allocated so far: {total:,} bytes).")


def _as_strided(x: ndarray, shape: Any = None, strides: Any = None) -> ndarray:
    return ndarray(np.lib.stride_tricks.as_strided(x._inside, shape, strides))


lib = SimpleNamespace(stride_tricks=SimpleNamespace(as_strided=_as_strided))


def __getattr__(name: str) -> Any:
    if name not in FUNCTIONS:
        raise AttributeError(f"the double of CuPy has no {name!r}")

    def call(*args: Any, **kwargs: Any) -> Any:
        _launched()
        return _execute(getattr(np, name), *args, **kwargs)

    return call


STRICT = Backend("strict", sys.modules[__name__], {}, copy_to_host=asnumpy, synchronous=False)
"""Reference implementations on arrays that refuse what CuPy's would."""
