"""Every CUDA kernel, run on the CPU on the grid that a GPU would be given, against its op in float64."""

import inspect

import numpy as np
import pytest
from gpu_samples import EXACT, MODULES, SAMPLES, STEMS, STORED, TABLE, close, halved, result_types, stored_between
from outcomes import accepts, doubled, outcome, takes_the_ops_arguments

from gpucnn.backend import guarded
from gpucnn.data.augment.crop_flip import gather_augment
from gpucnn.kernels.gpu import augment, launch, stem

KERNELS = {op: guarded(op, kernel) for op, kernel in TABLE.items()}
LOOSE = 2e-2  # of float16 that is rounded once more on the way: other maxima may win
each_op = pytest.mark.parametrize("op", TABLE, ids=lambda op: op.__name__)


@each_op
def test_a_kernel_takes_what_its_op_takes(op) -> None:
    for kernel in (TABLE[op].run, KERNELS[op]):
        mine, theirs = inspect.signature(kernel).parameters, inspect.signature(op).parameters
        assert [(p.name, p.default, p.kind) for p in mine.values()] == [
            (p.name, p.default, p.kind) for p in theirs.values()
        ]
    assert takes_the_ops_arguments(op, TABLE[op].accepts)


@each_op
def test_every_row_has_samples_that_it_accepts(op, recorder) -> None:
    mine = [sample for sample in SAMPLES if sample.op is op]
    assert len(mine) >= 3
    assert all(accepts(TABLE, op, *sample.arguments()) for sample in mine)


def check(emulator, op, args) -> None:
    """Near the op in float64, of the right types, and the same bits in whatever order threads run."""
    emulator.launched.clear()
    got = outcome(op, KERNELS[op], args)
    assert emulator.launched, "the reference implementation ran"
    assert [part.dtype for part in got] == result_types(op, args, len(got))
    for part, wanted in zip(got, outcome(op, op, doubled(args)), strict=True):
        close(part, wanted, LOOSE * stored_between(op, args))
    emulator.descending = True  # the last thread first: whoever reads what another has not written yet shows here
    for part, again in zip(got, outcome(op, KERNELS[op], args), strict=True):
        assert part.tobytes() == again.tobytes()


@pytest.mark.parametrize("sample", SAMPLES, ids=str)
def test_parity_in_float32(sample, emulator) -> None:
    check(emulator, sample.op, sample.arguments())


@pytest.mark.parametrize("sample", [s for s in SAMPLES if s.op in STORED], ids=str)
def test_parity_in_float16(sample, emulator) -> None:
    check(emulator, sample.op, halved(sample.op, sample.arguments()))


@pytest.mark.parametrize("sample", [s for s in SAMPLES if s.op in EXACT], ids=str)
def test_what_rounds_nothing_is_exact(sample, emulator) -> None:
    args = sample.arguments()
    for part, wanted in zip(
        outcome(sample.op, KERNELS[sample.op], args), outcome(sample.op, sample.op, args), strict=True
    ):
        np.testing.assert_array_equal(part, wanted)


def test_batches_in_float16_are_those_in_float32_rounded(emulator) -> None:
    for sample in (s for s in SAMPLES if s.op is gather_augment):
        images, index, flip, shift, *rest = sample.arguments()
        got = augment.gather(images, index, (flip, shift), *rest, dtype="float16")
        np.testing.assert_array_equal(got, sample.op(*sample.arguments()).astype(np.float16))


def offset(array):
    """The same values, one element off a border of 16 bytes."""
    memory = np.zeros(array.size + 64, array.dtype)
    start = (-memory.ctypes.data % 64) // array.itemsize + 1
    view = memory[start : start + array.size].reshape(array.shape)
    view[...] = array
    return view


def some(op) -> list:
    """Up to six samples of an op, from its first to its last; an odd step meets both of two that alternate."""
    mine = [sample for sample in SAMPLES if sample.op is op]
    return mine[:: -(-len(mine) // 6) | 1]


@pytest.mark.parametrize("kind", ["float32", "float16"])
@each_op
def test_arrays_off_the_border_of_a_vector(op, kind, emulator) -> None:
    for sample in some(op):
        args = halved(op, sample.arguments()) if kind == "float16" else sample.arguments()
        moved = tuple(offset(a) if isinstance(a, np.ndarray) else a for a in args)
        for part, wanted in zip(outcome(op, KERNELS[op], moved), outcome(op, op, doubled(args)), strict=True):
            close(part, wanted, LOOSE * stored_between(op, args))


def limit_blocks(monkeypatch, emulator) -> None:
    """Two blocks share the rows of a grid at most; segments have blocks of their own."""
    start = emulator.launch

    def checked(module, name, grid, args) -> None:
        assert grid.blocks[1] <= 2 or module.file == "sums.cu", name
        start(module, name, grid, args)

    monkeypatch.setattr(launch, "BLOCKS", 2)
    monkeypatch.setattr(launch, "WAVES", 1)
    monkeypatch.setattr(emulator, "launch", checked)


@each_op
def test_few_blocks_do_the_work_of_many(op, emulator, monkeypatch) -> None:
    limit_blocks(monkeypatch, emulator)
    for sample in some(op):
        check(emulator, op, sample.arguments())


def test_every_instance_is_run(recorder) -> None:
    """All that the modules compile is launched by the tests above."""
    for sample in SAMPLES:
        for args in (sample.arguments(), halved(sample.op, sample.arguments())):
            TABLE[sample.op].run(*args)
            if sample.op is gather_augment:
                images, index, flip, shift, *rest = args
                augment.gather(images, index, (flip, shift), *rest, dtype="float16")
    for sample in STEMS:
        for kind in ("float32", "float16"):
            stem.conv2d(*(a.astype(kind) if isinstance(a, np.ndarray) else a for a in sample.arguments()))
    for op in TABLE:
        for sample in some(op):
            for args in (sample.arguments(), halved(op, sample.arguments())):
                TABLE[op].run(*(offset(a) if isinstance(a, np.ndarray) else a for a in args))
    assert recorder.launched == {(module.file, name) for module in MODULES for name in module.names}
