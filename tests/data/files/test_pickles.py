"""CIFAR's pickles are read, and hostile ones are refused before they run."""

import os
import pickle
import struct
import subprocess
import sys
import tracemalloc
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from data_samples import python2_array, python2_pickle, python2_string
from hypothesis import given
from hypothesis import strategies as st

from gpucnn.data.files.pickles import as_images, as_labels, read_pickle

ROWS = np.random.default_rng(0).integers(0, 256, (3, 3072)).astype(np.uint8)
LABELS = [7, 0, 255]
GOOD = python2_pickle(ROWS, LABELS)


def test_python_2_s_pickle() -> None:
    found = read_pickle(GOOD)
    assert found["batch_label"] == b"training batch 1 of 5"
    assert as_labels(found["labels"]).tolist() == LABELS
    assert np.array_equal(as_images(found["data"]), ROWS)
    assert as_images(found["data"]).dtype == np.uint8


def test_the_sample_is_a_pickle_that_numpy_reads() -> None:
    """The sample itself against another reader: the ordinary unpickler."""
    found = pickle.loads(GOOD, encoding="bytes")
    assert np.array_equal(found[b"data"], ROWS)
    assert found[b"labels"] == LABELS


@pytest.mark.parametrize("protocol", [3, 4])
@pytest.mark.parametrize("order", ["C", "F"])
def test_pickles_of_python_3(protocol: int, order: str) -> None:
    batch = {"labels": LABELS, "data": np.array(ROWS, order=order), "filenames": ["a.png", "b.png", "a.png"]}
    found = read_pickle(pickle.dumps(batch, protocol))
    assert np.array_equal(as_images(found["data"]), ROWS)
    assert as_labels(found["labels"]).tolist() == LABELS


class Evil:
    """Asks for a function to be called when it is read."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.call


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("function", [os.system, os.mkdir, eval, getattr, pickle.loads, np.fromfile, print])
def test_code_is_never_run(tmp_path: Path, protocol: int, function: object) -> None:
    target = tmp_path / "ran"
    argument = f"open({str(target)!r}, 'w')" if function is eval else str(target)
    argument = f"touch {target}" if function is os.system else argument
    for batch in (Evil(function, argument), {"labels": LABELS, "data": Evil(function, argument)}):
        with pytest.raises(ValueError, match=r"nothing of it was run|protocol 5"):
            read_pickle(pickle.dumps(batch, protocol))
    assert not target.exists()


def global_(module: bytes, name: bytes) -> bytes:
    return b"c" + module + b"\n" + name + b"\n"


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (b"\x80\x02" + global_(b"os", b"system") + b"U\x02id\x85R.", "asks for os.system"),
        (b"\x80\x02" + global_(b"numpy", b"load") + b".", "asks for numpy.load"),
        (b"\x80\x04\x8c\x05numpy\x8c\x0fndarray.tobytes\x93.", "asks for numpy.ndarray.tobytes"),
        (b"\x80\x02" + global_(b"builtins", b"exec") + b".", "asks for builtins.exec"),
        (b"(ios\nsystem\n.", "instruction INST"),
        (b"(cos\nsystem\no.", "instruction OBJ"),
        (b"\x80\x02\x82\x01.", "instruction EXT1"),
        (b"\x80\x02P1\n.", "instruction PERSID"),
        (b"\x80\x02]2.", "instruction DUP"),
        (b"\x80\x02]r\xff\xff\xff\x7f.", "at place 2147483647"),  # the memo would take 32 GiB
        (b"\x80\x02)" + b"q\x00h\x00\x86" * 70 + b".", "uses twice what is neither a text nor a name"),
        (b"\x80\x02" + b")" * 70 + b".", "more than 64 tuples"),
        (b"\x80\x02].", "holds a list"),
        (b"\x80\x02N.", "holds a NoneType"),
        (b"", "not a CIFAR pickle"),
        (b"<!DOCTYPE html>", "not a CIFAR pickle"),
        (GOOD[:-1], "not a CIFAR pickle"),
        (GOOD[:5000], "not a CIFAR pickle"),
        (b"\x80\x02T\xff\xff\xff\x7fx.", "not a CIFAR pickle"),  # a string of 2 GiB, it says
        (b"\x80\x02}]U\x01xs.", "unhashable"),
    ],
)
def test_odd_programs_are_refused(program: bytes, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        read_pickle(program)
    assert message in str(caught.value)


def nested(depth: int, get: bytes = b"h", width: int = 2) -> bytes:
    """A dictionary whose key is a tuple that holds the one before several times, and so on."""
    program = b"\x80\x02)q\x00"
    for n in range(depth):
        program += b"(" + (get + bytes([n])) * width + b"tq" + bytes([n + 1])
    return program + b"}" + get + bytes([depth]) + b"Ns."


READER = """
import sys
from gpucnn.data.files.pickles import read_pickle
for line in sys.stdin:
    try:
        print(read_pickle(bytes.fromhex(line)))
    except ValueError as error:
        print(error)
"""


def test_nested_tuples_as_keys_do_not_hang() -> None:
    """A hash of 60 tuples that hold each other twice would take 2**60 steps, in C code that no signal stops."""
    programs = [
        nested(60),
        nested(12, width=50),
        nested(60).replace(b"q", b"(eq"),  # nothing appended to a tuple, which leaves it on the stack
        nested(60).replace(b"q\x00", b"q\x00U\x01xq\x00").replace(b"q", b"Nq"),
        b"\x80\x04)\x94" + b"".join(b"h%ch%c\x86\x94" % (n, n) for n in range(60)) + b"}h\x3cNs.",
    ]
    lines = "".join(f"{program.hex()}\n" for program in programs)
    done = subprocess.run(
        [sys.executable, "-c", READER], input=lines, capture_output=True, text=True, timeout=120, check=True
    )
    answers = done.stdout.splitlines()
    assert len(answers) == len(programs)
    assert all("uses twice what is neither a text nor a name" in answer for answer in answers)


def test_a_batch_of_nothing_but_objects_is_not_made() -> None:
    """A byte of a pickle can be an object of 64 bytes: 31 MB of them would take 2 GB."""
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="more than 401,000 instructions"):
            read_pickle(b"\x80\x02}U\x01x(" + b"}" * 1_000_000 + b"ls.")
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_integers_that_all_have_one_hash_are_refused() -> None:
    """A dictionary of 40,000 keys of one hash takes 800 million comparisons."""
    keys = b"".join(pickle.dumps(n * (2**61 - 1), 2)[2:-1] + b"N" for n in range(1, 40_000))
    with pytest.raises(ValueError, match="an integer of more than 64 bits"):
        read_pickle(b"\x80\x02}(" + keys + b"u.")


def test_a_batch_has_no_more_instructions_than_its_images_need() -> None:
    assert "labels" in read_pickle(GOOD, records=3)
    with pytest.raises(ValueError, match="more than 1,024 instructions"):
        read_pickle(pickle.dumps({"labels": [1] * 2000}, 2), records=3)


@pytest.mark.parametrize(
    "program",
    [
        b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7f.",  # BINBYTES8, 2^63 bytes
        b"\x80\x04\x8e" + b"\xff" * 8 + b".",
        b"\x80\x05\x96" + b"\xff" * 7 + b"\x7f.",  # BYTEARRAY8
        b"\x80\x05\x97\x98.",  # buffers out of band
        b"\x80\x04\x8f(K\x01K\x02\x90.",  # a set
        b"\x80\x04(K\x01K\x02\x91.",  # a frozenset
        b"\x80\x02\x8b\xff\xff\xff\x7f.",  # LONG4
        b"\x80\x02\x8b\xff\xff\xff\xff.",
        b"L" + b"9" * 100_000 + b"L\n.",
        b"I" + b"9" * 100_000 + b"\n.",
        b"F" + b"9" * 100_000 + b"\n.",
        b"\x80\x02]q\x00" + b"h\x00h\x00e" * 100 + b".",
        b"\x80\x02]2e.",  # DUP
        b"\x80\x02]r\xff\xff\xff\x7f.",  # a memo of 2^31 places
        b"\x80\x02P1\n.",
        b"\x80\x02U\x01xQ.",  # persistent names
        b"\x80\x02\x82\x01.",  # the extension registry
        b"\x80\x04\x95" + b"\xff" * 8 + b"N.",  # a frame of 2^64 bytes
        b"\x80\xff.",
    ],
)
def test_other_instructions_are_refused(program: bytes) -> None:
    with pytest.raises(ValueError, match=r"not a CIFAR pickle|protocol 5"):
        read_pickle(program)


def data_of(array: bytes) -> object:
    return read_pickle(b"\x80\x02}" + python2_string(b"data") + array + b"s.")["data"]


@pytest.mark.parametrize(
    "array",
    [
        python2_array(ROWS, code=b"i1"),
        python2_array(ROWS, code=b"O8"),
        python2_array(ROWS, shape=(4, 3072)),
        python2_array(ROWS, shape=(3072, 3)),
        python2_array(ROWS, shape=(-3, -3072)),
        python2_array(ROWS.astype("f4"), code=b"f4"),
        b"]",
        b"N",
        b"U\x05bytes",
        global_(b"numpy", b"dtype") + b")R",
        global_(b"numpy", b"ndarray"),
        global_(b"numpy", b"ndarray") + b")R(NNNNNtb",
        python2_array(ROWS).replace(b"J\x03\x00\x00\x00", python2_string(b"x" * 2**25)),  # times 3072: 96 GiB
        python2_array(ROWS).replace(b"U\x02u1", b"]" * 20_000 + b"a" * 19_999),  # too deep to be printed
    ],
)
def test_what_is_no_array_of_pixels_is_refused(array: bytes) -> None:
    with pytest.raises(ValueError, match="its images are not an array of bytes"):
        as_images(data_of(array))


def test_pixels_in_another_shape_are_refused() -> None:
    found = read_pickle(pickle.dumps({"data": ROWS.reshape(3, 1024, 3)}, 3))
    with pytest.raises(ValueError, match="its images are not an array of bytes"):
        as_images(found["data"])


@pytest.mark.parametrize("labels", [None, "labels", [1.0], [-1], [256], [True], [[1]], (1, 2), {1: 2}])
def test_what_is_no_list_of_labels_is_refused(labels: object) -> None:
    with pytest.raises(ValueError, match="its labels are not a list of class numbers"):
        as_labels(labels)


@given(place=st.integers(0, len(GOOD) - 1), value=st.integers(0, 255))
def test_a_changed_byte_raises_nothing_else(place: int, value: int) -> None:
    changed = bytearray(GOOD)
    changed[place] = value
    with suppress(ValueError):
        found = read_pickle(bytes(changed))
        as_labels(found.get("labels"))
        assert as_images(found.get("data")).shape == (3, 3072)


@given(st.binary(max_size=60).map(lambda tail: b"\x80\x02" + tail))
def test_random_programs_raise_nothing_else(program: bytes) -> None:
    with suppress(ValueError):
        read_pickle(program)


@given(
    st.lists(
        st.sampled_from(
            [
                b"}",
                b"]",
                b")",
                b"(",
                b"N",
                b"R",
                b"b",
                b"q\x00",
                b"h\x00",
                b"\x85",
                b"t",
                b"u",
                b"s",
                b"a",
                b"e",
                global_(b"numpy", b"ndarray"),
                global_(b"numpy", b"dtype"),
                b"K\x01",
                struct.pack("<cI", b"r", 3),
            ]
        ),
        max_size=20,
    )
)
def test_programs_of_allowed_instructions_raise_nothing_else(instructions: list[bytes]) -> None:
    with suppress(ValueError):
        as_images(read_pickle(b"\x80\x02" + b"".join(instructions) + b".").get("data"))
