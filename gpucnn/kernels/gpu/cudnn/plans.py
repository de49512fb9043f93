"""Plans: for each convolution a checked cuDNN graph and, from its first call on, the engine that computes it."""

import threading
from collections.abc import Callable, Sequence
from math import inf
from typing import Any

import numpy as np

from gpucnn.backend import array_module
from gpucnn.errors import DeviceError
from gpucnn.kernels.gpu.cudnn import graph as cudnn_graph
from gpucnn.kernels.gpu.cudnn.autotune import agreeing, fastest
from gpucnn.kernels.gpu.cudnn.geometry import Geometry
from gpucnn.kernels.gpu.cudnn.options import Options
from gpucnn.kernels.gpu.cudnn.plan_cache import Choice, PlanCache
from gpucnn.kernels.gpu.cudnn.workspace import Workspace
from gpucnn.terminal import tell
from gpucnn.types import Array

AGREEMENT = {"float32": 1e-3, "TF32": 2e-2, "float16": 2e-2}
"""How far engines' results may lie apart, as a fraction of the largest value: they add in other orders."""
PERIOD = 65521
"""Of the numbers that engines are compared on; a prime, so that no side of an array divides it."""


class Plan:
    """One convolution on one GPU: the one of a cuDNN handle, or one that is described (see ``cudnn_graph.build``).

    Attributes:
        refusal: why cuDNN does not compute it; "" where it does.
        engine: the name of the engine that was chosen; "" until the first call.
        workspace: bytes of scratch memory that the engine wants.
    """

    def __init__(self, cudnn: Any, geometry: Geometry, options: Options, **target: Any) -> None:
        self.geometry = geometry
        self.engine, self.workspace = "", 0
        self.refusal = geometry.problem()
        if not self.refusal:
            self.graph = cudnn_graph.build(cudnn, geometry, **target)
            self.refusal = cudnn_graph.ask(cudnn, self.graph, options, geometry.dtype.name)

    def take(self, index: int, name: str) -> None:
        """Execute plan number ``index``, which is built, from now on."""
        self.graph.build_plan_at_index(index)
        self.engine, self.workspace = name, int(self.graph.get_workspace_size_plan_at_index(index))
        # pointers go in as a list in the order of the tensors' numbers: a third of the time of a dictionary
        self.listed = hasattr(self.graph, "_execute_with_ptrs")
        if self.listed:
            self.graph._prepare_variant_pack_template()
            wanted = list(range(1, len(self.geometry.input_shapes) + 2))
            if (found := self.graph._get_variant_pack_uids_sorted()) != wanted:
                raise DeviceError(f"cuDNN wants the tensors {found} for {self.geometry}, and {wanted} were declared")

    def execute(self, pointers: list[int], workspace: int, handle: int) -> None:
        """Start the chosen engine on the handle's stream.

        Args:
            pointers: addresses of the op's arrays, then of its result.
        """
        try:
            if self.listed:
                self.graph._execute_with_ptrs(pointers, workspace, handle)
            else:
                self.graph.execute(dict(enumerate(pointers, start=1)), workspace, handle=handle)
        except (RuntimeError, ValueError) as error:
            raise DeviceError(
                f"cuDNN fails at {self.geometry} with {self.engine}: {' '.join(str(error).split())}"
            ) from error


def trial_arrays(geometry: Geometry, like: Array) -> list[Array]:
    """Arrays as a convolution takes them, of numbers from -1 to 1, and one for its result; made as ``like`` is."""
    xp = array_module(like)
    numbers = np.arange(PERIOD, dtype=np.int64)
    pattern = xp.asarray((numbers * numbers * 7919 % PERIOD / (PERIOD / 2) - 1.0).astype(geometry.dtype))
    arrays = [xp.empty_like(like, shape=shape) for shape in (*geometry.input_shapes, geometry.output_shape)]
    for number, array in enumerate(arrays[:-1]):
        array[...] = xp.resize(xp.roll(pattern, 10007 * number), array.shape)
    return arrays


class Context:
    """cuDNN on one GPU: what all plans there share, whatever their options.

    Args:
        cudnn: the frontend's module.
        handle: of cuDNN, made while the GPU was the current one.
        cuda: ``cupy.cuda``.
        device: the GPU's number.
        cache: choices of earlier runs.

    Attributes:
        executions: how many engines were started so far.
    """

    def __init__(self, cudnn: Any, handle: int, cuda: Any, device: int, cache: PlanCache) -> None:
        self.cudnn, self.handle, self.cuda, self.device, self.cache = cudnn, handle, cuda, device, cache
        self.workspace = Workspace(cuda.alloc)
        self.lock = threading.RLock()  # a handle serves one stream at a time
        self.stream: int | None = None
        self.told = False
        self.executions = 0
        self.by_options: dict[Options, Plans] = {}

    def under(self, options: Options) -> "Plans":
        """The plans made under these options; equal ones have the same plans."""
        if options not in self.by_options:
            self.by_options[options] = Plans(self, options)
        return self.by_options[options]


class Plans:
    """All plans of one GPU that were made under the same options."""

    def __init__(self, context: Context, options: Options) -> None:
        self.context, self.options = context, options
        self.cudnn, self.handle, self.cuda, self.device = context.cudnn, context.handle, context.cuda, context.device
        self.cache, self.workspace, self.lock = context.cache, context.workspace, context.lock
        self.plans: dict[Geometry, Plan] = {}

    def find(self, geometry: Geometry) -> Plan:
        """The plan of a convolution, made and checked at the first request; it may be a refusal."""
        plan = self.plans.get(geometry)
        if plan is None:
            with self.lock:
                plan = self.plans[geometry] = Plan(self.cudnn, geometry, self.options, handle=self.handle)
            if plan.refusal and not geometry.problem():
                tell(f"cuDNN does not compute {geometry}: {plan.refusal}")
        return plan

    def run(self, geometry: Geometry, pointers: list[int], result: Array) -> None:
        """Compute a convolution that is not refused, on the current stream.

        Args:
            pointers: addresses of the op's arrays, then of its result; multiples of 16.
            result: that array.

        Raises:
            DeviceError: the stream is being captured, and this shape was never computed before.
        """
        plan = self.find(geometry)
        stream = self.cuda.get_current_stream()
        with self.lock:
            context = self.context
            if stream.ptr != context.stream:
                self.cudnn.set_stream(handle=self.handle, stream=stream.ptr)
                context.stream = stream.ptr
            if not plan.engine:
                self.choose(plan, pointers, result, stream)
            context.executions += 1
            plan.execute(pointers, self.workspace.address(plan.workspace, stream), self.handle)

    def choose(self, plan: Plan, pointers: list[int], result: Array, stream: Any) -> None:
        """Give the plan its engine: the one found fastest before, or now, or the heuristics' first."""
        if stream.is_capturing():
            raise DeviceError(
                f"cuDNN has chosen no engine for {plan.geometry} yet, and cannot during the capture of a CUDA graph: "
                "run the same step once before capturing"
            )
        names = cudnn_graph.names(plan.graph)
        if not self.options.autotune:
            index = next((i for i in range(len(names)) if cudnn_graph.buildable(self.cudnn, plan.graph, i)), -1)
        else:
            key = f"{plan.geometry} {self.options}"
            known = self.cache.get(key)
            index = names.index(known.engine) if known and known.engine in names else -1
            if index < 0 or not cudnn_graph.buildable(self.cudnn, plan.graph, index):
                index = self.time(plan, names, key, pointers, result, stream)
        if index < 0:
            raise DeviceError(
                f"none of cuDNN's {len(names)} engines for {plan.geometry} can be used: raise GPUCNN_WORKSPACE_MIB="
                f"{self.options.workspace_mib}, or set GPUCNN_CUDNN=0 to compute without cuDNN"
            )
        plan.take(index, names[index])

    def time(self, plan: Plan, names: Sequence[str], key: str, pointers: list[int], result: Array, stream: Any) -> int:
        """The number of the fastest engine, by executing them all on these arrays; -1 where none can be.  # sync

        Engines that give another result than most others, of numbers made up for it, are left out.

        Raises:
            MemoryError: CuPy's, where none can be and one would have, had there been room for its scratch memory.
        """
        if not self.context.told:
            tell(f"timing cuDNN's engines, once per shape; what is found is kept in {self.cache.path}")
            self.context.told = True
        graph = plan.graph
        candidates = [i for i in range(len(names)) if cudnn_graph.buildable(self.cudnn, graph, i)]
        full: list[MemoryError] = []

        def measure(index: int, executions: int, pointers: list[int] = pointers) -> float:
            arrays = dict(enumerate(pointers, start=1))
            start, stop = self.cuda.Event(), self.cuda.Event()
            try:
                scratch = self.cuda.alloc(
                    max(int(graph.get_workspace_size_plan_at_index(index)), 1)
                )  # of this timing only
                start.record(stream)
                for _ in range(executions):
                    graph.execute_plan_at_index(arrays, scratch.ptr, index, handle=self.handle)
            except RuntimeError:  # what is listed as supported and does not start is no candidate
                return inf
            except MemoryError as error:  # a smaller one may fit
                full.append(error)
                return inf
            stop.record(stream)
            stop.synchronize()  # sync
            return float(self.cuda.get_elapsed_time(start, stop)) / executions

        try:
            *_, made = trial = trial_arrays(plan.geometry, result)
            places = [array.data.ptr for array in trial]
            right = self.right(
                plan.geometry, names, candidates, lambda index: None if measure(index, 1, places) == inf else made
            )
        except MemoryError:  # no room beside what is computed
            right = candidates
        index, milliseconds = fastest(right, measure)
        if index < 0 and full:
            raise full[0]
        if index >= 0:
            workspace = int(graph.get_workspace_size_plan_at_index(index))
            self.cache.put(key, Choice(names[index], milliseconds, workspace, len(candidates)))
        return index

    def right(
        self, geometry: Geometry, names: Sequence[str], candidates: list[int], compute: Callable[[int], Array | None]
    ) -> list[int]:
        """The engines that agree; the others are named.  # sync"""
        kind = "TF32" if self.options.tf32 and geometry.dtype.name == "float32" else geometry.dtype.name
        found, others = agreeing(candidates, compute, AGREEMENT[kind])
        if others:
            tell(
                f"not used for {geometry}: {', '.join(names[index] for index in others)}; {len(found)} other engines "
                "of cuDNN agree on another result"
            )
        return found
