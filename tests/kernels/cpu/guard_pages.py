"""Every kernel of the CPU's table between guard pages: a read or a write outside an array ends the process.

    python tests/kernels/cpu/guard_pages.py --cases 100000 --threads 1 2 4

Arguments and results lie flush with the end or with the start of their pages, so also at every alignment of a float;
the pages before and behind cannot be read or written.  Shapes are random: filters, channels and widths from 1 to 70,
images up to 13x13, strides, paddings.  Each result is compared with the reference implementation.  A case that faults
is named by the last line on standard error.
"""

import argparse
import ctypes
import faulthandler
import mmap
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from gpucnn import losses, metrics, optim
from gpucnn.data.augment import crop_flip, warp
from gpucnn.devices import get_backend
from gpucnn.devices.cpu import set_threads
from gpucnn.layers import activations, batchnorm, containers, conv2d, dropout, fusion, gelu, groupnorm, linear, pooling
from gpucnn.layers.windows import extent, output_size
from gpucnn.optim import averages

PAGE = mmap.PAGESIZE
LIBC = ctypes.CDLL(None, use_errno=True)
CLOSE = 2e-4  # of the largest value: far above rounding, far below a wrong pixel

Call = tuple[Callable[..., Any], tuple[Any, ...]]


class Guard:
    """Makes arrays between two pages that nobody may touch."""

    def __init__(self) -> None:
        self.at_end = True

    def empty(self, shape: Any, dtype: Any = np.float32) -> np.ndarray:
        """An array full of NaN (or of 0x7f) that touches the guard page behind it, or the one before it."""
        kind = np.dtype(dtype)
        shape = (shape,) if isinstance(shape, int | np.integer) else tuple(shape)
        size = int(np.prod(shape)) * kind.itemsize
        inside = -(-max(size, 1) // PAGE) * PAGE
        region = mmap.mmap(-1, inside + 2 * PAGE)
        whole = np.frombuffer(region, np.uint8)
        start = whole.ctypes.data
        for page in (start, start + PAGE + inside):
            assert LIBC.mprotect(ctypes.c_void_p(page), ctypes.c_size_t(PAGE), 0) == 0
        first = PAGE + (inside - size if self.at_end else 0)
        array = whole[first : first + size].view(kind).reshape(shape)
        array.view(np.uint8).reshape(-1)[...] = 0x7F
        return array

    def zeros(self, shape: Any, dtype: Any = float) -> np.ndarray:
        array = self.empty(shape, dtype)
        array[...] = 0
        return array

    def full(self, array: Any) -> Any:
        """A copy of an argument between guard pages; what is no array stays."""
        if not isinstance(array, np.ndarray):
            return array
        copy = self.empty(array.shape, array.dtype)
        copy[...] = array
        return copy


class GuardedNumpy:
    """NumPy for the functions around the kernels, with arrays between guard pages."""

    def __init__(self, guard: Guard) -> None:
        self.guard = guard

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    def empty(self, shape: Any, dtype: Any = float) -> np.ndarray:
        return self.guard.empty(shape, dtype)

    def zeros(self, shape: Any, dtype: Any = float) -> np.ndarray:
        return self.guard.zeros(shape, dtype)

    def empty_like(self, array: np.ndarray) -> np.ndarray:
        return self.guard.empty(array.shape, array.dtype)

    def zeros_like(self, array: np.ndarray) -> np.ndarray:
        return self.guard.zeros(array.shape, array.dtype)


class Patched:
    """Kernel modules whose new arrays lie between guard pages, for as long as a ``with`` block lasts."""

    def __init__(self, guard: Guard) -> None:
        modules = [m for name, m in sys.modules.items() if name.startswith("gpucnn.kernels.cpu.")]
        modules = [m for m in modules if not m.__name__.endswith((".engine.allocator", ".engine.blas"))]
        self.changes = [(m, "empty", guard.empty) for m in modules if hasattr(m, "empty")]
        self.changes += [(m, "np", GuardedNumpy(guard)) for m in modules if hasattr(m, "np")]

    def __enter__(self) -> None:
        self.before = [(m, name, getattr(m, name)) for m, name, _ in self.changes]
        for module, name, value in self.changes:
            setattr(module, name, value)

    def __exit__(self, *error: object) -> None:
        for module, name, value in self.before:
            setattr(module, name, value)

    def forget_failures(self) -> None:
        """Let Numba try once more to compile what it could not while NumPy was patched."""
        for module in {module for module, _, _ in self.changes}:
            for value in vars(module).values():
                if compiler := getattr(value, "_compiler", None):
                    compiler._failed_cache.clear()


class Shapes:
    """Random calls of every op in the table."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def up_to(self, most: int) -> int:
        """1 .. most; small numbers, multiples of 8 and their neighbours more often than others."""
        kind = self.rng.integers(4)
        if kind == 0:
            return int(self.rng.integers(1, min(most, 9) + 1))
        if kind == 1:
            return int(np.clip(8 * self.rng.integers(0, most // 8 + 1) + self.rng.integers(-1, 2), 1, most))
        return int(np.exp(self.rng.uniform(0, np.log(most + 1))))

    def floats(self, *shape: int) -> np.ndarray:
        return self.rng.standard_normal(shape).astype(np.float32)

    def variances(self, c: int) -> np.ndarray:
        return np.abs(self.floats(c)) + np.float32(0.5)

    def calls(self) -> Iterator[Call]:
        """Cases without end, some of one kind and then some of the next."""
        kinds = [
            self.convolution,
            self.convolution,
            self.grouped,
            self.pooling,
            self.rows,
            self.elements,
            self.product,
            self.images,
        ]
        while True:
            for kind in kinds:
                yield from kind()

    def window(self, size: tuple[int, int], most: int) -> tuple[Any, Any, Any]:
        """Kernel, stride and padding that fit an image of this size."""
        kernel = tuple(int(self.rng.integers(1, min(s, most) + 1)) for s in size)
        if self.rng.integers(3) == 0:
            kernel = (min(size[0], 3), min(size[1], 3))
        stride = tuple(int(self.rng.choice([1, 1, 1, 2, 3])) for _ in size)
        padding = tuple(tuple(int(self.rng.integers(0, k // 2 + 1)) for _ in range(2)) for k in kernel)
        if self.rng.integers(2):
            padding = ((0, 0), (0, 0))
        return kernel, stride, padding

    def convolution(self) -> Iterator[Call]:
        n, h, w = self.up_to(16), int(self.rng.integers(1, 14)), int(self.rng.integers(1, 14))
        c, f = self.up_to(70), self.up_to(70)
        kernel, stride, padding = self.window((h, w), 5)
        x_shape, w_shape = (n, h, w, c), (f, *kernel, c)
        y_shape = (n, *output_size(x_shape, kernel, stride, padding), f)
        x, weight, dy = self.floats(*x_shape), self.floats(*w_shape), self.floats(*y_shape)
        bias = self.floats(f) if self.rng.integers(2) else None
        yield conv2d.conv2d, (x, weight, bias, stride, padding)
        yield conv2d.conv2d_input_grad, (dy, weight, x_shape, stride, padding)
        yield conv2d.conv2d_weight_grad, (dy, x, w_shape, stride, padding)

    def grouped(self) -> Iterator[Call]:
        """Depthwise, groups, and dilation, with paddings beyond the kernel too."""
        n, groups, depthwise = self.up_to(9), self.up_to(70), bool(self.rng.integers(2))
        each, per = (int(self.rng.integers(1, 3)), 1) if depthwise else (self.up_to(20), self.up_to(20))
        groups = groups if depthwise else min(groups, 4)
        kernel, stride, dilation = (tuple(int(v) for v in self.rng.integers(1, most, 2)) for most in (5, 4, 4))
        padding = tuple(tuple(int(v) for v in self.rng.integers(0, 6, 2)) for _ in range(2))
        reach = extent(kernel, dilation)
        h, w = (max(1, r - sum(p), int(self.rng.integers(1, 14))) for r, p in zip(reach, padding, strict=True))
        x_shape, w_shape = (n, h, w, groups * per), (groups * each, *kernel, per)
        y_shape = (n, *output_size(x_shape, reach, stride, padding), w_shape[0])
        x, weight, dy = self.floats(*x_shape), self.floats(*w_shape), self.floats(*y_shape)
        bias = self.floats(w_shape[0]) if self.rng.integers(2) else None
        how = stride, padding, dilation, groups
        yield conv2d.grouped_conv2d, (x, weight, bias, *how)
        yield conv2d.grouped_conv2d_input_grad, (dy, weight, x_shape, *how)
        yield conv2d.grouped_conv2d_weight_grad, (dy, x, w_shape, *how)

    def pooling(self) -> Iterator[Call]:
        shape = (self.up_to(9), int(self.rng.integers(1, 14)), int(self.rng.integers(1, 14)), self.up_to(70))
        if self.rng.integers(2) and min(shape[1:3]) > 1:
            how: Any = ((2, 2), (2, 2), ((0, 0), (0, 0)))
        else:
            how = self.window(shape[1:3], 4)
        size = output_size(shape, *how)
        x, dy, c = self.floats(*shape), self.floats(shape[0], *size, shape[3]), shape[3]
        lines = self.floats(c), self.floats(c), self.floats(c), self.variances(c)
        yield pooling.max_pool2d, (x, *how)
        yield pooling.max_pool2d_grad, (dy, x, *how)
        yield pooling.avg_pool2d, (x, *how)
        yield pooling.avg_pool2d_grad, (dy, shape, *how)
        yield pooling.global_avg_pool2d, (x,)
        yield pooling.global_avg_pool2d_grad, (self.floats(shape[0], c), shape)
        yield fusion.relu_max_pool2d, (x, *how)
        yield fusion.relu_max_pool2d_grad, (dy, x, *how)
        if x.size > c:
            yield fusion.batchnorm_relu_max_pool2d, (x, *lines[:2], 1e-5, *how)
        yield fusion.batchnorm_relu_max_pool2d_eval, (x, *lines, 1e-5, *how)
        yield fusion.batchnorm_relu_max_pool2d_grad, (dy, decided(x, *lines), *lines, 1e-5, *how)

    def rows(self) -> Iterator[Call]:
        m, c = self.up_to(600), self.up_to(70)
        x, dy = self.floats(m, c), self.floats(m, c)
        scale, shift, mean, var = self.floats(c), self.floats(c), self.floats(c), self.variances(c)
        if m > 1:
            yield batchnorm.batchnorm, (x, scale, shift, 1e-5)
            yield batchnorm.batchnorm_relu, (x, scale, shift, 1e-5)
        yield batchnorm.batchnorm_eval, (x, scale, shift, mean, var, 1e-5)
        yield batchnorm.batchnorm_relu_eval, (x, scale, shift, mean, var, 1e-5)
        yield batchnorm.batchnorm_grad, (dy, x, scale, mean, var, 1e-5)
        lines = scale, shift, mean, var
        yield batchnorm.batchnorm_relu_grad, (dy, decided(x, *lines), *lines, 1e-5)
        yield conv2d.bias_grad, (dy,)
        large = 6 * scale, shift, mean, var
        if m > 1:
            yield fusion.batchnorm_relu6, (x, *large[:2], 1e-5)
        yield fusion.batchnorm_relu6_eval, (x, *large, 1e-5)
        yield fusion.batchnorm_relu6_grad, (dy, decided(decided(x, *large), *large, at=6), *large, 1e-5)
        n = self.up_to(9)
        groups = int(self.rng.choice([g for g in range(1, c + 1) if c % g == 0]))
        x = self.floats(n, self.up_to(60), c)
        dy = self.floats(*x.shape)
        statistics = self.floats(n, groups).astype(float), np.abs(self.floats(n, groups)).astype(float) + 0.5
        yield groupnorm.groupnorm, (x, scale, shift, groups, 1e-5)
        yield groupnorm.groupnorm_grad, (dy, x, scale, *statistics, groups, 1e-5)

    def elements(self) -> Iterator[Call]:
        size = self.up_to(40_000)
        x, dy, v = self.floats(size), self.floats(size), np.abs(self.floats(size))
        yield activations.relu, (x,)
        yield activations.relu_grad, (dy, x)
        yield activations.relu6, (4 * x,)
        yield activations.relu6_grad, (dy, 4 * x)
        yield activations.leaky_relu, (x, 0.1)
        yield activations.leaky_relu_grad, (dy, x, 0.1)
        yield activations.hardswish, (3 * x,)
        yield activations.hardswish_grad, (dy, 3 * x)
        yield gelu.gelu, (x,)
        yield gelu.gelu_grad, (dy, x)
        yield containers.add, (x, dy)
        yield containers.add_relu, (x, dy)
        yield dropout.dropout, (x, 0.3, 5, 7, 9)
        yield optim.sgd_update, (x, dy, 0.1, 0.01)
        yield optim.momentum_update, (x, dy, self.floats(size), 0.1, 0.9, 0.01, True)
        yield optim.adam_update, (x, dy, self.floats(size), v, 1e-3, 0.9, 0.999, 1e-8, 0.01, False, 3)
        yield averages.lerp, (x, dy, 0.3)

    def product(self) -> Iterator[Call]:
        n, c, f = self.up_to(130), self.up_to(300), self.up_to(130)
        x, w, dy = self.floats(n, c), self.floats(f, c), self.floats(n, f)
        yield linear.linear, (x, w, self.floats(f) if self.rng.integers(2) else None)
        yield linear.linear_input_grad, (dy, w)
        yield linear.linear_weight_grad, (dy, x)
        yield losses.softmax_cross_entropy, (dy, self.rng.integers(0, f, n), 0.1)
        yield metrics.count_correct, (dy, self.rng.integers(0, f, n))

    def images(self) -> Iterator[Call]:
        c, h, w = int(self.rng.choice([1, 3])), int(self.rng.integers(1, 14)), int(self.rng.integers(1, 34))
        n, batch, crop = self.up_to(9), self.up_to(9), int(self.rng.integers(0, 5))
        images = self.rng.integers(0, 256, (n, h, w, c), dtype=np.uint8)
        index = self.rng.integers(0, n, batch)
        mean, inv_std = self.floats(c), self.variances(c)
        flip = self.rng.integers(0, 2, batch) == 1
        shift = self.rng.integers(0, 2 * crop + 1, (batch, 2), np.int32)
        centre = np.stack([self.rng.integers(0, size, batch, np.int32) for size in (h, w)], axis=1)
        mode = "reflect" if crop < min(h, w) and self.rng.integers(2) else "zero"
        yield crop_flip.gather_normalize, (images, index, mean, inv_std)
        yield crop_flip.gather_augment, (images, index, flip, shift, crop, mode, mean, inv_std)
        yield crop_flip.gather_augment, (images, index, flip, shift, crop, mode, mean, inv_std, centre, 3)
        matrix = np.eye(2, dtype=np.float32) + np.float32(0.3) * self.floats(batch, 2, 2)
        field = 2 * self.floats(batch, 2, h, w) if self.rng.integers(2) else None
        yield warp.warp, (images, index, matrix, field, str(self.rng.choice(["zero", "reflect"])))
        yield warp.noise_planes, (index, (h, w, c), int(self.rng.integers(2**62)), 77, 5)


def decided(
    x: np.ndarray, scale: np.ndarray, shift: np.ndarray, mean: np.ndarray, var: np.ndarray, at: float = 0.0
) -> np.ndarray:
    """Images whose ReLU behind batch norm does not depend on rounding: what comes close to its kink is moved away."""
    z = (x.astype(np.float64) - mean) * (scale / np.sqrt(var.astype(np.float64) + 1e-5)) + shift
    return np.where(np.abs(z - at) < 1e-5, x + np.float32(0.1), x)


def run(cases: int, seed: int, threads: list[int], tell: Callable[[str], None] = print) -> int:
    """Run so many cases; returns how many results were wrong.  A fault ends the process."""
    from numba.core.errors import NumbaError

    backend, guard = get_backend("cpu"), Guard()
    patched, wrong, tried = Patched(guard), 0, {}
    warm = set()
    calls = Shapes(seed).calls()
    for number in range(cases):
        op, arguments = next(calls)
        set_threads(threads[number % len(threads)])
        guard.at_end = bool(number // len(threads) % 2 == 0)
        shapes = [a.shape if isinstance(a, np.ndarray) else a for a in arguments]
        what = f"{op.__name__} {shapes}, {threads[number % len(threads)]} threads, at_end={guard.at_end}"
        tell(what)
        expected = changed_and_returned(op, arguments)
        if op not in warm:  # compile with NumPy itself
            backend.run(op, *copies(arguments))
            warm.add(op)
        mine = [guard.full(argument) for argument in arguments]
        try:
            with patched:
                got = changed_and_returned(partial(backend.run, op), mine, copy=False)
        except NumbaError:  # other types than before: these are compiled with NumPy itself too
            patched.forget_failures()
            backend.run(op, *copies(arguments))
            mine = [guard.full(argument) for argument in arguments]
            with patched:
                got = changed_and_returned(partial(backend.run, op), mine, copy=False)
        tried[op.__name__] = tried.get(op.__name__, 0) + 1
        if not all(close(a, b) for a, b in zip(got, expected, strict=True)):
            wrong += 1
            print(f"WRONG {what}", flush=True)
    missing = {op.__name__ for op in backend.kernels} - set(tried)
    print(
        f"{cases} cases of {len(tried)} ops, {wrong} wrong, no fault; ops without a case: {sorted(missing) or 'none'}"
    )
    return wrong + len(missing)


def copies(arguments: Any) -> list[Any]:
    return [a.copy() if isinstance(a, np.ndarray) else a for a in arguments]


def changed_and_returned(op: Callable[..., Any], arguments: Any, copy: bool = True) -> list[np.ndarray]:
    """All arrays after a call: what it returned, and its arguments, some of which it may have changed."""
    mine = copies(arguments) if copy else arguments
    with np.errstate(all="ignore"):
        result = op(*mine)
    returned = () if result is None else result if isinstance(result, tuple) else (result,)
    return [np.array(a) for a in (*returned, *mine) if isinstance(a, np.ndarray | np.generic)]


def close(a: np.ndarray, b: np.ndarray) -> bool:
    if a.dtype.kind != "f":
        return bool(np.array_equal(a, b))
    scale = float(np.abs(b).max(initial=1.0))
    return a.shape == b.shape and bool(np.abs(a - b).max(initial=0.0) <= CLOSE * scale)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2, 4])
    args = parser.parse_args()
    faulthandler.enable()

    def tell(what: str) -> None:  # before the case runs: the last line is what a fault is about
        print(what, file=sys.stderr, flush=True)

    return min(run(args.cases, args.seed, args.threads, tell), 1)


if __name__ == "__main__":
    sys.exit(main())
