"""Dispatch: a kernel runs where it accepts its arguments, else the op; and backends that differ in TF32 alone."""

import inspect
from dataclasses import replace

import pytest

from gpucnn.backend import REFERENCE, Kernel, guarded
from gpucnn.bench.profiler import Stopwatch, stopwatch

seen: list[tuple[float, ...]] = []


def accepts(x: float, scale: float = 2.0) -> bool:
    seen.append((x, scale))
    return scale < 5


def run(x: float, scale: float = 2.0) -> str:
    return "kernel"


def op(x: float, scale: float = 2.0) -> str:
    return "op"


def other_op(x: float) -> str:
    return "other"


ROW = Kernel(run, accepts)


@pytest.mark.parametrize("args", [(1.0, 2.0), (1.0, 9.0)])
def test_a_kernel_runs_where_it_accepts_its_arguments(args) -> None:
    wanted = "kernel" if args[1] < 5 else "op"
    by_name = {"scale": args[1], "x": args[0]}
    assert guarded(op, ROW)(*args) == guarded(op, ROW)(**by_name) == wanted


def test_arguments_by_name_are_put_in_the_ops_order_with_its_defaults() -> None:
    seen.clear()
    guarded(op, ROW)(x=3.0)
    guarded(op, ROW)(scale=4.0, x=3.0)
    assert seen == [(3.0, 2.0), (3.0, 4.0)]


def test_the_fallback_may_be_another_function_than_the_op() -> None:
    choose = guarded(op, ROW, lambda x, scale: "watched")
    assert (choose(1.0, 9.0), choose(1.0, 2.0)) == ("watched", "kernel")


def test_a_guarded_kernel_shows_its_row_and_signature() -> None:
    choose = guarded(op, ROW)
    assert choose.kernel is ROW
    assert inspect.signature(choose) == inspect.signature(run)
    assert choose.__module__ == run.__module__


def test_an_op_without_a_kernel_is_the_reference_implementation() -> None:
    backend = replace(REFERENCE, kernels={op: guarded(op, ROW)})
    assert (backend.run(op, 1.0), backend.run(other_op, 1.0), REFERENCE.run(op, 1.0)) == ("kernel", "other", "op")


def test_tf32_is_another_backends_matter() -> None:
    backend = replace(REFERENCE, tf32_kernels=lambda allowed: {op: lambda x: f"tf32 {allowed}"})
    one, other = backend.with_tf32(True), backend.with_tf32(False)
    assert (one.run(op, 1.0), other.run(op, 1.0), backend.run(op, 1.0)) == ("tf32 True", "tf32 False", "op")
    assert REFERENCE.with_tf32(True) is REFERENCE  # float32 is never rounded there


def test_a_stopwatch_stays_one() -> None:
    watch = stopwatch(replace(REFERENCE, tf32_kernels=lambda allowed: {op: lambda x: "tf32"}))
    faster = watch.with_tf32(True)
    assert isinstance(faster, Stopwatch)
    assert faster.run(op, 1.0) == "tf32"
    assert [call.op for call in watch.calls] == ["op"]
