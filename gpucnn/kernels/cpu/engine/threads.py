"""Fork and join: a kernel's shards over the caller and a few threads that wait for the next one.

A kernel is compiled code ``kernel(first, last, *args)`` that does shards first .. last-1 of ``SHARDS``.  Their number
is fixed and their partial sums are added in order, so 1, 2 and 4 threads give the same bits.

A training step forks a hundred times, so it has to be cheap, and no thread may need Python's lock for it.  Each kernel
gets a launcher, compiled for its arguments: it writes the arguments and the address of a small entry function into
memory that the workers watch, does its own part and waits for theirs.  Launchers know their kernel by its address:
with the kernel's code in them, all of it would be optimised twice.  A worker that has watched in vain for a while
falls asleep on a semaphore; the caller rings before the next job.
"""

import os
import threading
from collections.abc import Callable
from types import FunctionType
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from threadpoolctl import threadpool_limits

from gpucnn.kernels.cpu.engine.compile import jit
from gpucnn.types import Array

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
    line to and fro, which made pooling slower on two threads than on one; the caller keeps the array alive anyway.
    """
    if not isinstance(kind, types.Array):
        return value
    array = context.make_array(kind)(context, builder, value)
    array.meminfo = cgutils.get_null_value(array.meminfo.type)
    array.parent = cgutils.get_null_value(array.parent.type)
    return array._getvalue()


@intrinsic
def make_entry(typingctx, code, arguments, room):
    """Put the tuple of arguments at ``room``; the address of a function that runs the kernel with what lies there.

    ``code`` is the address of the kernel, compiled for int64, int64 and the arguments; it is remembered, and 0 stands
    for what was given last.  Before anything else was given the answer is 0.
    """

    def generate(context, builder, signature, args):
        code, arguments, room = args
        kinds = signature.args[1]
        known = ir.GlobalVariable(builder.module, _I64, "kernel_code")
        known.linkage, known.initializer = "internal", _I64(0)
        with builder.if_then(builder.icmp_unsigned("!=", code, _I64(0))):
            builder.store(code, known)
        layout = context.get_value_type(kinds)
        borrowed = [
            lend(context, builder, *pair) for pair in zip(kinds, cgutils.unpack_tuple(builder, arguments), strict=True)
        ]
        builder.store(context.make_tuple(builder, kinds, borrowed), builder.inttoptr(room, layout.as_pointer()))

        entry = ir.Function(builder.module, ir.FunctionType(ir.VoidType(), [_I64, _I64, _I64]), "kernel_entry")
        entry.linkage = "internal"
        inner = ir.IRBuilder(entry.append_basic_block())
        members = cgutils.unpack_tuple(inner, inner.load(inner.inttoptr(entry.args[2], layout.as_pointer())))
        wanted = (types.int64, types.int64, *kinds)
        kind = context.call_conv.get_function_type(types.none, wanted)
        kernel = inner.inttoptr(inner.load(known), kind.as_pointer())
        context.call_conv.call_function(inner, kernel, types.none, wanted, [*entry.args[:2], *members])
        inner.ret_void()
        unknown = builder.icmp_unsigned("==", builder.load(known), _I64(0))
        return builder.select(unknown, _I64(0), builder.ptrtoint(entry, _I64))

    return types.int64(types.int64, arguments, types.int64), generate


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


@jit
def fork(mail, entry, room):
    """Give the workers their parts, do the first one, wait for the others."""
    parts = mail.shape[0] + 1
    for i in range(mail.shape[0]):
        mail[i, ENTRY], mail[i, ARGUMENTS] = entry, room
        mail[i, FIRST], mail[i, LAST] = SHARDS * (i + 1) // parts, SHARDS * (i + 2) // parts
        given = mail.ctypes.data + 8 * (ROW * i + GIVEN)
        store_atomic(given, load_atomic(given) + 1)
    call_entry(entry, 0, SHARDS // parts, room)
    join(mail)


def launch_kernel(mail, room, code, *args):
    """Fork a kernel with these arguments; False where its code is not known yet."""
    entry = make_entry(code, args, room)
    if entry == 0:
        return False
    fork(mail, entry, room)
    return True


_launchers: dict[Any, Callable[..., bool]] = {}


def launcher(kernel: Any) -> Callable[..., bool]:
    """The function that forks this kernel, made once; False where it does not know the kernel's address yet."""
    if kernel not in _launchers:
        function = kernel.py_func
        # Numba keeps compiled functions on disk by name and line: each launcher needs a name of its own
        name = f"launch_{function.__module__.rpartition('.')[2]}_{function.__name__}"
        code = launch_kernel.__code__.replace(co_name=name, co_qualname=name)
        _launchers[kernel] = jit(FunctionType(code, globals(), name))
    return _launchers[kernel]


def address(kernel: Any, args: tuple[Any, ...]) -> int:
    """Where the kernel's code for these arguments lies, compiled or loaded if need be."""
    kinds = (types.int64, types.int64, *(kernel.typeof_pyval(arg) for arg in args))
    kernel.compile(kinds)
    compiled = kernel.overloads[kinds]
    assert compiled.signature.return_type == types.none, f"{kernel} returns something"
    return int(compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name))


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
    """The caller and its workers.

    Attributes:
        sized: whether anybody has said how many there are to be.
    """

    sized = False

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
        self.sized = True
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
            launch = launcher(kernel)
            if not launch(self.mail, self.room, 0, *args):
                # while code is compiled or loaded the others fall asleep: this once the caller does all of it
                launch(self.mail[:0], self.room, address(kernel, args), *args)
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
