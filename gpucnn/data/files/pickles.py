"""The python version of CIFAR: pickles, read without running anything that a pickle can ask for.

A pickle is a program that may call any function.  Here it can name nothing but ``Inert``, a stand-in for what NumPy
put into the publisher's files; the array is made afterwards from the bytes that it collected (NumPy's own
reconstruction trusts the shape and the type that it is given).  Programs that build far more than they are long are
refused before they run, by their instructions.
"""

import io
import pickle
import pickletools
from typing import Any

import numpy as np

from gpucnn.types import Array

PIXELS = 3072  # of an image: 3 planes of 32 x 32
OPCODES_OF_A_RECORD = 8  # a label, a file name and what stores them take 4; an opcode makes 100 bytes at most
MOST_OPCODES = 1000  # beside those of the records
MOST_TUPLES = 64  # the publisher's have a few; nested ones take recursion to hash
NAMES = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct", "numpy.ndarray", "numpy.dtype")
TEXTS = ("SHORT_BINSTRING", "BINSTRING", "SHORT_BINBYTES", "BINBYTES", "SHORT_BINUNICODE", "BINUNICODE")
ATOMS = {*TEXTS, "GLOBAL", "STACK_GLOBAL"}
PUTS, GETS = {"BINPUT", "LONG_BINPUT", "MEMOIZE"}, {"BINGET", "LONG_BINGET"}
OPCODES = {
    *("PROTO", "FRAME", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1"),
    *("EMPTY_DICT", "EMPTY_LIST", "APPEND", "APPENDS", "SETITEM", "SETITEMS", "REDUCE", "BUILD"),
    *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", *ATOMS, *PUTS, *GETS),
}


class Inert:
    """Stands in for numpy.ndarray, numpy.dtype and _reconstruct: keeps what the pickle says of them."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __setstate__(self, state: Any) -> None:
        self.state = state


class InertUnpickler(pickle.Unpickler):
    """Takes the names that NumPy's arrays need for ``Inert`` and refuses all others."""

    def find_class(self, module: str, name: str) -> type:
        if f"{module}.{name}" not in NAMES:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no CIFAR file needs")
        return Inert


def read_pickle(content: bytes, records: int = 50_000) -> dict[str, Any]:
    """A dictionary with names as keys; its arrays are ``Inert`` (see ``as_images``).

    Args:
        records: images that it should hold.

    Raises:
        ValueError: it is damaged, is no dictionary, or asks for anything but plain values and arrays.
    """
    if content.startswith(b"\x80\x05"):
        remedy = "write it anew by pickle.dump(..., protocol=4), or take the publisher's file"
        raise ValueError(f"it was pickled by protocol 5, but CIFAR's files have protocols 2 to 4: {remedy}")
    try:
        check_program(content, MOST_OPCODES + OPCODES_OF_A_RECORD * records)
        found = InertUnpickler(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # a bad pickle may raise nearly anything
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"it is not a CIFAR pickle, and nothing of it was run: {reason}") from None
    if not isinstance(found, dict):
        raise ValueError(f"it is not a CIFAR pickle: it holds a {type(found).__name__}, not a dictionary")
    return {
        key.decode("latin1") if isinstance(key, bytes) else key: value
        for key, value in found.items()
        if isinstance(key, bytes | str)
    }


def check_program(content: bytes, most: int) -> None:
    """Read a pickle's instructions, ``most`` of them, without running them; raises where one could do harm."""
    tuples, before = 0, ""
    stored: dict[int, bool] = {}  # place in the memo -> whether it holds a text or a name
    for count, (opcode, argument, _) in enumerate(pickletools.genops(content)):
        name, place = opcode.name, len(stored) if argument is None else argument
        if name not in OPCODES:
            raise pickle.UnpicklingError(f"it uses the instruction {name}, which no CIFAR file needs")
        if count >= most:
            raise pickle.UnpicklingError(f"it has more than {most:,} instructions")
        if name == "LONG1" and not -(2**63) <= place < 2**63:  # longer ones can all have one hash
            raise pickle.UnpicklingError("it has an integer of more than 64 bits")
        tuples += "TUPLE" in name
        if tuples > MOST_TUPLES:
            raise pickle.UnpicklingError(f"it makes more than {MOST_TUPLES} tuples")
        if name in PUTS:
            if place > count:  # the memo is as long as the highest place
                raise pickle.UnpicklingError(f"it stores its value number {count} at place {place}")
            stored[place] = before in ATOMS
        if name in GETS and not stored.get(place):  # a tuple of tuples used twice takes 2^depth steps to hash
            raise pickle.UnpicklingError("it uses twice what is neither a text nor a name")
        before = name


def as_images(parts: Any) -> Array:
    """Pixels uint8 (N,3072) from an array's state: version, shape, dtype, whether Fortran's order, bytes."""
    try:
        _, shape, kind, fortran, content = parts.state
        if kind.arguments[0] not in ("u1", b"u1") or shape != (len(content) // PIXELS, PIXELS):
            raise ValueError
        return np.frombuffer(content, dtype=np.uint8).reshape(-1, PIXELS, order="F" if fortran else "C")
    except (AttributeError, TypeError, ValueError, IndexError):
        raise ValueError(f"its images are not an array of bytes (N, {PIXELS})") from None


def as_labels(values: Any) -> Array:
    """The labels of a CIFAR pickle, uint8 (N,), from a list of integers."""
    if not isinstance(values, list) or not all(type(v) is int and 0 <= v < 256 for v in values):
        raise ValueError("its labels are not a list of class numbers")
    return np.array(values, dtype=np.uint8)
