"""Fork and join: a kernel's shards over the caller and a few threads that wait for the next one.

A kernel is compiled code ``kernel(first, last, *args)`` that does shards first .. last-1 of ``SHARDS``.  Their number
is fixed and their partial sums are added in order, so 1, 2 and 4 threads give the same bits.

Waiting is spinning at first, on a counter, without the GIL: a fork and join costs some 10 us instead of the 50 to 100
of locks and executors, and a training step has a hundred of them.  A thread that nobody needs falls asleep.
"""

import os
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from threadpoolctl import threadpool_limits

from gpucnn.kernels.cpu.compile import jit
from gpucnn.typing import Array

SHARDS = 8
SMALL = 50_000  # a thread alone touches so many numbers in about the time of a fork and join
SPINS = 20_000  # readings of the counter before a thread goes to sleep: about 200 us


@intrinsic
def load_atomic(typingctx, array, index):
    """array[index] of int64, read from memory each time."""

    def generate(context, builder, signature, args):
        kind = signature.args[0]
        view = context.make_array(kind)(context, builder, args[0])
        pointer = cgutils.get_item_pointer(context, builder, kind, view, [args[1]], wraparound=False)
        if X86:  # be kind to the sibling of a hyper-threaded core
            pause = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(ir.VoidType(), []), "llvm.x86.sse2.pause"
            )
            builder.call(pause, [])
        return builder.load_atomic(pointer, "acquire", 8)

    return types.int64(array, types.intp), generate


X86 = os.uname().machine == "x86_64"


@jit
def spin(counter, index, seen, spins):
    """Wait until counter[index] is not ``seen`` any more, or for so many readings; returns its value."""
    value = load_atomic(counter, index)
    while value == seen and spins > 0:
        value = load_atomic(counter, index)
        spins -= 1
    return value


class Worker(threading.Thread):
    """One more thread: runs its part of each job."""

    def __init__(self, number: int) -> None:
        super().__init__(daemon=True, name=f"gpucnn-{number}")
        self.counter = np.zeros(16, np.int64)  # [0]: jobs given, [8]: jobs done, on lines of their own
        self.job: tuple[Callable[..., None], int, int, tuple[Any, ...]] | None = None
        self.error: BaseException | None = None
        self.sleeping = False
        self.bell = threading.Semaphore(0)

    def run(self) -> None:
        seen = 0
        while True:
            if spin(self.counter, 0, seen, SPINS) == seen:
                self.sleeping = True
                while self.counter[0] == seen:
                    self.bell.acquire()
                self.sleeping = False
            seen += 1
            if self.job is None:
                return
            kernel, first, last, args = self.job
            try:
                kernel(first, last, *args)
            except BaseException as error:
                self.error = error
            self.counter[8] = seen

    def give(self, job: tuple[Callable[..., None], int, int, tuple[Any, ...]] | None) -> None:
        """Start a job; ``wait`` for it before the next."""
        self.job = job
        self.counter[0] += 1
        if self.sleeping:
            self.bell.release()

    def wait(self) -> None:
        """Until the job is done; raises what it raised."""
        given = int(self.counter[0])
        done = given - 1
        while done != given:
            done = spin(self.counter, 8, done, 1_000_000)
        if self.error is not None:
            error, self.error = self.error, None
            raise error


class Team:
    """The caller and its workers."""

    def __init__(self) -> None:
        self.workers: list[Worker] = []
        self.busy = threading.Lock()
        self.process = os.getpid()

    def resize(self, threads: int) -> None:
        """Have ``threads`` threads in all; BLAS gets one, since ours call it."""
        with self.busy:
            for worker in self.workers:
                worker.give(None)
            self.workers = [Worker(number) for number in range(1, threads)]
            for worker in self.workers:
                worker.start()
            self.process = os.getpid()
        threadpool_limits(1)

    def run(self, kernel: Callable[..., None], args: tuple[Any, ...]) -> None:
        """All shards of a kernel; a caller that finds the team busy does them alone."""
        if not self.workers or not self.busy.acquire(blocking=False):
            kernel(0, SHARDS, *args)
            return
        try:
            if self.process != os.getpid():  # after a fork the threads are gone
                self.workers = []
                kernel(0, SHARDS, *args)
                return
            parts = len(self.workers) + 1
            for number, worker in enumerate(self.workers, 1):
                worker.give((kernel, SHARDS * number // parts, SHARDS * (number + 1) // parts, args))
            try:
                kernel(0, SHARDS // parts, *args)
            finally:
                for worker in self.workers:
                    worker.wait()
        finally:
            self.busy.release()


TEAM = Team()


def parallel(kernel: Callable[..., None], *args: Any, work: float = 1e9) -> None:
    """Run ``kernel(first, last, *args)`` over all shards.

    Args:
        work: how many numbers it touches, roughly; below ``SMALL`` the caller does it alone.
    """
    if work < SMALL:
        kernel(0, SHARDS, *args)
    else:
        TEAM.run(kernel, args)


def partial(width: int) -> Array:
    """A float64 array (SHARDS, width) for sums that each shard makes by itself."""
    return np.empty((SHARDS, width))
