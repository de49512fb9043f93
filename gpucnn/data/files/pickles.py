"""The python version of CIFAR: pickles, read without running anything that a pickle can ask for.

A pickle is a program that may call any function.  Here it can only name three inert stand-ins for what NumPy
put into the publisher's files; the array is then made from the bytes that they collected.  What else can hurt
is refused by reading the program before it runs: its instructions, and the places it stores things at.
"""

import io
import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np

from gpucnn.errors import DataError
from gpucnn.types import Array

MOST_TUPLES = 64  # the publisher's have a few; nested ones as dictionary keys take exponential time to hash
OPCODES = {
    *(
        "PROTO",
        "FRAME",
        "STOP",
        "MARK",
        "NONE",
        "NEWTRUE",
        "NEWFALSE",
        "BININT",
        "BININT1",
        "BININT2",
        "LONG1",
    ),
    *("SHORT_BINSTRING", "BINSTRING", "SHORT_BINBYTES", "BINBYTES", "SHORT_BINUNICODE", "BINUNICODE"),
    *("EMPTY_DICT", "EMPTY_LIST", "APPEND", "APPENDS", "SETITEM", "SETITEMS"),
    *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
    *("BINPUT", "LONG_BINPUT", "MEMOIZE", "BINGET", "LONG_BINGET"),
    *("GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD"),
}


class ArrayParts:
    """Stands in for a ``numpy.ndarray``: keeps what the pickle says of it."""

    def __init__(self, *ignored: Any) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class TypeParts(ArrayParts):
    """Stands in for a ``numpy.dtype``; ``code`` is "u1" for bytes."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__()
        self.code = arguments[0] if arguments else None


STAND_INS: dict[tuple[str, str], type] = {
    ("numpy.core.multiarray", "_reconstruct"): ArrayParts,
    ("numpy._core.multiarray", "_reconstruct"): ArrayParts,
    ("numpy", "ndarray"): ArrayParts,
    ("numpy", "dtype"): TypeParts,
}


class InertUnpickler(pickle.Unpickler):
    """Knows the three names of ``STAND_INS`` and refuses all others."""

    def find_class(self, module: str, name: str) -> type:
        if (module, name) not in STAND_INS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no CIFAR file needs")
        return STAND_INS[module, name]


def read_pickle(content: bytes, path: str | Path) -> dict[str, Any]:
    """A dictionary with names as keys; its arrays are ``ArrayParts`` (see ``as_images``).

    Raises:
        DataError: it is damaged, is no dictionary, or asks for anything but plain values and arrays.
    """
    try:
        check_program(content)
        found = InertUnpickler(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # a bad pickle may raise nearly anything
        raise DataError(f"{path} is not a CIFAR pickle, and nothing of it was run: {error}") from None
    if not isinstance(found, dict):
        raise DataError(f"{path} is not a CIFAR pickle: it holds a {type(found).__name__}, not a dictionary")
    return {key.decode("latin1") if isinstance(key, bytes) else str(key): value for key, value in found.items()}


def check_program(content: bytes) -> None:
    """Read a pickle's instructions without running them; raises where one could do harm."""
    tuples = 0
    for count, (opcode, argument, _) in enumerate(pickletools.genops(content)):
        if opcode.name not in OPCODES:
            raise pickle.UnpicklingError(f"it uses the instruction {opcode.name}, which no CIFAR file needs")
        if opcode.name == "LONG_BINPUT" and int(argument or 0) > count:  # the memo grows to the highest place named
            raise pickle.UnpicklingError(f"it stores its value number {count} at place {argument}")
        tuples += "TUPLE" in opcode.name
        if tuples > MOST_TUPLES:
            raise pickle.UnpicklingError(f"it makes more than {MOST_TUPLES} tuples")


def as_images(parts: Any, path: str | Path) -> Array:
    """Pixels uint8 (N,3072) from an array's state: version, shape, dtype, whether Fortran's order, bytes."""
    try:
        _, shape, kind, fortran, content = parts.state
        if kind.code not in ("u1", b"u1") or shape[1:] != (3072,) or len(content) != shape[0] * 3072:
            raise ValueError(f"type {kind.code}, shape {shape}, {len(content)} bytes")
        return np.frombuffer(content, dtype=np.uint8).reshape(shape, order="F" if fortran else "C")
    except (AttributeError, TypeError, ValueError, IndexError) as error:
        raise DataError(f"{path}: its images are not an array of bytes (N, 3072): {error}") from None


def as_labels(values: Any, path: str | Path) -> Array:
    """The labels of a CIFAR pickle, uint8 (N,), from a list of integers."""
    if not isinstance(values, list) or not all(type(v) is int and 0 <= v < 256 for v in values):
        raise DataError(f"{path}: its labels are not a list of class numbers")
    return np.array(values, dtype=np.uint8)
