"""Every op at the edges of float32, on each backend: against float64 and PyTorch's float32, and NaN beside infinity.

    python tests/kernels/edges.py --cases 20000

Arguments are those of the samples that every kernel of the device tables has, with other numbers: sizes of 1e-30 to
1e30, one for all or one for each, one value far out in the first, the middle or the last row, constant channels, a mean
far from 0.  The reference implementation, the CPU's kernels and the GPU's kernels (compiled by g++) must be no further
from the op in float64 than PyTorch is, to a factor and a few roundings.  Then one number becomes NaN or infinite, and
all three must have NaN and infinity in the same places.
"""

import argparse
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE / "gpu"), str(HERE.parent)]

from gpu_samples import SAMPLES, TABLE  # noqa: E402
from kernel_samples import SMALL, Op, Sample, Source  # noqa: E402
from outcomes import IN_PLACE, doubled, is_float, outcome  # noqa: E402

from gpucnn import losses, metrics, optim  # noqa: E402
from gpucnn.backend import guarded  # noqa: E402
from gpucnn.data.augment import colour, crop_flip, warp  # noqa: E402
from gpucnn.devices import cpu  # noqa: E402
from gpucnn.layers import activations, batchnorm, containers, conv2d, fusion, gelu, linear, pooling, softmax  # noqa: E402
from gpucnn.layers.groupnorm import groupnorm, groupnorm_grad  # noqa: E402
from gpucnn.layers.scale import scaled  # noqa: E402
from gpucnn.optim import averages, loss_scale, muon  # noqa: E402

FACTOR, ROUNDINGS = 4.0, 16 * 2.0**-24
"""What an error may be: so many times PyTorch's, and so much of the largest value beside it."""

BYTES = {
    crop_flip.gather_normalize, crop_flip.gather_augment, warp.noise_planes, warp.smooth, warp.warp, colour.jitter,
}  # fmt: skip
"""Ops whose pixels are bytes: nothing in them is infinite."""

DIRECTIONS = {muon.muon_update, loss_scale.keep, loss_scale.adapt, metrics.count_correct}
"""Ops without a counterpart in PyTorch, or whose result jumps: only NaN and infinity are compared."""

LINEAR = {
    conv2d.grouped_conv2d, conv2d.grouped_conv2d_input_grad, conv2d.grouped_conv2d_weight_grad,
    conv2d.conv2d, conv2d.conv2d_input_grad, conv2d.conv2d_weight_grad, conv2d.bias_grad, linear.linear,
    linear.linear_input_grad, linear.linear_weight_grad, pooling.avg_pool2d, pooling.avg_pool2d_grad,
    pooling.global_avg_pool2d, pooling.global_avg_pool2d_grad, containers.add,
}  # fmt: skip
"""Ops that add products: an error is measured by the sum of their sizes, the op of absolute values."""

LINEAR_IN_DY = {pooling.max_pool2d_grad, fusion.relu_max_pool2d_grad}

SLOPES = {
    gelu.gelu_grad: gelu.gelu, gelu.gelu_tanh_grad: gelu.gelu_tanh, activations.silu_grad: activations.silu,
}  # fmt: skip
"""Derivatives that cross 0, of x P(x)."""

ADDED = {averages.lerp, optim.sgd_update, optim.momentum_update}

JUMPS = {batchnorm.batchnorm_relu_grad, fusion.batchnorm_relu6_grad, fusion.batchnorm_relu_max_pool2d_grad}
"""Gradients that go elsewhere where rounding makes another value the largest, or positive."""

SPREADS = {"var", "running_var", "v"}
"""Arguments that are no less than 0."""

LARGEST = 11_000  # values in all: more only takes time


def elements(op: Op, *more: Any) -> Iterator[Sample]:
    """Samples of an op of as many arrays as it has parameters, besides numbers."""
    count = len(inspect.signature(op).parameters) - len(more)
    for size in (1, 17, 40):
        yield Sample(op, str(size), lambda s, size=size: (*(3 * s(size, 7) for _ in range(count)), *more))


WITHOUT_KERNELS = [
    *(sample for op in (activations.tanh, activations.tanh_grad, activations.sigmoid, activations.sigmoid_grad,
                        activations.silu, activations.silu_grad, activations.hardsigmoid,
                        activations.hardsigmoid_grad, gelu.gelu_tanh, gelu.gelu_tanh_grad, softmax.softmax,
                        softmax.softmax_grad, losses.mean_squared_error) for sample in elements(op)),
    *elements(scaled, 0.3), *elements(activations.elu, 0.5), *elements(activations.elu_grad, 0.5),
    *(Sample(losses.sigmoid_binary_cross_entropy, str(n), lambda s, n=n: (9 * s(n, 3), np.round(s.rng.random((n, 3)))))
      for n in (1, 9)),
]  # fmt: skip


def small(sample: Sample) -> bool:
    """Not too slow, and more than one value a channel where there are statistics."""
    args, names = sample.arguments(), list(inspect.signature(sample.op).parameters)
    one_row = sample.op.__name__.startswith("batchnorm") and (x := args[names.index("x")]).size == x.shape[-1]
    return not one_row and sum(a.size for a in args if isinstance(a, np.ndarray)) <= LARGEST


EDGES: dict[Op, list[Sample]] = {}
for _sample in (*SMALL, *SAMPLES, *WITHOUT_KERNELS):
    if _sample.op not in BYTES and small(_sample):
        EDGES.setdefault(_sample.op, []).append(_sample)


class Backends(NamedTuple):
    """Op -> kernel of each device, as its table has it; the GPU's run on the CPU where ``launch.launcher`` says so."""

    cpu: Mapping[Op, Op]
    gpu: Mapping[Op, Op]

    def of(self, op: Op) -> dict[str, Op]:
        """What computes an op."""
        kernels = {"cpu": self.cpu.get(op), "gpu": self.gpu.get(op)}
        return {"reference": op} | {name: kernel for name, kernel in kernels.items() if kernel}


def backends(gpu: bool = True) -> Backends:
    there = {} if cpu.problem() else {op: guarded(op, kernel) for op, kernel in cpu.table().items()}
    return Backends(there, {op: guarded(op, kernel) for op, kernel in TABLE.items()} if gpu else {})


# -- numbers ---------------------------------------------------------------------------


def power(rng: Any, shape: Any = (), most: float = 30.0) -> Any:
    return 10.0 ** rng.uniform(-most, most, shape)


def rows_of(a: np.ndarray) -> np.ndarray:
    return a.reshape(-1, a.shape[-1])


def one_far_out(rng: Any, a: np.ndarray) -> np.ndarray:
    a = a.copy()
    rows = rows_of(a)
    places = np.array([0, len(rows) // 2, len(rows) - 1])
    rows[places[rng.random(3) < 0.5]] = rng.choice([-1, 1]) * 10.0 ** rng.uniform(0, 8)
    return a


PROFILES: dict[str, Callable[[Any, np.ndarray], np.ndarray]] = {
    "ordinary": lambda rng, a: a,
    "one size": lambda rng, a: a * power(rng),
    "large": lambda rng, a: a * power(rng, most=6.0) * 1e12,
    "all sizes": lambda rng, a: a * power(rng, a.shape),
    "sizes of channels": lambda rng, a: a * power(rng, a.shape[-1:]),
    "one far out": one_far_out,
    "mean far away": lambda rng, a: a + rng.choice([-1, 1]) * 10.0 ** rng.uniform(0, 6),
    "constant channels": lambda rng, a: np.broadcast_to(rows_of(a)[0] * power(rng, a.shape[-1:]), a.shape),
    "tails": lambda rng, a: rng.uniform(-120, 120, a.shape),
    "ties": lambda rng, a: np.round(a),
}


def parameters(op: Op) -> list[str]:
    return list(inspect.signature(op).parameters)


def varied(sample: Sample, seed: int) -> tuple[str, tuple[Any, ...]]:
    """Arguments of a sample with numbers of a random profile, and its name."""
    rng = np.random.default_rng(seed)
    names, args = parameters(sample.op), sample.make(Source(seed))
    profile = str(rng.choice(list(PROFILES)))
    change = lambda i, a: is_float(a) and a.ndim and (i == 0 or rng.random() < 0.7)  # noqa: E731
    with np.errstate(all="ignore"):
        made = [PROFILES[profile](rng, a).astype(np.float32) if change(i, a) else a for i, a in enumerate(args)]
    made = [np.abs(a) if name in SPREADS else a for name, a in zip(names, made, strict=False)]
    if "targets" in names and sample.op is not losses.mean_squared_error:
        made[names.index("targets")] = args[names.index("targets")]
    if "mean" in names and "dy" in names:  # a gradient is taken at the batch's own statistics
        x = made[names.index("x")]
        if sample.op is groupnorm_grad:
            _, mean, var = groupnorm(x.astype(np.float64), 1.0, 0.0, made[names.index("groups")], 1.0)
        else:
            _, mean, var = batchnorm.batchnorm(x.astype(np.float64), 1.0, 0.0, 1.0)
        made[names.index("mean")], made[names.index("var")] = mean, var
    return profile, tuple(made)


# -- errors ---------------------------------------------------------------------------


def comparable(part: Any) -> np.ndarray:
    """As rows of float64, a column a channel."""
    a = np.asarray(part, np.float64)
    return a.reshape(-1, a.shape[-1]) if a.ndim > 1 else a.reshape(1, -1) if a.ndim else a.reshape(1, 1)


def scale_of(op: Op, args: tuple[Any, ...], exact: Sequence[Any]) -> list[np.ndarray]:
    """What an error of each number is measured by: itself, its channel's largest, or the sizes that were added."""
    wide, names = doubled(args), parameters(op)
    parts = [np.abs(comparable(part)) for part in exact]
    if op in LINEAR | LINEAR_IN_DY:
        absolute = [np.abs(a) if is_float(a) and (op in LINEAR or i == 0) else a for i, a in enumerate(wide)]
        return [comparable(part) for part in outcome(op, op, tuple(absolute))]
    if op in SLOPES:  # P + |x P'|, of x P + x^2 P' the derivative is P + x P'
        x, dy = wide[names.index("x")], np.abs(wide[names.index("dy")])
        p = SLOPES[op](np.where(x == 0, 1.0, x)) / np.where(x == 0, 1.0, x)
        return [comparable(dy * (p + np.abs(op(np.ones_like(x), x) - p)))]
    if op in (activations.hardswish, activations.hardswish_grad):  # terms that cross 0
        x, dy = wide[-1], wide[0] if len(wide) == 2 else 1.0
        return [comparable(np.abs(dy) * (np.abs(x) + 3) if len(wide) == 2 else np.abs(x) * (np.abs(x) + 3))]
    if op in IN_PLACE:  # what is changed, and what it is changed by
        added = sum(np.abs(a) for a in wide[1:4] if is_float(a)) if op in ADDED else 0.0
        return [part + comparable(np.abs(wide[i]) + added) for part, i in zip(parts, IN_PLACE[op], strict=True)]
    if op in BY_CHANNEL:
        return normalised_sizes(dict(zip(names, wide, strict=False)), parts)
    if op is groupnorm_grad:  # dx before it cancels
        dxhat = np.abs(wide[0] * wide[2]).max() / np.sqrt(wide[4].min() + wide[6])
        parts[0] = np.broadcast_to(dxhat, parts[0].shape)
    return [np.broadcast_to(part.max(), part.shape) if op in BY_LARGEST else part for part in parts]


def normalised_sizes(named: dict[str, Any], parts: list[np.ndarray]) -> list[np.ndarray]:
    """The same for batch norm: what is added up to a result, by channels, before it cancels."""
    x, dy = comparable(named["x"]), comparable(named.get("dy", 0.0))
    mean, var = named.get("mean", x.mean(axis=0)), named.get("var", x.var(axis=0))
    a, xhat = np.abs(named["scale"]) / np.sqrt(var + named["eps"]), np.abs(x - mean) / np.sqrt(var + named["eps"])
    if "dy" not in named:
        y = np.abs(named["scale"]) * xhat.max(axis=0) + np.abs(named["shift"])
        around = [parts[1] + np.sqrt(var)] if parts[1:] else []
        return [np.broadcast_to(y, parts[0].shape), *around, *parts[2:]]
    largest = np.abs(dy).max(axis=0)
    sums = largest * xhat.sum(axis=0), np.abs(dy).sum(axis=0)
    return [np.broadcast_to(2 * a * largest, parts[0].shape), *(comparable(part) for part in sums)]


BY_CHANNEL = {op for op in EDGES if op.__name__.startswith("batchnorm")}
BY_LARGEST = {losses.softmax_cross_entropy, losses.sigmoid_binary_cross_entropy, softmax.softmax, softmax.softmax_grad,
              groupnorm, groupnorm_grad}  # fmt: skip


def undecided(op: Op, args: tuple[Any, ...]) -> bool:
    """Whether the largest value of a window, or the sign of a value, is within rounding of another one."""
    dy, x, scale, shift, mean, var, eps, *window = doubled(args)
    z = batchnorm.batchnorm_eval(x, scale, shift, mean, var, eps)
    size = np.abs(rows_of(z - shift)).max(axis=0) + np.abs(shift)
    places = []
    for part in (0.0, 1e-5, -1e-5):
        noise = np.random.default_rng(0).uniform(-1, 1, z.shape) if part else 0.0
        moved = z + part * size * noise
        passes = (moved > 0) & (moved < 6) if op is fusion.batchnorm_relu6_grad else moved > 0
        places.append((pooling.max_pool2d_grad(np.ones_like(dy), moved, *window) if window else 1) * passes)
    return not (np.array_equal(places[0], places[1]) and np.array_equal(places[0], places[2]))


def too_far(op: Op, args: tuple[Any, ...], kernels: Mapping[str, Op], by_torch: Op) -> list[str]:
    """Which backends are further from the op in float64 than PyTorch is, and by how much."""
    with np.errstate(all="ignore"):
        if op in JUMPS and undecided(op, args):
            return []
        exact, theirs = outcome(op, op, doubled(args)), by_torch(op, args)
        scales, found = scale_of(op, args, exact), []
        for name, kernel in kernels.items():
            for i, (got, wanted, torch_s, scale) in enumerate(
                zip(outcome(op, kernel, args), exact, theirs, scales, strict=True)
            ):
                got, wanted, torch_s = map(comparable, (got, wanted, torch_s))
                # a number that float32 does not have, or that PyTorch does not find, asks for nothing
                counts = np.isfinite(torch_s) & (scale < 1e37) & (scale > (1e-30 if op in BY_CHANNEL else 0))
                error, bound = np.abs(got - wanted), np.abs(torch_s - wanted)
                if op in BY_CHANNEL:
                    bound = np.where(counts, bound, 0).max(axis=0, initial=0)
                elif op in BY_LARGEST:
                    bound = np.where(counts, bound, 0).max(initial=0)
                allowed = FACTOR * bound + ROUNDINGS * scale + 1e-37
                wrong = counts & ~(error <= allowed)
                if wrong.any():
                    at = np.argmax(np.where(wrong, np.nan_to_num(error / allowed, nan=np.inf), 0))
                    numbers = [np.broadcast_to(a, error.shape).flat[at] for a in (got, wanted, torch_s, scale)]
                    found.append(
                        f"{name}, result {i}: {numbers[0]:.9g}, not {numbers[1]:.9g}; PyTorch {numbers[2]:.9g}"
                    )
    return found


# -- NaN and infinity ---------------------------------------------------------------------------


def kinds(part: Any) -> np.ndarray:
    """0 for a number, 1 for NaN, 2 and 3 for infinities."""
    a = np.asarray(part, np.float64)
    return np.where(np.isnan(a), 1, np.where(a == np.inf, 2, np.where(a == -np.inf, 3, 0)))


def poisoned(sample: Sample, seed: int) -> tuple[str, tuple[Any, ...]]:
    """Arguments of a sample with NaN or infinity somewhere, and where."""
    rng = np.random.default_rng(seed)
    args = [a.copy() if isinstance(a, np.ndarray) else a for a in sample.make(Source(seed))]
    place = int(rng.choice([i for i, a in enumerate(args) if is_float(a)]))
    flat = args[place].reshape(-1)
    value = float(rng.choice([np.nan, np.inf, -np.inf]))
    for _ in range(rng.integers(1, 3)):
        at = int(rng.choice([0, flat.size // 2, flat.size - 1, rng.integers(flat.size)]))
        flat[at] = abs(value) if parameters(sample.op)[place] in SPREADS else value
    return f"{value} in {parameters(sample.op)[place]}", tuple(args)


def lost(op: Op, name: str) -> bool:
    """Whether a kernel multiplies zeros beside an image, so that NaN reaches pixels that are none of its own."""
    return name == "cpu" and op in (conv2d.conv2d_input_grad, conv2d.grouped_conv2d_input_grad)


def differing(op: Op, args: tuple[Any, ...], kernels: Mapping[str, Op]) -> list[str]:
    """Which backends have NaN or infinity elsewhere than the reference implementation has them."""
    with np.errstate(all="ignore"):
        results = {name: list(map(kinds, outcome(op, kernel, args))) for name, kernel in kernels.items()}
    found = []
    for name, parts in results.items():
        for i, (got, wanted) in enumerate(zip(parts, results["reference"], strict=True)):
            if lost(op, name):
                got = np.where(wanted > 0, got, 0)
                got, wanted = got > 0, wanted > 0
            if (got != wanted).any():
                at = int(np.argmax(got != wanted))
                found.append(f"{name}, result {i}, kind {got.flat[at]}, not {wanted.flat[at]}, at {at} of {got.shape}")
    return found


# -- the command ---------------------------------------------------------------------------


def by_winograd(op: Op, args: tuple[Any, ...]) -> bool:
    """Whether the CPU computes this convolution by tiles, in which one pixel reaches its neighbours."""
    plan = None if cpu.problem() or op not in cpu.table() else cpu.table()[op].plan
    return bool(plan and plan(*args).startswith("winograd"))


def check(sample: Sample, seed: int, all_backends: Backends, by_torch: Op | None) -> list[str]:
    """What is wrong with one case: numbers where ``by_torch`` is given, else NaN and infinity."""
    op = sample.op
    what, args = varied(sample, seed) if by_torch else poisoned(sample, seed)
    kernels = all_backends.of(op)
    if by_winograd(op, args):
        kernels.pop("cpu", None)
    found = too_far(op, args, kernels, by_torch) if by_torch else differing(op, args, kernels)
    return [f"{sample}, seed {seed}, {what}: {line}" for line in found]


def main() -> int:
    import pytest
    from emulator.emulator import COMPILER, Emulator
    from host_products import multiply_on_the_host
    from torch_ops import TORCH, by_torch

    from gpucnn.kernels.gpu import launch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ops", nargs="*", help="only these")
    args = parser.parse_args()
    ops = [op for op in EDGES if not args.ops or op.__name__ in args.ops]
    wrong = 0
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        if COMPILER:
            patch.setattr(launch, "launcher", Emulator(Path(folder)))
            multiply_on_the_host(patch)
        everywhere = backends(gpu=COMPILER is not None)
        for case in range(args.cases):
            op = ops[case % len(ops)]
            seed = args.seed + case
            sample = EDGES[op][case // len(ops) // 2 % len(EDGES[op])]
            numbers = op in TORCH and op not in DIRECTIONS and case // len(ops) % 2 == 0
            found = check(sample, seed, everywhere, by_torch if numbers else None)
            wrong += bool(found)
            print(*found, sep="\n", end="\n" if found else "", flush=True)
    print(f"{args.cases} cases of {len(ops)} ops, {wrong} wrong")
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())
