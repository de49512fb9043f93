"""Fork and join: a kernel's shards over the caller and a few threads that wait for the next one.

A kernel is compiled code ``kernel(first, last, *args)`` that does shards first .. last-1 of ``SHARDS``.  Their number
is fixed and their partial sums are added in order, so 1, 2 and 4 threads give the same bits.

A training step forks a hundred times, so it has to be cheap, and no thread may need Python's lock for it.  Each kernel
gets a launcher, compiled for its arguments: it writes the arguments and the address of a small entry function into
memory that the workers watch, does its own part and waits for theirs.  A worker that has watched in vain for a while
falls asleep on a semaphore; the caller rings before the next job.
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
SMALL = 20_000  # a thread alone touches so many numbers in about the time of a fork and join
SPINS = 4_000  # readings of the counter, 50 ns each, before a worker goes to sleep
PATIENCE = 2_000  # readings before the caller offers its core to others
ROOM = 4096  # bytes for a kernel's arguments

X86 = os.uname().machine == "x86_64"

# one row of int64 per worker; what two threads write lies on lines of its own
GIVEN, DONE, ENTRY, ARGUMENTS, FIRST, LAST, ROW = 0, 8, 16, 17, 18, 19, 24

_I64 = ir.IntType(64)


@intrinsic
def load_atomic(typingctx, address):
    """An int64 from memory, not from a register."""

    def generate(context, builder, signature, args):
        if X86:  # be kind to the sibling of a hyper-threaded core
            pause = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(ir.VoidType(), []), "llvm.x86.sse2.pause"
            )
            builder.call(pause, [])
        return builder.load_atomic(builder.inttoptr(args[0], _I64.as_pointer()), "acquire", 8)

    return types.int64(types.uintp), generate


@intrinsic
def store_atomic(typingctx, address, value):
    """An int64 to memory, after everything that was written before."""

    def generate(context, builder, signature, args):
        builder.store_atomic(args[1], builder.inttoptr(args[0], _I64.as_pointer()), "release", 8)
        return context.get_dummy_value()

    return types.void(types.uintp, types.int64), generate


@intrinsic
def call_entry(typingctx, entry, first, last, arguments):
    """Call a function by its address."""

    def generate(context, builder, signature, args):
        kind = ir.FunctionType(ir.VoidType(), [_I64, _I64, _I64])
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), args[1:])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.int64), generate


def lend(context, builder, kind, value):
    """An argument as the threads see it: an array without its owner.

    A kernel that takes a view counts references to the owner.  Two threads that count on one owner pass its cache
    line to and fro, which made pooling slower on two threads than on one; whoever called holds the array anyway.
    """
    if not isinstance(kind, types.Array):
        return value
    array = context.make_array(kind)(context, builder, value)
    array.meminfo = cgutils.get_null_value(array.meminfo.type)
    array.parent = cgutils.get_null_value(array.parent.type)
    return array._getvalue()


@intrinsic
def make_entry(typingctx, kernel, arguments, room):
    """Put the tuple of arguments at ``room``; the address of a function that runs the kernel with what lies there."""
    wanted = (types.int64, types.int64, *arguments.types)

    def generate(context, builder, signature, args):
        kernel.get_call_type(typingctx, wanted, {})
        compiled = kernel.dispatcher.overloads[wanted]
        context.add_linking_libs([compiled.library])
        layout = context.get_value_type(signature.args[1])
        lent = [
            lend(context, builder, *pair)
            for pair in zip(arguments, cgutils.unpack_tuple(builder, args[1]), strict=True)
        ]
        there = builder.inttoptr(args[2], layout.as_pointer())
        builder.store(context.make_tuple(builder, signature.args[1], lent), there)

        name = f"entry.{compiled.fndesc.mangled_name}"
        entry = ir.Function(builder.module, ir.FunctionType(ir.VoidType(), [_I64, _I64, _I64]), name)
        entry.linkage = "internal"
        inner = ir.IRBuilder(entry.append_basic_block())
        there = inner.load(inner.inttoptr(entry.args[2], layout.as_pointer()))
        members = cgutils.unpack_tuple(inner, there)
        context.call_internal_no_propagate(
            inner, compiled.fndesc, compiled.signature, [entry.args[0], entry.args[1], *members]
        )
        inner.ret_void()
        return builder.ptrtoint(entry, _I64)

    return types.int64(kernel, arguments, types.int64), generate


@jit
def spin(address, seen, spins):
    """Wait until the int64 at an address is not ``seen`` any more, or for so many readings; what it is then."""
    value = load_atomic(address)
    while value == seen and spins > 0:
        value = load_atomic(address)
        spins -= 1
    return value


@jit
def serve(row, seen):
    """A worker's life until it is tired (the number of its last job) or dismissed (-1)."""
    address = row.ctypes.data
    while True:
        given = spin(address + 8 * GIVEN, seen, SPINS)
        if given == seen:
            return seen
        if row[ENTRY] == 0:
            return -1
        call_entry(row[ENTRY], row[FIRST], row[LAST], row[ARGUMENTS])
        seen = given
        store_atomic(address + 8 * DONE, seen)


sched_yield = types.ExternalFunction("sched_yield", types.int32())


@jit
def join(mail):
    """Wait until all workers are done.

    It must not return before: the arguments would be gone.  Where other programs want the cores, they get them.
    """
    patience = PATIENCE
    for i in range(mail.shape[0]):
        address = mail.ctypes.data + 8 * ROW * i
        given = load_atomic(address + 8 * GIVEN)
        while load_atomic(address + 8 * DONE) != given:
            patience -= 1
            if patience < 0:
                sched_yield()


LAUNCHER = """
def {name}(mail, room, *args):
    entry = make_entry(kernel, args, room)
    parts = mail.shape[0] + 1
    for i in range(mail.shape[0]):
        mail[i, ENTRY], mail[i, ARGUMENTS] = entry, room
        mail[i, FIRST], mail[i, LAST] = SHARDS * (i + 1) // parts, SHARDS * (i + 2) // parts
        given = mail.ctypes.data + 8 * (ROW * i + GIVEN)
        store_atomic(given, load_atomic(given) + 1)
    call_entry(entry, 0, SHARDS // parts, room)
    join(mail)
"""
_launchers: dict[Any, Callable[..., None]] = {}


def launcher(kernel: Any) -> Callable[..., None]:
    """The function that forks this kernel; made once."""
    if kernel not in _launchers:
        function = kernel.py_func
        # Numba keeps compiled functions on disk by name and line: each launcher needs a name of its own
        name = f"launch_{function.__module__.rpartition('.')[2]}_{function.__name__}"
        scope = {**globals(), "kernel": kernel}
        exec(compile(LAUNCHER.format(name=name), __file__, "exec"), scope)
        _launchers[kernel] = jit(scope[name])
    return _launchers[kernel]


class Worker(threading.Thread):
    """One more thread, with its row of the mail."""

    def __init__(self, row: Array, number: int) -> None:
        super().__init__(daemon=True, name=f"gpucnn-{number}")
        self.row = row
        self.sleeping = self.called = False
        self.bell = threading.Semaphore(0)

    def run(self) -> None:
        seen = 0
        while (seen := serve(self.row, seen)) >= 0:
            self.sleeping = True
            nap = 0.001
            while self.row[GIVEN] == seen and not self.called:
                # a job that was given just before ``sleeping`` was seen rings no bell: look again from time to time
                self.bell.acquire(timeout=nap)
                nap = 0.05
            self.sleeping = self.called = False

    def wake(self) -> None:
        """Ring where it sleeps."""
        if self.sleeping:
            self.called = True
            self.bell.release()


class Team:
    """The caller and its workers."""

    def __init__(self) -> None:
        self.workers: list[Worker] = []
        self.mail = np.zeros((0, ROW), np.int64)
        self.memory = np.zeros(ROOM + 64, np.uint8)
        self.room = (self.memory.ctypes.data + 63) // 64 * 64
        self.busy = threading.Lock()
        self.process = os.getpid()

    def resize(self, threads: int) -> None:
        """Have ``threads`` threads in all, ``SHARDS`` at most; BLAS gets one, since ours call it.

        Kernels have scratch memory by the first of a thread's shards: a thread without any would share another's.
        """
        threads = min(threads, SHARDS)
        with self.busy:
            if len(self.workers) != threads - 1 or self.process != os.getpid():
                self.dismiss()
                self.mail = np.zeros((threads - 1, ROW), np.int64)
                self.workers = [Worker(row, number) for number, row in enumerate(self.mail, 1)]
                for worker in self.workers:
                    worker.start()
                self.process = os.getpid()
        threadpool_limits(1)

    def dismiss(self) -> None:
        """Let the workers end."""
        for worker in self.workers:
            worker.row[ENTRY] = 0
            worker.row[GIVEN] += 1
            worker.wake()

    def run(self, kernel: Any, args: tuple[Any, ...]) -> None:
        """All shards of a kernel; a caller that finds the team busy does them alone."""
        # a thread alone goes through the launcher too: called directly, views would count references
        if not self.busy.acquire(blocking=False):
            kernel(0, SHARDS, *args)
            return
        try:
            if self.process != os.getpid():  # after a fork the threads are gone
                self.workers, self.mail, self.process = [], np.zeros((0, ROW), np.int64), os.getpid()
            for worker in self.workers:
                worker.wake()
            launcher(kernel)(self.mail, self.room, *args)
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
